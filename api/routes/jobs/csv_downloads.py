"""The files of CSV jobs: output.csv, also as Parquet, and errors.csv."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api.auth.callers import Caller
from api.deps import JobId, ReadCaller, ServicesDep
from api.files.downloads.stream import PARQUET, send_csv, send_parquet
from api.http.conditional import preferred_type
from api.http.middleware import is_head
from api.http.prefix import link
from api.jobs.audits import audit_export
from api.jobs.finding import find_own_job
from api.models.catalog import Version
from api.schemas.answers import OF_JOBS, PROBLEM
from api.services import Services
from shared.database.engine import reader
from shared.errors import InvalidRequest, NotAcceptable, NotFound
from shared.faults import Fault
from shared.jobs.queries.jobs import StoredJob
from shared.tables import JobKind

router = APIRouter(tags=["files"], default_response_class=Response)

CSV = "text/csv"

Partial = Annotated[
    bool,
    Query(
        description="Return the finished part: whole chunks in the order of the "
        "file, with gaps where a chunk is not done (`row_no` says which rows they are). It changes as the job goes "
        "on: send `If-Range` with a range."
    ),
]
_TEXT = {"schema": {"type": "string"}}


def _answers(*types: str) -> dict[int | str, dict[str, Any]]:
    content = {name: _TEXT if name == CSV else {"schema": {"type": "string", "format": "binary"}} for name in types}
    headers = {
        "ETag": {"description": "ETag of the file's current state", **_TEXT},
        "X-Rows-Done": {
            "description": "Rows of the file with a score or an error",
            "schema": {"type": "integer"},
        },
    }
    return {
        200: {"description": "The file.", "content": content, "headers": headers},
        206: {
            "description": "The requested range of bytes.",
            "content": {CSV: _TEXT},
            "headers": headers
            | {"Content-Range": {"description": "The bytes sent, and the size of the file", **_TEXT}},
        },
        304: {"description": "Not modified: `If-None-Match` names the current ETag."},
        406: {**PROBLEM, "description": "No available type matches `Accept`."},
        409: {**PROBLEM, "description": "Not every row is scored: the job still runs, or ended early."},
        416: {**PROBLEM, "description": "The range is outside the file."},
        **OF_JOBS,
    }


@router.get("/jobs/{id}/output.csv", responses=_answers(CSV, PARQUET), response_model=None)
async def get_output(
    request: Request,
    services: ServicesDep,
    caller: ReadCaller,
    job_id: JobId,
    partial: Partial = False,
    join: Annotated[bool, Query(description="Repeat every column of the uploaded file.")] = False,
    kind: Annotated[
        Literal["csv", "parquet"] | None,
        Query(alias="format", description="The type of the answer; when left out, `Accept` decides."),
    ] = None,
) -> Response:
    """Download the score or the explanation of every row, in the order of the uploaded file.

    Each line has the row number, the id column and the columns that are not features, then the model's answer, or the
    reason without one in `error`. CSV keeps the file's delimiter and decimal mark; a cell that a spreadsheet would run
    as a formula gets an apostrophe. `Range` resumes a broken download. Parquet
    (`Accept: application/vnd.apache.parquet`) has typed columns; the caller's own columns are text, exactly as sent.
    """
    job, version = await _find(services, caller, job_id)
    if join and job.kind == JobKind.REPLAY:
        message = "is for files: a replay has no file whose columns it could repeat"
        raise InvalidRequest(
            "A replay repeats no file.", faults=[Fault("/query/join", "conflict", message)], job_id=job.id
        )
    if join and job.kind == JobKind.EXPLAIN_BATCH:
        message = "is for scores: explanations name their row by row_no, and by the id column of the file"
        raise InvalidRequest(
            "Explanations do not repeat the file.", faults=[Fault("/query/join", "conflict", message)], job_id=job.id
        )
    offers = (CSV, PARQUET)
    content_type = preferred_type(request.headers.get("accept"), offers)
    if kind is not None:
        content_type = CSV if kind == "csv" else PARQUET
    if content_type is None:
        raise _no_such_type(*offers)
    engine = reader(services.bulk_engine)
    if content_type == PARQUET:
        response = await send_parquet(request, engine, job, version, join=join, partial=partial)
    else:
        response = await send_csv(request, engine, job, version, "joined" if join else "output", partial=partial)
    file = "output.parquet" if content_type == PARQUET else "output.csv"
    return await _noted(services, request, caller, job, response, file, join=join, partial=partial)


@router.get("/jobs/{id}/errors.csv", responses=_answers(CSV), response_model=None)
async def get_errors(
    request: Request, services: ServicesDep, caller: ReadCaller, job_id: JobId, partial: Partial = False
) -> Response:
    """Download the faults of rows without a score: row_no, column, code, message, value.

    The value is the cell as it was sent, cut to 200 characters. A file without faulty rows has the header only.
    """
    job, version = await _find(services, caller, job_id)
    if preferred_type(request.headers.get("accept"), (CSV,)) is None:
        raise _no_such_type(CSV)
    response = await send_csv(request, reader(services.bulk_engine), job, version, "errors", partial=partial)
    return await _noted(services, request, caller, job, response, "errors.csv", partial=partial)


async def _noted(
    services: Services, request: Request, caller: Caller, job: StoredJob, response: Response, file: str, **options: bool
) -> Response:
    """Return the answer, which the audit log knows of where it gives the file or a part of it."""
    if response.status_code in (200, 206) and not is_head(request):
        used: dict[str, Any] = {name: value for name, value in options.items() if value}
        if (part := response.headers.get("content-range")) is not None:
            used["range"] = part
        await audit_export(services, request, caller, job, file=file, options=used)
    return response


async def _find(services: Services, caller: Caller, job_id: str) -> tuple[StoredJob, Version]:
    job = await find_own_job(services, caller, job_id)
    if job.csv is None:
        raise NotFound(
            f"Only CSV jobs have files: the rows of this one are at {link(f'/jobs/{job.id}/result')}.", job_id=job.id
        )
    return job, services.catalog.version_of(job)


def _no_such_type(*offers: str) -> NotAcceptable:
    return NotAcceptable(
        f"This file can be had as {' or '.join(offers)}: name one of these in Accept, or leave it out."
    )
