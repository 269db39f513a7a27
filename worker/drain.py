"""Draining a queue: claim, compute, store, announce, until nothing is left or time is up."""

import logging
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from kombu.exceptions import OperationalError as BrokerError
from redis import RedisError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from shared.broker.app import DONE_CHANNEL, INTERACTIVE_KEY, INTERACTIVE_SECONDS, drained_key, wake_key
from shared.broker.names import Lane
from shared.broker.wakeups import PENDING_SECONDS, list_waiting, send_wakeup
from shared.database.engine import dumps, run_again
from shared.handlers.handler import Handler
from shared.handlers.table import GROUPS, HANDLERS
from shared.jobs import transitions as jobs
from shared.jobs.kinds import Claiming
from shared.jobs.submission import NO_VERSION, time_of
from shared.jobs.transitions import Claim, ClaimGroup
from shared.observability.logs import bound
from shared.observability.metrics import CLAIM_JOBS, METRICS, SCORE_SECONDS, SCORED_ROWS, WAIT_SECONDS
from shared.observability.redaction import safe_text
from shared.observability.tracing import Tracing
from shared.registry.loading import LoadedModel, by_pipeline
from shared.scoring.batch import split_results
from worker.chunk_pipeline import ChunkPipeline
from worker.registrations import register_next
from worker.runtime import Runtime

log = logging.getLogger(__name__)

RENEW_SECONDS = 1.0  # how often the lane is looked at while draining: who waits, and is another worker needed
LONG_SECONDS = 0.03  # several jobs that take longer to compute are work for two workers ...
LONG_RENEW_SECONDS = 0.1  # ... and the lane is looked at so often while such jobs wait
CLAIMS = 8  # so many fit into DRAIN_SECONDS: a slow model is claimed in small pieces, and others get their turn
NAMED_JOBS = 20  # a log line about several jobs names so many
SUSPECTS_SECONDS = 1.0  # how often jobs that took a worker down are looked for; each is claimed alone


@dataclass(frozen=True, slots=True)
class Queue:
    """The queued jobs of a model version in a lane, and the model that they need."""

    lane: str
    model_version_id: int
    model: LoadedModel


def drain(runtime: Runtime, lane: str, model_version_id: int) -> str:
    """Claim, compute and store the queued jobs of a model version in a lane; return a summary.

    While one task drains, its wake-up stays pending, so that no second worker splits small claims with it. As soon
    as a claim is full, or its jobs take long, there is more than one worker's work: another is woken, if one is free.
    When other versions wait in the lane, the time is shared with them.
    """
    with bound(lane=lane):
        if model_version_id == NO_VERSION:
            ended = register_next(runtime)
            announce(runtime, ended, lane=lane, model_version_id=model_version_id)
            return f"{len(ended)} uploads"
        try:
            model = runtime.models.get(model_version_id)
        except Exception as error:
            # Nothing was claimed: the jobs stay queued, and recovery asks again.
            log.exception("jobs of model version %s wait: it cannot be loaded", model_version_id)
            return f"model version {model_version_id} cannot be loaded: {safe_text(error)}"
        with bound(model=f"{model.card.name}@{model.card.version}"):
            return _drain_and_report(runtime, Queue(lane, model_version_id, model))


def _drain_and_report(runtime: Runtime, queue: Queue) -> str:
    """Drain a queue; return a summary, and log it unless the queue was empty."""
    lane, model_version_id, card = queue.lane, queue.model_version_id, queue.model.card
    started = time.monotonic()
    with ExitStack() as stack:
        pipeline = None
        if lane == Lane.BULK:
            pipeline = stack.enter_context(
                ChunkPipeline(
                    runtime,
                    queue.model,
                    model_version_id,
                    ended=lambda job_id: announce(runtime, [job_id], lane=lane, model_version_id=model_version_id),
                )
            )
        count = _drain(runtime, queue, pipeline)
    parts = []
    if pipeline is not None and pipeline.chunk_count:
        parts = [f"{pipeline.row_count} rows of files in {pipeline.chunk_count} chunks"]
    is_idle = not count and not parts
    if count or is_idle:
        parts.insert(0, f"{count} jobs")
    milliseconds = round((time.monotonic() - started) * 1000)
    done = f"{card.name}@{card.version}: {', '.join(parts)}, {milliseconds} ms"
    if not is_idle:
        log.info(done, extra={"duration_ms": milliseconds})
    return done


