"""CSV files in the sync runtime: one background thread of the one process scores and stores chunk after chunk.

What a restart interrupts is queued again when the process starts.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Engine

from shared import chunks
from shared.chunks import ChunkClaim
from shared.config import Settings
from shared.db import reader
from shared.job_queries import list_ready
from shared.models import Models
from shared.queue import Lane
from shared.registry import LoadedModel

if TYPE_CHECKING:
    from shared.chunk_work import ChunkWork

log = logging.getLogger(__name__)

Result = TypeVar("Result")

IDLE_SECONDS = 5.0  # how often it looks without being woken: chunks wait a moment after a failure


class ChunkThread:
    """Scores the chunks of CSV files beside the requests."""

    def __init__(self, engine: Engine, models: Models, settings: Settings) -> None:
        self._engine = engine
        self._models = models
        self._settings = settings
        self._work: ChunkWork | None = None
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="chunks", daemon=True)

    def start(self) -> None:
        """Take up what the last process left, and begin."""
        with self._engine.begin() as connection:
            chunks.recover(connection, all_of_them=True)
        self._wake.set()
        self._thread.start()

    def stop(self) -> None:
        """Finish the chunk that is being stored, then stop."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def wake(self) -> None:
        """Look for chunks now; safe from any thread, returns at once."""
        self._wake.set()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(IDLE_SECONDS)
            self._wake.clear()
            try:
                with self._engine.begin() as connection:
                    chunks.expire(connection)
                while not self._stopping and self._step():
                    pass
            except Exception:  # whatever it is, this thread has to live, and looks again
                log.exception("a chunk of a CSV file was not scored; it is tried again")

    def _step(self) -> bool:
        """Score and store one chunk of any model; return whether there was one."""
        for model_version_id in self._waiting():
            try:
                model = self._models.get(model_version_id)
            except Exception:  # nothing was claimed: the chunks stay queued, for as long as it takes
                log.exception("files for model version %s wait: it cannot be loaded", model_version_id)
                continue
            with self._engine.begin() as connection:
                taken = chunks.claim(
                    connection,
                    model_version_id=model_version_id,
                    worker="sync",
                    lease_seconds=self._settings.lease_seconds,
                )
            if taken is not None:
                self._handle(model, taken)
                return True
        return False

    def _waiting(self) -> list[int]:
        with reader(self._engine).connect() as connection:
            return [version for lane, version in list_ready(connection) if lane == Lane.BULK]

    def _handle(self, model: LoadedModel, taken: ChunkClaim) -> None:
        # Imported here: a process that never sees a file does without the library that reads it.
        from shared.chunk_store import store
        from shared.chunk_work import ChunkWork, cut_chunk

        if self._work is None:
            self._work = ChunkWork()
        try:
            if taken.is_suspect:
                parts = cut_chunk(taken)
                with self._engine.begin() as connection:
                    chunks.split(connection, taken, parts)
            else:
                scored, state = _in_time(partial(self._work.score, model, taken), taken.timeout_seconds)
                store(self._engine, taken, scored, state=state)
        except Exception:
            with self._engine.begin() as connection:
                chunks.give_up(connection, taken)
            raise


def _in_time(call: Callable[[], Result], seconds: float) -> Result:
    """Return what a call returns; raise TimeoutError when it takes longer.

    A model that never returns cannot be interrupted: its thread is left behind.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is raised again where the result is waited for
            future.set_exception(error)

    threading.Thread(target=run, name="scoring", daemon=True).start()
    return future.result(timeout=seconds)
