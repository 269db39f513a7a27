"""The Open Inference Protocol, version 2, over the same queue, for clients of KServe, Triton and MLServer.

https://github.com/kserve/open-inference-protocol, with Triton's binary tensor data and model repository (index)
extensions.
"""

from typing import Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api.deps import PredictCaller, ReadCaller, ServicesDep
from api.health import blocking
from api.http.about import About
from api.http.responses import json_response
from api.protocols.open_inference.body import BINARY, JSON_LENGTH
from api.protocols.open_inference.errors import OPEN_INFERENCE, PREFIX
from api.protocols.open_inference.inference import model_metadata
from api.protocols.open_inference.requests import find_version_of, read_index, score_tensors
from api.protocols.open_inference.schemas import (
    InferenceError,
    InferenceResult,
    ModelMetadata,
    ModelReady,
    RepositoryEntry,
    ServerLive,
    ServerMetadata,
    ServerReady,
)
from api.schemas.answers import ACCEPTED, ENDED_AS, PREFER
from api.services import Services
from shared.version import VERSION

router = APIRouter(prefix=PREFIX, tags=["open inference"])

EXTENSIONS = ["binary_tensor_data", "model_repository"]

Responses = dict[int | str, dict[str, Any]]
_KEYS: Responses = {
    401: {"model": InferenceError, "description": "No API key, or an unknown one."},
    403: {"model": InferenceError, "description": "The key lacks the scope."},
}
_MISSING: Responses = {
    **_KEYS,
    404: {"model": InferenceError, "description": "No such model or version."},
    503: {"model": InferenceError, "description": "No model is registered, or the database does not answer."},
}
_READY: Responses = {
    **_MISSING,
    200: {"model": ModelReady, "description": "It accepts requests."},
    503: {"model": ModelReady, "description": "Not now."},
}
_BYTES = {BINARY: {"schema": {"type": "string", "format": "binary"}}}
_INFER: Responses = {
    200: {
        "model": InferenceResult,
        "description": "The outputs; with tensors in bytes, JSON and then those bytes.",
        "content": _BYTES,
        "headers": ENDED_AS,
    },
    202: ACCEPTED,
    **_MISSING,
    400: {"model": InferenceError, "description": "The tensors do not fit, or the Idempotency-Key had another body."},
    409: {"model": InferenceError, "description": "The first request with this Idempotency-Key is still being stored."},
    413: {"model": InferenceError, "description": "Too many bytes or rows."},
    415: {"model": InferenceError, "description": "Neither JSON nor JSON with tensors in bytes."},
    500: {"model": InferenceError, "description": "The model raised on a row."},
    504: {"model": InferenceError, "description": "The job ran out of its own timeout."},
}
_INFER_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/InferenceBody"}}, **_BYTES},
    },
    "parameters": [
        PREFER,
        {
            "name": JSON_LENGTH,
            "in": "header",
            "schema": {"type": "integer"},
            "description": "Bytes of JSON at the beginning of the body; the tensors in bytes follow",
        },
    ],
}
_INDEX_BODY: dict[str, Any] = {
    "requestBody": {
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "ready": {
                            "type": ["boolean", "null"],
                            "description": "true: leave out versions that cannot be loaded.",
                        }
                    },
                }
            }
        }
    }
}
_NAME = Path(description="Model: `name`, `name@3` or `name@alias`")
_VERSION = Path(description="Version number")


# ── the server ───────────────────────────────────────────────────────────────────────────────────────────────────


@router.get("", responses={200: {"model": ServerMetadata}, **_KEYS}, response_model=None)
async def get_server(services: ServicesDep, caller: ReadCaller) -> Response:
    """Report the server's name, version and protocol extensions."""
    return json_response({"name": "guichet", "version": VERSION, "extensions": EXTENSIONS})


@router.get("/health/live", responses={200: {"model": ServerLive}}, response_model=None)
async def get_live() -> Response:
    """Answer while the process lives."""
    return json_response({"live": True})


