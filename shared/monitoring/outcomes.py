"""Outcomes: the ground truth of scored rows, stored once and revised only on request.

The value in force of a row is the one that was not replaced; a unique index holds that there is one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, and_, insert, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from shared.cards.card import Card
from shared.cards.classes import classes_of
from shared.cards.numbers import POINT, NumberForm
from shared.csv.targets import TargetReader
from shared.faults import Fault
from shared.tables import Job, ModelInput, ModelOutput, Outcome

PIECE = 500  # rows of one statement


@dataclass(frozen=True, slots=True)
class Truth:
    """What became of one row: the class by its index and label, or a number."""

    input_id: int
    actual: float
    label: str | None
    observed_at: datetime | None = None


@dataclass(slots=True)
class Recorded:
    """What became of some truths, each by its place in the list that was given."""

    created: list[int] = field(default_factory=list)
    unchanged: list[int] = field(default_factory=list)  # told before, the same
    revised: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)  # told before, with another value


class TruthReader:
    """Reads actual values for one version's card: a class, a label, a number."""

    def __init__(self, card: Card, numbers: NumberForm = POINT) -> None:
        self._reader = TargetReader(card, "actual", numbers)
        self._places = {value: place for place, value in enumerate(classes_of(card).values())}
        self._labels = list(card.labels.values())
        self._is_number = card.task == "regression"

    def read(self, value: object) -> tuple[float, str | None] | Fault:
        """Return class index and label, or the number and None; a Fault for a value that the model never gives."""
        if isinstance(value, bool):
            value = str(value).lower()
        reading = self._reader.read("" if value is None else str(value))
        if isinstance(reading, Fault):
            return reading
        if self._is_number:
            return float(reading), None
        place = self._places[reading]
        return float(place), self._labels[place]


def find_rows(connection: Connection, places: Sequence[tuple[str, int]]) -> dict[tuple[str, int], tuple[int, bool]]:
    """Return input id and whether it was scored by (job id, row index from 0), without unknown rows."""
    rows: dict[tuple[str, int], tuple[int, bool]] = {}
    distinct = list(dict.fromkeys(places))
    for start in range(0, len(distinct), PIECE):
        query = (
            select(ModelInput.job_id, ModelInput.row_index, ModelInput.id, ModelOutput.id)
            .join(Job, Job.id == ModelInput.job_id)
            .outerjoin(
                ModelOutput,
                and_(ModelOutput.input_id == ModelInput.id, ModelOutput.model_version_id == Job.model_version_id),
            )
            .where(tuple_(ModelInput.job_id, ModelInput.row_index).in_(distinct[start : start + PIECE]))
        )
        for job_id, row, input_id, output_id in connection.execute(query):
            rows[str(job_id), row] = (input_id, output_id is not None)
    return rows


def record_outcomes(
    connection: Connection, truths: Sequence[Truth], *, by: str | None, request_id: str, revise: bool
) -> Recorded:
    """Store outcomes, at most one for a row; the caller commits, or rolls back if some were refused.

    An equal value is left as it is; another one is refused unless `revise`, which keeps the earlier one beside it.
    """
    result = Recorded()
    numbered = list(enumerate(truths))
    for start in range(0, len(numbered), PIECE):
        piece = numbered[start : start + PIECE]
        _record(connection, piece, result, by=by, request_id=request_id, revise=revise)
    return result


def _record(
    connection: Connection,
    truths: list[tuple[int, Truth]],
    result: Recorded,
    *,
    by: str | None,
    request_id: str,
    revise: bool,
) -> None:
    now = datetime.now(UTC)

    def line(truth: Truth, revision: int) -> dict[str, Any]:
        return {
            "input_id": truth.input_id,
            "revision": revision,
            "actual": truth.actual,
            "label": truth.label,
            "observed_at": truth.observed_at,
            "recorded_at": now,
            "recorded_by": by,
            "request_id": request_id,
        }

    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(Outcome).on_conflict_do_nothing().returning(Outcome.input_id)
    new = set(connection.scalars(statement, [line(truth, 1) for _, truth in truths]))
    current = {row.input_id: row for row in _current(connection, [truth.input_id for _, truth in truths])}
    for place, truth in truths:
        if truth.input_id in new:
            result.created.append(place)
            continue
        row = current.get(truth.input_id)
        if row is None:  # it was erased at this moment
            result.refused.append(place)
        elif row.actual == truth.actual:
            result.unchanged.append(place)
        elif revise and _replace(connection, row.id, now):
            connection.execute(insert(Outcome).values(line(truth, row.revision + 1)))
            result.revised.append(place)
        else:
            result.refused.append(place)


def _current(connection: Connection, input_ids: Sequence[int]) -> Iterator[Any]:
    yield from connection.execute(
        select(Outcome.id, Outcome.input_id, Outcome.revision, Outcome.actual).where(
            Outcome.input_id.in_(input_ids), Outcome.replaced_at.is_(None)
        )
    )


def _replace(connection: Connection, number: int, now: datetime) -> bool:
    """Mark a value as replaced; False when somebody else has just done so."""
    replaced = connection.execute(
        update(Outcome).where(Outcome.id == number, Outcome.replaced_at.is_(None)).values(replaced_at=now)
    )
    return replaced.rowcount == 1


def find_outcome(connection: Connection, input_id: int) -> Any:  # noqa: ANN401 - a row of outcomes
    """Return the current outcome of a row, None without one."""
    return connection.execute(
        select(Outcome.__table__).where(Outcome.input_id == input_id, Outcome.replaced_at.is_(None))
    ).one_or_none()


@dataclass(frozen=True, slots=True)
class Judged:
    """Scores of one version with their outcomes, n of each; for classes, by index in the card's order."""

    actual: list[float]
    prediction: list[float]
    probability: list[float | None]  # binary: of the positive class
    probabilities: list[list[float] | None]  # multiclass: of every class


def find_judged(connection: Connection, model_version_id: int, card: Card, start: datetime, end: datetime) -> Judged:
    """Return the scores of a version in a period with their outcomes.

    Outcomes of classes are found by their labels, since another version may order its classes differently. An outcome
    with a label that this version does not have is left out.
    """
    judged = Judged([], [], [], [])
    places = {label: float(place) for place, label in enumerate(card.labels.values())}
    columns = (ModelOutput.prediction, ModelOutput.probability, ModelOutput.probabilities)
    query = (
        select(Outcome.actual, Outcome.label, *columns)
        .join(ModelOutput, ModelOutput.input_id == Outcome.input_id)
        .where(
            Outcome.replaced_at.is_(None),
            ModelOutput.model_version_id == model_version_id,
            ModelOutput.created_at >= start,
            ModelOutput.created_at < end,
        )
    )
    for actual, label, prediction, probability, probabilities in connection.execute(query):
        value = actual if label is None else places.get(label)
        if value is not None and (label is None) == (card.task == "regression"):
            judged.actual.append(value)
            judged.prediction.append(prediction)
            judged.probability.append(probability)
            judged.probabilities.append(probabilities)
    return judged
