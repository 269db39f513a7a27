"""Business figures of a version: volume, decisions, scores near the threshold; and decisions by another threshold.

Stored scores are decided again, and nothing is scored a second time. Those up to the watermark come from their packed
copy, those beyond it from the rows: the figures are exact at any moment.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, and_, case, func, literal, literal_column, select

from shared.monitoring.scores import Scores, StoredScores
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
    """Decisions against outcomes, of the rows with a known outcome."""

    rows: int
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    cost: float | None  # of the false ones by the given weights; None: none were given


@dataclass(frozen=True, slots=True)
class Scope:
    """The scores of a question, in whole hours, and the rule that decides them."""

    model_version_id: int
    task: str
    positive: str | None  # binary: label of the positive class
    start: datetime
    end: datetime
    threshold: float | None  # None: as they were decided

    def beyond(self, output_id: int) -> ColumnElement[bool]:
        """Return the condition on outputs of the window with a higher id than this one."""
        return and_(
            ModelOutput.id > output_id,
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


@dataclass(slots=True)
class _Sums:
    """The sums over a day's scores."""

    rows: int = 0
    scores: int = 0  # that there are
    total: float = 0.0  # of them
    decided: int = 0
    positive: int = 0
    compared: int = 0  # with a threshold
    near: int = 0

    def add(self, other: "_Sums") -> None:
        """Add another part of the day."""
        for field in fields(_Sums):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


def list_days(connection: Connection, scope: Scope, *, margin: float) -> list[Day]:
    """Return the scores day by day; `margin` is the largest distance from the threshold that counts as near."""
    days: defaultdict[str, _Sums] = defaultdict(_Sums)
    needs_decisions = scope.threshold is None and scope.task == "binary"
    stored = StoredScores(connection, scope.model_version_id, scope.start, scope.end, with_decisions=needs_decisions)
    for part in stored.days():
        days[part.day].add(_sum(part, scope, margin))
    for day, sums in _sum_rows(connection, scope, margin, stored.packed_through):
        days[day].add(sums)
    is_binary = scope.task == "binary"
    return [
        Day(
            day,
            sums.rows,
            sums.total / sums.scores if sums.scores else None,
            sums.positive / sums.decided if is_binary and sums.decided else None,
            sums.near / sums.compared if is_binary and sums.compared else None,
        )
        for day, sums in sorted(days.items())
    ]


def _sum(part: Scores, scope: Scope, margin: float) -> _Sums:
    rows = len(part.scores)
    is_missing = np.isnan(part.scores)
    scores = rows - int(np.count_nonzero(is_missing))
    total = float(np.sum(part.scores) if scores == rows else np.sum(part.scores[~is_missing]))
    sums = _Sums(rows, scores, total)
    if scope.task == "binary":
        threshold = part.threshold if scope.threshold is None else scope.threshold
        sums.decided = rows if scope.threshold is None else scores
        sums.positive = int(np.count_nonzero(_positives(part, scope)))
        if threshold is not None:
            sums.compared = rows if scope.threshold is None else scores
            sums.near = int(np.count_nonzero(np.abs(part.scores - threshold) <= margin))
    return sums


def _positives(part: Scores, scope: Scope) -> NDArray[np.bool_]:
    """Return a mask of a binary model's scores that are decided as the positive class."""
    return part.decisions == 1 if scope.threshold is None else part.scores >= scope.threshold


def _sum_rows(connection: Connection, scope: Scope, margin: float, packed_through: int) -> Iterator[tuple[str, _Sums]]:
    """Yield the sums by day of the rows that are not in the packed copy yet."""
    threshold: Any = ModelOutput.threshold if scope.threshold is None else literal(scope.threshold)
    is_near = func.abs(ModelOutput.probability - threshold) <= margin
    day = func.date(ModelOutput.created_at)  # sessions are in UTC on both dialects
    score = ModelOutput.prediction if scope.task == "regression" else ModelOutput.probability
    query = (
        select(
            day,
            func.count(),
            func.count(score),
            func.coalesce(func.sum(score), 0.0),
            func.count(ModelOutput.prediction if scope.threshold is None else ModelOutput.probability),
            func.count().filter(scope.is_positive),
            func.count(ModelOutput.threshold if scope.threshold is None else ModelOutput.probability),
            func.count().filter(is_near),
        )
        .where(scope.beyond(packed_through))
        .group_by(day)
    )
    for row in connection.execute(query):
        yield str(row[0]), _Sums(*row[1:])


