"""Outcomes of scored rows, one by one or as a file."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.auth.callers import Caller
from api.deps import ChangeCaller, JobId, ServicesDep
from api.files.outcomes import MAX_BYTES, receive_outcomes, store_outcomes
from api.files.uploads.body import UploadBody, answer_upload
from api.http.responses import json_response, request_id_of
from api.jobs.finding import find_own_job
from api.jobs.json_body import read_json
from api.jobs.requests import read_fields, summarise
from api.jobs.serializers import outcome_body
from api.schemas.answers import OF_JOBS, PROBLEM
from api.schemas.monitoring import OutcomeBody, OutcomesReport, StoredOutcome
from api.services import Services
from shared.errors import Conflict, InvalidRequest, RowFaults
from shared.faults import Fault
from shared.jobs.queries.jobs import StoredJob
from shared.monitoring.outcomes import Recorded, Truth, TruthReader, find_outcome, find_rows, record_outcomes
from shared.observability.audit import OUTCOME_REVISED, audit
from shared.tables import JobKind

router = APIRouter(tags=["outcomes"])

Revise = Annotated[bool, Query(description="Replace an earlier value; it is kept beside the new one")]


@router.post(
    "/jobs/{id}/outcome",
    status_code=201,
    responses={
        200: {"model": StoredOutcome, "description": "The same value was stored before, or the value was revised."},
        201: {"model": StoredOutcome, "description": "Stored."},
        409: {**PROBLEM, "description": "The row has no score, or another outcome (`?revise=true` replaces it)."},
        422: {**PROBLEM, "description": "The model has no such class, or the job no such row."},
        **OF_JOBS,
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/OutcomeBody"}}},
        }
    },
    response_model=None,
)
async def post_outcome(
    request: Request, services: ServicesDep, caller: ChangeCaller, job_id: JobId, revise: Revise = False
) -> Response:
    """Store the outcome of a scored row. Repeating the same outcome changes nothing."""
    _, raw = await read_json(request, max_bytes=services.settings.max_body_bytes)
    job = await find_own_job(services, caller, job_id)
    outcome = read_fields(OutcomeBody, raw)
    created, stored = await run_in_threadpool(_store, services, request, caller, job, outcome, revise)
    return json_response(stored, status=201 if created else 200)


def _store(
    services: Services, request: Request, caller: Caller, job: StoredJob, outcome: OutcomeBody, revise: bool
) -> tuple[bool, dict[str, Any]]:
    """Store the outcome of one row; return whether it is new, and the stored outcome."""
    if outcome.row is None and job.row_count > 1:
        raise _invalid("/row", "missing", f"is missing: the job has {job.row_count} rows, from 0")
    row = outcome.row or 0
    with services.reader.connect() as connection:
        input_id, is_scored = find_rows(connection, [(job.id, row)]).get((job.id, row), (0, False))
    if row >= job.row_count:
        raise _invalid("/row", "range", f"must be below {job.row_count}, the number of the job's rows")
    if not is_scored:
        state = "it has no score" if job.is_terminal else f"the job is still {job.state}"
        raise Conflict(f"There is no outcome of a row without a score: {state}.", job_id=job.id)
    value = TruthReader(services.catalog.version_of(job).card).read(outcome.actual)
    if isinstance(value, Fault):
        raise _invalid("/actual", value.code, value.message)
    with services.bulk_engine.begin() as connection:
        truth = Truth(input_id, *value, outcome.observed_at)
        recorded: Recorded = record_outcomes(
            connection, [truth], by=caller.id, request_id=request_id_of(request), revise=revise
        )
        stored = find_outcome(connection, input_id)
        if recorded.revised:
            audit(
                connection,
                OUTCOME_REVISED,
                f"job:{job.id}",
                actor=caller.actor,
                details={"row": row, "revision": stored.revision},
                request_id=request_id_of(request),
            )
    if recorded.refused:
        raise Conflict(
            "This row has another outcome already: send ?revise=true to replace it, which keeps the earlier value.",
            job_id=job.id,
        )
    return bool(recorded.created), {"job_id": job.id, "row": row, **outcome_body(stored)}


def _invalid(pointer: str, code: str, message: str) -> RowFaults:
    fault = Fault(pointer, code, message)
    return RowFaults(summarise([fault]), faults=[fault])


@router.post(
    "/outcomes",
    responses={
        200: {"model": OutcomesReport, "description": "Stored; the report lists lines that were not."},
        401: OF_JOBS[401],
        403: OF_JOBS[403],
        404: OF_JOBS[404],
        409: {**PROBLEM, "description": "Rows have another outcome already, and nothing was stored."},
        422: {**PROBLEM, "description": "The header does not fit, or lines cannot be joined; nothing was stored."},
        503: OF_JOBS[503],
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "The file, as the body itself or as the one file of a form; gzip is recognised.",
            "content": {
                "text/csv": {"schema": {"type": "string"}},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["file"],
                        "properties": {"file": {"type": "string", "format": "binary"}},
                    }
                },
            },
        }
    },
    response_model=None,
)
async def post_outcomes(
    request: Request,
    services: ServicesDep,
    caller: ChangeCaller,
    job: Annotated[
        str | None, Query(description="A CSV job: the column `id` then holds the values of its id column")
    ] = None,
    on_error: Annotated[
        Literal["abort", "continue"],
        Query(description="`abort`: a line that cannot be joined refuses the file; `continue`: it is reported"),
    ] = "abort",
    revise: Revise = False,
) -> Response:
    """Store the outcomes of many rows from a CSV file: `actual`, and the columns that identify each row.

    A row is named by `job_id`, with `row` (from 0) or `row_no` (from 1, as in output.csv) where the job has several, or
    by `id`: the id that you gave the job. `observed_at` may stand beside it. All of it is stored at once, up to
    100,000 lines.
    """
    body = UploadBody(request, max_bytes=MAX_BYTES)

    async def answer() -> Response:
        csv_job = None if job is None else await _find_csv_job(services, caller, job)
        file = await receive_outcomes(request, body)
        report = await run_in_threadpool(
            store_outcomes,
            *(services, request, caller, file),
            job=csv_job,
            revise=revise,
            is_whole=on_error == "abort",
        )
        return json_response(report)

    return await answer_upload(request, body, answer())


async def _find_csv_job(services: Services, caller: Caller, job_id: str) -> StoredJob:
    job = await find_own_job(services, caller, job_id)
    if job.kind != JobKind.CSV or job.csv is None or job.csv.format.id_column is None:
        message = "must be a CSV job whose file has an id column; name other rows by job_id"
        raise InvalidRequest(f"`job` {message}.", faults=[Fault("/query/job", "kind", message)])
    return job
