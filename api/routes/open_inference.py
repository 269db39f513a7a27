"""The Open Inference Protocol, version 2, over the same queue: the clients of KServe, Triton and MLServer keep theirs.

https://github.com/kserve/open-inference-protocol, with Triton's binary tensor data and model repository (index)
extensions.
"""

import gzip
import zlib
from typing import Any

from fastapi import APIRouter, Path, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.auth.callers import Caller
from api.deps import PredictCaller, ReadCaller, ServicesDep
from api.health import blocking
from api.http.about import About
from api.http.responses import ENDED_AS, json_response
from api.jobs.json_body import in_turn, most_of, parse_json, read_body
from api.jobs.requests import find_version, submitted_rows
from api.jobs.submissions import submit_for_scores
from api.models.catalog import Version
from api.protocols.open_inference.body import BINARY, JSON_LENGTH, read_tensor_body
from api.protocols.open_inference.errors import OPEN_INFERENCE, PREFIX
from api.protocols.open_inference.inference import Inference, inference_answer, model_metadata, read_inference
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
from api.routes.predict import ACCEPTED, PREFER
from api.services import Services
from shared.errors import RowFaults
from shared.jobs.queries import StoredJob, StoredOutput
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
    200: {"model": ModelReady, "description": "It can be asked."},
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
                            "description": "True leaves out what cannot be loaded.",
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
    """Tell which server this is, and which extensions of the protocol it has."""
    return json_response({"name": "guichet", "version": VERSION, "extensions": EXTENSIONS})


@router.get("/health/live", responses={200: {"model": ServerLive}}, response_model=None)
async def get_live() -> Response:
    """Answer as long as the process does."""
    return json_response({"live": True})


@router.get("/health/ready", responses={200: {"model": ServerReady}, 503: {"model": ServerReady}}, response_model=None)
async def get_ready(services: ServicesDep) -> Response:
    """Tell whether requests can be taken, as `/readyz` does."""
    return _ready({}, is_ready=not blocking(services))


@router.post(
    "/repository/index",
    responses={200: {"model": list[RepositoryEntry]}, **_KEYS},
    openapi_extra=_INDEX_BODY,
    response_model=None,
)
async def post_index(request: Request, services: ServicesDep, caller: ReadCaller) -> Response:
    """List every version of every model; a body with a true `ready` leaves out those that cannot be loaded."""
    body = await read_body(request, max_bytes=services.settings.max_body_bytes)
    asked = await in_turn(len(body), lambda: parse_json(body) if body.strip() else {})
    if not isinstance(asked, dict):
        raise RowFaults('The body must be an object such as {"ready": true}, or left out.')
    if not isinstance(asked.get("ready", False), bool | None):
        raise RowFaults("`ready` must be true or false: true leaves out what cannot be loaded.")
    refused = services.runtime.model_states().refused
    if caller.is_visitor:  # the reasons name paths
        refused = dict.fromkeys(refused, "It cannot be loaded.")
    entries = [
        {
            "name": name,
            "version": str(number),
            "state": "UNAVAILABLE" if version.label in refused else "READY",
            "reason": refused.get(version.label, ""),
        }
        for name, versions in sorted(services.catalog.picture.by_name.items())
        for number, version in sorted(versions.items())
    ]
    return json_response([entry for entry in entries if entry["state"] == "READY" or asked.get("ready") is not True])


# ── a model ──────────────────────────────────────────────────────────────────────────────────────────────────────


@router.get("/models/{name}", responses={200: {"model": ModelMetadata}, **_MISSING}, response_model=None)
async def get_metadata(services: ServicesDep, caller: ReadCaller, name: str = _NAME) -> Response:
    """Read the inputs and outputs of the version that serves now."""
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
    """Tell whether the version that serves now can be asked: a worker is there that can load it."""
    return await _model_ready(services, name, None)


