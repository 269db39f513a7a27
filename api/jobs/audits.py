"""Audit entries for reading rows: downloads, and an administrator's access to jobs of other callers.

It is written before the answer is sent: what cannot be noted is not given.
"""

from typing import Any

from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.auth.callers import Caller
from api.http.responses import request_id_of
from api.services import Services
from shared.jobs.queries.jobs import StoredJob
from shared.observability.audit import JOB_EXPORTED, JOB_READ, audit


async def audit_read(services: Services, request: Request, caller: Caller, job: StoredJob, *, what: str) -> None:
    """Note that an administrator's key reads what somebody else sent; anybody's own jobs are not noted."""
    if caller.is_admin and job.owner != caller.id:
        await _note(services, request, caller, job, JOB_READ, {"what": what})


async def audit_export(
    services: Services, request: Request, caller: Caller, job: StoredJob, *, file: str, options: dict[str, Any]
) -> None:
    """Record the download of a file of rows in the audit log. Visitors are left out: they have only their own rows."""
    if not caller.is_visitor:
        await _note(services, request, caller, job, JOB_EXPORTED, {"file": file, "rows": job.row_count, **options})


async def _note(
    services: Services, request: Request, caller: Caller, job: StoredJob, action: str, details: dict[str, Any]
) -> None:
    def write() -> None:
        with services.engine.begin() as connection:
            audit_job(connection, request, caller, job, action, details)

    await run_in_threadpool(write)


def audit_job(
    connection: Connection, request: Request, caller: Caller, job: StoredJob, action: str, details: dict[str, Any]
) -> None:
    """Record in the audit log, in the transaction that is open, what a caller did with a job."""
    audit(
        connection,
        action,
        f"job:{job.id}",
        actor=caller.actor,
        details=details | {"owner": job.owner},
        request_id=request_id_of(request),
    )