def find_confusion(
    connection: Connection, scope: Scope, *, cost_fp: float | None, cost_fn: float | None
) -> Confusion | None:
    """Return the confusion counts of a binary version, None where no outcome is known."""
    if connection.scalar(select(Outcome.id).limit(1)) is None:
        return None
    stored = StoredScores(
        connection,
        scope.model_version_id,
        scope.start,
        scope.end,
        with_ids=True,
        with_decisions=scope.threshold is None,
    )
    counts = np.zeros(4, dtype=np.int64)  # rows, then true positives, false positives, false negatives
    for part in stored.days():
        counts += _compare(connection, part, scope)
    counts += _compare_rows(connection, scope, stored.packed_through)
    rows, true, false, missed = counts.tolist()
    if not rows:
        return None
    weights = (cost_fp, cost_fn)
    cost = None if weights == (None, None) else false * (cost_fp or 0.0) + missed * (cost_fn or 0.0)
    return Confusion(rows, true, false, missed, rows - true - false - missed, cost)


def _compare(connection: Connection, part: Scores, scope: Scope) -> NDArray[np.int64]:
    """Compare packed scores with their outcomes."""
    judged_ids, did = _outcomes(connection, int(part.input_ids.min()), int(part.input_ids.max()), scope.positive)
    order = np.argsort(part.input_ids, kind="stable")
    ids = part.input_ids[order]
    places = np.searchsorted(ids, judged_ids)
    is_there = ids[np.minimum(places, len(ids) - 1)] == judged_ids
    places, did = order[places[is_there]], did[is_there]
    positive = _positives(part, scope)[places]
    is_decided = np.ones(len(positive), dtype=bool) if scope.threshold is None else ~np.isnan(part.scores[places])
    counted = [is_decided, positive & did, positive & ~did, ~positive & did & is_decided]
    return np.array([np.count_nonzero(each) for each in counted], dtype=np.int64)


def _outcomes(
    connection: Connection, first: int, last: int, positive: str | None
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return inputs between two ids with a known outcome, ascending, and whether it is the positive class."""
    is_positive = case((Outcome.label == positive, 1), else_=0)
    of_inputs = and_(Outcome.input_id >= first, Outcome.input_id <= last, Outcome.replaced_at.is_(None))
    if connection.dialect.name == "postgresql":  # in one value: to fetch rows would take ten times as long
        pair = func.int8send(Outcome.input_id * 2 + is_positive)
        packed = connection.scalar(
            select(func.string_agg(pair, literal_column("''::bytea")).label("pairs")).where(of_inputs)
        )
        pairs = np.frombuffer(packed or b"", dtype=">i8").astype(np.int64)
    else:
        packed_pairs = connection.scalars(select(Outcome.input_id * 2 + is_positive).where(of_inputs)).all()
        pairs = np.array(packed_pairs, dtype=np.int64)
    pairs.sort()
    return pairs >> 1, (pairs & 1).astype(bool)


def _compare_rows(connection: Connection, scope: Scope, packed_through: int) -> NDArray[np.int64]:
    """Compare the rows that are not in the packed copy yet with their outcomes."""
    did = Outcome.label == scope.positive
    positive = scope.is_positive
    counts = [func.count().filter(both) for both in (and_(positive, did), and_(positive, ~did), and_(~positive, did))]
    query = (
        select(func.count(), *counts)
        .select_from(Outcome)
        .join(ModelOutput, ModelOutput.input_id == Outcome.input_id)
        .where(scope.beyond(packed_through), Outcome.replaced_at.is_(None), positive.is_not(None))
    )
    return np.array([int(count) for count in connection.execute(query).one()], dtype=np.int64)


def find_latency(connection: Connection, model_version_id: int) -> dict[str, float] | None:
    """Return the median and the 95 % quantile of ms from acceptance to the result of recent single rows."""
    last = select(Job).order_by(Job.id.desc()).limit(LAST_JOBS).subquery()
    query = select(last.c.created_at, last.c.finished_at).where(
        last.c.model_version_id == model_version_id,
        last.c.kind == JobKind.PREDICT,
        last.c.state == JobState.SUCCEEDED,
    )
    times = [(end - start).total_seconds() * 1000 for start, end in connection.execute(query)]
    if not times:
        return None
    median, high = np.quantile(times, [0.5, 0.95]).tolist()
    return {"p50": median, "p95": high, "jobs": float(len(times))}
