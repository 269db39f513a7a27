"""The raw answer of a model, and the decision that follows from it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from shared.cards.card import Card, DecidedBy
from shared.encoding.blocks import Estimator, Matrix
from shared.encoding.pipelines import split
from shared.errors import CardError

EstimatorInput = Any  # what the estimator is handed: an array or a DataFrame
ResponseMethod = Literal["predict_proba", "decision_function", "predict"]  # methods of an estimator

CLOSE = 1e-6  # a probability or a decision within this of going the other way is left to the estimator itself
TUNED = ("FixedThresholdClassifier", "TunedThresholdClassifierCV")  # of scikit-learn: with thresholds of their own


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of n rows, in their order."""

    prediction: Matrix  # (n,): 0 or 1 (binary), class index (multiclass), the number itself (regression)
    probability: Matrix | None  # (n,): of the positive class (binary) or the predicted one (multiclass)
    probabilities: Matrix | None  # (n, k): multiclass only
    close: NDArray[np.bool_] | None = None  # (n,): the decision is within CLOSE of another one; None: none is


@dataclass(frozen=True, slots=True)
class ResponseReader:
    """Turns raw answers of one model version into scores.

    Where the classes are the estimator's own, close calls are too: ties are broken by its `predict`, and the rounding
    of a fast path turns no decision.
    """

    task: str
    response_method: ResponseMethod  # the method of the estimator whose answer the score is
    threshold: float  # binary: of the probability
    classes: NDArray[Any] | None
    decided_by: DecidedBy = "probability"  # what the class follows from
    is_own: bool = True  # the class is the estimator's own `predict`, and not one by a threshold that someone chose
    is_sigmoid: bool = False  # the probability is the sigmoid of `decision_function`

    @property
    def gives_probabilities(self) -> bool:
        """Return whether a score holds a probability."""
        return self.task != "regression" and (self.response_method == "predict_proba" or self.is_sigmoid)

    @property
    def asks_twice(self) -> bool:
        """Return whether the raw answer does not determine the class, so that `predict` runs for every row too."""
        return self.task != "regression" and self.decided_by == "predict" != self.response_method

    def empty(self) -> Scores:
        """Return the scores of no rows."""
        none = np.empty(0)
        has_probabilities = self.gives_probabilities
        table = np.empty((0, 0 if self.classes is None else len(self.classes)))
        return Scores(
            none,
            none if has_probabilities else None,
            table if has_probabilities and self.task == "multiclass" else None,
        )

    def read(self, estimator: Estimator, features: EstimatorInput) -> Scores:
        """Call the estimator on an array or a DataFrame and read its answer; it decides close calls itself."""
        return self.decide_close_rows(self.ask(estimator, features), estimator, features)

    def ask(self, estimator: Estimator, features: EstimatorInput) -> Scores:
        """Return the result of `read`, without the estimator's own decision of close calls."""
        scores = self.decide(np.asarray(getattr(estimator, self.response_method)(features)))
        if not self.asks_twice:
            return scores
        return self.with_prediction(scores, self.index_of(estimator.predict(features)))

    def decide_close_rows(self, scores: Scores, estimator: Estimator, features: EstimatorInput) -> Scores:
        """Return the scores with close calls as the estimator itself decides them, on the same features."""
        if scores.close is None or self.decided_by == "predict":
            return scores
        rows = np.flatnonzero(scores.close)
        close_rows = features.iloc[rows] if hasattr(features, "iloc") else features[rows]
        prediction = scores.prediction.copy()
        if self.is_own:
            prediction[rows] = self.index_of(estimator.predict(close_rows))
        else:
            prediction[rows] = self.decide(np.asarray(getattr(estimator, self.response_method)(close_rows))).prediction
        return self.with_prediction(scores, prediction)

    def with_prediction(self, scores: Scores, prediction: Matrix) -> Scores:
        """Return the scores with other decisions, and the probability of many classes that belongs to each."""
        if len(prediction) != len(scores.prediction):
            raise ValueError(f"predict gives {len(prediction)} answers to {len(scores.prediction)} rows")
        if scores.probabilities is None:
            return replace(scores, prediction=prediction)
        chosen = scores.probabilities[np.arange(len(prediction)), prediction.astype(np.intp)]
        return replace(scores, prediction=prediction, probability=chosen)

    def index_of(self, predicted: Any) -> Matrix:  # noqa: ANN401 - (n,) or (n, 1) classes of any type
        """Return the place of each predicted class among the estimator's classes; ValueError where it is none."""
        assert self.classes is not None
        classes = np.asarray(predicted)
        classes = classes.reshape(len(classes)) if classes.ndim == 2 and classes.shape[1] == 1 else classes
        if classes.ndim != 1:
            raise ValueError(f"predict gives {classes.shape[1]} outputs for a row")
        index = np.searchsorted(self.classes, classes)
        index[index == len(self.classes)] = 0
        if (self.classes[index] != classes).any():  # classes that are not in order, or a class that is none of them
            places = {value: place for place, value in enumerate(self.classes.tolist())}
            unknown = next((value for value in classes.tolist() if value not in places), None)
            if unknown is not None:
                raise ValueError(f"predict gives {unknown!r}, which is none of its classes")
            index = np.array([places[value] for value in classes.tolist()])
        return index.astype(np.float64)

    def decide(self, raw: NDArray[Any]) -> Scores:
        """Return the scores for a raw answer: (n,), (n, 1) or (n, k), as the estimator's method gives it.

        Where `predict` decides beside probabilities, the decisions are not the estimator's yet: see `with_prediction`.
        """
        if self.task == "regression":
            return Scores(np.asarray(raw, dtype=np.float64).reshape(len(raw)), None, None)
        if self.response_method == "predict":
            return Scores(self.index_of(raw), None, None)
        if self.response_method == "decision_function":
            return self._decide_by_function(raw)
        if self.task == "binary":
            return self.decide_binary(raw[:, -1] if raw.ndim == 2 else raw)
        probabilities = np.asarray(raw, dtype=np.float64)
        index = probabilities.argmax(axis=1)
        chosen = probabilities[np.arange(len(index)), index]
        return Scores(index.astype(np.float64), chosen, probabilities, _ties(probabilities, chosen))

    def decide_binary(self, probability: NDArray[Any]) -> Scores:
        """Return the scores of a binary model for P(positive class), shape (n,)."""
        probability = np.asarray(probability, dtype=np.float64)
        if len(probability) == 1:  # the interactive path: a comparison of numbers takes a third of one of arrays
            by = probability.item() - self.threshold
            return Scores(
                np.array([float(by >= 0.0)]), probability, None, np.array([True]) if abs(by) <= CLOSE else None
            )
        beyond = probability - self.threshold
        near = np.abs(beyond) <= CLOSE
        close = near if np.count_nonzero(near) else None
        return Scores((beyond >= 0.0).astype(np.float64), probability, None, close)

    def _decide_by_function(self, raw: NDArray[Any]) -> Scores:
        decision = np.asarray(raw, dtype=np.float64)
        if decision.ndim == 2 and decision.shape[1] > 1:
            index = decision.argmax(axis=1)
            return Scores(index.astype(np.float64), None, None, _ties(decision, decision[np.arange(len(index)), index]))
        decision = decision.reshape(-1)
        if self.is_sigmoid:
            from scipy.special import expit

            return self.decide_binary(expit(decision))
        near = np.abs(decision) <= CLOSE
        close = near if np.count_nonzero(near) else None
        return Scores((decision > 0.0).astype(np.float64), None, None, close)


