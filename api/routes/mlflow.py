"""The paths of MLflow's scoring server and of SageMaker's hosts: `/invocations` and `/ping`.

https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/,
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

from typing import Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api.deps import PredictCaller, ServicesDep
from api.health import blocking
from api.http.about import About
from api.http.responses import json_response
from api.protocols.mlflow.errors import MLFLOW
from api.protocols.mlflow.invocations import score_frame
from api.protocols.mlflow.schemas import FRAME, InvocationError, Predictions
from api.schemas.answers import ACCEPTED, ENDED_AS, PREFER
from api.schemas.native import Readiness

router = APIRouter(tags=["mlflow"])

_ERRORS = {
    400: "The body is not one of the forms, its rows do not fit, or the Idempotency-Key came with another body.",
    401: "No API key, or an unknown one.",
    403: "The key lacks the scope `predict`.",
    404: "No such model.",
    409: "The first request with this Idempotency-Key is still being stored.",
    413: "Too many bytes or rows.",
    415: "The body is neither JSON nor CSV in UTF-8.",
    500: "The model raised on a row.",
    503: "Service full, database down, or no model registered: see Retry-After.",
    504: "The job ran out of its own timeout.",
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Predictions, "headers": ENDED_AS},
    202: ACCEPTED,
    **{status: {"model": InvocationError, "description": text} for status, text in _ERRORS.items()},
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": FRAME}, "text/csv": {"schema": {"type": "string"}}},
    },
    "parameters": [PREFER],
}


@router.get(
    "/ping",
    responses={
        200: {"model": Readiness, "description": "The service accepts requests."},
        503: {"model": Readiness, "description": "Not now."},
    },
    response_model=None,
)
async def ping(services: ServicesDep) -> Response:
    """Report whether the service accepts requests, as `/readyz` does: SageMaker's and MLflow's health check."""
    if blocking(services):
        return json_response({"status": "down"}, status=503, headers={"Retry-After": "2"})
    return json_response({"status": "ok"})


@router.post("/invocations", responses=_RESPONSES, openapi_extra=_BODY, response_model=None)
@About(sends="dataframe", protocol=MLFLOW)
async def invoke(request: Request, services: ServicesDep, caller: PredictCaller) -> Response:
    """Score a DataFrame with the default model, as MLflow's scoring server does; all its rows are one job."""
    return await score_frame(request, services, caller, None)


@router.post("/models/{name}/invocations", responses=_RESPONSES, openapi_extra=_BODY, response_model=None)
@About(sends="dataframe", protocol=MLFLOW)
async def invoke_with(
    request: Request,
    services: ServicesDep,
    caller: PredictCaller,
    name: str = Path(description="Model: `name`, `name@3` or `name@alias`"),
) -> Response:
    """Score a DataFrame with a named model, as `/invocations` does with the default one."""
    return await score_frame(request, services, caller, name)
