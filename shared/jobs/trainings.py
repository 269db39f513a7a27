"""Trainings: how far each has come, its report, and the rows of a window. Claimed and ended as uploads are."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from shared.cards.card import Card
from shared.jobs.transitions import Claim
from shared.monitoring.metric_order import in_order
from shared.tables import (
    Job,
    ModelInput,
    ModelOutput,
    ModelVersion,
    Outcome,
    ReferenceRow,
    ReferenceSet,
    Registration,
    Training,
)

_STREAMED = 1_000  # rows that are fetched together


@dataclass(frozen=True, slots=True)
class StoredReport:
    """The report of a training that became a version."""

    job_id: str
    finished_at: datetime
    report: dict[str, Any]


def add_training(connection: Connection, job_id: str) -> None:
    """Store a training beside its registration, in the same transaction."""
    connection.execute(insert(Training).values(job_id=job_id))


def store_progress(connection: Connection, held: Claim, progress: dict[str, Any]) -> None:
    """Note how far a claimed training has come; nothing changes where another holds it by now."""
    is_ours = select(Job.id).where(Job.id == held.job_id, Job.claim_token == held.token).exists()
    connection.execute(update(Training).where(Training.job_id == held.job_id, is_ours).values(progress=progress))


def store_report(connection: Connection, held: Claim, report: dict[str, Any]) -> None:
    """Store the report of a training, in the transaction that ends its job."""
    connection.execute(update(Training).where(Training.job_id == held.job_id).values(report=report))


def find_report(connection: Connection, job_id: str) -> dict[str, Any] | None:
    """Return the report of a job, None where it has none."""
    report = connection.scalar(select(Training.report).where(Training.job_id == job_id))
    return None if report is None else _readable(report)


def find_report_of(connection: Connection, model_version_id: int) -> StoredReport | None:
    """Return the report of the training that a version came from, the last one; None where it was not trained here."""
    row = connection.execute(
        select(Training.job_id, Job.finished_at, Training.report)
        .join(Registration, Registration.job_id == Training.job_id)
        .join(Job, Job.id == Training.job_id)
        .where(Registration.model_version_id == model_version_id, Training.report.is_not(None))
        .order_by(Job.finished_at.desc())
        .limit(1)
    ).first()
    return None if row is None else StoredReport(str(row[0]), row[1], _readable(row[2]))


def _readable(report: dict[str, Any]) -> dict[str, Any]:
    """Return a stored report with its metrics and libraries in their order, which the database does not keep."""
    return report | {"metrics": in_order(report["metrics"]), "libraries": dict(sorted(report["libraries"].items()))}


def answered_rows(
    connection: Connection, card: Card, start: datetime, end: datetime
) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield (features, answer) of a model's reference rows, then of its rows scored in a window with an outcome.

    An answer is a label of the card, or a number; a label that the card does not have is left out, and so are reference
    rows without an answer.
    """
    labels = set(card.labels.values())
    reference = (
        select(ReferenceRow.features, ReferenceRow.target)
        .join(ReferenceSet, ReferenceSet.id == ReferenceRow.set_id)
        .where(ReferenceSet.model_name == card.name)
        .order_by(ReferenceRow.row_no)
    )
    for features, target in connection.execute(reference).yield_per(_STREAMED):
        answer = target if card.task == "regression" else card.labels.get(str(target))
        if answer is not None:
            yield features, answer
    versions = select(ModelVersion.id).where(ModelVersion.name == card.name)
    scored = (
        select(ModelOutput.id)
        .where(
            ModelOutput.input_id == ModelInput.id,
            ModelOutput.model_version_id.in_(versions),
            ModelOutput.created_at >= start,
            ModelOutput.created_at < end,
        )
        .exists()
    )
    answered = (
        select(ModelInput.features, Outcome.actual, Outcome.label)
        .join(Outcome, Outcome.input_id == ModelInput.id)
        .where(Outcome.replaced_at.is_(None), scored)
        .order_by(ModelInput.id)
    )
    for features, actual, label in connection.execute(answered).yield_per(_STREAMED):
        if label in labels if label is not None else card.task == "regression":
            yield features, actual if label is None else label