@router.get("/health/ready", responses={200: {"model": ServerReady}, 503: {"model": ServerReady}}, response_model=None)
async def get_ready(services: ServicesDep) -> Response:
    """Report whether the service accepts requests, as `/readyz` does."""
    return _ready({}, is_ready=not blocking(services))


@router.post(
    "/repository/index",
    responses={200: {"model": list[RepositoryEntry]}, **_KEYS},
    openapi_extra=_INDEX_BODY,
    response_model=None,
)
async def post_index(request: Request, services: ServicesDep, caller: ReadCaller) -> Response:
    """List every version of every model; with a true `ready` in the body, only those that can be loaded."""
    return json_response(await read_index(request, services, caller))


# ── a model ──────────────────────────────────────────────────────────────────────────────────────────────────────


@router.get("/models/{name}", responses={200: {"model": ModelMetadata}, **_MISSING}, response_model=None)
async def get_metadata(services: ServicesDep, caller: ReadCaller, name: str = _NAME) -> Response:
    """Read the inputs and outputs of the serving version."""
    return await _metadata(services, name, None)


@router.get(
    "/models/{name}/versions/{version}", responses={200: {"model": ModelMetadata}, **_MISSING}, response_model=None
)
async def get_version_metadata(
    services: ServicesDep, caller: ReadCaller, name: str = _NAME, version: str = _VERSION
) -> Response:
    """Read the inputs and outputs of one version."""
    return await _metadata(services, name, version)


@router.get("/models/{name}/ready", responses=_READY, response_model=None)
async def get_model_ready(services: ServicesDep, caller: ReadCaller, name: str = _NAME) -> Response:
    """Report whether the serving version accepts requests: at least one live worker can load it."""
    return await _model_ready(services, name, None)


@router.get("/models/{name}/versions/{version}/ready", responses=_READY, response_model=None)
async def get_version_ready(
    services: ServicesDep, caller: ReadCaller, name: str = _NAME, version: str = _VERSION
) -> Response:
    """Report whether one version accepts requests."""
    return await _model_ready(services, name, version)


@router.post("/models/{name}/infer", responses=_INFER, openapi_extra=_INFER_BODY, response_model=None)
@About(sends="tensors", protocol=OPEN_INFERENCE, is_fast=True)
async def infer(request: Request, services: ServicesDep, caller: PredictCaller, name: str = _NAME) -> Response:
    """Score the rows in tensors as one job; the answer waits for the result, unless the caller prefers otherwise."""
    return await score_tensors(request, services, caller, name, None)


@router.post(
    "/models/{name}/versions/{version}/infer", responses=_INFER, openapi_extra=_INFER_BODY, response_model=None
)
@About(sends="tensors", protocol=OPEN_INFERENCE, is_fast=True)
async def infer_with(
    request: Request, services: ServicesDep, caller: PredictCaller, name: str = _NAME, version: str = _VERSION
) -> Response:
    """Score the rows in tensors with one version."""
    return await score_tensors(request, services, caller, name, version)


async def _metadata(services: Services, name: str, number: str | None) -> Response:
    version = await find_version_of(services, name, number)
    return json_response(model_metadata(version, sorted(services.catalog.snapshot.by_name[version.card.name])))


async def _model_ready(services: Services, name: str, number: str | None) -> Response:
    version = await find_version_of(services, name, number)
    models = services.runtime.model_states()
    is_usable = models.has_worker and version.label not in models.loading and version.label not in models.refused
    is_ready = is_usable and services.catalog.is_connected
    return _ready({"name": version.card.name}, is_ready=is_ready)


def _ready(body: dict[str, Any], *, is_ready: bool) -> Response:
    headers = {} if is_ready else {"Retry-After": "2"}
    return json_response({**body, "ready": is_ready}, status=200 if is_ready else 503, headers=headers)
