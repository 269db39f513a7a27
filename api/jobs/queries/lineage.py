"""The lineage of a row as its owner and administrators see it."""

from typing import Any

from starlette.concurrency import run_in_threadpool

from api.auth.callers import Caller
from api.jobs.serializers import latency_ms, outcome_body, score_body, stored_explanation_body
from api.models.catalog import Version
from api.services import Services
from shared.cards.seal import is_intact
from shared.errors import Conflict, RowFaults
from shared.faults import Fault
from shared.jobs.queries.jobs import StoredJob, StoredOutput
from shared.jobs.queries.lineage import Lineage, find_lineage
from shared.tables import JobKind


async def read_lineage(services: Services, caller: Caller, job: StoredJob, index: int) -> dict[str, Any]:
    """Return the lineage of a row of a job; raise RowFaults for an unknown row, Conflict for one not stored yet.

    Only administrators see the actor and the reason of a promotion, as in the history of the model.
    """
    if job.kind == JobKind.EXPLAIN_BATCH:
        source = None if job.csv is None else job.csv.source_job_id
        where = f": ask for those of job {source}" if source else ", which was erased"
        raise Conflict(f"This job explains the rows of another one{where}.", job_id=job.id)
    version = services.catalog.version_of(job)
    if index >= job.row_count:
        fault = Fault("/query/row", "range", f"must be below {job.row_count}, the number of rows of the job")
        raise RowFaults("The job has no such row.", faults=[fault])

    def read() -> Lineage | None:
        with services.reader.connect() as connection:
            return find_lineage(connection, job.id, index)

    lineage = await run_in_threadpool(read)
    if lineage is None:
        message = "was not reached, and may be with retry" if job.is_terminal else "is not scored yet: try again later"
        raise Conflict(f"This row of the file {message}.", job_id=job.id)
    return _body(lineage, version, is_admin=caller.is_admin)


def _body(lineage: Lineage, version: Version, *, is_admin: bool) -> dict[str, Any]:
    job, row, outcome = lineage.job, lineage.input, lineage.outcome
    return {
        "job_id": job.id,
        "row": row.row_index,
        "request": _request(lineage),
        "attempts": {
            "kind": job.kind,
            "lane": job.lane,
            "status": job.state,
            "count": job.attempt,
            "crashes": job.crash_count,
            "accepted_at": job.created_at,
            "started_at": job.started_at,
            "finished_at": job.finished_at,
            "latency_ms": latency_ms(job.created_at, job.finished_at),
            "error": job.error,
        },
        "version": {
            "model": lineage.version.name,
            "version": lineage.version.version,
            "sha256": lineage.version.sha256,
            "registered_at": lineage.version.created_at,
            "task": version.card.task,
            "threshold": version.card.threshold,
            "decided_by": version.card.decided_by,
            "scorer": "pipeline" if lineage.is_by_pipeline else lineage.version.scorer["kind"],
            "libraries": version.card.libraries,
        },
        "promotion": _promotion(lineage, is_admin=is_admin),
        "input": {
            "features": row.features,
            "faults": row.faults,
            "stored_at": row.created_at,
            "sha256": None if row.sha256 is None else bytes(row.sha256).hex(),
            "is_intact": is_intact(version.card, row.features, None if row.sha256 is None else bytes(row.sha256)),
        },
        "output": _output(lineage, version),
        "explanation": None if lineage.explanation is None else stored_explanation_body(version, lineage.explanation),
        "outcome": None if outcome is None else outcome_body(outcome),
    }


def _request(lineage: Lineage) -> dict[str, Any]:
    """Return the record of the request: its id, and the rest if a log entry of it still exists."""
    request = lineage.request
    return {
        "id": lineage.job.request_id,
        "caller": lineage.job.owner,
        "method": None if request is None else request.method,
        "route": None if request is None else request.route,
        "status": None if request is None else request.status,
        "answered_at": None if request is None else request.created_at,
        "duration_ms": None if request is None else request.duration_ms,
        "input_hash": None if request is None else request.input_hash,
    }


def _promotion(lineage: Lineage, *, is_admin: bool) -> dict[str, Any] | None:
    moved = lineage.promotion
    if moved is None:
        return None
    return {
        "alias": moved.alias,
        "from": moved.from_version,
        "promoted_at": moved.created_at,
        "by": moved.actor if is_admin else None,
        "reason": moved.reason if is_admin else None,
    }


def _output(lineage: Lineage, version: Version) -> dict[str, Any] | None:
    output = lineage.output
    if output is None:
        return None
    score = StoredOutput(output.prediction, output.label, output.probability, output.probabilities, output.threshold)
    return {**score_body(version.card, score), "scored_at": output.created_at}