@router.get("/models/{name}/versions/{version}/ready", responses=_READY, response_model=None)
async def get_version_ready(
    services: ServicesDep, caller: ReadCaller, name: str = _NAME, version: str = _VERSION
) -> Response:
    """Tell whether one version can be asked."""
    return await _model_ready(services, name, version)


@router.post("/models/{name}/infer", responses=_INFER, openapi_extra=_INFER_BODY, response_model=None)
@About(sends="tensors", protocol=OPEN_INFERENCE, is_fast=True)
async def infer(request: Request, services: ServicesDep, caller: PredictCaller, name: str = _NAME) -> Response:
    """Score the rows that tensors hold, as one job; the answer waits for it, unless the caller prefers otherwise."""
    return await _infer(request, services, caller, name, None)


@router.post(
    "/models/{name}/versions/{version}/infer", responses=_INFER, openapi_extra=_INFER_BODY, response_model=None
)
@About(sends="tensors", protocol=OPEN_INFERENCE, is_fast=True)
async def infer_with(
    request: Request, services: ServicesDep, caller: PredictCaller, name: str = _NAME, version: str = _VERSION
) -> Response:
    """Score the rows that tensors hold with one version."""
    return await _infer(request, services, caller, name, version)


async def _metadata(services: Services, name: str, number: str | None) -> Response:
    version = await _find(services, name, number)
    return json_response(model_metadata(version, sorted(services.catalog.picture.by_name[version.card.name])))


async def _model_ready(services: Services, name: str, number: str | None) -> Response:
    version = await _find(services, name, number)
    models = services.runtime.model_states()
    is_usable = models.has_worker and version.label not in models.loading and version.label not in models.refused
    is_ready = is_usable and services.catalog.is_connected
    return _ready({"name": version.card.name}, is_ready=is_ready)


def _ready(body: dict[str, Any], *, is_ready: bool) -> Response:
    headers = {} if is_ready else {"Retry-After": "2"}
    return json_response({**body, "ready": is_ready}, status=200 if is_ready else 503, headers=headers)


async def _find(services: Services, name: str, number: str | None) -> Version:
    """Return the version that a path means; a text that is no number is no version."""
    if number is None:
        return await find_version(services, name, None)
    is_number = number.isascii() and number.isdigit() and len(number) < 10
    return await find_version(services, name, int(number) if is_number else 0)


# ── inference ────────────────────────────────────────────────────────────────────────────────────────────────────


async def _infer(request: Request, services: Services, caller: Caller, name: str, number: str | None) -> Response:
    settings = services.settings
    max_rows = settings.max_batch_rows
    # Each element of a tensor may be in a list of its own.
    most = most_of(max_rows, containers=100, features=services.catalog.picture.widest)
    body = await read_tensor_body(request, max_bytes=settings.max_body_bytes, most=most)
    version = await _find(services, name, number)
    inference = await in_turn(len(body.raw), lambda: read_inference(version, body, max_rows=max_rows))

    async def render(job: StoredJob, outputs: list[StoredOutput]) -> Response:
        return await _answer(services, request, job, inference, outputs)

    submitted = submitted_rows(services, version, inference.rows, body.raw)
    return await submit_for_scores(services, request, caller, submitted, render=render)


async def _answer(
    services: Services, request: Request, job: StoredJob, inference: Inference, outputs: list[StoredOutput]
) -> Response:
    version = services.catalog.picture.by_id[job.model_version_id]
    if job.row_count > 100:
        body, head = await run_in_threadpool(inference_answer, version, inference, outputs, job_id=job.id)
    else:
        body, head = inference_answer(version, inference, outputs, job_id=job.id)
    headers = {} if head is None else {JSON_LENGTH: str(head)}
    # Only who asks for one coding alone, as Triton's client does, gets it: most name several out of habit.
    coding = request.headers.get("accept-encoding", "").strip().lower()
    if coding in ("gzip", "deflate"):
        body = gzip.compress(body, 6) if coding == "gzip" else zlib.compress(body)
        headers["Content-Encoding"] = coding
    return Response(body, headers=headers, media_type="application/json" if head is None else BINARY)
