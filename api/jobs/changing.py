"""Changes of a stored job by its caller: cancel it, or retry its remaining rows."""

from starlette.concurrency import run_in_threadpool

from api.auth.callers import Caller
from api.http.prefix import link
from api.jobs.finding import find_own_job
from api.services import Services
from shared.errors import Conflict
from shared.faults import counted
from shared.jobs import chunks
from shared.jobs import transitions as jobs
from shared.jobs.kinds import kind_of
from shared.jobs.queries import TERMINAL, StoredJob
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
