"""Probes and the health of the service. Open to everyone: probes have no keys."""

import platform
from functools import partial
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request
from starlette.responses import Response

from api.deps import ServicesDep, is_known
from api.health import blocking, describe, served_models
from api.http.responses import json_response
from api.schemas.native import Alive, Health, Readiness, ServiceVersion
from shared.version import VERSION

router = APIRouter(tags=["health"])

_ASKING = CapacityLimiter(2)


@router.get("/health", responses={200: {"model": Health}, 503: {"model": Health}}, response_model=None)
async def health(request: Request, services: ServicesDep) -> Response:
    """Report the health of the service: database, broker, workers, and whether the default model is loaded.

    Without a valid key, where one is needed, workers have numbers for names, and load errors of models are left out.
    """
    # It asks Redis, which may take half a second: not on the event loop, and not after all who wait for the database.
    body = await to_thread.run_sync(partial(describe, services, in_full=is_known(request)), limiter=_ASKING)
    return json_response(body, status=503 if body["status"] == "down" else 200)


@router.get("/livez", responses={200: {"model": Alive, "description": "The process lives."}}, response_model=None)
async def livez() -> Response:
    """Answer while the process lives."""
    return json_response({"status": "ok"})


@router.get(
    "/readyz",
    responses={
        200: {"model": Readiness, "description": "The service accepts requests."},
        503: {
            "model": Readiness,
            "description": "The service does not accept requests now; `reasons` lists the reasons.",
        },
    },
    response_model=None,
)
async def readyz(request: Request, services: ServicesDep) -> Response:
    """Report whether the service would store a submission now, with or without its broker."""
    reasons = blocking(services, in_full=is_known(request))
    if reasons:
        return json_response({"status": "down", "reasons": reasons}, status=503, headers={"Retry-After": "2"})
    return json_response({"status": "ok"})


@router.get(
    "/version",
    responses={200: {"model": ServiceVersion, "description": "Versions of the service and its models."}},
    response_model=None,
)
async def version(request: Request, services: ServicesDep) -> Response:
    """Report the version of the service; with a valid key, where one is needed, also the serving models."""
    body: dict[str, Any] = {
        "name": "guichet",
        "version": VERSION,
        "runtime": services.settings.runtime,
        "python": platform.python_version(),
    }
    if is_known(request):
        body["models"] = served_models(services)
    return json_response(body)
