"""The proof that a scorer gives the estimator's own answers, row by row, decision by decision.

The truth is the estimator as it was saved (shared/scoring/original.py). It is asked for all rows at once, for a few at
a time in another order, and for single rows: a row whose answer depends on the company it comes in has no right one.
Every way to score is then asked the same, also by columns as CSV files are scored.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.cards.card import Card
from shared.encoding.blocks import Matrix
from shared.encoding.columns import Columns
from shared.errors import ArtefactError, GuichetError
from shared.scoring.scores import Scores

TOLERANCE = 1e-6  # of a probability or a value; relative for values beyond 1
SMALL_BATCH = 64  # rows per call, so that a path for few rows is proved as well as one for many
SAMPLE = 20  # rows that stand for all of them
LEAST = {1: 8, SMALL_BATCH: 4}  # batches of single rows, and of a few, that the original is asked for at the least
SHUFFLE = 1729  # any number: the order of a proof is always the same

Row = dict[str, Any]
ScoreFunction = Callable[[Sequence[Row]], Scores]


@dataclass(slots=True)
class Predictions:
    """A scorer's answers to n rows; a refused row has NaN everywhere."""

    prediction: Matrix  # (n,)
    values: Matrix  # (n, k): probabilities, or the predicted number
    refused: NDArray[np.bool_]  # (n,): scoring this row raises
    decides: bool  # classification: predictions are classes, and must be equal

    def at(self, rows: NDArray[np.intp]) -> "Predictions":
        """Return the answers of these rows, in their order."""
        return Predictions(self.prediction[rows], self.values[rows], self.refused[rows], self.decides)


@dataclass(slots=True)
class Truth:
    """The estimator's own answers to n rows, independent of the rows beside them."""

    answers: Predictions
    lone: NDArray[np.intp]  # rows that were asked alone
    swaying: NDArray[np.bool_]  # (n,): a tie that rounding decides, so that either class is right


@dataclass(frozen=True, slots=True)
class Parity:
    """How far a path is from the truth; `reason` is empty when it is exact."""

    max_abs_diff: float
    decisions_differ: int
    rows_checked: int
    reason: str

    @property
    def exact(self) -> bool:
        """Whether the path may be used."""
        return not self.reason


