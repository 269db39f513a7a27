"""Columns that give the answer away: with one of them alone the target is all but known."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from shared.training.options import refusal
from shared.training.table import Column, Table

MOST_AUC = 0.995
MOST_CORRELATION = 0.9999
FEW_VALUES = 20  # a number with no more distinct values is looked at as categories, too

Floats = NDArray[np.float64]


def check_leaks(table: Table) -> None:
    """Raise InvalidRequest, with the column's name, where one column alone tells the target.

    Of two classes: a ROC AUC above 0.995, of its numbers in either direction, of the share of positives by value, or of
    whether it is missing. Of several classes the same for each of them; of a number, a correlation above 0.9999.
    """
    answers = np.asarray(table.answers, dtype=np.float64)
    for column in table.columns:
        strength = _correlation(column, answers) if table.task == "regression" else _auc(column, answers, table)
        limit, what = (MOST_CORRELATION, "a correlation") if table.task == "regression" else (MOST_AUC, "a ROC AUC")
        if strength > limit:
            raise refusal(
                "leaked_target",
                f"The column {column.name[:70]!r} alone tells the target {table.target[:70]!r} ({what} of "
                f"{strength:.4f}): it is probably made from the answer, or written down after it. Leave it out "
                "(`leave_out`).",
                column=column.name,
            )


def _auc(column: Column, answers: Floats, table: Table) -> float:
    """Return the ROC AUC of a column alone; for several classes that of the class that it predicts worst."""
    classes = [1.0] if table.task == "binary" else [float(place) for place in range(len(table.labels))]
    return min(max(_area(answers == each, score) for score in _scores(column, answers == each)) for each in classes)


def _area(truth: NDArray[np.bool_], score: Floats) -> float:
    area = float(roc_auc_score(truth, score))
    return max(area, 1.0 - area)


def _scores(column: Column, truth: NDArray[np.bool_]) -> list[Floats]:
    """Return the ways to read a column as a score: by value, by category, by whether it is missing."""
    missing = np.array([value is None for value in column.values])
    scores = [missing.astype(np.float64)]
    if column.kind != "string":
        numbers = np.array([np.nan if value is None else float(value) for value in column.values])
        scores.append(np.where(missing, np.nanmedian(numbers), numbers))
    if column.kind == "string" or len(set(column.values)) <= FEW_VALUES:
        _, places = np.unique([repr(value) for value in column.values], return_inverse=True)
        counts = np.bincount(places)
        scores.append((np.bincount(places, weights=truth) / counts)[places])
    return scores


def _correlation(column: Column, answers: Floats) -> float:
    if column.kind == "string":
        return 0.0
    numbers = np.array([np.nan if value is None else float(value) for value in column.values])
    present = ~np.isnan(numbers)
    if present.sum() < len(answers) / 2 or not numbers[present].std() or not answers[present].std():
        return 0.0
    return abs(float(np.corrcoef(numbers[present], answers[present])[0, 1]))
