"""Jobs: list, poll, read the result, cancel, retry the rest, erase."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api.auth.callers import Caller
from api.deps import ChangeCaller, JobId, ListCaller, ReadCaller, ServicesDep
from api.http.prefer import read_preference
from api.http.responses import json_response
from api.jobs.audits import audit_read
from api.jobs.bulk_changes import CANCEL, RETRY, Change, change_matching, count_matching
from api.jobs.changing import cancel, erase, take_up
from api.jobs.finding import find_own_job
from api.jobs.include import INCLUDES
from api.jobs.json_body import read_json
from api.jobs.queries.lineage import read_lineage
from api.jobs.queries.listing import CURSOR, JobFilter, list_page
from api.jobs.queries.polling import poll_response
from api.jobs.requests import read_fields
from api.jobs.submissions import accepted_response, describe_job, error_of, find_job, result_of
from api.schemas.answers import APPLIED, OF_JOBS, PROBLEM, TICKET, header
from api.schemas.job_changes import JobChanges, JobChangesBody, JobCount
from api.schemas.lineage import LineageBody
from api.schemas.models.registrations import RegistrationResult
from api.schemas.models.replays import ReplayResult
from api.schemas.models.trainings import TrainingResult
from api.schemas.moments import Moment
from api.schemas.native import BatchResult, CsvResult, ErasedBody, JobBody, JobPage, Result
from api.schemas.reproductions import ReproductionResult
from api.services import Services
from shared.errors import Conflict
from shared.tables import JobState

router = APIRouter(tags=["jobs"])


@router.get(
    "/jobs",
    responses={
        200: {"model": JobPage},
        401: OF_JOBS[401],
        403: OF_JOBS[403],
        404: {**PROBLEM, "description": "No such model or version."},
        503: OF_JOBS[503],
    },
    response_model=None,
)
async def get_jobs(
    request: Request,
    services: ServicesDep,
    caller: ListCaller,
    status: Annotated[JobState | None, Query(description="Only jobs in this state")] = None,
    model: Annotated[
        str | None, Query(description="Only jobs of this model, or of `name@3` or `name@alias`", max_length=127)
    ] = None,
    since: Annotated[Moment | None, Query(alias="from", description="Only jobs that arrived then, or later")] = None,
    until: Annotated[Moment | None, Query(alias="to", description="Only jobs that arrived before")] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Jobs on a page")] = 50,
    before: Annotated[
        str | None,
        Query(description="The cursor: a page's `next` has it. The id of a job is one, too", pattern=CURSOR),
    ] = None,
) -> Response:
    """List your jobs, newest first by their time of arrival; follow `next` for older ones."""
    chosen = JobFilter(status, model, since, until)
    return json_response(await list_page(services, request, caller, chosen, limit=limit, before=before))


_ETAG = header("ETag of this answer, for `If-None-Match`", always=True)
_POLLED = {
    "ETag": _ETAG,
    "Retry-After": header("Seconds after which it is worth polling again, until the job has ended", "integer"),
    **APPLIED,
}


@router.get(
    "/jobs/{id}",
    responses={
        200: {"model": JobBody, "headers": _POLLED},
        304: {"description": "Unchanged", "headers": {"ETag": _ETAG}},
        **OF_JOBS,
    },
    openapi_extra={
        "parameters": [
            {
                "name": "Prefer",
                "in": "header",
                "schema": {"type": "string"},
                "description": "`wait=N`: wait until it ends, N seconds at most (RFC 7240)",
            },
            {
                "name": "If-None-Match",
                "in": "header",
                "schema": {"type": "string"},
                "description": "The `ETag` of an earlier answer: 304 while nothing has changed",
            },
        ]
    },
    response_model=None,
)
async def get_job(request: Request, services: ServicesDep, caller: ReadCaller, job_id: JobId) -> Response:
    """Poll a job. `ETag` and `If-None-Match` save the body; `Prefer: wait=N` waits until it ends, N seconds at most."""
    job = await find_own_job(services, caller, job_id)
    preference = read_preference(request, default=0, cap=services.settings.wait_cap_seconds)
    if preference.wait > 0 and not job.is_terminal:
        ended = await services.runtime.wait_for_end(job.id, preference.wait)
        job = ended or await find_job(services, job.id)
    return await poll_response(services, request, job, preference)


@router.get(
    "/jobs/{id}/result",
    dependencies=[INCLUDES],
    responses={
        200: {
            "model": Result
            | BatchResult
            | CsvResult
            | ReplayResult
            | RegistrationResult
            | TrainingResult
            | ReproductionResult
        },
        202: {"model": JobBody, "description": "Not yet finished.", "headers": TICKET},
        409: {**PROBLEM, "description": "The job failed, was canceled or expired, and has no result."},
        **OF_JOBS,
    },
    response_model=None,
)
async def get_result(request: Request, services: ServicesDep, caller: ReadCaller, job_id: JobId) -> Response:
    """Read the result: one score, every row of a batch in input order, links to files, or the report of a replay.

    With `include=quality`, each row says how unusual it is beside the reference of its version.
    """
    job = await find_own_job(services, caller, job_id)
    if not job.is_terminal:
        return accepted_response(services, request, job, {})
    if job.state != JobState.SUCCEEDED:
        raise Conflict(error_of(job).detail, job_id=job.id)
    await audit_read(services, request, caller, job, what="result")
    return json_response(await result_of(services, request, job))


@router.get(
    "/jobs/{id}/lineage",
    responses={
        200: {"model": LineageBody},
        409: {**PROBLEM, "description": "The row of the file is not scored yet, or the job explains another one."},
        422: {**PROBLEM, "description": "The job has no such row."},
        **OF_JOBS,
    },
    response_model=None,
)
async def get_lineage(
    request: Request,
    services: ServicesDep,
    caller: ReadCaller,
    job_id: JobId,
    row: Annotated[int, Query(ge=0, lt=2**31, description="Which row of the job, from 0")] = 0,
) -> Response:
    """Report the history of a row's score, and the row's outcome.

    The answer has the request, the attempts, the version with its artefact and libraries, the promotion that made it
    the champion, the input and whether it is unchanged, the output, the explanation and the outcome.
    """
    job = await find_own_job(services, caller, job_id)
    await audit_read(services, request, caller, job, what="lineage")
    return json_response(await read_lineage(services, caller, job, row))


_OF_ALL: dict[str, Any] = {
    "responses": {
        200: {"model": JobCount, "description": "Without `confirm`: how many jobs match. Nothing is changed."},
        202: {"model": JobChanges, "description": "With `confirm`: what was changed."},
        **OF_JOBS,
        404: {**PROBLEM, "description": "No such model or version."},
        409: {**PROBLEM, "description": "`confirm` is of another filter, or too old: ask for the count again."},
        422: {**PROBLEM, "description": "The filter is not valid."},
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{JobChangesBody.__name__}"}}},
        }
    },
    "response_model": None,
}


@router.post("/jobs/cancel", **_OF_ALL)
async def cancel_jobs(request: Request, services: ServicesDep, caller: ChangeCaller) -> Response:
    """Cancel all your jobs that match: count them first, then send the same filter with the answer's `confirm`.

    An administrator's are everyone's. Jobs that arrive after the count are left alone.
    """
    return await _change_all(request, services, caller, CANCEL)


@router.post("/jobs/retry", **_OF_ALL)
async def retry_jobs(request: Request, services: ServicesDep, caller: ChangeCaller) -> Response:
    """Take up again all your failed, canceled and expired jobs of chunks that match: count them first, then confirm.

    As `POST /jobs/{id}/retry` does for one. Jobs of single rows and batches are not among them: send their rows again.
    """
    return await _change_all(request, services, caller, RETRY)


async def _change_all(request: Request, services: Services, caller: Caller, change: Change) -> Response:
    _, raw = await read_json(request, max_bytes=services.settings.max_body_bytes)
    body = read_fields(JobChangesBody, raw)
    chosen = JobFilter(body.status, body.model, body.from_, body.to)
    if body.confirm is None:
        return json_response(await count_matching(services, caller, change, chosen))
    return json_response(await change_matching(services, caller, change, chosen, body.confirm), status=202)


@router.post(
    "/jobs/{id}/cancel",
    responses={
        200: {"model": JobBody, "description": "The job was queued; it is canceled now."},
        202: {
            "model": JobBody,
            "description": "The job runs; its worker cancels it as soon as it sees the request.",
            "headers": TICKET,
        },
        409: {**PROBLEM, "description": "The job has already ended."},
        **OF_JOBS,
    },
    response_model=None,
)
async def cancel_job(request: Request, services: ServicesDep, caller: ChangeCaller, job_id: JobId) -> Response:
    """Cancel a job: at once while it is queued, cooperatively while it runs.

    Rows of a file that are scored already stay: `output.csv?partial=true` has them.
    """
    job, has_ended = await cancel(services, caller, job_id)
    if has_ended:
        return json_response(describe_job(services, request, job))
    return accepted_response(services, request, job, {})


@router.post(
    "/jobs/{id}/retry",
    status_code=202,
    responses={
        202: {"model": JobBody, "description": "The remaining rows are queued again.", "headers": TICKET},
        409: {**PROBLEM, "description": "The job has not ended, has no remaining rows, or is not a job of chunks."},
        **OF_JOBS,
    },
    response_model=None,
)
async def retry_job(
    request: Request,
    services: ServicesDep,
    caller: ChangeCaller,
    job_id: JobId,
    only: Annotated[Literal["failed"], Query(description="The rows to run again: those without a result")] = "failed",
) -> Response:
    """Retry the remaining rows of a canceled or failed job of chunks: those without a score or an explanation.

    Stored results stay. Rows that do not fit the card are not retried: send them, corrected, as a new file.
    """
    job = await take_up(services, caller, job_id)
    return accepted_response(services, request, job, {})


@router.delete(
    "/jobs/{id}",
    responses={
        200: {"model": ErasedBody, "description": "Erased, with everything that was made of its rows."},
        409: {**PROBLEM, "description": "The job, or one that explains its rows, has not ended: cancel it first."},
        **OF_JOBS,
    },
    response_model=None,
)
async def delete_job(
    request: Request,
    services: ServicesDep,
    caller: ChangeCaller,
    job_id: JobId,
    reason: Annotated[str | None, Query(max_length=500, description="Reason, for the audit log")] = None,
) -> Response:
    """Erase an ended job: its rows, scores, explanations and outcomes, and every copy of them.

    Jobs that explain its rows go with it, and the counters of drift and business figures no longer hold its rows.
    Backups of the database keep what they hold.
    """
    return json_response(await erase(services, request, caller, job_id, reason=reason))
