"""Draining a queue: claim, score, store, announce, until nothing is left or time is up."""

import logging
import math
import time
from collections.abc import Sequence

from kombu.exceptions import OperationalError
from redis import RedisError

from shared import jobs
from shared.db import dumps
from shared.errors import ModelError, NotFound
from shared.jobs import Claim
from shared.queue import DONE_CHANNEL, drained_key, wake_key
from shared.registry import LoadedModel
from shared.scoring import score_rows
from shared.wakeups import PENDING_SECONDS, send_wakeup
from worker.runtime import Runtime

log = logging.getLogger(__name__)

RENEW_SECONDS = 1.0  # how often the pending wake-up is renewed, or another worker called, while draining
SUSPECTS_EVERY = 32  # rounds: under a load that never ends, jobs that took a worker down get a turn as well


def drain(runtime: Runtime, lane: str, model_version_id: int) -> str:
    """Claim, score and store what is queued for a model version in a lane; return what was done, in words.

    While one task drains, its wake-up stays pending, so that no second worker splits small claims with it. As soon
    as a claim is full, there is more than one worker's work: another is woken.
    """
    try:
        model = runtime.models.get(model_version_id)
    except (ModelError, NotFound) as error:
        # Nothing was claimed: the jobs stay queued, and the recovery beat asks again.
        log.error("jobs of model version %s wait: %s", model_version_id, error.detail)
        return f"model version {model_version_id} cannot be loaded: {error.detail}"
    started = time.monotonic()
    key = wake_key(lane, model_version_id)
    count = rounds = 0
    held_at = recruited_at = -math.inf
    suspects = False  # whether jobs that took a worker down are left
    while (now := time.monotonic()) - started < runtime.settings.drain_seconds:
        rounds += 1
        claims = _claim(runtime, lane, model_version_id)
        if not claims:
            # From here on a new submission sends a new wake-up; what came before is seen by this last look.
            _forget(runtime, key)
            held_at = -math.inf
            claims = _claim(runtime, lane, model_version_id)
            if not claims and not suspects and count > 0:
                break
        elif len(claims) >= runtime.settings.max_claim_jobs:
            if now - recruited_at > RENEW_SECONDS:
                recruited_at = now
                _wake_another(runtime, lane, model_version_id)
        elif now - held_at > RENEW_SECONDS:
            held_at = now
            _hold(runtime, key)
        if claims:
            _handle(runtime, model, claims, lane=lane, model_version_id=model_version_id)
            count += len(claims)
        if not claims or suspects or rounds % SUSPECTS_EVERY == 0:
            crashed = _claim(runtime, lane, model_version_id, crashed=True)
            suspects = bool(crashed)
            if crashed:
                _handle(runtime, model, crashed, lane=lane, model_version_id=model_version_id)
                count += 1
            elif not claims:
                break
    else:
        _wake_another(runtime, lane, model_version_id)
    done = f"{model.card.name}@{model.card.version}: {count} jobs in {(time.monotonic() - started) * 1000:.0f} ms"
    if count:
        log.info(done)
    return done


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
        )
    )


def _handle(runtime: Runtime, model: LoadedModel, claims: list[Claim], *, lane: str, model_version_id: int) -> None:
    with runtime.pulse.holding(claims):
        try:
            results = score_rows(model, [row for claim in claims for row in claim.rows])
        except MemoryError:
            message = "the worker ran out of memory; send fewer rows at once"
            runtime.database(lambda connection: jobs.retry(connection, claims, code="out_of_memory", message=message))
            return
    by_claim = []
    start = 0
    for claim in claims:
        by_claim.append(results[start : start + len(claim.rows)])
        start += len(claim.rows)
    done = runtime.database(
        lambda connection: jobs.finish(connection, claims, by_claim, model_version_id=model_version_id)
    )
    if len(done) < len(claims):
        log.warning(
            "%d of %d claims were no longer ours; nothing of them was stored", len(claims) - len(done), len(claims)
        )
    announce(runtime, done, lane=lane, model_version_id=model_version_id)


def announce(runtime: Runtime, job_ids: Sequence[str], *, lane: str, model_version_id: int) -> None:
    """Tell the API processes which jobs are done; they look for themselves when Redis cannot."""
    if not job_ids:
        return
    try:
        pipeline = runtime.redis.pipeline(transaction=False)
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
    except (RedisError, OperationalError, OSError) as error:
        log.warning("no other worker was woken (%s); the recovery beat does it", error)
