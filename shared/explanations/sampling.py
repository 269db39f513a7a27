"""Explanations of any model, from its scores alone.

Štrumbelj and Kononenko (2014): features take the explained row's values one after another, in a random order, starting
from a row of the reference sample; what each changes is averaged. Every order is followed forwards and backwards
(Mitchell et al. 2022), and every reference row starts equally many, so that contributions add up exactly, and only the
orders are sampled. Where all coalitions are few enough they are enumerated instead.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import factorial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.cards.card import Card
from shared.encoding.blocks import Matrix
from shared.encoding.columns import Columns
from shared.encoding.estimator_inputs import make_frame_input
from shared.explanations.attribution import (
    Attribution,
    ExplainedModel,
    Method,
    NotExplainable,
    Row,
    Scale,
    explained_column,
)
from shared.scoring.outputs import Output
from shared.scoring.scores import response_reader

BUDGET = 60_000  # rows that are scored to explain one
ROWS_AT_ONCE = 5_000
MIN_PAIRS = 400  # of orders, whatever that costs: of fewer, what matters only in some is missed, and its error with it
MIN_ROUNDS, MAX_ROUNDS = 2, 20  # pairs from each reference row; two tell how much they vary

Evaluate = Callable[[Columns], Matrix]  # n rows -> (n, K)


@dataclass(frozen=True, slots=True)
class SamplingExplainer:
    """Explains the rows of a model version by scoring mixtures of them with reference rows."""

    card: Card
    evaluate: Evaluate
    scale: Scale
    reference: list[Row]
    seed: int
    tolerance: float = 1e-6

    @property
    def method(self) -> Method:
        """The method: all coalitions, or a sample of feature orders."""
        few = 2 ** len(self.card.features) * len(self.reference) <= BUDGET
        return "enumeration" if few else "permutation_sampling"

    def attribute(self, rows: Sequence[Row], outputs: Sequence[Output]) -> Attribution:
        """Return the contributions of n canonical rows to their scores, with their standard errors."""
        parts = [self._explain(row, output) for row, output in zip(rows, outputs, strict=True)]
        base, value, served, contributions, errors = (np.array(part) for part in zip(*parts, strict=True))
        exact = self.method == "enumeration"
        return Attribution(base, value, served, contributions, None if exact else errors)

    def _explain(self, row: Row, output: Output) -> tuple[float, float, float, Matrix, Matrix]:
        kinds = {feature.name: feature.type for feature in self.card.features}
        columns = Columns.of([*self.reference, row], kinds)
        ends = self.evaluate(columns)
        at = int(explained_column(self.card.task, [output], ends.shape[1])[0])
        count = len(self.reference)
        start, end = ends[:count, at], float(ends[count, at])

        def score(sources: NDArray[np.intp]) -> Matrix:
            """Return the values of mixtures, whose features come from these rows of `columns`, shape (n, F)."""
            parts = [
                self.evaluate(_mixed(columns, sources[low : low + ROWS_AT_ONCE]))[:, at]
                for low in range(0, len(sources), ROWS_AT_ONCE)
            ]
            return np.concatenate(parts) if parts else np.empty(0)

        if self.method == "enumeration":
            contributions = _enumerated(score, count, len(kinds))
            errors = np.zeros(len(kinds))
        else:
            contributions, errors = _sampled(score, start, end, len(kinds), self.seed)
        return float(start.mean()), end, end, contributions, errors


def sampling(model: ExplainedModel, reference: Sequence[Row], *, seed: int) -> SamplingExplainer:
    """Return an explainer of any model on the scale of its served score.

    Raises NotExplainable for a classifier that gives classes and nothing else.
    """
    card = model.card
    reader = response_reader(card, model.estimator)
    scorer = model.scorer
    if card.task == "regression":
        return SamplingExplainer(
            card, lambda columns: scorer.score_columns(columns).prediction[:, None], "target", list(reference), seed
        )
    if reader.gives_probabilities:

        def probabilities(columns: Columns) -> Matrix:
            scores = scorer.score_columns(columns)
            if scores.probabilities is not None:
                return scores.probabilities
            assert scores.probability is not None
            return scores.probability[:, None]

        return SamplingExplainer(card, probabilities, "probability", list(reference), seed)
    if reader.response_method != "decision_function":
        raise NotExplainable(
            "gives classes without probabilities or a decision function, so it has no number to explain: train "
            "it with probabilities (probability=True, or CalibratedClassifierCV)"
        )
    frame = make_frame_input(card, model.estimator)

    def decisions(columns: Columns) -> Matrix:
        answer = np.asarray(model.estimator.decision_function(frame(columns.rows())), dtype=np.float64)
        return answer.reshape(columns.count, -1)

    return SamplingExplainer(card, decisions, "margin", list(reference), seed)


def _mixed(columns: Columns, sources: NDArray[np.intp]) -> Columns:
    """Return n rows; each feature (n, F) comes from one of these source rows."""
    names = list(columns.columns)
    mixed = {name: columns.columns[name].at(sources[:, place]) for place, name in enumerate(names)}
    return Columns(mixed, len(sources))


def _enumerated(score: Callable[[Any], Matrix], count: int, features: int) -> Matrix:
    """Return the contributions from all coalitions: 2^F mixtures with each of `count` reference rows."""
    coalitions = np.arange(2**features)
    inside = (coalitions[:, None] >> np.arange(features)) & 1 == 1  # (2^F, F)
    sources = np.where(inside[:, None, :], count, np.arange(count)[None, :, None])
    game = score(sources.reshape(-1, features)).reshape(len(coalitions), count).mean(axis=1)
    sizes = inside.sum(axis=1)
    share = np.array([factorial(size) * factorial(features - size - 1) for size in range(features)]) / factorial(
        features
    )
    contributions = np.empty(features)
    for feature in range(features):
        without = np.flatnonzero(~inside[:, feature])
        contributions[feature] = share[sizes[without]] @ (game[without | (1 << feature)] - game[without])
    return contributions


def _sampled(
    score: Callable[[Any], Matrix], start: Matrix, end: float, features: int, seed: int
) -> tuple[Matrix, Matrix]:
    """Return contributions (F,) and their standard errors from orders drawn at random."""
    count = len(start)
    rounds = max(min(BUDGET // (2 * features * count), MAX_ROUNDS), MIN_ROUNDS, -(-MIN_PAIRS // count))
    draw = np.random.default_rng(seed)
    orders = draw.permuted(np.tile(np.arange(features), (count * rounds, 1)), axis=1)
    orders = np.stack([orders, orders[:, ::-1]], axis=1).reshape(-1, features)  # (count * rounds * 2, F)
    first = np.repeat(np.arange(count), rounds * 2)
    place = np.empty_like(orders)
    np.put_along_axis(place, orders, np.arange(features)[None, :].repeat(len(orders), axis=0), axis=1)
    steps = np.arange(1, features)
    # After `step` features have changed, those whose place in the order is below it have the row's value.
    sources = np.where(place[:, None, :] < steps[None, :, None], count, first[:, None, None])
    inner = score(sources.reshape(-1, features)).reshape(len(orders), features - 1)
    path = np.hstack([start[first][:, None], inner, np.full((len(orders), 1), end)])
    changes = np.stack([after - before for before, after in pairwise(path.T)], axis=1)  # (orders, F), in order
    by_feature = np.take_along_axis(changes, place, axis=1).reshape(count, rounds, 2, features).mean(axis=2)
    variance = by_feature.var(axis=1, ddof=1).sum(axis=0) / (rounds * count**2)
    result: Matrix = by_feature.mean(axis=(0, 1))
    return result, np.sqrt(variance)