def response_reader(card: Card, estimator: Estimator) -> ResponseReader:
    """Return the reader of this estimator's answers; raise CardError when it cannot do the card's task.

    For a card without `decided_by`, the estimator's best method decides: shared/scoring/original.py checks whether that
    equals its own `predict`.
    """
    who = f"{card.name}@{card.version}"
    if card.task == "regression":
        # A regressor of CatBoost says with an empty list that it has no classes.
        if not hasattr(estimator, "predict") or len(getattr(estimator, "classes_", ())):
            raise CardError(f"{who}: model.json says regression, but the estimator is not a regressor; set its task.")
        return ResponseReader(card.task, "predict", 0.0, None)
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        raise CardError(f"{who}: model.json says {card.task}, but the estimator has no classes; set its task.")
    classes = np.asarray(classes)
    if classes.ndim != 1 or (card.task == "binary") != (len(classes) == 2):
        raise CardError(
            f"{who}: model.json says {card.task}, but the estimator knows {len(classes)} classes; set its task."
        )
    answer = answer_of(estimator)
    is_sigmoid = card.probability == "sigmoid"
    decided_by = card.decided_by or _decider(answer, is_sigmoid=is_sigmoid)
    _check_decision(card, estimator, answer, decided_by)
    if decided_by == "predict" and answer == "decision_function" and not is_sigmoid:
        answer = "predict"  # a decision that decides nothing is not asked for
    is_own, threshold = True, 0.5
    if card.task == "binary" and (answer == "predict_proba" or is_sigmoid) and card.threshold is not None:
        threshold = card.threshold
        own = 0.5 if answer != "predict_proba" else own_threshold(estimator)
        is_own = threshold == (0.5 if own is None else own)
    return ResponseReader(card.task, answer, threshold, classes, decided_by, is_own, is_sigmoid)


