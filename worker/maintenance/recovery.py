"""Recurring recovery: take back the claims of dead workers, expire late jobs, wake workers for ready ones."""

import logging
from datetime import timedelta

from kombu.exceptions import OperationalError as BrokerError
from redis import RedisError
from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.orm import Session

from shared.broker.app import DONE_CHANNEL, NEW_MODELS
from shared.broker.names import Lane
from shared.broker.wakeups import send_wakeup
from shared.database.engine import dumps
from shared.faults import counted
from shared.jobs import registrations
from shared.jobs import transitions as jobs
from shared.jobs.chunks import transitions as chunks
from shared.jobs.queries import jobs as queries
from shared.jobs.submission import CLIENT_ID_SCOPE, NO_VERSION
from shared.registry.archiving import remove_left_files
from shared.tables import Job, ModelVersion, Worker
from worker.runtime import Runtime

log = logging.getLogger(__name__)


def recover(runtime: Runtime, *, spare: bool = False) -> str:
    """Take back jobs of dead workers, expire late ones, wake the workers for whatever is ready.

    With `spare`, leases that ran out are left alone: the database was away, and their holders may live. Raises
    SQLAlchemyError when the database cannot be asked; a Redis that cannot be asked is none of its business.
    """
    recovered: dict[str, str] = {}
    requeued, ended = 0, list[str]()
    expired: list[str] = []
    with runtime.engine.connect() as connection:
        while not spare and (states := jobs.recover(connection)):
            recovered |= states
        if not spare:
            requeued, ended = _recover_chunks(runtime)
        while late := [*jobs.expire(connection), *_expire_files(runtime)]:
            expired += late
        ready = queries.list_ready(connection)
        if registrations.is_waiting(connection):
            ready.append((Lane.BULK.value, NO_VERSION))
        titles = _titles(connection, {version for _, version in ready})
        registrations.forget_files(connection)
    ended += [*expired, *(job_id for job_id, state in recovered.items() if state != "queued")]
    if recovered or requeued:
        log.warning("took back %d jobs and %d chunks of workers that died or went silent", len(recovered), requeued)
    try:
        for lane, model_version_id in ready:
            send_wakeup(
                runtime.redis,
                runtime.app,
                lane=lane,
                model_version_id=model_version_id,
                title=titles.get(model_version_id),
            )
        if ended:
            runtime.redis.publish(DONE_CHANNEL, dumps(ended))
    except (RedisError, BrokerError, OSError) as error:
        # Without Redis nobody is woken; the next time may find it back.
        log.debug("the workers could not be woken (%s)", type(error).__name__)
    return f"{len(recovered) + requeued} taken back, {len(expired)} expired, {len(ready)} queues with ready jobs"


def _titles(connection: Connection, ids: set[int]) -> dict[int, str]:
    """Return the titles of wake-ups, by model version id."""
    if not ids:
        return {}
    rows = connection.execute(
        select(ModelVersion.id, ModelVersion.name, ModelVersion.version).where(ModelVersion.id.in_(ids))
    )
    return {NO_VERSION: NEW_MODELS} | {row.id: f"{row.name}@{row.version}" for row in rows}


def _recover_chunks(runtime: Runtime) -> tuple[int, list[str]]:
    count, ended = 0, list[str]()
    while True:
        with runtime.bulk_engine.begin() as connection:
            chunk_count, jobs_ended = chunks.recover(connection)
        if chunk_count == 0:
            return count, ended
        count += chunk_count
        ended += jobs_ended


def _expire_files(runtime: Runtime) -> list[str]:
    with runtime.bulk_engine.begin() as connection:
        return chunks.expire(connection)


def forget(runtime: Runtime) -> str:
    """Free the idempotency keys of old jobs, and forget workers not heard of for a day.

    An id that a caller gave its job stays as long as the job: the caller knows it by no other.
    """
    age = timedelta(hours=runtime.settings.idempotency_hours)
    with runtime.engine.connect() as connection:
        connection.execute(delete(Worker).where(Worker.seen_at < func.now() - timedelta(days=1)))
        freed = connection.execute(
            update(Job)
            .where(
                Job.idempotency_key.is_not(None),
                Job.idempotency_scope.not_like(f"%{CLIENT_ID_SCOPE}"),
                Job.created_at < func.now() - age,
            )
            .values(idempotency_key=None, idempotency_scope=None)
        ).rowcount
    return f"{freed} keys freed"


def remove_models(runtime: Runtime) -> str:
    """Remove the packages of deleted versions that the API could not remove."""
    with Session(runtime.engine) as session:
        removed = remove_left_files(session, runtime.settings.models)
    return f"{counted(removed, 'package')} removed"
