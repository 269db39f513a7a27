"""Scoring CSV files: while one chunk is stored, the next one is scored.

The main thread claims, reads and scores; two threads store, each on a connection of its own, and mostly wait for
PostgreSQL. No more than two chunks wait to be stored, so that memory does not grow with the file.

While somebody waits for single predictions, a chunk is stored before the next one is scored: the file then takes one
processor at a time, and on two of them every step of a prediction finds the other one free.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from redis import RedisError

from shared.broker.app import INTERACTIVE_KEY
from shared.broker.names import Lane
from shared.database.engine import run_again
from shared.handlers.table import CHUNK_HANDLERS
from shared.jobs.chunks import transitions as chunks
from shared.jobs.chunks.transitions import ChunkClaim
from shared.observability.logs import bound
from shared.observability.metrics import METRICS, SCORED_ROWS
from shared.registry.loading import LoadedModel, by_pipeline
from shared.tables import ChunkState
from worker.runtime import Runtime

if TYPE_CHECKING:
    from shared.jobs.chunks.storage import Lines

log = logging.getLogger(__name__)

STORING = 2  # chunks that are being stored while the next one is scored
ASK_SECONDS = 0.25  # how often it is asked whether somebody waits for single predictions


class ChunkPipeline:
    """The chunks of one model version on their way through this process, from the claim to the stored rows."""

    def __init__(
        self, runtime: Runtime, model: LoadedModel, model_version_id: int, *, ended: Callable[[str], None]
    ) -> None:
        self._runtime = runtime
        self._model = model
        self._model_version_id = model_version_id
        self._ended = ended
        self._threads: ThreadPoolExecutor | None = None
        self._storing: deque[Future[None]] = deque()
        self._interactive_waiting = False
        self._asked_at = -math.inf
        self.chunk_count = 0
        self.row_count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until everything is stored."""
        if self._threads is not None:
            self._threads.shutdown(wait=True)
            while self._storing:
                self._storing.popleft().result()

    def process_next(self) -> bool:
        """Claim and compute one chunk, and pass it on for storing; return whether there was one."""
        claim = run_again(self._claim)
        if claim is None:
            return False
        with bound(job_id=claim.job_id, request_id=claim.request_id):
            self._handle(claim)
        return True

    def _handle(self, claim: ChunkClaim) -> None:
        runtime = self._runtime
        handler = CHUNK_HANDLERS[claim.kind]
        if claim.should_split:
            log.warning("rows %d to %d of job %s take workers down: they are tried in smaller chunks", *_place(claim))
            parts = handler.split(claim)
            with runtime.bulk_engine.begin() as connection:
                chunks.split(connection, claim, parts)
            return
        with ExitStack() as stack:  # the lease is renewed from here until the chunk is stored
            held = stack.enter_context(runtime.heartbeat.hold_chunk(claim, timeout_seconds=claim.timeout_seconds))
            began = time.monotonic()
            try:
                model = by_pipeline(self._model) if claim.by_pipeline else self._model
                done, state = handler.compute(model, claim)
            except Exception as error:  # MemoryError, or something that nobody foresaw: the chunk must not be lost
                log.exception("rows %d to %d of job %s could not be computed", *_place(claim), exc_info=error)
                with runtime.bulk_engine.begin() as connection:
                    chunks.requeue_after_crash(connection, claim)
                return
            runtime.heartbeat.unlimit(held)  # to be stored takes as long as it takes
            times = (began, time.monotonic())
            try:
                self._wait_for_stores(STORING - 1)
            except Exception:
                with runtime.bulk_engine.begin() as connection:
                    chunks.release(connection, claim)
                raise
            if self._threads is None:
                self._threads = ThreadPoolExecutor(STORING, thread_name_prefix="storing")
            store = partial(self._store, claim, done, state, stack.pop_all(), times)
            self._storing.append(self._threads.submit(copy_context().run, store))
        if self._is_interactive_busy():
            self._wait_for_stores(0)
        self.chunk_count += 1
        self.row_count += claim.row_count

    def _wait_for_stores(self, count: int) -> None:
        """Wait until at most `count` chunks are being stored."""
        while len(self._storing) > count:
            self._storing.popleft().result()

    def _is_interactive_busy(self) -> bool:
        now = time.monotonic()
        if now - self._asked_at > ASK_SECONDS:
            self._asked_at = now
            try:
                self._interactive_waiting = bool(self._runtime.redis.exists(INTERACTIVE_KEY))
            except RedisError:  # then nobody is woken for single predictions either
                self._interactive_waiting = False
        return self._interactive_waiting

    def _claim(self) -> ChunkClaim | None:
        runtime = self._runtime
        with runtime.bulk_engine.begin() as connection:
            return chunks.claim(
                connection,
                model_version_id=self._model_version_id,
                worker=runtime.name,
                lease_seconds=runtime.settings.lease_seconds,
            )

    def _store(
        self, claim: ChunkClaim, done: "Lines", state: ChunkState, lease: ExitStack, times: tuple[float, float]
    ) -> None:
        """Store the result of a chunk; `times` are the start and the end of its computation."""
        from shared.jobs.chunks.storage import Stale, Suspended, store

        runtime, write = self._runtime, CHUNK_HANDLERS[claim.kind].write
        with lease:
            try:
                ended = runtime.retry_while_away(
                    lambda: store(runtime.bulk_engine, claim, done, write=write, state=state)
                )
            except Stale:
                log.warning("rows %d to %d of job %s were no longer ours; nothing was stored", *_place(claim))
                return
            except Suspended:
                log.warning("rows %d to %d of job %s are scored again, by the pipeline", *_place(claim))
                with runtime.bulk_engine.begin() as connection:
                    chunks.release(connection, claim)
                return
        label = f"{self._model.card.name}@{self._model.card.version}"
        METRICS.count(SCORED_ROWS, (label, Lane.BULK.value), claim.row_count - done.failed_count)
        if runtime.tracing is not None:
            about = {
                "guichet.job_id": claim.job_id,
                "guichet.request_id": claim.request_id,
                "guichet.model": label,
                "guichet.lane": Lane.BULK.value,
                "guichet.first_row": claim.first_row,
                "guichet.rows": claim.row_count,
            }
            began, scored = times
            runtime.tracing.add_job(
                claim.traceparent, about, accepted_at=None, began=began, scored=scored, stored=time.monotonic()
            )
        if ended is not None:
            self._ended(claim.job_id)


def _place(claim: ChunkClaim) -> tuple[int, int, str]:
    return claim.first_row + 1, claim.first_row + claim.row_count, claim.job_id