def answer_of(estimator: Estimator) -> ResponseMethod:
    """Return the most informative method of a classifier: probabilities, else decisions, else classes."""
    answers: Sequence[ResponseMethod] = ("predict_proba", "decision_function", "predict")
    return next(name for name in answers if hasattr(estimator, name))


def _decider(answer: ResponseMethod, *, is_sigmoid: bool) -> DecidedBy:
    return "probability" if answer == "predict_proba" or is_sigmoid else answer


def own_threshold(estimator: Estimator) -> float | None:
    """Return the probability of the second class from which on a binary classifier predicts it.

    It is 0.5 but for those that were given another one; None where it is not one of that probability.
    """
    final = split(estimator)[1]
    if type(final).__name__ not in TUNED:
        return 0.5
    threshold = getattr(final, "best_threshold_", getattr(final, "threshold", None))
    inner = getattr(final, "estimator_", getattr(final, "estimator", None))
    method = getattr(final, "response_method", "auto")
    by_probability = method == "predict_proba" or (method == "auto" and hasattr(inner, "predict_proba"))
    positive = getattr(final, "_curve_scorer", final)
    label = getattr(positive, "_kwargs", {}).get("pos_label", getattr(final, "pos_label", None))
    if not by_probability or (label is not None and label != final.classes_[1]):
        return None
    if threshold == "auto":
        return 0.5
    return float(threshold) if threshold is not None and 0 <= float(threshold) <= 1 else None


def _check_decision(card: Card, estimator: Estimator, answer: ResponseMethod, decided_by: DecidedBy) -> None:
    """Raise CardError where the card wants a decision or a probability that the estimator has not."""
    who = f"{card.name}@{card.version}"
    kind = type(split(estimator)[1]).__name__
    if card.probability == "sigmoid" and (answer != "decision_function" or card.task != "binary"):
        has = "gives probabilities itself" if answer == "predict_proba" else "has no decision_function of one number"
        raise CardError(
            f"{who}: `probability` demands the sigmoid of decision_function, but {kind} {has}; leave that out."
        )
    chosen = card.threshold not in (None, 0.0, 0.5)
    if answer != "predict_proba" and card.probability is None and (decided_by == "probability" or chosen):
        how = (
            ', or map its decision_function to a probability (--probability sigmoid, or "probability": "sigmoid" in a '
            "card or contract), which a threshold can decide by"
            if answer == "decision_function" and card.task == "binary"
            else ""
        )
        raise CardError(
            f"{who}: a threshold decides by the probability, and {kind} gives none: its class is that of "
            f"{answer}. Leave the threshold out{how}."
        )
    if decided_by == "decision_function" and (answer != "decision_function" or card.probability is not None):
        raise CardError(
            f"{who}: model.json says that decision_function decides, but {kind} answers by its {answer}; leave "
            "decided_by out."
        )


def _ties(values: Matrix, chosen: Matrix) -> NDArray[np.bool_] | None:
    """Return which rows have a second class within CLOSE of the chosen one; None without any."""
    near = values >= (chosen - CLOSE)[:, None]
    if np.count_nonzero(near) <= len(values):
        return None
    close: NDArray[np.bool_] = near.sum(axis=1) > 1
    return close if close.any() else None
