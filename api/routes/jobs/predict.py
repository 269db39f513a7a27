"""Submitting rows: `/jobs`, `/predict`, `/predict_batch`, and the last two below `/models/{name}`."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api.auth.callers import Caller
from api.deps import ChangeCaller, PredictCaller, ServicesDep, spend_row
from api.http.about import About
from api.http.prefer import Preference
from api.jobs.finding import refuse_own_id
from api.jobs.include import INCLUDES
from api.jobs.requests import read_batch, read_single
from api.jobs.submissions import CLIENT_ID, preference_of, submit
from api.schemas.answers import ACCEPTED, ENDED, ENDED_AS, KEY, PREFER, PROBLEM, REFUSALS
from api.schemas.native import BatchBody, BatchResult, Result, SubmitBody
from api.services import Services

router = APIRouter(tags=["predict"])

_ID_IN_USE = "The id is that of a job already, or the first request with it is still being stored."


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
    openapi_extra=_body(SubmitBody, KEY),
    response_model=None,
)
@About(sends="row", is_fast=True)
async def post_job(request: Request, services: ServicesDep, caller: PredictCaller) -> Response:
    """Submit one row and get a ticket: the answer is 202 at once, the result follows at `/jobs/{id}`."""
    submitted = await read_single(services, request, None)
    return await submit(services, request, caller, submitted, _ticket_only(services, request))


def _ticket_only(services: Services, request: Request) -> Preference:
    applied = preference_of(services, request).applied or ""
    return Preference(0, "respond-async" if "respond-async" in applied else None)


@router.put(
    "/jobs/{id}",
    status_code=202,
    responses={202: ACCEPTED, **REFUSALS, 409: {**PROBLEM, "description": _ID_IN_USE}},
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
    """Submit one row under your own id: a repeated request is the same job, and `/jobs/{id}` accepts that id.

    A different body under the same id gets 422, and the service's own id of an existing job gets 409.
    """
    await spend_row(request, caller)
    await refuse_own_id(services, caller, client_id)
    submitted = await read_single(services, request, None, client_id=client_id)
    return await submit(services, request, caller, submitted, _ticket_only(services, request))


@router.post(
    "/predict",
    dependencies=[INCLUDES],
    responses={200: {"model": Result, "headers": ENDED_AS}, 202: ACCEPTED, **REFUSALS, **ENDED},
    openapi_extra=_body(SubmitBody, KEY),
    response_model=None,
)
@About(sends="row", is_fast=True)
async def predict(request: Request, services: ServicesDep, caller: PredictCaller) -> Response:
    """Score one row: 200 with the result if it ends within the wait, otherwise 202 and the job goes on."""
    return await _predict(request, services, caller, None)


@router.post(
    "/models/{name}/predict",
    dependencies=[INCLUDES],
    responses={200: {"model": Result, "headers": ENDED_AS}, 202: ACCEPTED, **REFUSALS, **ENDED},
    openapi_extra=_body(SubmitBody, KEY),
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
    dependencies=[INCLUDES],
    responses={200: {"model": BatchResult, "headers": ENDED_AS}, 202: ACCEPTED, **REFUSALS, **ENDED},
    openapi_extra=_body(BatchBody, KEY),
    response_model=None,
)
@About(sends="rows", is_fast=True)
async def predict_batch(request: Request, services: ServicesDep, caller: PredictCaller) -> Response:
    """Score several rows in one job: results in input order, each row with its own status."""
    return await _predict_batch(request, services, caller, None)


@router.post(
    "/models/{name}/predict_batch",
    dependencies=[INCLUDES],
    responses={200: {"model": BatchResult, "headers": ENDED_AS}, 202: ACCEPTED, **REFUSALS, **ENDED},
    openapi_extra=_body(BatchBody, KEY),
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
