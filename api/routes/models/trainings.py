"""Training a candidate version: `POST /train`, and the model card of a version that was trained here."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.deps import AdminCaller, ReadCaller, ServicesDep
from api.files.trainings import receive_training
from api.http.about import OF_A_MODEL, About
from api.http.conditional import preferred_type
from api.http.responses import json_response
from api.jobs.requests import find_version
from api.schemas.answers import KEY, OF_MODELS, OF_UPLOADS, PROBLEM, problems, stored
from api.schemas.models.trainings import ModelCardBody, TrainBody, TrainQuery
from shared.errors import NotFound
from shared.jobs.trainings import StoredReport, find_report_of

router = APIRouter(tags=["models"])

MARKDOWN, JSON = "text/markdown", "application/json"

RESPONSES: dict[int | str, dict[str, Any]] = {
    **stored("All rows are"),
    **OF_UPLOADS,
    **problems(
        {
            400: "The upload, its form or the JSON is damaged or cut off.",
            403: "The key lacks the scope `admin`, or the service may not register models.",
            404: "No such model (of a window).",
            413: "Too many bytes or rows.",
            415: "The file is not CSV.",
            422: "The rows or the options are not fit for a training: too few rows, one class, missing answers, no "
            "target.",
            503: "Too many trainings wait, disk full, or database down: see Retry-After.",
        }
    ),
}
# The route reads the body by hand, as it arrives, so OpenAPI needs this description.
REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A file of rows with their answers, its options in the query; or a window of scored rows.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "text/csv": {"schema": {"type": "string"}},
            "application/json": {"schema": {"$ref": f"#/components/schemas/{TrainBody.__name__}"}},
        },
    },
    "parameters": [KEY],
}


@router.post("/train", status_code=202, responses=RESPONSES, openapi_extra=REQUEST, response_model=None)
@About(reads_query=True)
async def train(
    request: Request, services: ServicesDep, caller: AdminCaller, query: Annotated[TrainQuery, Query()]
) -> Response:
    """Train a candidate version in the background, from a CSV file or from the scored rows of a window.

    Column types, preprocessing, a search with a fixed seed, cross-validation with intervals, a threshold by costs or
    by a target recall, calibration where it helps, and a model card. No alias is moved: the version serves when it is
    promoted. A file that reveals the answer in a feature, or has too few rows, is refused with the reason.
    """
    return await receive_training(services, request, caller, query)


@router.get(
    "/models/{name}/versions/{version}/card",
    responses={
        200: {
            "model": ModelCardBody,
            "content": {"text/markdown": {"schema": {"type": "string"}}},
            "description": "The page in Markdown; with `Accept: application/json` what it says.",
        },
        **OF_MODELS,
        404: {**PROBLEM, "description": "No such version, or it was not trained by this service."},
    },
    response_model=None,
    response_class=Response,
)
@OF_A_MODEL
async def get_card(
    request: Request,
    services: ServicesDep,
    caller: ReadCaller,
    name: Annotated[str, Path(max_length=200, description="Name of the model, without a version")],
    version: Annotated[int, Path(ge=1, le=2**31 - 1, description="Version number")],
) -> Response:
    """Read the model card of a version that was trained here: data, metrics, limits, intended use, libraries.

    A page in Markdown, or JSON, as the Accept header says.
    """
    trained = await find_version(services, name, version, archived=True)

    def read() -> StoredReport | None:
        with services.reader.connect() as connection:
            return find_report_of(connection, trained.id)

    stored = await run_in_threadpool(read)
    if stored is None:
        raise NotFound(
            f"{trained.label} was not trained by this service: GET /models/{name}/versions/{version} has its card."
        )
    from shared.training.model_card import card_body, model_card

    vary = {"Vary": "Accept"}
    if preferred_type(request.headers.get("accept"), (MARKDOWN, JSON)) == JSON:
        about = {"model": trained.card.name, "version": version, "model_sha256": trained.sha256}
        body = {**about, "trained_at": stored.finished_at, "job_id": stored.job_id, **card_body(stored.report)}
        return json_response(body, headers=vary)
    page = model_card(
        stored.report, label=trained.label, sha256=trained.sha256, trained_at=f"{stored.finished_at:%Y-%m-%d %H:%M} UTC"
    )
    return Response(page, media_type=MARKDOWN, headers=vary)
