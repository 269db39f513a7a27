"""The proof that a fast path gives the pipeline's own answers, row by row, decision by decision."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.scores import Scores
from shared.steps import Matrix

TOLERANCE = 1e-6  # of a probability or a value; relative for values beyond 1
FEW = 64  # rows per call, so that a path for few rows is proved as well as one for many

Score = Callable[[Sequence[dict[str, Any]]], Scores]


@dataclass(slots=True)
class Answers:
    """What a scorer said of n rows; a refused row has NaN everywhere."""

    prediction: Matrix  # (n,)
    values: Matrix  # (n, k): probabilities, or the predicted number
    refused: NDArray[np.bool_]  # (n,): scoring this row raises
    decides: bool  # classification: predictions are classes, and must be equal


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far a path is from the truth; `reason` is empty when it is exact."""

    max_abs_diff: float
    decisions_differ: int
    rows_checked: int
    reason: str

    @property
    def exact(self) -> bool:
        """Tell whether the path may be used."""
        return not self.reason


def ask(score: Score, rows: list[dict[str, Any]], *, task: str, chunk: int | None = None) -> Answers:
    """Score all rows, `chunk` at a time, and find by bisection those that make the scorer raise."""
    parts: list[Scores | None] = []
    sizes: list[int] = []

    def attempt(some: list[dict[str, Any]]) -> None:
        try:
            parts.append(score(some))
            sizes.append(len(some))
        except Exception:  # noqa: BLE001 - a model may raise anything; the refusal is the answer
            if len(some) == 1:
                parts.append(None)
                sizes.append(1)
            else:
                attempt(some[: len(some) // 2])
                attempt(some[len(some) // 2 :])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # edge rows are meant to be odd
        step = chunk or max(1, len(rows))
        for start in range(0, len(rows), step):
            attempt(rows[start : start + step])
    blocks = [None if part is None else _values(part) for part in parts]
    width = next((block.shape[1] for block in blocks if block is not None), 1)
    nothing = np.full((1, width), np.nan)
    return Answers(
        np.concatenate([[np.nan] if part is None else part.prediction for part in parts]),
        np.concatenate([nothing if block is None else block for block in blocks]),
        np.repeat([part is None for part in parts], sizes),
        task != "regression",
    )


def compare(truth: Answers, other: Answers) -> Verdict:
    """Return the verdict over a path's answers: within TOLERANCE, the same decisions, the same refusals."""
    count = len(truth.prediction)
    if truth.values.shape != other.values.shape:
        return Verdict(float("inf"), count, count, "its answers have another shape than the pipeline's")
    both = ~(truth.refused | other.refused)
    scale = np.maximum(1.0, np.abs(truth.values[both]))
    distance = np.abs(truth.values[both] - other.values[both]) / scale
    far = float(distance.max(initial=0.0))
    if np.isnan(distance).any():
        far = float("inf")
    differ = int((truth.prediction[both] != other.prediction[both]).sum()) if truth.decides else 0
    faults = []
    if far > TOLERANCE:
        wrong = int((distance > TOLERANCE).any(axis=1).sum())
        faults.append(f"{wrong} of {count} rows are off, by up to {far:.2g}")
    if differ:
        faults.append(f"{differ} of {count} decisions differ")
    refusals = int((truth.refused != other.refused).sum())
    if refusals:
        faults.append(f"{refusals} rows are refused by only one of it and the pipeline")
    if truth.refused.all():
        faults.append("the pipeline itself refuses every row")
    return Verdict(far, differ, count, "; ".join(faults))


def _values(scores: Scores) -> Matrix:
    if scores.probabilities is not None:
        return scores.probabilities
    values = scores.prediction if scores.probability is None else scores.probability
    return values[:, None]
