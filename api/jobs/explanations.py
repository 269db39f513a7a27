"""Reading a request for an explanation: a row, or a row of a job that the caller may see."""

from typing import Any

from sqlalchemy import select
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.auth.callers import Caller
from api.http.prefix import link
from api.jobs.audits import audit_read
from api.jobs.finding import find_own_job
from api.jobs.json_body import read_json
from api.jobs.requests import Submitted, faults_error, field_faults, read_options, read_row, requested_version
from api.jobs.serializers import stored_explanation_body
from api.models.catalog import Version
from api.services import Services
from shared.errors import Conflict, NotExplainable, RowFaults
from shared.explanations.storage import list_explanations
from shared.faults import Fault
from shared.jobs.kinds import kind_of
from shared.jobs.queries.jobs import StoredJob
from shared.tables import JobKind, JobState, ModelInput

JOB_FIELDS = {"job_id", "row", "model", "version", "expires_in", "timeout"}


async def read_explain(services: Services, request: Request, caller: Caller, model: str | None) -> Submitted:
    """Read `{features, ...}` as `/predict` does, or `{job_id, row?, ...}`; `model` is the name in the path.

    Raises RowFaults for a body that is neither, NotFound for a job that is not the caller's, Conflict for a row that
    has no score, NotExplainable for a version of which that is known since it was registered.
    """
    body, raw = await read_json(request, max_bytes=services.settings.max_body_bytes)
    if isinstance(body, list) or (isinstance(body, dict) and isinstance(body.get("rows"), list)):
        message = (
            "is one row: score several by /predict_batch or /predict_csv, then POST /jobs/{id}/explain explains all"
        )
        place = "/rows" if isinstance(body, dict) else ""
        raise RowFaults("One row is explained at a time.", faults=[Fault(place, "too_many_rows", message)])
    if isinstance(body, dict) and "job_id" in body and "features" in body:
        message = "stands beside features: send the row itself, or the job that scored it"
        raise RowFaults("Send features or job_id, not both.", faults=[Fault("/job_id", "conflict", message)])
    if not isinstance(body, dict) or "job_id" not in body:
        submitted = await read_row(services, request, body, raw, model, kind=JobKind.EXPLAIN)
        check_explainable(submitted.options.version)
        return submitted
    faults, more = field_faults(body, JOB_FIELDS, required="job_id", others="refuse")
    job_id, index = body["job_id"], body.get("row", 0)
    if not isinstance(job_id, str):
        faults.append(Fault("/job_id", "type", "must be the id of a job, as text"))
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < 2**31:
        faults.append(Fault("/row", "type", "must be the place of a row in its job, a whole number from 0"))
    if faults:
        raise faults_error(faults, more)
    job = await find_own_job(services, caller, job_id)
    version = services.catalog.version_of(job)
    if model is not None or body.keys() & {"model", "version"}:
        named = await requested_version(services, {"model": version.card.name, **body}, model)
        if named.id != version.id:
            message = f"must be left out, or be {version.label}: a job is explained by the version that scored it"
            raise RowFaults("The job was scored by another version.", faults=[Fault("/model", "conflict", message)])
    options = read_options(services, body, version, faults)
    if faults:
        raise faults_error(faults, 0)
    check_explainable(version)
    if job.row_count > 1 and "row" not in body:
        message = (
            f"is missing: the job has {job.row_count} rows, from 0; {link(f'/jobs/{job.id}/explain')} explains all"
        )
        raise RowFaults("Name the row of the job to explain.", faults=[Fault("/row", "missing", message)])
    features = await _scored_row(services, job, index)
    await audit_read(services, request, caller, job, what="explanation")
    return Submitted(options, JobKind.EXPLAIN, [features], [None], raw)


def check_explainable(version: Version) -> None:
    """Raise NotExplainable for a version without explanations, known since its registration."""
    if version.explanation_refusal is not None:
        raise NotExplainable(f"The row cannot be explained: {version.label} {version.explanation_refusal}.")


async def _scored_row(services: Services, job: StoredJob, index: int) -> dict[str, Any]:
    """Return a scored row of a job; raise Conflict, with advice, for a row without a score.

    A row of a file is stored with its chunk, when that is scored: it can be explained while the file goes on.
    """
    is_file = kind_of(job.kind).is_chunked
    if not job.is_terminal and not is_file:
        raise Conflict(
            "The job has not ended, so it has no score yet: send the request again after its end.", job_id=job.id
        )
    if index >= job.row_count:
        fault = Fault("/row", "range", f"must be below {job.row_count}, the number of rows of the job")
        raise RowFaults("The job has no such row.", faults=[fault])

    def read() -> tuple[dict[str, Any], Any] | None:
        with services.reader.connect() as connection:
            scored = connection.execute(
                select(ModelInput.features, ModelInput.faults).where(
                    ModelInput.job_id == job.id, ModelInput.row_index == index
                )
            ).first()
            return None if scored is None else (scored[0], scored[1])

    scored = await run_in_threadpool(read)
    if scored is None and is_file:
        when = "and can be retried" if job.is_terminal else "yet: send the request again after its end"
        raise Conflict(f"This row of the file has no score {when}.", job_id=job.id)
    if scored is None or scored[1] is not None or not (is_file or job.state == JobState.SUCCEEDED):
        raise Conflict("This row has no score to explain: correct it and send it again.", job_id=job.id)
    return scored[0]


def list_stored(services: Services, job: StoredJob, *, row: int | None, after: int, limit: int) -> dict[str, Any]:
    """Return a page of the stored explanations of a job's rows, and the next one's place; for a thread."""
    source_id = job.id if job.csv is None or job.csv.source_job_id is None else job.csv.source_job_id
    version = services.catalog.version_of(job)
    first, count = (after + 1, limit) if row is None else (row, 1)
    with services.reader.connect() as connection:
        explanations = list_explanations(connection, source_id, version.id, first_row=first, count=count)
    last = first + count - 1
    following = None
    if row is None and last + 1 < job.row_count:
        following = link(f"/jobs/{job.id}/explanations?limit={limit}&after={last}")
    items = [{"row": index, **stored_explanation_body(version, stored)} for index, stored in explanations]
    return {"job_id": source_id, "model": version.card.name, "model_version": version.card.version} | {
        "items": items,
        "next": following,
    }