def _drain(runtime: Runtime, queue: Queue, pipeline: ChunkPipeline | None) -> int:
    """Drain until nothing is left or time is up, chunks of files in between; return the number of jobs."""
    wakeup = Wakeup(runtime, queue)
    count = 0
    has_suspects = had_chunk = False
    while not wakeup.is_time_up():
        claims = _claim(runtime, queue)
        is_last_look = not claims and not had_chunk
        if is_last_look:
            # From here on a new submission sends a new wake-up; what came before is seen by this last look.
            wakeup.drop()
            claims = _claim(runtime, queue)
        else:
            is_long = _is_long(runtime, queue, claims)
            wakeup.renew(has_more=is_long or had_chunk or _is_full(runtime, queue, claims), is_long=is_long)
        count += _handle(runtime, queue, claims)
        if has_suspects or _suspects_due(runtime, queue):
            suspects = _claim(runtime, queue, crashed=True)
            has_suspects = bool(suspects)
            count += _handle(runtime, queue, suspects)
        had_chunk = pipeline is not None and pipeline.process_next()
        if is_last_look and not (claims or has_suspects or had_chunk):
            return count
    wakeup.wake_another()
    return count


def _suspects_due(runtime: Runtime, queue: Queue) -> bool:
    """Return whether it is time to look for jobs that took a worker down; the next time is a second later."""
    now = time.monotonic()
    place = (queue.lane, queue.model_version_id)
    if now - runtime.suspects_checked_at.get(place, -math.inf) <= SUSPECTS_SECONDS:
        return False
    runtime.suspects_checked_at[place] = now
    return True


# ── the wake-up ──────────────────────────────────────────────────────────────────────────────────────────────────


class Wakeup:
    """The wake-up of a queue, pending while one task drains it, and how long that task may go on."""

    def __init__(self, runtime: Runtime, queue: Queue) -> None:
        self._runtime = runtime
        self._queue = queue
        self._key = wake_key(queue.lane, queue.model_version_id)
        self._started_at = self._renewed_at = time.monotonic()  # whoever woke us has just set the key
        self._is_fresh = True
        self._seconds = runtime.settings.drain_seconds

    def is_time_up(self) -> bool:
        """Return whether other versions, or the next task, should have their turn."""
        return time.monotonic() - self._started_at >= self._seconds

    def renew(self, *, has_more: bool, is_long: bool) -> None:
        """Keep the wake-up pending, once a second, and share the time with the versions that wait in the lane.

        When none waits and there is more than one worker's work (`has_more`), wake another worker; the first time
        that there is, without waiting for the second, and where jobs take long (`is_long`), ten times a second.
        """
        now = time.monotonic()
        pause = LONG_RENEW_SECONDS if is_long else RENEW_SECONDS
        if now - self._renewed_at <= pause and not (self._is_fresh and has_more):
            return
        self._renewed_at, self._is_fresh = now, False
        waiting = self._renew_wakeup()
        others = len(waiting - {self._queue.model_version_id})
        self._seconds = self._runtime.settings.drain_seconds / (1 + others)
        if has_more and not waiting:
            self.wake_another()

    def _renew_wakeup(self) -> set[int]:
        """Renew the key, and return the versions that wait in the lane."""
        try:
            self._runtime.redis.set(self._key, b"1", ex=PENDING_SECONDS)
            return list_waiting(self._runtime.redis, self._queue.lane)
        except RedisError as error:
            log.warning("the wake-up key was not renewed (%s); another worker may join", error)
            return set()

    def drop(self) -> None:
        """Let the next submission send a wake-up of its own."""
        self._renewed_at = -math.inf
        try:
            self._runtime.redis.delete(self._key)
        except RedisError as error:
            log.warning("the wake-up key was not deleted (%s); it expires by itself", error)

    def wake_another(self) -> None:
        """Send a wake-up for the same queue, behind those that wait."""
        queue, runtime = self._queue, self._runtime
        title = f"{queue.model.card.name}@{queue.model.card.version}"
        try:
            send_wakeup(
                runtime.redis,
                runtime.app,
                lane=queue.lane,
                model_version_id=queue.model_version_id,
                title=title,
                again=True,
            )
        except (RedisError, BrokerError, OSError) as error:
            log.warning("no other worker was woken (%s); recovery does it", error)


