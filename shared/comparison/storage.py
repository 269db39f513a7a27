"""Pairs in their table, read part by part: the tally of all, and the figures of those with an outcome."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, and_, func, literal_column, select

from shared.cards.card import Card, Task
from shared.comparison.judged import Judged
from shared.comparison.pairs import Pairs
from shared.comparison.report import Report, make_report
from shared.comparison.tally import Tally
from shared.tables import Job, ModelInput, ModelVersion, Outcome, Replay, ScorePairs

BATCH = 10  # parts that are fetched at once


@dataclass(slots=True)
class Collected:
    """All pairs of a comparison, with the further contents of its report."""

    tally: Tally
    judged: Judged
    versions: dict[int, int]  # pairs by the number of the version that decided
    places: dict[int, tuple[str, int]] = field(default_factory=dict)  # job and row of the largest disagreements
    about: dict[str, Any] = field(default_factory=dict)  # window and filter

    def add(self, connection: Connection, decided_by: int, tally: Tally, pairs: Pairs | None) -> None:
        """Add a part that the version of this number decided; its pairs are there where any outcome is known."""
        self.tally.add(tally)
        self.versions[decided_by] = self.versions.get(decided_by, 0) + tally.rows
        if pairs is not None and len(pairs):
            places, actual = _outcomes(connection, pairs.input_ids)
            self.judged.add(pairs.at(places), actual)

    def find_places(self, connection: Connection) -> None:
        """Look up where the rows of the largest disagreements are, when every part has been added."""
        self.places = _places(connection, [each.input_id for each in self.tally.largest])

    def report(self, card: Card) -> Report:
        """Return the report; `card` is that of a version of the model."""
        report = make_report(self.tally, self.judged, list(card.labels.values()))
        report["largest"] = [
            {"job_id": place[0], "row": place[1], **each}
            for each in report["largest"]
            if (place := self.places.get(each.pop("input_id"))) is not None  # else it was erased
        ]
        versions = [{"version": version, "rows": count} for version, count in sorted(self.versions.items())]
        return {**self.about, "versions": versions, **report}


def of_replay(job_id: str) -> ColumnElement[bool]:
    """Return the condition on the pairs of a replay."""
    return ScorePairs.job_id == job_id


def collect(
    connection: Connection, which: ColumnElement[bool], task: Task, *, costs: tuple[float, float] = (1.0, 1.0)
) -> Collected:
    """Add up the pairs that fulfil a condition, with their outcomes as of now."""
    collected = Collected(Tally(task), Judged(task, costs), {})
    ids = connection.scalars(select(ScorePairs.id).where(which).order_by(ScorePairs.id)).all()
    has_outcomes = any_outcome(connection)
    columns: list[Any] = [ModelVersion.version, ScorePairs.tally]
    columns += [ScorePairs.pairs] if has_outcomes else []
    for start in range(0, len(ids), BATCH):
        query = (
            select(*columns)
            .join(ModelVersion, ModelVersion.id == ScorePairs.decided_by_id)
            .where(ScorePairs.id.in_(ids[start : start + BATCH]))
            .order_by(ScorePairs.id)
        )
        for decided_by, tally, *packed in connection.execute(query):
            collected.add(connection, decided_by, Tally.load(tally), Pairs.load(packed[0]) if packed else None)
    collected.find_places(connection)
    return collected


def collect_replay(connection: Connection, job_id: str) -> Collected:
    """Return the pairs of a replay, with its window and filter."""
    replay = connection.execute(
        select(Replay.__table__, ModelVersion.card, Job.failed_count)
        .join(Job, Job.id == Replay.job_id)
        .join(ModelVersion, ModelVersion.id == Job.model_version_id)
        .where(Replay.job_id == job_id)
    ).one()
    collected = collect(connection, of_replay(job_id), replay.card["task"], costs=(replay.cost_fp, replay.cost_fn))
    collected.tally.refused = replay.failed_count  # also those that took workers down
    collected.about = {"window": {"from": replay.starts_at, "to": replay.ends_at}, "filter": replay.filter}
    return collected


def any_outcome(connection: Connection) -> bool:
    """Return whether the outcome of any row is known."""
    return connection.scalar(select(Outcome.id).limit(1)) is not None


def _outcomes(connection: Connection, input_ids: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return places in `input_ids` with a known outcome, ascending by id, and these outcomes."""
    first, last = int(input_ids.min()), int(input_ids.max())
    current = and_(Outcome.input_id.between(first, last), Outcome.replaced_at.is_(None))
    if connection.dialect.name == "postgresql":  # in one value: to fetch rows would take ten times as long
        packed = [
            func.string_agg(func.int8send(Outcome.input_id), literal_column("''::bytea ORDER BY outcomes.input_id")),
            func.string_agg(func.float8send(Outcome.actual), literal_column("''::bytea ORDER BY outcomes.input_id")),
        ]
        raw = connection.execute(select(*packed).where(current)).one()
        judged = np.frombuffer(raw[0] or b"", ">i8").astype(np.int64)
        actual = np.frombuffer(raw[1] or b"", ">f8").astype(np.float64)
    else:
        rows: Sequence[Any] = connection.execute(
            select(Outcome.input_id, Outcome.actual).where(current).order_by(Outcome.input_id)
        ).all()
        judged = np.array([row[0] for row in rows], np.int64)
        actual = np.array([row[1] for row in rows], np.float64)
    order = np.argsort(input_ids, kind="stable")
    ordered = input_ids[order]
    places = np.searchsorted(ordered, judged)
    is_there = ordered[np.minimum(places, len(ordered) - 1)] == judged
    return order[places[is_there]], actual[is_there]


def _places(connection: Connection, input_ids: Sequence[int]) -> dict[int, tuple[str, int]]:
    rows = connection.execute(
        select(ModelInput.id, ModelInput.job_id, ModelInput.row_index).where(ModelInput.id.in_(input_ids))
    )
    return {row[0]: (str(row[1]), row[2]) for row in rows}
