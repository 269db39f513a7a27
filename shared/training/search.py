"""The search: every draw is cross-validated on the same folds, and its out-of-fold scores are kept while it is best."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss, roc_auc_score, root_mean_squared_error
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict

from shared.training.estimators import Draw, make_pipeline
from shared.training.options import TrainingOptions
from shared.training.table import Table

FOLDS = 5

Floats = NDArray[np.float64]
Folds = list[tuple[NDArray[np.intp], NDArray[np.intp]]]  # of row numbers: to fit on, to score


@dataclass(frozen=True, slots=True)
class Tried:
    """A draw with the figure by which draws are compared: higher is better."""

    draw: Draw
    by_fold: list[float]
    scores: Floats  # out of fold: (n,) probabilities or numbers, (n, classes) of several classes

    @property
    def mean(self) -> float:
        """The mean over the folds."""
        return float(np.mean(self.by_fold))

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        return float(np.std(self.by_fold, ddof=1) / np.sqrt(len(self.by_fold)))


def metric_of(task: str) -> str:
    """Return the name of the figure by which draws of this task are compared."""
    return {"binary": "roc_auc", "multiclass": "negative_log_loss", "regression": "negative_rmse"}[task]


def figure(task: str, answers: Floats, scores: Floats) -> float:
    """Return the figure of rows with these answers and scores; higher is better."""
    if task == "binary":
        return float(roc_auc_score(answers, scores))
    if task == "multiclass":
        return -float(log_loss(answers, scores, labels=np.arange(scores.shape[1])))
    return -float(root_mean_squared_error(answers, scores))


def make_folds(answers: Floats, task: str, seed: int) -> Folds:
    """Return five folds of n rows, of classifiers with the same share of each class."""
    kind = KFold if task == "regression" else StratifiedKFold
    return list(kind(FOLDS, shuffle=True, random_state=seed).split(answers, answers))


def search(
    table: Table,
    frame: Any,  # noqa: ANN401 - a DataFrame of the table's n rows
    answers: Floats,
    folds: Folds,
    options: TrainingOptions,
    drawn: Sequence[Draw],
    *,
    tell: Callable[[int], None],
) -> list[Tried]:
    """Cross-validate every draw; return them, the best first (of equals the earlier). `tell` gets the number done.

    All but the best are returned without their scores.
    """
    best: Tried | None = None
    every: list[Tried] = []
    for count, draw in enumerate(drawn, start=1):
        scores = out_of_fold(make_pipeline(table, draw, options.seed), frame, answers, folds, table.task)
        by_fold = [figure(table.task, answers[rows], scores[rows]) for _, rows in folds]
        tried = Tried(draw, by_fold, scores)
        if best is None or tried.mean > best.mean:
            best = tried
        every.append(Tried(draw, by_fold, np.empty(0)))
        tell(count)
    assert best is not None
    others = [each for each in every if each.draw is not best.draw]
    return [best, *sorted(others, key=lambda each: -each.mean)]


def out_of_fold(pipeline: Any, frame: Any, answers: Floats, folds: Folds, task: str) -> Floats:  # noqa: ANN401
    """Return the score of each row by a pipeline that was fitted without its fold."""
    method = "predict" if task == "regression" else "predict_proba"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of a draw that loses for it
        scores = np.asarray(cross_val_predict(pipeline, frame, answers, cv=folds, method=method), dtype=np.float64)
    return scores[:, 1] if task == "binary" else scores
