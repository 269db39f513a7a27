"""Jobs: list, poll, read the result, cancel, run the rest again."""

import hashlib
from typing import Annotated, Any, Literal
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.deps import ChangeCaller, JobId, ListCaller, ReadCaller, ServicesDep
from api.http.conditional import matches
from api.http.prefer import read_preference
from api.http.prefix import link
from api.http.responses import json_response
from api.http.wording import response_names
from api.jobs.audits import audit_read
from api.jobs.finding import find_own_job
from api.jobs.include import INCLUDES
from api.jobs.serializers import job_body
from api.jobs.submissions import accepted_response, error_of, find_job, result_of
from api.schemas.answers import APPLIED, OF_JOBS, PROBLEM, TICKET, header
from api.schemas.native import BatchResult, CsvResult, JobBody, JobPage, Result
from api.services import Services
from shared.errors import Conflict
from shared.faults import counted
from shared.jobs import chunks
from shared.jobs import transitions as jobs
from shared.jobs.kinds import kind_of
from shared.jobs.queries import TERMINAL, StoredJob, list_jobs
from shared.tables import JobKind, JobState

router = APIRouter(tags=["jobs"])


@router.get(
    "/jobs",
    responses={200: {"model": JobPage}, 401: OF_JOBS[401], 403: OF_JOBS[403], 503: OF_JOBS[503]},
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
    limit: Annotated[int, Query(ge=1, le=200, description="Jobs on a page")] = 50,
    before: Annotated[UUID | None, Query(description="Only jobs older than this one: the cursor")] = None,
) -> Response:
    """List your jobs, newest first; follow `next` for older ones."""
    versions = None if model is None else _versions(services, model)

    def read() -> list[StoredJob]:
        with services.reader.connect() as connection:
            return list_jobs(
                connection,
                owner=caller.sees,
                before=None if before is None else str(before),
                limit=limit + 1,
                state=None if status is None else status.value,
                model_version_ids=versions,
            )

    found = await run_in_threadpool(read)
    page = found[:limit]
    following = None
    if len(found) > limit:
        place = {"limit": limit, "before": page[-1].id, "status": status and status.value, "model": model}
        following = link("/jobs?") + urlencode(
            {name: value for name, value in place.items() if value is not None}, safe="@"
        )
    return json_response({"items": [_body(services, request, job) for job in page], "next": following})


def _versions(services: Services, reference: str) -> list[int]:
    """Return the ids of the versions that `name` means, which are all of them, or `name@3` or `name@alias`."""
    if "@" not in reference:
        return [version.id for version in services.catalog.picture.by_name.get(reference, {}).values()]
    version = services.catalog.find(reference, None)
    return [] if version is None else [version.id]


_ETAG = header("Of the answer as it stands, for `If-None-Match`", always=True)
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
    place = await services.runtime.count_place(job)
    headers = {} if job.is_terminal else {"Retry-After": str(place.retry_after)}
    if preference.applied is not None:
        headers["Preference-Applied"] = preference.applied
    response = json_response(
        _body(services, request, job, position=place.position, eta_seconds=place.eta_seconds), headers=headers
    )
    etag = f'"{hashlib.sha256(bytes(response.body)).hexdigest()[:32]}"'
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers={"ETag": etag, **headers})
    response.headers["ETag"] = etag
    return response


@router.get(
    "/jobs/{id}/result",
    dependencies=[INCLUDES],
    responses={
        200: {"model": Result | BatchResult | CsvResult},
        202: {"model": JobBody, "description": "Not yet finished.", "headers": TICKET},
        409: {**PROBLEM, "description": "Failed, canceled or expired: there is no result."},
        **OF_JOBS,
    },
    response_model=None,
)
async def get_result(request: Request, services: ServicesDep, caller: ReadCaller, job_id: JobId) -> Response:
    """Read the result: one score, every row of a batch in input order, or where the files of a CSV job are.

    With `include=quality`, each row says how unusual it is beside the reference of its version.
    """
    job = await find_own_job(services, caller, job_id)
    if not job.is_terminal:
        return accepted_response(services, request, job, {})
    if job.state != JobState.SUCCEEDED:
        raise Conflict(error_of(job).detail, job_id=job.id)
    await audit_read(services, request, caller, job, what="result")
    return json_response(await result_of(services, request, job))


