"""The statistics of pairs: two scores, or two decisions, of each of the same rows.

References: McNemar (1947), Psychometrika 12, with the exact binomial tail. DeLong, DeLong and Clarke-Pearson (1988),
Biometrics 44, by the ranks of Sun and Xu (2014), IEEE Signal Processing Letters 21. Moments are joined as Chan, Golub
and LeVeque (1979) do.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from shared.monitoring.quality import Estimate, Z

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_EXACT = 1_000  # coin tosses whose binomial coefficients are summed as whole numbers; beyond them by their ratios


@dataclass(slots=True)
class Moments:
    """Number, mean, and sum of squared distances from the mean of some values; parts can be joined."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: Floats) -> Self:
        """Return the moments of n values."""
        if not len(values):
            return cls()
        mean = float(values.mean())
        return cls(len(values), mean, float(np.square(values - mean).sum()))

    def add(self, other: "Moments") -> None:
        """Join the moments of other values."""
        if not other.count:
            return
        count = self.count + other.count
        apart = other.mean - self.mean
        self.mean += apart * other.count / count
        self.squares += other.squares + apart * apart * self.count * other.count / count
        self.count = count

    def estimate(self, factor: float = 1.0) -> Estimate:
        """Return the mean with its normal 95 % interval, all times `factor`; no interval for fewer than two values."""
        if not self.count:
            return Estimate(None, None, None, "normal")
        value = self.mean * factor
        if self.count < 2:
            return Estimate(value, None, None, "normal")
        half = Z * math.sqrt(self.squares / (self.count - 1) / self.count) * abs(factor)
        return Estimate(value, value - half, value + half, "normal")


def mcnemar(one: int, other: int) -> float:
    """Return the exact two-sided p-value that changes one way and the other are equally likely; 1.0 without changes."""
    count, least = one + other, min(one, other)
    if not count:
        return 1.0
    if count <= _EXACT:
        tail = sum(math.comb(count, place) for place in range(least + 1)) / 2**count
    else:
        # The largest term, and from there down: each is the next one times a ratio below one.
        term = math.exp(
            math.lgamma(count + 1) - math.lgamma(least + 1) - math.lgamma(count - least + 1) - count * math.log(2)
        )
        tail, place = 0.0, least
        while term > tail * 1e-17:
            tail += term
            if place == 0:
                break
            term *= place / (count - place + 1)
            place -= 1
    return float(min(1.0, 2 * tail))


@dataclass(frozen=True, slots=True)
class AucPair:
    """The areas under two ROC curves of the same rows, and the second less the first with its 95 % interval."""

    before: float | None
    after: float | None
    difference: Estimate
    p_value: float | None  # two-sided, that there is no difference; None where nothing varies


def paired_auc(truth: Bools, before: Floats, after: Floats) -> AucPair:
    """Return ROC AUC of two scores (n,) of the same rows and its difference, by the method of DeLong.

    It is not defined without two rows of each class: then everything is None.
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if positives < 2 or negatives < 2:
        return AucPair(None, None, Estimate(None, None, None, "delong"), None)
    areas: list[float] = []
    of_positives, of_negatives = [], []
    for score in (before, after):
        places = _placements(truth, score)
        of_positives.append(places[truth])
        of_negatives.append(1.0 - places[~truth])
        areas.append(float(places[truth].mean()))
    difference = areas[1] - areas[0]
    # Of a difference, the variance of the differences: the covariance is in it, and equal scores give exactly 0.
    variance = float(np.var(of_positives[1] - of_positives[0], ddof=1)) / positives
    variance += float(np.var(of_negatives[1] - of_negatives[0], ddof=1)) / negatives
    error = math.sqrt(variance)
    estimate = Estimate(difference, difference - Z * error, difference + Z * error, "delong")
    p_value = math.erfc(abs(difference) / error / math.sqrt(2)) if error else None
    return AucPair(areas[0], areas[1], estimate, p_value)


def _placements(truth: Bools, score: Floats) -> Floats:
    """Return, of each row, the share of the other class that scores lower, ties counted half."""
    values, places = np.unique(score, return_inverse=True)
    placements = np.empty(len(score))
    for own in (True, False):
        others = np.bincount(places[truth != own], minlength=len(values))
        below = np.cumsum(others) - others / 2
        mine = truth == own
        placements[mine] = below[places[mine]] / others.sum()
    return placements
