"""Draining a queue: claim, score, store, announce, until nothing is left or time is up."""

import logging
import math
import time
from collections.abc import Sequence

from kombu.exceptions import OperationalError as BrokerError
from redis import RedisError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from shared.broker.app import DONE_CHANNEL, INTERACTIVE_KEY, INTERACTIVE_SECONDS, drained_key, wake_key
from shared.broker.names import Lane
from shared.broker.wakeups import PENDING_SECONDS, list_waiting, send_wakeup
from shared.database.engine import dumps
from shared.jobs import transitions as jobs
from shared.jobs.transitions import Claim
from shared.observability.redaction import told
from shared.registry.adding import LoadedModel
from shared.scoring.batch import score_rows, split_results
from worker.chunk_pipeline import ChunkPipeline
from worker.runtime import Runtime

log = logging.getLogger(__name__)

RENEW_SECONDS = 1.0  # how often the lane is looked at while draining: who waits, and is another worker needed
CLAIMS = 8  # so many fit into DRAIN_SECONDS: a slow model is claimed in small pieces, and others get their turn
FIRST_ROWS = 32  # of the first claim, when nobody knows how long a row takes
SUSPECTS_SECONDS = 1.0  # how often jobs that took a worker down are looked for; each is claimed alone

_looked: dict[tuple[str, int], float] = {}  # when this process did so last, by queue


def drain(runtime: Runtime, lane: str, model_version_id: int) -> str:
    """Claim, score and store what is queued for a model version in a lane; return what was done, in words.

    While one task drains, its wake-up stays pending, so that no second worker splits small claims with it. As soon
    as a claim is full, there is more than one worker's work: another is woken, if one is free. When other versions
    wait in the lane, the time is shared with them.
    """
    try:
        model = runtime.models.get(model_version_id)
    except Exception as error:
        # Nothing was claimed: the jobs stay queued, and recovery asks again.
        log.exception("jobs of model version %s wait: it cannot be loaded", model_version_id)
        return f"model version {model_version_id} cannot be loaded: {told(error)}"
    started = time.monotonic()
    line = ChunkPipeline(
        runtime,
        model,
        model_version_id,
        ended=lambda job_id: announce(runtime, [job_id], lane=lane, model_version_id=model_version_id),
    )
    with line:
        count = _drain(runtime, model, lane, model_version_id, line if lane == Lane.BULK else None)
    seconds = time.monotonic() - started
    parts = [f"{line.row_count} rows of files in {line.chunk_count} chunks"] if line.chunk_count else []
    if count or not parts:
        parts.insert(0, f"{count} jobs")
    done = f"{model.card.name}@{model.card.version}: {', '.join(parts)}, {seconds * 1000:.0f} ms"
    if count or line.chunk_count:
        log.info(done)
    return done


def _drain(runtime: Runtime, model: LoadedModel, lane: str, model_version_id: int, line: ChunkPipeline | None) -> int:
    """Drain until nothing is left or time is up, chunks of files in between; return how many jobs were done."""
    started = time.monotonic()
    key = wake_key(lane, model_version_id)
    count = 0
    looked_at, is_fresh = started, True  # whoever woke us has just set the key
    suspects = False  # whether jobs that took a worker down are left
    chunk = False  # whether there was a chunk the last time
    share = runtime.settings.drain_seconds
    while (now := time.monotonic()) - started < share:
        claims = _claim(runtime, lane, model_version_id)
        last_look = not claims and not chunk
        if last_look:
            # From here on a new submission sends a new wake-up; what came before is seen by this last look.
            _forget(runtime, key)
            looked_at = -math.inf
            claims = _claim(runtime, lane, model_version_id)
        elif now - looked_at > RENEW_SECONDS or (is_fresh and (chunk or _is_full(runtime, model_version_id, claims))):
            looked_at, is_fresh = now, False
            waiting = _look(runtime, key, lane)
            others = len(waiting - {model_version_id})
            share = runtime.settings.drain_seconds / (1 + others)
            if not waiting and (chunk or _is_full(runtime, model_version_id, claims)):
                _wake_another(runtime, lane, model_version_id)
        if claims:
            _handle(runtime, model, claims, lane=lane, model_version_id=model_version_id)
            count += len(claims)
        if suspects or now - _looked.get((lane, model_version_id), -math.inf) > SUSPECTS_SECONDS:
            _looked[lane, model_version_id] = now
            crashed = _claim(runtime, lane, model_version_id, crashed=True)
            suspects = bool(crashed)
            if crashed:
                _handle(runtime, model, crashed, lane=lane, model_version_id=model_version_id)
                count += 1
        chunk = line is not None and line.step()
        if last_look and not claims and not suspects and not chunk:
            break
    else:
        _wake_another(runtime, lane, model_version_id)
    return count


