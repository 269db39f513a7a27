"""Jobs of the sync runtime: inserted in one transaction, complete with their results."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert

from shared.cards.seal import text_sha256
from shared.database.engine import dumps
from shared.faults import Fault
from shared.jobs.results import Store, outcome_of
from shared.jobs.submission import Submission
from shared.scoring.outputs import Output
from shared.tables import Job, ModelInput, ModelOutput


def insert_finished(
    connection: Connection,
    group: Sequence[Submission],
    results: Sequence[Sequence[object]],
    *,
    attempts: Sequence[int],
    started_at: datetime,
    store: Store[Any] | None = None,
) -> datetime:
    """Store jobs that were computed as soon as they came: jobs, inputs and results, in the transaction that is open.

    `results` holds, by submission, one entry for each row without faults: its result, or the Fault that says why there
    is none; and `attempts` how often it was tried. Scores (`Output`) are stored here, other results by `store`.
    Returns when they finished. Both dialects; the clock is this process's.
    """
    now = datetime.now(UTC)
    jobs: list[dict[str, Any]] = []
    inputs: list[dict[str, Any]] = []
    computed: list[tuple[int, Submission, object]] = []  # place among the inputs, job, result
    for job, own_results, attempt in zip(group, results, attempts, strict=True):
        pending = iter(own_results)
        for index, row in enumerate(job.rows):
            faults = job.faults[index]
            if faults is None:
                result = next(pending)
                if isinstance(result, Fault):
                    faults = [result]
                else:
                    computed.append((len(inputs), job, result))
            inputs.append(
                {
                    "job_id": job.id,
                    "row_index": index,
                    "features": row,
                    "faults": faults,
                    "created_at": now,
                    "sha256": None if job.faults[index] else text_sha256(dumps(row)),
                }
            )
        end = outcome_of(own_results)
        jobs.append(
            job.columns()
            | {
                "state": end.state.value,
                "failed_count": job.failed_count + end.failed_count,
                "error": end.error,
                "attempt": attempt,
                "expires_at": job.expires_at(started_at),
                **dict.fromkeys(("run_after", "created_at", "claimed_at", "started_at"), started_at),
                "finished_at": now,
            }
        )
    connection.execute(insert(Job), jobs)
    ids = connection.scalars(insert(ModelInput).returning(ModelInput.id, sort_by_parameter_order=True), inputs).all()
    scores = [
        {
            "input_id": ids[place],
            "model_version_id": job.model_version_id,
            "task": result.task,
            "prediction": result.prediction,
            "label": result.label,
            "probability": result.probability,
            "probabilities": result.probabilities,
            "threshold": result.threshold,
            "created_at": now,
        }
        for place, job, result in computed
        if isinstance(result, Output)
    ]
    if scores:
        connection.execute(insert(ModelOutput), scores)
    if store is not None:
        by_version: dict[int, list[tuple[int, object]]] = {}
        for place, job, result in computed:
            by_version.setdefault(job.model_version_id, []).append((ids[place], result))
        for model_version_id, kept in by_version.items():
            store(connection, model_version_id, kept)
    return now
