"""Draining a queue: claim, score, store, announce, until nothing is left or time is up."""

import logging
import math
import time
from collections.abc import Sequence

from kombu.exceptions import OperationalError as BrokerError
from redis import RedisError

from shared import jobs
from shared.db import dumps
from shared.jobs import Claim
from shared.queue import DONE_CHANNEL, INTERACTIVE_KEY, INTERACTIVE_SECONDS, Lane, drained_key, wake_key
from shared.registry import LoadedModel
from shared.scoring import score_rows, split_results
from shared.wakeups import PENDING_SECONDS, send_wakeup
from worker.bulk import ChunkLine
from worker.runtime import Runtime

log = logging.getLogger(__name__)

RENEW_SECONDS = 1.0  # how often the pending wake-up is renewed, or another worker called, while draining
SUSPECTS_SECONDS = 1.0  # how often jobs that took a worker down are looked for; each is claimed alone

_looked: dict[tuple[str, int], float] = {}  # when this process did so last, by queue


def drain(runtime: Runtime, lane: str, model_version_id: int) -> str:
    """Claim, score and store what is queued for a model version in a lane; return what was done, in words.

    While one task drains, its wake-up stays pending, so that no second worker splits small claims with it. As soon
    as a claim is full, there is more than one worker's work: another is woken.
    """
    try:
        model = runtime.models.get(model_version_id)
    except Exception as error:
        # Nothing was claimed: the jobs stay queued, and recovery asks again.
        log.exception("jobs of model version %s wait: it cannot be loaded", model_version_id)
        return f"model version {model_version_id} cannot be loaded: {error}"
    started = time.monotonic()
    line = ChunkLine(
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


def _drain(runtime: Runtime, model: LoadedModel, lane: str, model_version_id: int, line: ChunkLine | None) -> int:
    """Drain until nothing is left or time is up, chunks of files in between; return how many jobs were done."""
    started = time.monotonic()
    key = wake_key(lane, model_version_id)
    count = 0
    held_at, recruited_at = started, -math.inf  # whoever woke us has just set the key
    suspects = False  # whether jobs that took a worker down are left
    chunk = False  # whether there was a chunk the last time
    while (now := time.monotonic()) - started < runtime.settings.drain_seconds:
        claims = _claim(runtime, lane, model_version_id)
        last_look = not claims and not chunk
        if last_look:
            # From here on a new submission sends a new wake-up; what came before is seen by this last look.
            _forget(runtime, key)
            held_at = -math.inf
            claims = _claim(runtime, lane, model_version_id)
        elif chunk or len(claims) >= runtime.settings.max_claim_jobs:
            if now - recruited_at > RENEW_SECONDS:
                recruited_at = now
                _wake_another(runtime, lane, model_version_id)
        elif now - held_at > RENEW_SECONDS:
            held_at = now
            _hold(runtime, key)
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


def _claim(runtime: Runtime, lane: str, model_version_id: int, *, crashed: bool = False) -> list[Claim]:
    settings = runtime.settings
    return runtime.database(
        lambda connection: jobs.claim(
            connection,
            model_version_id=model_version_id,
            lane=lane,
            worker=runtime.name,
            lease_seconds=settings.lease_seconds,
            max_jobs=settings.max_claim_jobs,
            max_rows=settings.max_claim_rows,
            crashed=crashed,
        ),
        durable=False,
    )


def _handle(runtime: Runtime, model: LoadedModel, claims: list[Claim], *, lane: str, model_version_id: int) -> None:
    try:
        with runtime.pulse.holding(claims):
            results = score_rows(model, [row for claim in claims for row in claim.rows])
    except MemoryError:
        message = "the worker ran out of memory; send fewer rows at once"
        runtime.database(lambda connection: jobs.retry(connection, claims, code="out_of_memory", message=message))
        return
    by_claim = split_results(results, (len(claim.rows) for claim in claims))
    done = runtime.patiently(
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


def _hold(runtime: Runtime, key: str) -> None:
    try:
        runtime.redis.set(key, b"1", ex=PENDING_SECONDS)
    except RedisError as error:
        log.warning("the wake-up key was not renewed (%s); another worker may join", error)


def _wake_another(runtime: Runtime, lane: str, model_version_id: int) -> None:
    _forget(runtime, wake_key(lane, model_version_id))
    try:
        send_wakeup(runtime.redis, runtime.app, lane=lane, model_version_id=model_version_id)
    except (RedisError, BrokerError, OSError) as error:
        log.warning("no other worker was woken (%s); recovery does it", error)
