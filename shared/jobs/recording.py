"""Jobs of the sync runtime: their whole life, from acceptance to the stored result, in one transaction."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert

from shared.errors import Fault
from shared.jobs.submission import Submission
from shared.scoring.outputs import Output
from shared.tables import Job, JobState, ModelInput, ModelOutput


def record(
    connection: Connection,
    group: Sequence[Submission],
    results: Sequence[Sequence[Output | Fault]],
    *,
    attempts: Sequence[int],
    started_at: datetime,
) -> datetime:
    """Store jobs that were scored as soon as they came: jobs, inputs and outputs, in the transaction that is open.

    `results` holds, by submission, one entry for each row without faults, and `attempts` how often it was tried.
    Returns when they finished. Both dialects; the clock is this process's.
    """
    now = datetime.now(UTC)
    jobs: list[dict[str, Any]] = []
    inputs: list[dict[str, Any]] = []
    scored: list[tuple[int, int, Output]] = []
    for job, outcomes, attempt in zip(group, results, attempts, strict=True):
        faults = [outcome for outcome in outcomes if isinstance(outcome, Fault)]
        failed = len(faults) == len(outcomes)
        pending = iter(outcomes)
        for index, row in enumerate(job.rows):
            fault = job.faults[index]
            if fault is None:
                outcome = next(pending)
                if isinstance(outcome, Fault):
                    fault = [outcome]
                else:
                    scored.append((len(inputs), job.model_version_id, outcome))
            inputs.append(
                {
                    "job_id": job.id,
                    "row_index": index,
                    "features": row,
                    "faults": fault,
                    "created_at": now,
                }
            )
        jobs.append(
            {
                "id": job.id,
                "kind": job.kind,
                "lane": job.lane,
                "state": JobState.FAILED.value if failed else JobState.SUCCEEDED.value,
                "model_version_id": job.model_version_id,
                "owner": job.owner,
                "request_id": job.request_id,
                "traceparent": job.traceparent,
                "priority": job.priority,
                "row_count": len(job.rows),
                "failed_count": job.failed_count + len(faults),
                "attempt": attempt,
                "max_attempts": job.max_attempts,
                "timeout_seconds": job.timeout_seconds,
                "expires_at": job.expires_at(started_at),
                "run_after": started_at,
                "created_at": started_at,
                "claimed_at": started_at,
                "started_at": started_at,
                "finished_at": now,
                "error": {"code": faults[0].code, "message": faults[0].message} if failed else None,
                "idempotency_scope": job.idempotency_scope,
                "idempotency_key": job.idempotency_key,
                "body_hash": job.body_hash,
            }
        )
    connection.execute(insert(Job), jobs)
    ids = connection.scalars(insert(ModelInput).returning(ModelInput.id, sort_by_parameter_order=True), inputs).all()
    if scored:
        connection.execute(
            insert(ModelOutput),
            [
                {
                    "input_id": ids[place],
                    "model_version_id": version,
                    "task": output.task,
                    "prediction": output.prediction,
                    "label": output.label,
                    "probability": output.probability,
                    "probabilities": output.probabilities,
                    "threshold": output.threshold,
                    "created_at": now,
                }
                for place, version, output in scored
            ],
        )
    return now
