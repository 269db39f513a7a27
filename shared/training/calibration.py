"""Calibration of a binary model: applied only where it improves the Brier score by more than a standard error."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import StratifiedKFold

from shared.training.search import FOLDS, Folds

EPSILON = 1e-15  # keeps log-odds finite
ROWS_FOR_ISOTONIC = 1_000  # with fewer, steps of isotonic regression follow chance

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """One way to calibrate, judged on rows that it was not fitted on."""

    method: str  # sigmoid or isotonic
    scores: Floats  # calibrated out of fold
    improvement: float  # of the Brier score: the mean over rows
    error: float  # its standard error

    @property
    def is_worth_it(self) -> bool:
        """Whether the improvement is more than one standard error."""
        return self.improvement > self.error

    def describe(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "method": self.method,
            "brier_improvement": self.improvement,
            "standard_error": self.error,
            "is_applied": self.is_worth_it,
        }


class Column(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A classifier with its decision as its only column, for fitting a calibrator."""

    def fit(self, column: Floats, answers: Floats) -> "Column":
        """Take the classes over."""
        self.classes_ = np.unique(answers)
        return self

    def decision_function(self, column: Floats) -> Floats:
        """Return the column (n, 1) as n decisions."""
        decisions: Floats = column[:, 0]
        return decisions

    def predict(self, column: Floats) -> NDArray[np.bool_]:
        """Return the decision as a class; scikit-learn wants every classifier to have it."""
        return self.decision_function(column) > 0


def calibrations(answers: Floats, scores: Floats, folds: Folds, *, decides: bool) -> list[Calibration]:
    """Return the ways to calibrate out-of-fold probabilities of n rows, each judged fold by fold.

    `decides` says that the model has a `decision_function`, on which scikit-learn then calibrates: it is the log-odds.
    """
    methods = ["sigmoid", "isotonic"] if len(answers) >= ROWS_FOR_ISOTONIC else ["sigmoid"]
    return [judge(method, answers, scores, folds, decides=decides) for method in methods]


def judge(method: str, answers: Floats, scores: Floats, folds: Folds, *, decides: bool) -> Calibration:
    """Calibrate the scores of each fold by those of the others; compare the Brier scores row by row."""
    clipped = np.clip(scores, EPSILON, 1 - EPSILON)
    column = (np.log(clipped / (1 - clipped)) if decides else scores)[:, None]
    calibrated = np.empty_like(scores)
    for fit_rows, rows in folds:
        frozen = FrozenEstimator(Column().fit(column, answers))
        calibrator = CalibratedClassifierCV(frozen, method=method).fit(column[fit_rows], answers[fit_rows])
        calibrated[rows] = calibrator.predict_proba(column[rows])[:, 1]
    gains = (scores - answers) ** 2 - (calibrated - answers) ** 2
    return Calibration(method, calibrated, float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(len(gains))))


def calibrated_pipeline(pipeline: Any, method: str, seed: int) -> Any:  # noqa: ANN401 - an estimator
    """Return the pipeline with one calibrator, which is fitted on its out-of-fold scores; it is not fitted yet."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)  # those of the search
    return CalibratedClassifierCV(pipeline, method=method, cv=folds, ensemble=False)
