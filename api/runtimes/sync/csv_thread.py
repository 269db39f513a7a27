"""CSV files in the sync runtime: a background thread for each model with files scores and stores chunk by chunk.

Each has a process of its own (api/runtimes/sync/model_process.py), beside the one that answers single requests, for as
long as there are chunks and a moment longer: the next file of the model then finds it loaded. What a restart interrupts
is queued again when the service starts.
"""

import logging
import threading
import time
from dataclasses import dataclass

from sqlalchemy import Engine

from api.runtimes.sync.model_process import ModelProcess, ModelProcesses, ProcessLost, TooLate
from shared.background import Background
from shared.broker.names import Lane
from shared.config.settings import Settings
from shared.database.engine import reader
from shared.errors import ModelError
from shared.handlers.table import CHUNK_HANDLERS
from shared.jobs.chunks import transitions as chunks
from shared.jobs.chunks.transitions import ChunkClaim
from shared.jobs.queries.jobs import list_ready
from shared.observability.logs import bind
from shared.observability.metrics import METRICS, SCORED_ROWS

log = logging.getLogger(__name__)

IDLE_SECONDS = 5.0  # how often it looks without being woken: chunks wait a moment after a failure
LINGER_SECONDS = 10.0  # how long a process waits for another file before it ends: to load a model takes a second or two


@dataclass(frozen=True, slots=True)
class _Work:
    """The thread of one model version with files, and what wakes it while it waits for another one."""

    thread: threading.Thread
    wake: threading.Event


class ChunkThread:
    """Scores the chunks of CSV files beside the requests."""

    def __init__(self, engine: Engine, models: ModelProcesses, settings: Settings) -> None:
        self._engine = engine
        self._models = models
        self._settings = settings
        self._lock = threading.Lock()
        self._busy: dict[int, _Work] = {}  # by model version id
        self._processes: dict[int, ModelProcess] = {}
        self._wake = threading.Event()
        self._thread = Background(self._run, name="chunks", wake=self._wake.set)

    def start(self) -> None:
        """Take back the claims of the last process, and begin."""
        with self._engine.begin() as connection:
            chunks.recover(connection, all_of_them=True)
        self._wake.set()
        self._thread.start()

    def stop(self) -> None:
        """Finish the chunk that is being stored, then stop."""
        until = time.monotonic() + 10
        self._thread.stop(10)
        with self._lock:
            busy = list(self._busy.values())
        for work in busy:
            work.wake.set()
        for work in busy:
            work.thread.join(timeout=max(0.0, until - time.monotonic()))
        for process in list(self._processes.values()):
            process.close()

    def wake(self) -> None:
        """Look for chunks now; safe from any thread, returns at once."""
        self._wake.set()

    def _run(self) -> None:
        while not self._thread.is_stopping:
            self._wake.wait(IDLE_SECONDS)
            self._wake.clear()
            try:
                with self._engine.begin() as connection:
                    chunks.expire(connection)
                for model_version_id in self._waiting():
                    self._set_to_work(model_version_id)
            except Exception as error:  # noqa: BLE001 - whatever it is, this thread has to live, and looks again
                log.warning("it could not be seen whether files wait: %r", error)

    def _waiting(self) -> list[int]:
        with reader(self._engine).connect() as connection:
            return [version for lane, version in list_ready(connection) if lane == Lane.BULK]

    def _set_to_work(self, model_version_id: int) -> None:
        with self._lock:
            if model_version_id in self._busy:
                self._busy[model_version_id].wake.set()
            elif not self._thread.is_stopping:
                wake = threading.Event()
                thread = threading.Thread(target=self._drain, args=(model_version_id, wake), name="chunks", daemon=True)
                thread.start()
                self._busy[model_version_id] = _Work(thread, wake)  # it takes itself out, when it can have the lock

    def _drain(self, model_version_id: int, wake: threading.Event) -> None:
        """Score and store chunks of one model version until none is left, and none comes for a while."""
        count = 0
        try:
            process = self._processes[model_version_id] = self._models.get(model_version_id).twin()
            bind(model=process.label)  # until this thread ends
            process.load()
            while True:
                wake.clear()
                while not self._thread.is_stopping and self._step(model_version_id, process):
                    count += 1
                if self._thread.is_stopping or not wake.wait(LINGER_SECONDS):
                    break
        except ModelError as error:  # nothing was claimed: the chunks stay queued, for as long as it takes
            log.warning("files for model version %s wait: it cannot be loaded: %s", model_version_id, error.detail)
        except BaseException:  # whatever it is, the next look begins anew
            log.exception("a chunk of a CSV file was not scored; it is tried again")
        finally:
            process_left = self._processes.pop(model_version_id, None)
            if process_left is not None:
                process_left.close()
            with self._lock:
                del self._busy[model_version_id]
            if count:
                self._wake.set()  # another chunk may have come while this thread was about to end

    def _step(self, model_version_id: int, process: ModelProcess) -> bool:
        """Score and store one chunk; return whether there was one."""
        with self._engine.begin() as connection:
            claim = chunks.claim(
                connection,
                model_version_id=model_version_id,
                worker="sync",
                lease_seconds=self._settings.lease_seconds,
            )
        if claim is not None:
            bind(job_id=claim.job_id, request_id=claim.request_id)
            self._handle(process, claim)
        return claim is not None

    def _handle(self, process: ModelProcess, claim: ChunkClaim) -> None:
        from shared.jobs.chunks.storage import Suspended, store

        handler = CHUNK_HANDLERS[claim.kind]
        try:
            if claim.should_split:
                parts = handler.split(claim)
                with self._engine.begin() as connection:
                    chunks.split(connection, claim, parts)
            else:
                done, state = process.compute_chunk(claim, claim.timeout_seconds)
                store(self._engine, claim, done, write=handler.write, state=state)
                METRICS.count(SCORED_ROWS, (process.label, Lane.BULK.value), claim.row_count - done.failed_count)
        except Suspended:
            with self._engine.begin() as connection:
                chunks.release(connection, claim)
        except (TooLate, ProcessLost):  # counted as a death: after a few the guilty row stands alone, and fails
            with self._engine.begin() as connection:
                chunks.requeue_after_crash(connection, claim)
        except Exception:
            with self._engine.begin() as connection:
                chunks.requeue_after_crash(connection, claim)
            raise