def score_with_refusals(score: ScoreFunction, rows: list[Row], *, task: str, chunk: int | None = None) -> Predictions:
    """Score all rows, `chunk` at a time, and find by bisection those that make the scorer raise.

    What the service says about the model as a whole (GuichetError) passes through.
    """
    parts: list[Scores | None] = []
    sizes: list[int] = []

    def attempt(part: list[Row]) -> None:
        try:
            scores = score(part)
            if len(scores.prediction) != len(part):
                raise ValueError(f"{len(scores.prediction)} answers to {len(part)} rows")
            parts.append(scores)
            sizes.append(len(part))
        except GuichetError:
            raise
        except Exception:  # noqa: BLE001 - a model may raise anything; the refusal is the answer
            if len(part) == 1:
                parts.append(None)
                sizes.append(1)
            else:
                attempt(part[: len(part) // 2])
                attempt(part[len(part) // 2 :])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # edge rows are meant to be odd
        step = chunk or max(1, len(rows))
        for start in range(0, len(rows), step):
            attempt(rows[start : start + step])
    blocks = [None if part is None else _values(part) for part in parts]
    width = next((block.shape[1] for block in blocks if block is not None), 1)
    nothing = np.full((1, width), np.nan)
    return Predictions(
        np.concatenate([[np.nan] if part is None else part.prediction for part in parts]),
        np.concatenate([nothing if block is None else block for block in blocks]),
        np.repeat([part is None for part in parts], sizes),
        task != "regression",
    )


def refuses_all(score: ScoreFunction, rows: list[Row], *, task: str) -> bool:
    """Return whether the model refuses all of SAMPLE rows from everywhere: then trying each row is useless."""
    return bool(score_with_refusals(score, rows[:: max(1, len(rows) // SAMPLE)], task=task).refused.all())


def find_truth(score: ScoreFunction, rows: list[Row], *, card: Card, seconds: float | None) -> Truth:
    """Return the original's answers to n rows; ArtefactError where the answer to a row depends on those beside it.

    All rows are asked together. Then rows from everywhere are asked alone, and FEW at a time beside others than their
    neighbours: as many as `seconds` are enough for, and not fewer than LEAST; none where that is None.
    """
    together = score_with_refusals(score, rows, task=card.task)
    companies: list[tuple[NDArray[np.intp], Predictions, str]] = []
    if seconds is not None:
        companies = [
            (*_ask_batches(score, rows, card, size=1, seconds=seconds), "alone"),
            (
                *_ask_batches(score, rows, card, size=SMALL_BATCH, seconds=seconds),
                f"among {SMALL_BATCH} in another order",
            ),
        ]
    swaying = np.zeros(len(rows), dtype=bool)
    for places, answers, company in companies:
        _check_steady(card, together.at(places), answers, places, company)
        swaying[places[together.prediction[places] != answers.prediction]] = together.decides
    return Truth(together, companies[0][0] if companies else np.empty(0, dtype=np.intp), swaying)


def prove(
    score: ScoreFunction, by_columns: Callable[[Columns], Scores], rows: list[Row], truth: Truth, card: Card
) -> Parity:
    """Return the worst verdict on a way to score: all rows, by columns, a few in another order, and single ones."""
    order = _shuffled(len(rows))
    lone_rows = [rows[i] for i in truth.lone]
    columns = _by_columns(card, by_columns)
    ways: list[tuple[NDArray[np.intp], Callable[[], Predictions]]] = [
        (np.arange(len(rows)), lambda: score_with_refusals(score, rows, task=card.task)),
        (np.arange(len(rows)), lambda: score_with_refusals(columns, rows, task=card.task)),
        (order, lambda: score_with_refusals(score, [rows[i] for i in order], task=card.task, chunk=SMALL_BATCH)),
    ]
    if lone_rows:
        ways.append((truth.lone, lambda: score_with_refusals(score, lone_rows, task=card.task, chunk=1)))
    worst = Parity(0.0, 0, len(rows), "")
    for places, answers in ways:
        verdict = compare(truth.answers.at(places), answers(), swaying=truth.swaying[places], total=len(rows))
        worst = max(worst, verdict, key=lambda parity: (len(parity.reason) > 0, parity.max_abs_diff))
        if not verdict.exact:
            break
    return worst


def compare(
    truth: Predictions, other: Predictions, *, swaying: NDArray[np.bool_] | None = None, total: int | None = None
) -> Parity:
    """Return the verdict over a path's answers: within TOLERANCE, the same decisions, the same refusals.

    `swaying` rows may be decided either way; `total` is how many rows the verdict is on, where it is more than these.
    """
    count = len(truth.prediction)
    total = total or count
    if truth.values.shape != other.values.shape:
        return Parity(float("inf"), count, total, "its answers have another shape than the pipeline's")
    both = ~(truth.refused | other.refused)
    distance = _distance(truth.values[both], other.values[both])
    far = float(distance.max(initial=0.0))
    if np.isnan(distance).any():
        far = float("inf")
    firm = both if swaying is None else both & ~swaying
    differ = int((truth.prediction[firm] != other.prediction[firm]).sum()) if truth.decides else 0
    faults = []
    if far > TOLERANCE:
        wrong = int((~(distance <= TOLERANCE)).any(axis=1).sum())
        faults.append(f"{wrong} of {count} rows are off, by up to {far:.2g}")
    if differ:
        faults.append(f"{differ} of {count} decisions differ")
    refusals = int((truth.refused != other.refused).sum())
    if refusals:
        faults.append(f"{refusals} rows are refused by only one of it and the pipeline")
    if truth.refused.all():
        faults.append("the pipeline itself refuses every row")
    return Parity(far, differ, total, "; ".join(faults))


def _ask_batches(
    score: ScoreFunction, rows: list[Row], card: Card, *, size: int, seconds: float
) -> tuple[NDArray[np.intp], Predictions]:
    """Return the rows that were scored in batches of this size, in a shuffled order, and their answers."""
    order = _shuffled(len(rows))
    end = time.perf_counter() + seconds
    batches: list[Predictions] = []
    for start in range(0, len(rows), size):
        if len(batches) >= LEAST[size] and time.perf_counter() > end:
            break
        batches.append(
            score_with_refusals(score, [rows[place] for place in order[start : start + size]], task=card.task)
        )
    width = max(answers.values.shape[1] for answers in batches)  # a batch that is refused has one
    nothing = np.full((size, width), np.nan)
    values = [
        answers.values if answers.values.shape[1] == width else nothing[: len(answers.values)] for answers in batches
    ]
    return order[: sum(map(len, values))], Predictions(
        np.concatenate([answers.prediction for answers in batches]),
        np.concatenate(values),
        np.concatenate([answers.refused for answers in batches]),
        card.task != "regression",
    )


def _check_steady(
    card: Card, together: Predictions, other: Predictions, places: NDArray[np.intp], company: str
) -> None:
    """Raise ArtefactError where rows have another answer in this company than among all of them, or none at all."""
    advice = (
        "Look for a step that takes something from the whole table (a mean, a rank, the categories or the columns of "
        "dummies that happen to occur): let it learn that when it is fitted, and save the model again."
    )
    torn = np.flatnonzero(together.refused != other.refused)
    if len(torn):
        alike = ("refuses", "takes") if other.refused[torn[0]] else ("takes", "refuses")
        raise ArtefactError(
            f"{card.name}@{card.version} scores a row by the rows beside it: {len(torn)} of {len(places)} rows that it "
            f"{alike[0]} {company}, it {alike[1]} among others (row {places[torn[0]] + 1}). {advice}"
        )
    both = ~(together.refused | other.refused)
    if not both.any():
        return
    distance = _distance(together.values[both], other.values[both])
    blank = np.isnan(together.values[both]) & np.isnan(other.values[both])
    far = (~(distance <= TOLERANCE) & ~blank).any(axis=1)
    if not far.any():
        return
    first = int(np.flatnonzero(far)[0])
    here, there = (float(answers.values[both][first, -1]) for answers in (other, together))
    raise ArtefactError(
        f"{card.name}@{card.version} scores a row by the rows beside it: {np.count_nonzero(far)} of {len(distance)} "
        f"rows have another answer {company} than among all {len(together.prediction)} (row {places[both][first] + 1}: "
        f"{here:.6g}, not {there:.6g}). The service scores a row beside any other rows, so none of these "
        f"answers is the right one. {advice}"
    )


def _distance(one: Matrix, other: Matrix) -> Matrix:
    """Return the distance of values, relative for those beyond 1."""
    distance: Matrix = np.abs(one - other) / np.maximum(1.0, np.abs(one))
    return distance


def _shuffled(count: int) -> NDArray[np.intp]:
    return np.random.default_rng(SHUFFLE).permutation(count)


def _by_columns(card: Card, score: Callable[[Columns], Scores]) -> ScoreFunction:
    kinds = {feature.name: feature.type for feature in card.features}
    return lambda rows: score(Columns.of(rows, kinds))


def _values(scores: Scores) -> Matrix:
    if scores.probabilities is not None:
        return scores.probabilities
    values = scores.prediction if scores.probability is None else scores.probability
    return values[:, None]
