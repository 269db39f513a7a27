"""Submitting rows: `/jobs`, `/predict`, `/predict_batch`, and the last two below `/models/{name}`."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api.auth.callers import Caller
from api.deps import ChangeCaller, PredictCaller, ServicesDep, spend_row
from api.http.about import About
from api.http.prefer import Preference
from api.http.responses import ENDED_AS, PROBLEM, TICKET
from api.jobs.requests import read_batch, read_single
from api.jobs.submissions import CLIENT_ID, preference_of, submit
from api.routes.jobs import refuse_own_id
from api.schemas.native import BatchBody, BatchResult, JobBody, Result, SubmitBody
from api.services import Services

router = APIRouter(tags=["predict"])

ACCEPTED: dict[str, Any] = {
    "model": JobBody,
    "description": "Accepted and stored: Location says where to poll, Retry-After when.",
    "headers": TICKET,
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {**PROBLEM, "description": text}
    for status, text in {
        400: "The body is not plain JSON.",
        401: "No API key, or an unknown one.",
        403: "The key lacks the scope `predict`.",
        404: "No such model or version.",
        409: "The first request with this Idempotency-Key is still being stored.",
        413: "Too many bytes or rows.",
        415: "The body is not JSON.",
        422: "The row does not fit the card; every fault is listed.",
        429: "Over the caller's quota: see Retry-After.",
        503: "Service full, database down, or no model registered: see Retry-After.",
    }.items()
}
ENDED: dict[int | str, dict[str, Any]] = {
    500: {**PROBLEM, "description": "The model raised on this row."},
    504: {**PROBLEM, "description": "The job ran out of its own timeout."},
}
_TAKEN = "The id is that of a job already, or the first request with it is still being stored."

PREFER = {  # as OpenAPI is told of it
    "name": "Prefer",
    "in": "header",
    "schema": {"type": "string"},
    "description": "`respond-async`, or `wait=N` seconds (RFC 7240)",
}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "Sending the same request again with the same key gives the same job",
}


def _body(schema: type[SubmitBody] | type[BatchBody], *parameters: dict[str, Any]) -> dict[str, Any]:
    # The body is read by hand (strictly, and only once), so OpenAPI is told of it by hand.
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema.__name__}"}}},
        },
        "parameters": [
            PREFER,
            *parameters,
        ],
    }


@router.post(
    "/jobs",
    status_code=202,
    responses={202: ACCEPTED, **REFUSALS},
    openapi_extra=_body(SubmitBody, _KEY),
    response_model=None,
)
@About(sends="row", is_fast=True)
async def post_job(request: Request, services: ServicesDep, caller: PredictCaller) -> Response:
    """Submit one row and take a ticket: the answer is 202 at once, the result waits at `/jobs/{id}`."""
    submitted = await read_single(services, request, None)
    return await submit(services, request, caller, submitted, _ticket_only(services, request))


def _ticket_only(services: Services, request: Request) -> Preference:
    asked = preference_of(services, request).applied or ""
    return Preference(0, "respond-async" if "respond-async" in asked else None)


@router.put(
    "/jobs/{id}",
    status_code=202,
    responses={202: ACCEPTED, **REFUSALS, 409: {**PROBLEM, "description": _TAKEN}},
    openapi_extra=_body(SubmitBody),
    response_model=None,
)
@About(sends="row")
async def put_job(
    request: Request,
    services: ServicesDep,
    caller: ChangeCaller,
    client_id: Annotated[str, Path(alias="id", pattern=CLIENT_ID, description="An id of your own")],
) -> Response:
    """Submit one row under an id of your own: sent again, it is the same job, and `/jobs/{id}` knows it by that id.

    Another body under the same id is refused with 422, the id of a job that there is with 409.
    """
    await spend_row(request, caller)
    await refuse_own_id(services, caller, client_id)
    submitted = await read_single(services, request, None, client_id=client_id)
    return await submit(services, request, caller, submitted, _ticket_only(services, request))


@router.post(
    "/predict",
    responses={200: {"model": Result, "headers": ENDED_AS}, 202: ACCEPTED, **REFUSALS, **ENDED},
    openapi_extra=_body(SubmitBody, _KEY),
    response_model=None,
)
@About(sends="row", is_fast=True)
async def predict(request: Request, services: ServicesDep, caller: PredictCaller) -> Response:
    """Score one row: 200 with the result if it ends within the wait, otherwise 202 and the job goes on."""
    return await _predict(request, services, caller, None)


@router.post(
    "/models/{name}/predict",
    responses={200: {"model": Result, "headers": ENDED_AS}, 202: ACCEPTED, **REFUSALS, **ENDED},
    openapi_extra=_body(SubmitBody, _KEY),
    response_model=None,
)
@About(sends="row", is_fast=True)
async def predict_with(
    request: Request,
    services: ServicesDep,
    caller: PredictCaller,
    name: str = Path(description="Model: `name`, `name@3` or `name@alias`"),
) -> Response:
    """Score one row with a named model, as `/predict` does with the default one."""
    return await _predict(request, services, caller, name)


async def _predict(request: Request, services: Services, caller: Caller, name: str | None) -> Response:
    submitted = await read_single(services, request, name)
    return await submit(services, request, caller, submitted, preference_of(services, request))


@router.post(
    "/predict_batch",
    responses={200: {"model": BatchResult, "headers": ENDED_AS}, 202: ACCEPTED, **REFUSALS, **ENDED},
    openapi_extra=_body(BatchBody, _KEY),
    response_model=None,
)
@About(sends="rows", is_fast=True)
async def predict_batch(request: Request, services: ServicesDep, caller: PredictCaller) -> Response:
    """Score several rows in one job: results in input order, each row with its own status."""
    return await _predict_batch(request, services, caller, None)


@router.post(
    "/models/{name}/predict_batch",
    responses={200: {"model": BatchResult, "headers": ENDED_AS}, 202: ACCEPTED, **REFUSALS, **ENDED},
    openapi_extra=_body(BatchBody, _KEY),
    response_model=None,
)
@About(sends="rows", is_fast=True)
async def predict_batch_with(
    request: Request,
    services: ServicesDep,
    caller: PredictCaller,
    name: str = Path(description="Model: `name`, `name@3` or `name@alias`"),
) -> Response:
    """Score several rows with a named model, as `/predict_batch` does with the default one."""
    return await _predict_batch(request, services, caller, name)


async def _predict_batch(request: Request, services: Services, caller: Caller, name: str | None) -> Response:
    submitted = await read_batch(services, request, name)
    return await submit(services, request, caller, submitted, preference_of(services, request))
