"""Finding a caller's job, by its id or by the caller's own id for it."""

import re
from uuid import UUID

from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool

from api.auth.callers import Caller
from api.jobs.submissions import CLIENT_ID
from api.runtimes.idempotency import client_scope
from api.services import Services
from shared.errors import Conflict, Gone, NotFound
from shared.jobs.erasure import find_erased
from shared.jobs.queries.jobs import StoredJob, find_by_idempotency_key, find_jobs
from shared.observability.logs import bind


async def find_own_job(services: Services, caller: Caller, job_id: str) -> StoredJob:
    """Read a job by id and owner, or by the id that the caller gave it: what belongs to someone else does not exist.

    Raises NotFound, and Gone where it was erased.
    """

    def read() -> StoredJob:
        with services.reader.connect() as connection:
            job = _find_visible(connection, canonical_id(job_id), caller)
            if job is None and not caller.is_visitor and re.fullmatch(CLIENT_ID, job_id) is not None:
                named = find_by_idempotency_key(connection, client_scope(caller.id), job_id)
                job = None if named is None else _find_visible(connection, named[0], caller)
            if job is None:
                raise _missing(connection, job_id, caller)
            return job

    job = await run_in_threadpool(read)
    bind(job_id=job.id)
    version_id = job.model_version_id if job.registration is None else job.registration.model_version_id
    if version_id is not None and version_id not in services.catalog.snapshot.by_id:
        # It may be of a version that another process registered a moment ago.
        await run_in_threadpool(services.catalog.refresh_if_stale)
    return job


def _missing(connection: Connection, job_id: str, caller: Caller) -> Gone | NotFound:
    """Return the error for a job that is not there; strangers are not told that it was erased."""
    canonical = canonical_id(job_id)
    erased = None if canonical is None else find_erased(connection, canonical)
    if erased is not None and caller.may_see(erased[0]):
        return Gone(f"This job was erased at {erased[1]:%Y-%m-%d %H:%M:%S} UTC: nothing of it is left.")
    return NotFound("There is no job with this id: ids come with the answer to a submission.")


async def refuse_own_id(services: Services, caller: Caller, job_id: str) -> None:
    """Raise Conflict for a client's id that is the id of a job already: nobody would find the new job by it."""

    def read() -> StoredJob | None:
        with services.reader.connect() as connection:
            return _find_visible(connection, canonical_id(job_id), caller)

    if canonical_id(job_id) is not None and (job := await run_in_threadpool(read)) is not None:
        raise Conflict("This is the id of a job of yours: put a new job under another id.", job_id=job.id)


def canonical_id(job_id: str) -> str | None:
    """Return the id as the tables have it, None where it can only be one that a caller gave."""
    try:
        canonical = str(UUID(job_id))
    except ValueError:
        return None
    return canonical if canonical == job_id.lower() else None


def _find_visible(connection: Connection, job_id: str | None, caller: Caller) -> StoredJob | None:
    job = None if job_id is None else find_jobs(connection, [job_id]).get(job_id)
    return job if job is not None and caller.may_see(job.owner) else None
