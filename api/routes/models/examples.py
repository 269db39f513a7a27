"""Help for new callers of a model: its features, and example rows."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from api.deps import ModelName, ReadCaller, ServicesDep
from api.http.about import OF_A_MODEL
from api.http.responses import json_response
from api.jobs.requests import find_version
from api.models.examples import draw_rows, rows_as_csv
from api.models.serializers import examples_body, features_body
from api.schemas.answers import NO_MODEL, OF_MODELS
from api.schemas.native import ExampleList, ExampleRows, FeatureList

router = APIRouter(tags=["models"])

ModelQuery = Annotated[
    str | None,
    Query(description="Model: `name`, `name@3` or `name@alias`; the default one if left out", max_length=127),
]
Rows = Annotated[int, Query(ge=1, le=100, description="Most rows to give")]
FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/csv": {"schema": {"type": "string"}}}, "description": "A header and its rows."}
}


@router.get("/features", responses={200: {"model": FeatureList}, **OF_MODELS, **NO_MODEL}, response_model=None)
@OF_A_MODEL
async def get_features(services: ServicesDep, caller: ReadCaller, model: ModelQuery = None) -> Response:
    """List the features of the default or the named model: types, limits, and the form of a request."""
    return json_response(features_body(await find_version(services, model, None)))


@router.get(
    "/models/{name}/features", responses={200: {"model": FeatureList}, **OF_MODELS, **NO_MODEL}, response_model=None
)
@OF_A_MODEL
async def get_features_of(services: ServicesDep, caller: ReadCaller, name: ModelName) -> Response:
    """List the features of a model."""
    return json_response(features_body(await find_version(services, name, None)))


@router.get("/examples", responses={200: {"model": ExampleList}, **OF_MODELS}, response_model=None)
async def get_examples(services: ServicesDep, caller: ReadCaller) -> Response:
    """List an example body for every model, and links to further rows as JSON and CSV."""
    return json_response(examples_body(services.catalog))


@router.get(
    "/models/{name}/examples.json",
    responses={200: {"model": ExampleRows}, **OF_MODELS, **NO_MODEL},
    response_model=None,
)
@OF_A_MODEL
async def get_example_rows(services: ServicesDep, caller: ReadCaller, name: ModelName, rows: Rows = 5) -> Response:
    """Return example rows, made up from the model's card: a body for `/models/{name}/predict_batch`."""
    return json_response({"rows": await draw_rows(await find_version(services, name, None), rows)})


@router.get(
    "/models/{name}/examples.csv",
    responses={**FILE, **OF_MODELS, **NO_MODEL},
    response_class=Response,  # FastAPI would say that it is JSON, too
    response_model=None,
)
@OF_A_MODEL
async def get_example_file(services: ServicesDep, caller: ReadCaller, name: ModelName, rows: Rows = 5) -> Response:
    """Return the same example rows as a CSV file for `/models/{name}/predict_csv`."""
    version = await find_version(services, name, None)
    headers = {"Content-Disposition": f'attachment; filename="{version.card.name}-examples.csv"'}
    return Response(rows_as_csv(await draw_rows(version, rows)), media_type="text/csv", headers=headers)