# ── claims ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _most_rows(runtime: Runtime, queue: Queue, handler: Handler[Any]) -> int:
    """Return the most rows for one claim: as many as the handler computes in a fraction of DRAIN_SECONDS."""
    settings = runtime.settings
    pace = runtime.paces.get((queue.model_version_id, handler.name))
    most = handler.first_rows if pace is None else int(pace * settings.drain_seconds / CLAIMS)
    return min(max(most, 1), settings.max_claim_rows)


def _is_long(runtime: Runtime, queue: Queue, claims: list[Claim]) -> bool:
    """Return whether these are several jobs, and their rows take so long that another worker should take the next."""
    if len(claims) < 2:
        return False
    pace = runtime.paces.get((queue.model_version_id, HANDLERS[claims[0].kind].name))
    return pace is not None and sum(len(claim.rows) for claim in claims) > pace * LONG_SECONDS


def _is_full(runtime: Runtime, queue: Queue, claims: list[Claim]) -> bool:
    """Return whether there was more to claim than was claimed."""
    if not claims:
        return False
    most_rows = _most_rows(runtime, queue, HANDLERS[claims[0].kind])
    if len(claims) >= min(runtime.settings.max_claim_jobs, most_rows):
        return True
    return len(claims) > 1 and sum(len(claim.rows) for claim in claims) > 0.9 * most_rows


def _claim(runtime: Runtime, queue: Queue, *, crashed: bool = False) -> list[Claim]:
    """Claim jobs of one handler's kinds, as many as it computes in a part of the time, or one of a kind claimed alone.

    With `crashed`, one job that took a worker down.
    """
    settings = runtime.settings
    groups = [
        ClaimGroup(kinds, 0 if claiming == Claiming.ALONE else _most_rows(runtime, queue, handler))
        for handler, claiming, kinds in GROUPS
    ]

    def take(connection: Connection) -> list[Claim]:
        return jobs.claim(
            connection,
            model_version_id=queue.model_version_id,
            lane=queue.lane,
            worker=runtime.name,
            lease_seconds=settings.lease_seconds,
            max_jobs=min(settings.max_claim_jobs, max(1, *(group.max_rows for group in groups))),
            groups=groups,
            crashed=crashed,
        )

    try:
        return runtime.try_once(take, durable=False)
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
    held = runtime.heartbeat.tokens()
    count = runtime.execute(lambda connection: jobs.release_unheld(connection, worker=runtime.name, held=held))
    log.warning("the database closed the connection in a claim; %d jobs that it took are given back", count)
    return runtime.execute(take, durable=False)


def _handle(runtime: Runtime, queue: Queue, claims: list[Claim]) -> int:
    """Compute, store and announce claims of one handler's kinds; return their number."""
    if claims:
        with bound(**_fields(claims)):
            _compute_and_store(runtime, queue, claims)
    return len(claims)


def _fields(claims: list[Claim]) -> dict[str, str]:
    """Return the log fields of these claims: their job and its request, or the first of them."""
    if len(claims) == 1:
        return {"job_id": claims[0].job_id, "request_id": claims[0].request_id}
    named = claims[:NAMED_JOBS]
    return {
        "job_ids": ",".join(claim.job_id for claim in named),
        "request_ids": ",".join(dict.fromkeys(claim.request_id for claim in named)),
    }


