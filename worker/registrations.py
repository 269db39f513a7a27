"""Uploaded models in a worker of the bulk lane: one at a time, then the next worker's turn."""

import logging

from kombu.exceptions import OperationalError as BrokerError
from redis import RedisError

from shared.broker.app import NEW_MODELS, wake_key
from shared.broker.names import Lane
from shared.broker.wakeups import send_wakeup
from shared.handlers.registrations import claim_next
from shared.handlers.table import APART_HANDLERS
from shared.jobs import registrations
from shared.jobs.submission import NO_VERSION
from worker.runtime import Runtime

log = logging.getLogger(__name__)


def register_next(runtime: Runtime) -> list[str]:
    """Register the first upload that waits; return the ids of the jobs that ended, and wake another for the rest."""
    drop_wakeup(runtime)
    held = claim_next(runtime.bulk_engine, runtime.settings, worker=runtime.name)
    if held is None:
        return []
    with runtime.heartbeat.hold([held]) as lease:
        runtime.heartbeat.unlimit(lease)  # its process has a limit of its own
        has_ended = APART_HANDLERS[held.kind](runtime.bulk_engine, runtime.settings, held)
    wake_for_rest(runtime)
    return [held.job_id] if has_ended else []


def drop_wakeup(runtime: Runtime) -> None:
    """Let the next upload send a wake-up of its own: what came before is seen by the claim that follows."""
    try:
        runtime.redis.delete(wake_key(Lane.BULK, NO_VERSION))
    except RedisError as error:
        log.warning("the wake-up key was not deleted (%s); it expires by itself", error)


def wake_for_rest(runtime: Runtime) -> None:
    """Wake a worker if an upload waits: rows and files had to wait for this one, and have their turn."""
    with runtime.engine.connect() as connection:
        is_waiting = registrations.is_waiting(connection)
    if not is_waiting:
        return
    try:
        send_wakeup(
            runtime.redis,
            runtime.app,
            lane=Lane.BULK,
            model_version_id=NO_VERSION,
            title=NEW_MODELS,
            again=True,
        )
    except (RedisError, BrokerError, OSError) as error:
        log.warning("no other worker was woken (%s); recovery does it", error)
