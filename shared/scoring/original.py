"""The estimator as it was saved, called by its own methods: `predict`, and its probabilities or decisions.

Nothing of the service's own reading of its answers is in here: the class is the one that `predict` gives.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from shared.cards.card import Card
from shared.encoding.blocks import Estimator
from shared.encoding.compile import Row
from shared.encoding.estimator_inputs import make_frame_input
from shared.errors import CardError
from shared.scoring.scores import ResponseReader, Scores, own_threshold, response_reader

log = logging.getLogger(__name__)


class Original:
    """Scores canonical rows by the estimator's own methods, on the DataFrame that it was trained with.

    `features` makes what the estimator takes from the rows, where that is no DataFrame.
    """

    def __init__(
        self,
        card: Card,
        estimator: Estimator,
        reader: ResponseReader,
        features: Callable[[Sequence[Row]], Any] | None = None,
    ) -> None:
        self.who = f"{card.name}@{card.version}"
        self.estimator = estimator
        self.reader = reader
        self.features = features or make_frame_input(card, estimator)
        self.count = 0  # of rows that were scored so far
        self.differing = 0  # of those that predict decides otherwise than their probability or decision, ties apart

    def score(self, rows: Sequence[Row]) -> Scores:
        """Return the estimator's scores of n rows and the classes that its `predict` gives.

        Raises CardError where it does not give one answer for each row; what it raises itself passes through.
        """
        return self.of(self.features(rows), len(rows))

    def of(self, features: Any, count: int) -> Scores:  # noqa: ANN401 - a DataFrame or an array of n rows
        """Return the scores of n rows in the form that the estimator takes."""
        predicted = self._answer("predict", features, count)
        if predicted.ndim > 1 and predicted.shape[1] > 1:
            raise CardError(
                f"{self.who} predicts {predicted.shape[1]} outputs for each row: several outputs are not served. Train "
                "one model for each of them."
            )
        reader = self.reader
        method = reader.response_method
        raw = predicted if method == "predict" else self._answer(method, features, count)
        scores = reader.decide(raw)
        if reader.task == "regression" or not reader.is_own:
            return scores
        own = reader.index_of(predicted)
        differ = own != scores.prediction
        self.differing += int(np.count_nonzero(differ if scores.close is None else differ & ~scores.close))
        self.count += count
        return reader.with_prediction(scores, own)

    def _answer(self, method: str, features: Any, count: int) -> Any:  # noqa: ANN401 - an array
        answer = np.asarray(getattr(self.estimator, method)(features))
        if answer.ndim == 0 or len(answer) != count:
            raise CardError(
                f"{self.who} gives {answer.size if answer.ndim == 0 else len(answer)} answers to {count} rows by "
                f"{method}: the service needs one for each row. Check that it takes a table of "
                f"{self.width()}, and not a list of texts."
            )
        return answer

    def width(self) -> str:
        """Return the estimator's declared number of columns, in words."""
        count = getattr(self.estimator, "n_features_in_", None)
        return "its columns" if count is None else f"{count} columns"


def decided(card: Card, estimator: Estimator, ask: Callable[[ResponseReader], Original]) -> Card:
    """Return the card with its decision rule: its own, or else the one that the estimator's `predict` follows.

    `ask` puts many rows to an original with this reader and returns it. A threshold of the estimator's own
    (FixedThresholdClassifier, TunedThresholdClassifierCV) becomes the card's. Raises CardError where the card wants
    what the estimator does not have.
    """
    if card.task == "regression" or card.decided_by is not None:
        return card
    reader = response_reader(card, estimator)
    threshold: float | None = None
    if card.task == "binary" and reader.gives_probabilities:
        threshold = own_threshold(estimator) if reader.response_method == "predict_proba" else 0.5
        if card.threshold not in (None, 0.5, threshold):
            return _with_decision(card, "probability", card.threshold)  # written by someone who means it
        if threshold is None:
            return _with_decision(card, "predict", None)
        reader = replace(reader, threshold=threshold, is_own=True)
    original = ask(reader)
    if original.differing:
        log.info(
            "%s: predict decides; %d of %d rows have another class than by %s",
            original.who,
            original.differing,
            original.count,
            "their probabilities" if reader.gives_probabilities else reader.response_method,
        )
        return _with_decision(card, "predict", None)
    if reader.decided_by == "decision_function" and card.task == "binary":
        threshold = 0.0
    return _with_decision(card, reader.decided_by, threshold)


def _with_decision(card: Card, decided_by: str, threshold: float | None) -> Card:
    return Card.model_validate(card.model_dump() | {"decided_by": decided_by, "threshold": threshold})
