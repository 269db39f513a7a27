"""Submitting CSV files: `/predict_csv`, `/models/{name}/predict_csv`."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from api.deps import PredictCaller, ServicesDep
from api.files.options import CsvQuery
from api.files.submit import receive_csv
from api.http.about import About
from api.schemas.answers import OF_UPLOADS, problems, stored
from api.schemas.native import CsvReportBody

router = APIRouter(tags=["csv"])

RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": CsvReportBody, "description": "With `validate_only`: the report on the file."},
    **stored("The whole file is"),
    **OF_UPLOADS,
    **problems(
        {
            400: "The upload, its form or its gzip is damaged or cut off.",
            403: "The key lacks the scope `predict`.",
            404: "No such model or version.",
            413: "Too many bytes or rows, or a record that is too long.",
            415: "The file is not CSV.",
            422: "The header does not fit the model, the file holds no rows, or a parameter is not valid.",
            503: "Service full, disk full, database down, or no model registered: see Retry-After.",
        }
    ),
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
# The route reads the body by hand, as it arrives, so OpenAPI needs this description.
REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The file, as the body itself or as the one file of a form; gzip is recognised.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "text/csv": {"schema": {"type": "string"}},
            "text/tab-separated-values": {"schema": {"type": "string"}},
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": _BINARY,
            "application/gzip": _BINARY,
            "application/octet-stream": _BINARY,
        },
    },
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            "description": "Sending the same file again with the same key gives the same job",
        },
        {
            "name": "Content-Encoding",
            "in": "header",
            "schema": {"type": "string", "enum": ["gzip", "identity"]},
            "description": "Compression of the body",
        },
    ],
}


@router.post("/predict_csv", status_code=202, responses=RESPONSES, openapi_extra=REQUEST, response_model=None)
@About(sends="file", reads_query=True)
async def predict_csv(
    request: Request, services: ServicesDep, caller: PredictCaller, query: Annotated[CsvQuery, Query()]
) -> Response:
    """Score a CSV file in the background: upload the file, get a ticket, download every row's score.

    The header is checked before the answer; a row that does not fit the model becomes an error of that row alone.
    Delimiter, encoding, decimal mark and thousands separator are detected unless the query names them; an
    ambiguous file is refused. An Excel workbook (.xlsx) is read as its first sheet.
    """
    return await receive_csv(services, request, caller, query, None)


@router.post(
    "/models/{name}/predict_csv", status_code=202, responses=RESPONSES, openapi_extra=REQUEST, response_model=None
)
@About(sends="file", reads_query=True)
async def predict_csv_with(
    request: Request,
    services: ServicesDep,
    caller: PredictCaller,
    query: Annotated[CsvQuery, Query()],
    name: str = Path(description="Model: `name`, `name@3` or `name@alias`"),
) -> Response:
    """Score a CSV file with a named model, as `/predict_csv` does with the default one."""
    return await receive_csv(services, request, caller, query, name)
