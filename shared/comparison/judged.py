"""Pairs with a known outcome: the errors of both versions, summed part by part."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shared.cards.card import Task
from shared.comparison.pairs import Pairs
from shared.comparison.statistics import AucPair, Moments, mcnemar, paired_auc
from shared.monitoring.quality import Estimate

MAX_RANKED = 500_000  # rows whose scores are kept for ROC AUC, about 60 MB while it is reckoned; of more, a sample

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(slots=True)
class Twice:
    """A measure of each row by both versions, and the second less the first."""

    before: Moments = field(default_factory=Moments)
    after: Moments = field(default_factory=Moments)
    difference: Moments = field(default_factory=Moments)

    def add(self, before: Floats, after: Floats) -> None:
        """Add the measures of n rows."""
        for moments, values in ((self.before, before), (self.after, after), (self.difference, after - before)):
            moments.add(Moments.of(values))


@dataclass(slots=True)
class Judged:
    """Figures of pairs with an outcome; `costs` are those of a false positive and of a false negative."""

    task: Task
    costs: tuple[float, float] = (1.0, 1.0)
    rows: int = 0
    errors: Twice = field(default_factory=Twice)  # share of wrong decisions; of a regression, the absolute error
    squares: Twice = field(default_factory=Twice)  # binary: Brier score; of a regression, the squared error
    cost: Twice = field(default_factory=Twice)  # binary, of a row
    false: list[list[int]] = field(default_factory=lambda: [[0, 0], [0, 0]])  # positives, negatives: before and after
    mended: int = 0  # wrong before, right after
    spoilt: int = 0  # right before, wrong after
    max_ranked: int = MAX_RANKED
    ranked: int = 0  # rows that have both probabilities
    _kept: list[tuple[NDArray[np.uint64], Bools, Floats, Floats]] = field(default_factory=list)
    _kept_count: int = 0
    _below: int = 2**64 - 1  # a row is kept while the hash of its id is not above

    def add(self, pairs: Pairs, actual: Floats) -> None:
        """Add n pairs with what came of them: the index of the class, or the number."""
        if not len(pairs):
            return
        self.rows += len(pairs)
        if self.task == "regression":
            before, after = pairs.before - actual, pairs.after - actual
            self.errors.add(np.abs(before), np.abs(after))
            self.squares.add(np.square(before), np.square(after))
            return
        wrong_before, wrong_after = pairs.decided_before != actual, pairs.decided_after != actual
        self.errors.add(wrong_before.astype(np.float64), wrong_after.astype(np.float64))
        self.mended += int(np.count_nonzero(wrong_before & ~wrong_after))
        self.spoilt += int(np.count_nonzero(~wrong_before & wrong_after))
        if self.task == "binary":
            self._add_binary(pairs, actual == 1, wrong_before, wrong_after)

    def _add_binary(self, pairs: Pairs, truth: Bools, wrong_before: Bools, wrong_after: Bools) -> None:
        costs = np.where(truth, self.costs[1], self.costs[0])
        self.cost.add(costs * wrong_before, costs * wrong_after)
        for place, wrong in enumerate((wrong_before, wrong_after)):
            self.false[place][0] += int(np.count_nonzero(wrong & ~truth))
            self.false[place][1] += int(np.count_nonzero(wrong & truth))
        has_scores = ~(np.isnan(pairs.before) | np.isnan(pairs.after))
        scored, truth = pairs.at(has_scores), truth[has_scores]
        self.squares.add(np.square(scored.before - truth), np.square(scored.after - truth))
        self.ranked += len(scored)
        self._keep(_hashes(scored.input_ids), truth, scored.before, scored.after)

    def _keep(self, hashes: NDArray[np.uint64], *columns: NDArray[np.generic]) -> None:
        """Keep rows for ROC AUC: those with the lowest hashes of their ids, which are a random sample of all."""
        is_low = hashes <= np.uint64(self._below)
        self._kept.append((hashes[is_low], *(each[is_low] for each in columns)))  # type: ignore[arg-type]
        self._kept_count += int(np.count_nonzero(is_low))
        if self._kept_count > self.max_ranked:
            joined = [np.concatenate(column) for column in zip(*self._kept, strict=True)]
            self._below = int(np.partition(joined[0], self.max_ranked - 1)[self.max_ranked - 1])
            kept = joined[0] <= np.uint64(self._below)
            self._kept = [tuple(each[kept] for each in joined)]  # type: ignore[list-item]
            self._kept_count = int(np.count_nonzero(kept))

    @property
    def sampled(self) -> int:
        """Rows in the calculation of ROC AUC."""
        return self._kept_count

    def auc(self) -> AucPair:
        """Return both areas under the ROC curve and their difference."""
        if not self._kept_count:
            return AucPair(None, None, Estimate(None, None, None, "delong"), None)
        _, truth, before, after = (np.concatenate(column) for column in zip(*self._kept, strict=True))
        return paired_auc(truth, before, after)

    def p_value(self) -> float:
        """Return McNemar's exact p-value that both versions are right equally often."""
        return mcnemar(self.mended, self.spoilt)


def _hashes(ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a well-mixed number of each id (the finalizer of SplitMix64: Steele, Lea and Flood, 2014)."""
    mixed = ids.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