def _most_rows(runtime: Runtime, model_version_id: int) -> int:
    """Return how many rows of a version may be claimed at once: what it scores in a fraction of DRAIN_SECONDS."""
    settings = runtime.settings
    pace = runtime.paces.get(model_version_id)
    most = FIRST_ROWS if pace is None else int(pace * settings.drain_seconds / CLAIMS)
    return min(max(most, 1), settings.max_claim_rows)


def _is_full(runtime: Runtime, model_version_id: int, claims: list[Claim]) -> bool:
    """Tell whether there was more to claim than was claimed."""
    most_rows = _most_rows(runtime, model_version_id)
    if len(claims) >= min(runtime.settings.max_claim_jobs, most_rows):
        return True
    return len(claims) > 1 and sum(len(claim.rows) for claim in claims) > 0.9 * most_rows


def _claim(runtime: Runtime, lane: str, model_version_id: int, *, crashed: bool = False) -> list[Claim]:
    settings = runtime.settings
    most_rows = _most_rows(runtime, model_version_id)

    def take(connection: Connection) -> list[Claim]:
        return jobs.claim(
            connection,
            model_version_id=model_version_id,
            lane=lane,
            worker=runtime.name,
            lease_seconds=settings.lease_seconds,
            max_jobs=min(settings.max_claim_jobs, most_rows),
            max_rows=most_rows,
            crashed=crashed,
        )

    try:
        return runtime.try_once(take, durable=False)
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
    held = runtime.pulse.tokens()
    count = runtime.database(lambda connection: jobs.release_unheld(connection, worker=runtime.name, held=held))
    log.warning("the database closed the connection in a claim; %d jobs that it took are given back", count)
    return runtime.database(take, durable=False)


def _handle(runtime: Runtime, model: LoadedModel, claims: list[Claim], *, lane: str, model_version_id: int) -> None:
    rows = [row for claim in claims for row in claim.rows]
    with runtime.pulse.holding(claims) as held:  # until it is stored: the leases hold as long as this process lives
        began = time.monotonic()
        try:
            results = score_rows(model, rows)
        except MemoryError:
            runtime.pulse.unlimit(held)
            message = "the worker ran out of memory; send fewer rows at once"
            runtime.database(lambda connection: jobs.retry(connection, claims, code="out_of_memory", message=message))
            return
        runtime.pulse.unlimit(held)  # to be stored takes as long as it takes
        runtime.paces[model_version_id] = len(rows) / max(time.monotonic() - began, 1e-6)
        by_claim = split_results(results, (len(claim.rows) for claim in claims))
        done = runtime.retry_while_away(
            lambda: runtime.database(
                lambda connection: jobs.finish(connection, claims, by_claim, model_version_id=model_version_id)
            )
        )
    if len(done) < len(claims):
        log.warning(
            "%d of %d claims were no longer ours; nothing of them was stored", len(claims) - len(done), len(claims)
        )
    announce(runtime, done, lane=lane, model_version_id=model_version_id)


def announce(runtime: Runtime, job_ids: Sequence[str], *, lane: str, model_version_id: int) -> None:
    """Tell the API processes which jobs are done, who look for themselves when Redis cannot; and files to step back."""
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


def _forget(runtime: Runtime, key: str) -> None:
    try:
        runtime.redis.delete(key)
    except RedisError as error:
        log.warning("the wake-up key was not deleted (%s); it expires by itself", error)


def _look(runtime: Runtime, key: str, lane: str) -> set[int]:
    """Renew the wake-up key, and return which versions wait in the lane."""
    try:
        runtime.redis.set(key, b"1", ex=PENDING_SECONDS)
        return list_waiting(runtime.redis, lane)
    except RedisError as error:
        log.warning("the wake-up key was not renewed (%s); another worker may join", error)
        return set()


def _wake_another(runtime: Runtime, lane: str, model_version_id: int) -> None:
    try:
        send_wakeup(runtime.redis, runtime.app, lane=lane, model_version_id=model_version_id, again=True)
    except (RedisError, BrokerError, OSError) as error:
        log.warning("no other worker was woken (%s); recovery does it", error)
