"""Submitting jobs that make past decisions again."""

import hashlib

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from api.auth.callers import Caller
from api.files.models import unversioned_submission
from api.files.submit import find_stored
from api.jobs.audits import audit_read
from api.jobs.finding import find_own_job
from api.jobs.submissions import set_idempotency_key, ticket_response
from api.services import Services
from shared.errors import Conflict, RowFaults
from shared.faults import Fault
from shared.jobs import reproductions
from shared.jobs.queries.jobs import StoredJob
from shared.tables import JobKind

SCORED = (JobKind.PREDICT, JobKind.BATCH, JobKind.CSV)  # kinds whose rows have scores


async def submit_reproduction(
    services: Services, request: Request, caller: Caller, job_id: str, row: int | None
) -> Response:
    """Commit a job that scores a row of an ended job again, or with None every row; answer 202 with it.

    Raises NotFound and Gone, Conflict for a job without scores or one that has not ended, RowFaults for an unknown row.
    """
    source = await find_own_job(services, caller, job_id)
    if source.kind not in SCORED:
        raise Conflict(f"A job of the kind {source.kind} has no scores of its own to reproduce.", job_id=source.id)
    if not source.is_terminal:
        raise Conflict(f"The job is still {source.state}: wait for its end.", job_id=source.id)
    if row is not None and row >= source.row_count:
        fault = Fault("/query/row", "range", f"must be below {source.row_count}, the number of rows of the job")
        raise RowFaults("The job has no such row.", faults=[fault])
    await audit_read(services, request, caller, source, what="reproduction")
    seconds = services.settings.model_proof_seconds
    submission = unversioned_submission(request, caller, services, kind=JobKind.REPRODUCE, seconds=seconds)
    set_idempotency_key(submission, request, caller)
    if submission.idempotency_key is not None:
        submission.body_hash = hashlib.sha256(str(row).encode()).hexdigest()

    def store() -> StoredJob:
        with services.bulk_engine.begin() as connection:
            is_new = reproductions.submit(
                connection,
                submission,
                source_job_id=source.id,
                row=row,
                model_version_id=source.model_version_id,
                actor=caller.actor,
            )
        return find_stored(services, submission, is_new=is_new is not None)

    with services.keys_in_flight.hold(submission):
        job = await run_in_threadpool(store)
    services.runtime.notify_uploads()
    return ticket_response(services, request, job)
