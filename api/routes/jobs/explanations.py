"""Explanations of scores: `/explain`, the same below `/models/{name}`, and all rows of a job."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.auth.callers import Caller
from api.deps import JobId, PredictCaller, ReadCaller, ServicesDep
from api.files.explanations import submit_explanations
from api.http.about import About
from api.http.responses import json_response
from api.jobs.audits import audit_read
from api.jobs.explanations import list_stored, read_explain
from api.jobs.finding import find_own_job
from api.jobs.requests import MAX_EXPIRES_IN
from api.jobs.submissions import preference_of, submit
from api.schemas.answers import ACCEPTED, ENDED, ENDED_AS, KEY, OF_JOBS, PREFER, PROBLEM, REFUSALS, TICKET
from api.schemas.explanations import ExplainJobBody, ExplanationPage, ExplanationResult
from api.schemas.native import JobBody, SubmitBody
from api.services import Services
from shared.errors import InvalidRequest
from shared.faults import Fault

router = APIRouter(tags=["explain"])

# The body is read by hand (strictly, and only once), so OpenAPI is told of it by hand.
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [
                        {"$ref": f"#/components/schemas/{body.__name__}"} for body in (SubmitBody, ExplainJobBody)
                    ]
                }
            }
        },
    },
    "parameters": [PREFER, KEY],
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": ExplanationResult, "headers": ENDED_AS},
    202: ACCEPTED,
    **REFUSALS,
    410: OF_JOBS[410],
    **ENDED,
}


@router.post("/explain", responses=_ANSWERS, openapi_extra=_BODY, response_model=None)
@About(sends="row", explains=True)
async def explain(request: Request, services: ServicesDep, caller: PredictCaller) -> Response:
    """Explain the score of one row, or of a row of a job: the contribution of each feature, the largest first.

    A job like any other: 200 with the explanation if it ends within the wait, otherwise 202 and the job goes on.
    """
    return await _explain(request, services, caller, None)


@router.post("/models/{name}/explain", responses=_ANSWERS, openapi_extra=_BODY, response_model=None)
@About(sends="row", explains=True)
async def explain_with(
    request: Request,
    services: ServicesDep,
    caller: PredictCaller,
    name: str = Path(description="Model: `name`, `name@3` or `name@alias`"),
) -> Response:
    """Explain the score of one row by a named model, as `/explain` does with the default one."""
    return await _explain(request, services, caller, name)


async def _explain(request: Request, services: Services, caller: Caller, name: str | None) -> Response:
    submitted = await read_explain(services, request, caller, name)
    return await submit(services, request, caller, submitted, preference_of(services, request))


@router.post(
    "/jobs/{id}/explain",
    status_code=202,
    responses={
        202: {"model": JobBody, "description": "Accepted. Location is the address to poll.", "headers": TICKET},
        400: {
            **PROBLEM,
            "description": "The Idempotency-Key is too long or not printable.",
        },
        409: {**PROBLEM, "description": "The job has not ended, or none of its rows has a score."},
        422: {**PROBLEM, "description": "Its model cannot be explained, or a parameter is not valid."},
        429: {**PROBLEM, "description": "Over the caller's quota: see Retry-After."},
        **OF_JOBS,
    },
    openapi_extra={"parameters": [KEY]},
    response_model=None,
)
async def explain_job(
    request: Request,
    services: ServicesDep,
    caller: PredictCaller,
    job_id: JobId,
    expires_in: Annotated[
        float | None,
        Query(
            ge=1, le=MAX_EXPIRES_IN, description=("Longest time in the queue, in seconds; after that, the job expires.")
        ),
    ] = None,
    timeout: Annotated[float | None, Query(ge=1, description="Time limit of one chunk of rows, in seconds.")] = None,
) -> Response:
    """Explain every row of an ended job, in the background: a job of its own, with progress.

    Its `output.csv`, also as Parquet, has a line for each row and a column for each feature. Rows without a score have
    their error there. It can be canceled, followed and retried like a CSV job.
    """
    cap = services.settings.job_timeout_cap_seconds
    if timeout is not None and timeout > cap:
        fault = Fault("/query/timeout", "range", f"must be a number of seconds between 1 and {cap:.0f}")
        raise InvalidRequest("The timeout is too long.", faults=[fault])
    source = await find_own_job(services, caller, job_id)
    await audit_read(services, request, caller, source, what="explanations")
    return await submit_explanations(services, request, caller, source, expires_in=expires_in, timeout=timeout)


@router.get(
    "/jobs/{id}/explanations",
    responses={
        200: {"model": ExplanationPage},
        409: {**PROBLEM, "description": "The job has no rows: an upload of a model, or a training."},
        **OF_JOBS,
    },
    response_model=None,
)
async def get_explanations(
    request: Request,
    services: ServicesDep,
    caller: ReadCaller,
    job_id: JobId,
    row: Annotated[int | None, Query(ge=0, lt=2**31, description="Only this row of the job, from 0")] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Rows of the job in one page")] = 50,
    after: Annotated[int, Query(ge=-1, lt=2**31, description="Only rows after this one: the cursor")] = -1,
) -> Response:
    """Read the stored explanations of a job's rows, whoever requested them; follow `next` for further rows.

    Rows without an explanation are left out. For a job that explains another one, these are the other job's rows.
    """
    job = await find_own_job(services, caller, job_id)
    await audit_read(services, request, caller, job, what="explanations")
    body = await run_in_threadpool(list_stored, services, job, row=row, after=after, limit=limit)
    return json_response(body)
