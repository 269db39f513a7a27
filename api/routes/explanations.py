"""Asking why a row has its score: `/explain`, and the same below `/models/{name}`."""

from typing import Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api.auth.callers import Caller
from api.deps import PredictCaller, ServicesDep
from api.http.about import About
from api.jobs.explanations import read_explain
from api.jobs.submissions import preference_of, submit
from api.schemas.answers import ACCEPTED, ENDED, ENDED_AS, KEY, PREFER, REFUSALS
from api.schemas.explanations import ExplainJobBody, ExplanationResult
from api.schemas.native import SubmitBody
from api.services import Services

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
    **ENDED,
}


@router.post("/explain", responses=_ANSWERS, openapi_extra=_BODY, response_model=None)
@About(sends="row", explains=True)
async def explain(request: Request, services: ServicesDep, caller: PredictCaller) -> Response:
    """Explain the score of one row, or of a row of a job: what each feature adds to it, the largest first.

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
    """Explain the score that a named model gives one row, as `/explain` does with the default one."""
    return await _explain(request, services, caller, name)


async def _explain(request: Request, services: Services, caller: Caller, name: str | None) -> Response:
    submitted = await read_explain(services, request, caller, name)
    return await submit(services, request, caller, submitted, preference_of(services, request))
