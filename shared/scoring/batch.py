"""Rows in, outputs out: the one place that calls a model, for both runtimes.

A batch that raises is halved until the guilty rows stand alone; every other row keeps its score.
"""

import logging
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from shared.cards.card import Card
from shared.cards.validator import odd_features
from shared.faults import Fault, pointer
from shared.scoring.outputs import Output
from shared.scoring.selection import Scorer, Scores

log = logging.getLogger(__name__)

Item = TypeVar("Item")

# What Python code raises on a value that it was not made for; anything else is the model's own fault.
REFUSALS = (ValueError, TypeError, LookupError, AttributeError)


class ScoredModel(Protocol):
    """What scoring needs of a loaded model."""

    @property
    def card(self) -> Card:
        """The model's card."""
        ...

    @property
    def scorer(self) -> Scorer:
        """The fastest exact way to score it."""
        ...


def score_rows(model: ScoredModel, rows: Sequence[dict[str, Any]]) -> list[Output | Fault]:
    """Score canonical rows (n dicts) in one vectorised call; return n outputs, or the fault of a row that fails.

    Exceptions of the model become faults of the rows that cause them: code `refused_by_model` for what it raises on
    values that it does not take, else `model_failed`. MemoryError is not the rows' fault and goes up,
    as does the wish to end the process.
    """
    if not rows:
        return []
    is_refusal = False
    try:
        try:
            scores = model.scorer.score(rows)
        except REFUSALS:
            is_refusal = True
            raise
        outputs = _outputs(model.card, scores)
        if len(outputs) != len(rows):
            raise ValueError(f"the model returned {len(outputs)} predictions for {len(rows)} rows")
        return outputs
    except (MemoryError, SystemExit, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # a library in Rust panics with what is no Exception
        if len(rows) == 1:
            if is_refusal:
                return [_refusal(model.card, rows[0], error)]
            log.warning("%s@%s failed on a row", model.card.name, model.card.version, exc_info=error)
            return [Fault("", "model_failed", f"the model raised {type(error).__name__} on this row")]
        middle = len(rows) // 2
        return score_rows(model, rows[:middle]) + score_rows(model, rows[middle:])


def _refusal(card: Card, row: dict[str, Any], error: BaseException) -> Fault:
    """Return the fault of a row that the model, which scores others, does not take."""
    kind = type(error).__name__
    log.info("%s@%s refused a row (%s)", card.name, card.version, kind)
    names, why = odd_features(card, row)
    where = pointer(names[0]) if len(names) == 1 else ""
    hint = f"it has {why}" if why else "give values like those that it was trained with"
    return Fault(where, "refused_by_model", f"is refused by the model ({kind}): {hint}")


def split_results(results: Sequence[Item], counts: Iterable[int]) -> list[list[Item]]:
    """Return the results of rows that were computed together as one list for each job, by `counts` of rows."""
    remaining = iter(results)
    return [list(islice(remaining, count)) for count in counts]


def usable(card: Card, scores: Scores) -> NDArray[np.bool_]:
    """Return for each row whether its number can be stored: finite, and from 0 to 1 for a probability."""
    if card.task == "regression":
        return np.isfinite(scores.prediction)
    if scores.probability is None:
        return np.ones(len(scores.prediction), dtype=bool)
    return (scores.probability >= 0.0) & (scores.probability <= 1.0)


def no_number(card: Card) -> Fault:
    """Return the fault of a row whose number cannot be stored, and write it to the log."""
    what = "prediction" if card.task == "regression" else "probability"
    log.warning("%s@%s returned a %s that is no usable number", card.name, card.version, what)
    return Fault("", "model_failed", f"the model returned a {what} that is not a usable number for this row")


def _outputs(card: Card, scores: Scores) -> list[Output | Fault]:
    predictions: list[float] = scores.prediction.tolist()
    good = usable(card, scores).tolist()
    if card.task == "regression":
        return [
            Output("regression", value) if fine else no_number(card)
            for value, fine in zip(predictions, good, strict=True)
        ]
    labels = list(card.labels.values())
    if scores.probability is None:
        return [Output(card.task, value, labels[int(value)]) for value in predictions]  # no threshold decided
    probabilities: list[float] = scores.probability.tolist()
    if card.task == "binary":
        threshold = card.threshold
        return [
            Output("binary", value, labels[int(value)], probability, None, threshold) if fine else no_number(card)
            for value, probability, fine in zip(predictions, probabilities, good, strict=True)
        ]
    by_class: list[list[float] | None] = (
        [None] * len(predictions) if scores.probabilities is None else scores.probabilities.tolist()
    )
    return [
        Output("multiclass", value, labels[int(value)], probability, every) if fine else no_number(card)
        for value, probability, every, fine in zip(predictions, probabilities, by_class, good, strict=True)
    ]