def _compute_and_store(runtime: Runtime, queue: Queue, claims: list[Claim]) -> None:
    handler = HANDLERS[claims[0].kind]
    rows = [row for claim in claims for row in claim.rows]
    with runtime.heartbeat.hold(claims) as held:  # until it is stored: the leases hold as long as this process lives
        began = time.monotonic()
        try:
            model = by_pipeline(queue.model) if claims[0].by_pipeline else queue.model
            results = handler.compute(model, rows)
        except MemoryError:
            runtime.heartbeat.unlimit(held)
            message = "the worker ran out of memory; send fewer rows at once"
            runtime.execute(lambda connection: jobs.requeue(connection, claims, code="out_of_memory", message=message))
            return
        runtime.heartbeat.unlimit(held)  # to be stored takes as long as it takes
        scored = time.monotonic()
        seconds = scored - began
        runtime.paces[queue.model_version_id, handler.name] = len(rows) / max(seconds, 1e-6)
        _measure(queue, claims, len(rows), seconds)
        by_claim = split_results(results, (len(claim.rows) for claim in claims))
        done = runtime.retry_while_away(lambda: _finish(runtime, queue, handler, claims, by_claim))
    if runtime.tracing is not None:
        _trace(runtime.tracing, queue, claims, done, began=began, scored=scored)
    if len(done) < len(claims):
        left = [claim for claim in claims if claim.job_id not in done]
        # Those that are still ours were scored while their version was suspended: they are claimed again.
        released = runtime.execute(lambda connection: jobs.release(connection, left))
        log.warning(
            "nothing was stored of %d of %d claims: %d were no longer ours, and %d are scored again, by the pipeline",
            len(left),
            len(claims),
            len(left) - released,
            released,
        )
    announce(runtime, done, lane=queue.lane, model_version_id=queue.model_version_id)


def _measure(queue: Queue, claims: list[Claim], row_count: int, seconds: float) -> None:
    """Count a claim that was computed in the metrics."""
    labels = (f"{queue.model.card.name}@{queue.model.card.version}", queue.lane)
    METRICS.observe(CLAIM_JOBS, len(claims), (queue.lane,))
    METRICS.count(SCORED_ROWS, labels, row_count)
    METRICS.observe(SCORE_SECONDS, seconds, labels)
    now = time.time() - seconds
    for claim in claims:
        if claim.attempt == 1 and (accepted_at := time_of(claim.job_id)) is not None:
            METRICS.observe(WAIT_SECONDS, max(now - accepted_at, 0.0), labels)


def _trace(
    tracing: Tracing, queue: Queue, claims: list[Claim], done: Sequence[str], *, began: float, scored: float
) -> None:
    """Add a claim that was stored to the traces of its jobs' requests."""
    stored = time.monotonic()
    model = f"{queue.model.card.name}@{queue.model.card.version}"
    for claim in claims:
        about = {
            "guichet.job_id": claim.job_id,
            "guichet.request_id": claim.request_id,
            "guichet.model": model,
            "guichet.lane": queue.lane,
            "guichet.attempt": claim.attempt,
            "guichet.rows": len(claim.rows),
            "guichet.jobs_in_claim": len(claims),
            "guichet.is_stored": claim.job_id in done,
        }
        times = {"began": began, "scored": scored, "stored": stored}
        tracing.add_job(claim.traceparent, about, accepted_at=time_of(claim.job_id), **times)


def _finish(
    runtime: Runtime, queue: Queue, handler: Handler[Any], claims: list[Claim], results: Sequence[Sequence[object]]
) -> list[str]:
    """Store results and end their jobs, at once; return the ids of those that were still ours."""

    def finish(connection: Connection) -> list[str]:
        return jobs.finish(connection, claims, results, model_version_id=queue.model_version_id, store=handler.store)

    def finish_in_transaction() -> list[str]:
        with runtime.bulk_engine.begin() as connection:
            return finish(connection)

    return runtime.execute(finish) if handler.store is None else run_again(finish_in_transaction)


def announce(runtime: Runtime, job_ids: Sequence[str], *, lane: str, model_version_id: int) -> None:
    """Publish ids of finished jobs, and mark the interactive lane as busy, so that files step back."""
    if not job_ids:
        return
    try:
        pipeline = runtime.redis.pipeline(transaction=False)
        if lane == Lane.INTERACTIVE:
            pipeline.set(INTERACTIVE_KEY, b"1", ex=INTERACTIVE_SECONDS)
        pipeline.publish(DONE_CHANNEL, dumps(job_ids))
        pipeline.incrby(drained_key(lane, model_version_id), len(job_ids))
        pipeline.execute()
    except RedisError as error:
        log.warning(
            "%d finished jobs were not announced (%s); waiting callers find them by polling", len(job_ids), error
        )