@router.post(
    "/jobs/{id}/cancel",
    responses={
        200: {"model": JobBody, "description": "It was queued: it is canceled."},
        202: {
            "model": JobBody,
            "description": "It runs: it is canceled as soon as its worker sees it.",
            "headers": TICKET,
        },
        409: {**PROBLEM, "description": "It has ended already."},
        **OF_JOBS,
    },
    response_model=None,
)
async def cancel_job(request: Request, services: ServicesDep, caller: ChangeCaller, job_id: JobId) -> Response:
    """Cancel a job: at once while it is queued, cooperatively while it runs.

    Rows of a file that are scored already stay: `output.csv?partial=true` has them.
    """
    found = await find_own_job(services, caller, job_id)

    def cancel() -> str | None:
        if kind_of(found.kind).is_chunked:
            with services.bulk_engine.begin() as connection:
                return chunks.cancel(connection, found.id)
        with services.engine.begin() as connection:
            return jobs.cancel(connection, found.id)

    state = await run_in_threadpool(cancel)
    job = await find_own_job(services, caller, job_id)
    if state is None:
        raise Conflict(f"The job has already ended: it {_ended_as(job)}.", job_id=job.id)
    if state in TERMINAL:
        return json_response(_body(services, request, job))
    return accepted_response(services, request, job, {})


@router.post(
    "/jobs/{id}/retry",
    status_code=202,
    responses={
        202: {"model": JobBody, "description": "Queued again, for the rows that are left.", "headers": TICKET},
        409: {**PROBLEM, "description": "It has not ended, nothing is left of it, or it is no CSV job."},
        **OF_JOBS,
    },
    response_model=None,
)
async def retry_job(
    request: Request,
    services: ServicesDep,
    caller: ChangeCaller,
    job_id: JobId,
    only: Annotated[Literal["failed"], Query(description="What to run again: what has no result yet")] = "failed",
) -> Response:
    """Take up the rest of a job of chunks that was canceled or has failed: the rows that were not scored or explained.

    What is stored stays. Rows that do not fit the card are not tried again: send them, corrected, as a new file.
    """
    job = await find_own_job(services, caller, job_id)
    if not kind_of(job.kind).can_resume:
        raise Conflict("Only CSV jobs can be taken up again: send this request again as a new job.", job_id=job.id)
    if not job.is_terminal:
        raise Conflict(f"The job is still {job.state}: cancel it first, or wait for its end.", job_id=job.id)

    def retry() -> bool:
        with services.bulk_engine.begin() as connection:
            return chunks.reopen(connection, job.id)

    reopened = await run_in_threadpool(retry)
    job = await find_own_job(services, caller, job_id)
    if not reopened:
        raise Conflict(_why_not_again(job), job_id=job.id)
    services.runtime.notify_files(job.model_version_id)
    return accepted_response(services, request, job, {})


def _why_not_again(job: StoredJob) -> str:
    if not job.is_terminal:
        return f"The job is {job.state} already: somebody else has taken it up."
    if job.kind == JobKind.EXPLAIN_BATCH and job.csv is not None and job.csv.rows_failed:
        return (
            f"There is nothing to take up: {counted(job.csv.rows_failed, 'row')} cannot be explained. "
            f"{link(f'/jobs/{job.id}/errors.csv')} says why."
        )
    if job.csv is not None and job.csv.rows_failed:
        return (
            f"There is nothing to take up: the model's card refuses {counted(job.csv.rows_failed, 'row')}. "
            f"{link(f'/jobs/{job.id}/errors.csv')} says why; send them, corrected, as a new file."
        )
    return "There is nothing to take up: every row was scored."


def _ended_as(job: StoredJob) -> str:
    return f"was {job.state}" if job.state == JobState.CANCELED else job.state


def _body(services: Services, request: Request, job: StoredJob, **place: Any) -> dict[str, Any]:  # noqa: ANN401
    version = services.catalog.picture.by_id[job.model_version_id]
    return job_body(job, version, response_names(request, version.card), **place)
