"""What a model takes, for people and programs that have not called it yet: its features, and rows to try."""

import csv
import io
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.deps import ModelName, ReadCaller, ServicesDep
from api.http.prefix import link
from api.http.responses import json_response
from api.jobs.requests import find_version
from api.jobs.serializers import features_body, request_body
from api.models.catalog import Version
from api.schemas.answers import NO_MODEL, OF_MODELS
from api.schemas.native import ExampleList, ExampleRows, FeatureList
from shared.cards.examples import example_rows

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
async def get_features(services: ServicesDep, caller: ReadCaller, model: ModelQuery = None) -> Response:
    """List the features that the default model takes, or the one that is named: types, limits, how it is sent."""
    return json_response(features_body(await find_version(services, model, None)))


@router.get(
    "/models/{name}/features", responses={200: {"model": FeatureList}, **OF_MODELS, **NO_MODEL}, response_model=None
)
async def get_features_of(services: ServicesDep, caller: ReadCaller, name: ModelName) -> Response:
    """List the features that a model takes."""
    return json_response(features_body(await find_version(services, name, None)))


@router.get("/examples", responses={200: {"model": ExampleList}, **OF_MODELS}, response_model=None)
async def get_examples(services: ServicesDep, caller: ReadCaller) -> Response:
    """List, for every model, a body to send to it, and where there are more rows as JSON and CSV."""
    default = services.catalog.default_model()
    items = []
    for name in sorted(services.catalog.picture.by_name):
        version = await find_version(services, name, None)
        items.append(
            {
                "model": name,
                "model_version": version.card.version,
                "is_default": name == default,
                "request": request_body(version.card, version.card.example()),
                "links": {
                    "predict": link(f"/models/{name}/predict"),
                    "json": link(f"/models/{name}/examples.json"),
                    "csv": link(f"/models/{name}/examples.csv"),
                    "features": link(f"/models/{name}/features"),
                },
            }
        )
    return json_response({"items": items})


@router.get(
    "/models/{name}/examples.json",
    responses={200: {"model": ExampleRows}, **OF_MODELS, **NO_MODEL},
    response_model=None,
)
async def get_example_rows(services: ServicesDep, caller: ReadCaller, name: ModelName, rows: Rows = 5) -> Response:
    """Give rows that the model takes, made up from its card: the body of a `/models/{name}/predict_batch`."""
    return json_response({"rows": await _rows(await find_version(services, name, None), rows)})


@router.get(
    "/models/{name}/examples.csv",
    responses={**FILE, **OF_MODELS, **NO_MODEL},
    response_class=Response,  # FastAPI would say that it is JSON, too
    response_model=None,
)
async def get_example_file(services: ServicesDep, caller: ReadCaller, name: ModelName, rows: Rows = 5) -> Response:
    """Give the same rows as a CSV file, as `/models/{name}/predict_csv` takes it."""
    version = await find_version(services, name, None)
    found = await _rows(version, rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(found[0])
    writer.writerows([_cell(value) for value in row.values()] for row in found)
    headers = {"Content-Disposition": f'attachment; filename="{version.card.name}-examples.csv"'}
    return Response(text.getvalue(), media_type="text/csv", headers=headers)


async def _rows(version: Version, count: int) -> list[dict[str, Any]]:
    # Variations that break the rules are drawn again: milliseconds, which others should not wait for.
    return await run_in_threadpool(example_rows, version.validator, count)


def _cell(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value
