"""What a model says about rows, and how its raw answer becomes a decision."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from shared.cards import Card
from shared.errors import CardError
from shared.steps import Fitted, Matrix

Answer = Literal["predict_proba", "decision_function", "predict"]


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of n rows, in their order."""

    prediction: Matrix  # (n,): 0 or 1 (binary), class index (multiclass), the number itself (regression)
    probability: Matrix | None  # (n,): of the positive class (binary) or the predicted one (multiclass)
    probabilities: Matrix | None  # (n, k): multiclass only


@dataclass(frozen=True, slots=True)
class Judge:
    """Turns raw answers of one model version into scores."""

    task: str
    answer: Answer  # the method of the estimator that is called
    threshold: float
    classes: NDArray[Any] | None

    def empty(self) -> Scores:
        """Return the scores of no rows."""
        none = np.empty(0)
        chances = self.answer == "predict_proba" and self.task != "regression"
        many = np.empty((0, 0 if self.classes is None else len(self.classes)))
        return Scores(none, none if chances else None, many if chances and self.task == "multiclass" else None)

    def read(self, estimator: Fitted, features: Fitted) -> Scores:
        """Call the estimator on what it takes (array or DataFrame) and judge its answer."""
        return self.judge(np.asarray(getattr(estimator, self.answer)(features)))

    def judge(self, raw: NDArray[Any]) -> Scores:
        """Return the scores for a raw answer: (n,), (n, 1) or (n, k), as the estimator's method gives it."""
        if self.task == "regression":
            return Scores(np.asarray(raw, dtype=np.float64).reshape(len(raw)), None, None)
        if self.answer == "predict":
            return Scores(np.searchsorted(self.classes, raw).astype(np.float64), None, None)  # type: ignore[arg-type]
        if self.answer == "decision_function":
            chosen = raw.argmax(axis=1) if raw.ndim == 2 and raw.shape[1] > 1 else raw.reshape(-1) > 0
            return Scores(chosen.astype(np.float64), None, None)
        if self.task == "binary":
            return self.judge_probability(raw[:, -1] if raw.ndim == 2 else raw)
        probabilities = np.asarray(raw, dtype=np.float64)
        index = probabilities.argmax(axis=1)
        chosen = probabilities[np.arange(len(index)), index]
        return Scores(index.astype(np.float64), chosen, probabilities)

    def judge_probability(self, probability: NDArray[Any]) -> Scores:
        """Return the scores of a binary model for P(positive class), shape (n,)."""
        probability = np.asarray(probability, dtype=np.float64)
        return Scores((probability >= self.threshold).astype(np.float64), probability, None)


def judge_of(card: Card, estimator: Fitted) -> Judge:
    """Return how this estimator's answers are read; raise CardError when it cannot do the card's task."""
    who = f"{card.name}@{card.version}"
    if card.task == "regression":
        if not hasattr(estimator, "predict") or hasattr(estimator, "classes_"):
            raise CardError(f"{who}: model.json says regression, but the estimator is not a regressor; set its task.")
        return Judge(card.task, "predict", 0.0, None)
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        raise CardError(f"{who}: model.json says {card.task}, but the estimator has no classes; set its task.")
    classes = np.asarray(classes)
    if classes.ndim != 1 or (card.task == "binary") != (len(classes) == 2):
        raise CardError(
            f"{who}: model.json says {card.task}, but the estimator knows {len(classes)} classes; set its task."
        )
    answers: tuple[Answer, ...] = ("predict_proba", "decision_function", "predict")
    answer = next(name for name in answers if hasattr(estimator, name))
    return Judge(card.task, answer, 0.5 if card.threshold is None else card.threshold, classes)
