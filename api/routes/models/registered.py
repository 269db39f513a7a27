"""The registered models: cards, versions, examples."""

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from api.deps import ModelName, ReadCaller, ServicesDep
from api.http.about import OF_A_MODEL
from api.http.responses import json_response
from api.jobs.requests import find_version
from api.models.serializers import models_body, version_body
from api.schemas.answers import NO_MODEL, OF_MODELS
from api.schemas.native import ModelBody, ModelList

router = APIRouter(tags=["models"])


@router.get("/models", responses={200: {"model": ModelList}, **OF_MODELS}, response_model=None)
@OF_A_MODEL
async def get_models(services: ServicesDep, caller: ReadCaller) -> Response:
    """List the models with their versions and aliases."""
    return json_response(models_body(services.catalog))


@router.get("/models/{name}", responses={200: {"model": ModelBody}, **OF_MODELS, **NO_MODEL}, response_model=None)
@OF_A_MODEL
async def get_model(services: ServicesDep, caller: ReadCaller, name: ModelName) -> Response:
    """Read the serving version of a model: its card, an example row, and its scorer."""
    return json_response(version_body(await find_version(services, name, None), services.catalog))


@router.get(
    "/models/{name}/versions/{version}",
    responses={200: {"model": ModelBody}, **OF_MODELS, **NO_MODEL},
    response_model=None,
)
@OF_A_MODEL
async def get_version(
    services: ServicesDep,
    caller: ReadCaller,
    name: ModelName,
    version: Annotated[int, Path(ge=1, description="Version number")],
) -> Response:
    """Read one version of a model."""
    return json_response(version_body(await find_version(services, name, version, archived=True), services.catalog))
