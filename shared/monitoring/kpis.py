"""Business figures of a version: volume, decisions, scores near the threshold; and decisions by another threshold.

Stored scores are decided again in SQL: nothing is scored a second time.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, and_, func, literal, select

from shared.tables import Job, JobKind, JobState, ModelOutput, Outcome

LAST_JOBS = 10_000  # among which the latency is looked for


@dataclass(frozen=True, slots=True)
class Day:
    """What a version scored on one day, in UTC."""

    day: str
    rows: int
    mean_score: float | None  # of the probability, or of what a regression predicts
    positive_rate: float | None  # binary: share of rows decided as the positive class
    near_threshold: float | None  # binary: share of rows within the margin of the threshold


@dataclass(frozen=True, slots=True)
class Confusion:
    """Decisions beside what came, of the rows whose outcome is known."""

    rows: int
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    cost: float | None  # of the false ones by the given weights; None: none were given


@dataclass(frozen=True, slots=True)
class Scope:
    """Which scores are meant, and how they are decided."""

    model_version_id: int
    task: str
    positive: str | None  # binary: label of the positive class
    start: datetime
    end: datetime
    threshold: float | None  # None: as they were decided

    @property
    def of_window(self) -> ColumnElement[bool]:
        """The condition on outputs."""
        return and_(
            ModelOutput.model_version_id == self.model_version_id,
            ModelOutput.created_at >= self.start,
            ModelOutput.created_at < self.end,
        )

    @property
    def is_positive(self) -> ColumnElement[bool]:
        """Whether an output of a binary model is decided as the positive class."""
        if self.threshold is None:
            return ModelOutput.prediction == 1
        return ModelOutput.probability >= self.threshold


def list_days(connection: Connection, scope: Scope, *, margin: float) -> list[Day]:
    """Return what was scored day by day; `margin` is the distance from the threshold that counts as near."""
    threshold: Any = ModelOutput.threshold if scope.threshold is None else literal(scope.threshold)
    is_near = func.abs(ModelOutput.probability - threshold) <= margin
    day = func.date(ModelOutput.created_at)  # sessions are in UTC on both dialects
    score = ModelOutput.prediction if scope.task == "regression" else ModelOutput.probability
    query = (
        select(
            day,
            func.count(),
            func.avg(score),
            func.count(ModelOutput.prediction if scope.threshold is None else ModelOutput.probability),
            func.count().filter(scope.is_positive),
            func.count(ModelOutput.threshold if scope.threshold is None else ModelOutput.probability),
            func.count().filter(is_near),
        )
        .where(scope.of_window)
        .group_by(day)
        .order_by(day)
    )
    return [
        Day(
            str(row[0]),
            row[1],
            row[2],
            row[4] / row[3] if scope.task == "binary" and row[3] else None,
            row[6] / row[5] if scope.task == "binary" and row[5] else None,
        )
        for row in connection.execute(query)
    ]


def find_confusion(
    connection: Connection, scope: Scope, *, cost_fp: float | None, cost_fn: float | None
) -> Confusion | None:
    """Return the confusion counts of a binary version, None where no outcome is known."""
    did = Outcome.label == scope.positive
    said = scope.is_positive
    counts = [func.count().filter(both) for both in (and_(said, did), and_(said, ~did), and_(~said, did))]
    query = (
        select(func.count(), *counts)
        .select_from(Outcome)
        .join(ModelOutput, ModelOutput.input_id == Outcome.input_id)
        .where(scope.of_window, Outcome.replaced_at.is_(None), said.is_not(None))
    )
    found = connection.execute(query).one()
    rows, true, false, missed = (int(count) for count in found)
    if not rows:
        return None
    weights = (cost_fp, cost_fn)
    cost = None if weights == (None, None) else false * (cost_fp or 0.0) + missed * (cost_fn or 0.0)
    return Confusion(rows, true, false, missed, rows - true - false - missed, cost)


def find_latency(connection: Connection, model_version_id: int) -> dict[str, float] | None:
    """Return the median and the 95 % quantile of ms from acceptance to the result of recent single rows."""
    last = select(Job).order_by(Job.id.desc()).limit(LAST_JOBS).subquery()
    query = select(last.c.created_at, last.c.finished_at).where(
        last.c.model_version_id == model_version_id,
        last.c.kind == JobKind.PREDICT,
        last.c.state == JobState.SUCCEEDED,
    )
    taken = [(end - start).total_seconds() * 1000 for start, end in connection.execute(query)]
    if not taken:
        return None
    median, high = np.quantile(taken, [0.5, 0.95]).tolist()
    return {"p50": median, "p95": high, "jobs": float(len(taken))}
