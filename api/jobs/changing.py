"""Changes of a stored job by its caller: cancel it, retry its remaining rows, or erase it."""

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.auth.callers import Caller
from api.http.prefix import link
from api.jobs.audits import audit_job
from api.jobs.finding import find_own_job
from api.services import Services
from shared.database.engine import take_time
from shared.errors import Conflict, Gone
from shared.faults import counted
from shared.jobs import erasure
from shared.jobs import transitions as jobs
from shared.jobs.chunks import transitions as chunks
from shared.jobs.kinds import kind_of
from shared.jobs.queries.jobs import TERMINAL, StoredJob
from shared.observability.audit import JOB_ERASED
from shared.tables import JobKind, JobState


async def cancel(services: Services, caller: Caller, job_id: str) -> tuple[StoredJob, bool]:
    """Cancel a job of the caller; return its state, and whether that ended it at once.

    A job that runs ends when its worker sees the request. Raises NotFound, and Conflict where it had ended before.
    """
    job = await find_own_job(services, caller, job_id)

    def write() -> str | None:
        if kind_of(job.kind).is_chunked:
            with services.bulk_engine.begin() as connection:
                return chunks.cancel(connection, job.id)
        with services.engine.begin() as connection:
            return jobs.cancel(connection, job.id)

    state = await run_in_threadpool(write)
    job = await find_own_job(services, caller, job_id)
    if state is None:
        raise Conflict(f"The job has already ended: it {_ended_as(job)}.", job_id=job.id)
    return job, state in TERMINAL


async def take_up(services: Services, caller: Caller, job_id: str) -> StoredJob:
    """Queue an ended job of the caller again for its rows without a result; return its state.

    Raises NotFound, and Conflict where it has no chunks, has not ended, or nothing is left of it.
    """
    job = await find_own_job(services, caller, job_id)
    if not kind_of(job.kind).can_resume:
        raise Conflict(
            "Only files, replays and explanations of whole jobs can be retried: send this request again as a new job.",
            job_id=job.id,
        )
    if not job.is_terminal:
        raise Conflict(f"The job is still {job.state}: cancel it first, or wait for its end.", job_id=job.id)

    def write() -> bool:
        with services.bulk_engine.begin() as connection:
            return chunks.reopen(connection, job.id)

    reopened = await run_in_threadpool(write)
    job = await find_own_job(services, caller, job_id)
    if not reopened:
        raise Conflict(_why_not_again(job), job_id=job.id)
    services.runtime.notify_files(job.model_version_id)
    return job


async def erase(
    services: Services, request: Request, caller: Caller, job_id: str, *, reason: str | None
) -> dict[str, Any]:
    """Erase an ended job of the caller with everything that was made of its rows; return what was erased.

    Raises NotFound, Gone where it was erased before, and Conflict where it, or a job that explains its rows, has not
    ended.
    """
    job = await find_own_job(services, caller, job_id)

    def write() -> list[erasure.Copy]:
        with services.bulk_engine.begin() as connection:
            take_time(connection)  # a large file goes in one piece
            copies = erasure.lock_copies(connection, job.id)
            for copy in copies:
                if not copy.has_ended:
                    raise Conflict(_why_not_erased(job, copy), job_id=copy.id)
            erasure.erase(connection, [copy.id for copy in copies])
            others = [copy.id for copy in copies[1:]]
            details = {"kind": job.kind, "rows": job.row_count, "explanations": others, "reason": reason}
            if copies:
                audit_job(connection, request, caller, job, JOB_ERASED, details)
        return copies

    copies = await run_in_threadpool(write)
    if not copies:
        raise Gone("This job was erased at this moment, by another request: nothing of it is left.")
    return {"id": job.id, "erased": [copy.id for copy in copies], "rows": job.row_count}


def _why_not_erased(job: StoredJob, copy: erasure.Copy) -> str:
    if copy.id == job.id:
        return f"The job is still {copy.state}: cancel it, or wait for its end, and erase it then."
    what = "scores its rows again" if copy.kind == JobKind.REPRODUCE else "explains its rows"
    return f"The job {copy.id} {what} and is still {copy.state}: cancel it, or wait for its end."


def _why_not_again(job: StoredJob) -> str:
    if not job.is_terminal:
        return f"The job is {job.state} already: another request has resumed it."
    if job.kind == JobKind.EXPLAIN_BATCH and job.csv is not None and job.csv.rows_failed:
        return (
            f"Nothing is left to retry: {counted(job.csv.rows_failed, 'row')} cannot be explained. "
            f"{link(f'/jobs/{job.id}/errors.csv')} says why."
        )
    if job.kind == JobKind.REPLAY:
        return "Nothing is left to retry: every decision was scored again, and errors.csv lists the refused ones."
    if job.csv is not None and job.csv.rows_failed:
        return (
            f"Nothing is left to retry: the model's card refuses {counted(job.csv.rows_failed, 'row')}. "
            f"{link(f'/jobs/{job.id}/errors.csv')} says why; send them, corrected, as a new file."
        )
    return "Nothing is left to retry: every row was scored."


def _ended_as(job: StoredJob) -> str:
    return f"was {job.state}" if job.state == JobState.CANCELED else job.state
