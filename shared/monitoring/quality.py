"""The quality of a model on rows with a known outcome: scikit-learn's metrics, each with a 95 % interval.

Intervals, by metric: Wilson (1927) for shares of rows (accuracy, precision, recall); the same through F1 = 2J / (1 + J)
for F1, whose J is the share of true positives among all rows that are positive or called so; the method MOVER (Zou and
Donner, 2008) for balanced accuracy, a mean of independent shares; DeLong (1988) on the logit scale for ROC AUC; Boyd,
Eng and Page (2013) on the logit scale for average precision; the normal interval of a mean for log loss, Brier score,
MAE and bias, and by the delta method for RMSE and R2. Of several classes, macro means have the mean of their classes'
intervals, which is wider than need be.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.cards.card import Card
from shared.monitoring.outcomes import Judged

Z = 1.959963984540054  # the normal distribution's 97.5 % quantile
CALIBRATION_BINS = 10
ROC_POINTS = 101  # at most
EPSILON = float(np.finfo(np.float64).eps)  # scikit-learn keeps probabilities so far from 0 and 1

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric with its 95 % interval; None where the rows do not define it."""

    value: float | None
    low: float | None
    high: float | None
    method: str  # of the interval


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Rows with a probability in one tenth of the scale: the mean prediction and the observed rate."""

    low: float
    high: float
    rows: int
    mean_probability: float
    share: float  # of positive rows
    share_low: float
    share_high: float


@dataclass(frozen=True, slots=True)
class RocPoint:
    """What a threshold does: rows with this probability or more are called positive."""

    threshold: float
    false_positive_rate: float
    true_positive_rate: float


def classification_metrics(
    actual: Sequence[int], predicted: Sequence[int], probabilities: Sequence[Sequence[float]] | None, classes: int
) -> dict[str, Estimate]:
    """Return the metrics of n rows of a classifier: the class 1 is the positive one of two, else macro means.

    `probabilities` are (n, 1) of the positive class, or (n, classes); None where the model gives none. Metrics that the
    rows do not define (ROC AUC of one class, precision without a positive prediction) are None.
    """
    truth, predictions = np.asarray(actual, dtype=np.intp), np.asarray(predicted, dtype=np.intp)
    metrics = {"accuracy": _share(int((truth == predictions).sum()), len(truth))}
    tallies = [_tally(truth == each, predictions == each) for each in range(classes)]
    recalls = [_share(true, true + missed) for true, _, missed in tallies if true + missed]
    metrics["balanced_accuracy"] = _mover(recalls)
    kept = tallies[1:] if classes == 2 else tallies
    of_classes: dict[str, list[Estimate]] = {
        "precision": [_share(true, true + false) for true, false, _ in kept],
        "recall": [_share(true, true + missed) for true, _, missed in kept],
        "f1": [_f1(*tally) for tally in kept],
    }
    if probabilities is not None:
        matrix = np.asarray(probabilities, dtype=np.float64)
        matrix = np.hstack([1 - matrix, matrix]) if matrix.shape[1] == 1 else matrix
        places = [1] if classes == 2 else range(classes)
        of_classes["roc_auc"] = [roc_auc(truth == each, matrix[:, each]) for each in places]
        of_classes["average_precision"] = [average_precision(truth == each, matrix[:, each]) for each in places]
        one_hot = (truth[:, None] == np.arange(classes)).astype(np.float64)
        squares = (matrix - one_hot) ** 2
        metrics["log_loss"] = _mean(_log_losses(truth, matrix))
        metrics["brier"] = _mean(squares[:, 1] if classes == 2 else squares.sum(axis=1))
    return metrics | {name: _macro(estimates) for name, estimates in of_classes.items()}


def regression_metrics(actual: Sequence[float], predicted: Sequence[float]) -> dict[str, Estimate]:
    """Return the metrics of n rows of a regression; bias is the mean of prediction less actual value."""
    truth, predictions = np.asarray(actual, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    errors = predictions - truth
    squares = errors**2
    mse = _mean(squares)
    root = [None if each is None else math.sqrt(max(each, 0.0)) for each in (mse.value, mse.low, mse.high)]
    return {
        "mae": _mean(np.abs(errors)),
        "rmse": Estimate(root[0], root[1], root[2], "delta"),
        "r2": _r2(truth, squares),
        "bias": _mean(errors),
    }


def calibration(actual: Sequence[int], probability: Sequence[float]) -> list[CalibrationBin]:
    """Return the tenths of the scale with a binary model's probabilities, without empty ones."""
    truth, forecasts = np.asarray(actual, dtype=np.intp), np.asarray(probability, dtype=np.float64)
    ends = np.linspace(0.0, 1.0, CALIBRATION_BINS + 1)
    places = np.searchsorted(ends[1:-1], forecasts)
    bins = []
    for place in np.unique(places):
        inside = places == place
        share = _share(int(truth[inside].sum()), int(inside.sum()))
        assert share.value is not None
        assert share.low is not None
        assert share.high is not None
        mean = float(forecasts[inside].mean())
        bounds = float(ends[place]), float(ends[place + 1])
        bins.append(CalibrationBin(*bounds, int(inside.sum()), mean, share.value, share.low, share.high))
    return bins


def roc_curve(actual: Sequence[int], probability: Sequence[float]) -> list[RocPoint]:
    """Return the ROC curve of n rows of a binary model, the highest threshold first.

    Each distinct probability is a threshold; of more than ROC_POINTS, so many in even steps, the lowest among them.
    Empty where a class is missing.
    """
    truth, forecasts = np.asarray(actual, dtype=np.intp), np.asarray(probability, dtype=np.float64)
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return []
    thresholds, places = np.unique(forecasts, return_inverse=True)
    hits = np.cumsum(np.bincount(places, weights=truth)[::-1]) / positives
    alarms = np.cumsum(np.bincount(places, weights=1 - truth)[::-1]) / negatives
    thresholds = thresholds[::-1]
    kept = np.unique(np.linspace(0, len(thresholds) - 1, min(len(thresholds), ROC_POINTS)).round().astype(np.intp))
    return [RocPoint(float(thresholds[place]), float(alarms[place]), float(hits[place])) for place in kept]


# ── one metric ───────────────────────────────────────────────────────────────────────────────────────────────────


def _tally(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Return true positives, false positives, false negatives."""
    return int((truth & prediction).sum()), int((~truth & prediction).sum()), int((truth & ~prediction).sum())


def wilson(hits: float, count: float) -> tuple[float, float]:
    """Return the 95 % interval of a share."""
    share = hits / count
    middle = (share + Z * Z / (2 * count)) / (1 + Z * Z / count)
    half = Z / (1 + Z * Z / count) * math.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def _share(hits: int, count: int) -> Estimate:
    return Estimate(hits / count, *wilson(hits, count), "wilson") if count else Estimate(None, None, None, "wilson")


def _f1(true: int, false: int, missed: int) -> Estimate:
    count = true + false + missed
    if not count:
        return Estimate(None, None, None, "wilson")
    low, high = (2 * share / (1 + share) for share in wilson(true, count))
    return Estimate(2 * true / (2 * true + false + missed), low, high, "wilson")


def _mover(shares: Sequence[Estimate]) -> Estimate:
    """Return the mean of independent shares (method of variance estimates recovery)."""
    shares_there = [(each.value, each.low, each.high) for each in shares if each.value is not None]
    if not shares_there:
        return Estimate(None, None, None, "mover")
    mean = math.fsum(value for value, _, _ in shares_there) / len(shares_there)
    below = math.sqrt(sum((value - (low or 0.0)) ** 2 for value, low, _ in shares_there)) / len(shares_there)
    above = math.sqrt(sum(((high or 0.0) - value) ** 2 for value, _, high in shares_there)) / len(shares_there)
    return Estimate(mean, max(0.0, mean - below), min(1.0, mean + above), "mover")


def _macro(estimates: Sequence[Estimate]) -> Estimate:
    """Return the mean over classes; None where one of them is not defined."""
    if len(estimates) == 1:
        return estimates[0]
    method = f"mean of {estimates[0].method} by class"
    values = [(each.value, each.low, each.high) for each in estimates]
    if any(value is None for value, *_ in values):
        return Estimate(None, None, None, method)
    means = [math.fsum(part or 0.0 for part in parts) / len(values) for parts in zip(*values, strict=True)]
    return Estimate(means[0], means[1], means[2], method)


def _groups(truth: NDArray[np.bool_], score: Floats) -> tuple[Floats, Floats]:
    """Return positives and negatives at each distinct score, ascending."""
    _, places = np.unique(score, return_inverse=True)
    positive, negative = (np.bincount(places, weights=each).astype(np.float64) for each in (truth, ~truth))
    return positive, negative


def roc_auc(truth: NDArray[np.bool_], score: Floats) -> Estimate:
    """Return the area under the ROC curve of n rows, ties counted half (DeLong, DeLong and Clarke-Pearson, 1988)."""
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return Estimate(None, None, None, "delong")
    positive, negative = _groups(truth, score)
    beaten = (np.cumsum(negative) - negative / 2) / negatives  # by a positive row of this score
    area = float((positive * beaten).sum() / positives)
    beating = (positives - np.cumsum(positive) + positive / 2) / positives  # a negative row of this score
    if area in (0.0, 1.0) or min(positives, negatives) < 2:
        low, high = wilson(area * min(positives, negatives), min(positives, negatives))
        return Estimate(area, low, high, "wilson")
    variance = float((positive * (beaten - area) ** 2).sum()) / (positives - 1) / positives
    variance += float((negative * (beating - area) ** 2).sum()) / (negatives - 1) / negatives
    return Estimate(area, *_logit_interval(area, math.sqrt(variance) / (area * (1 - area))), "delong")


def average_precision(truth: NDArray[np.bool_], score: Floats) -> Estimate:
    """Return the average precision of n rows: precision at each threshold, weighted by the recall that it adds."""
    positives = int(truth.sum())
    if not positives:
        return Estimate(None, None, None, "logit")
    positive, negative = (each[::-1] for each in _groups(truth, score))
    hits = np.cumsum(positive)
    value = float((positive * hits / (hits + np.cumsum(negative))).sum() / positives)
    if value >= 1.0:
        return Estimate(value, *wilson(positives, positives), "wilson")
    return Estimate(value, *_logit_interval(value, 1 / math.sqrt(positives * value * (1 - value))), "logit")


def _logit_interval(share: float, error: float) -> tuple[float, float]:
    middle = math.log(share / (1 - share))
    ends = [middle - Z * error, middle + Z * error]
    low, high = (1 / (1 + math.exp(-min(max(end, -700.0), 700.0))) for end in ends)
    return low, high


def _log_losses(truth: Ints, matrix: Floats) -> Floats:
    clipped = np.clip(matrix, EPSILON, 1 - EPSILON)
    losses: Floats = -np.log(clipped[np.arange(len(truth)), truth])
    return losses


def _mean(values: Floats) -> Estimate:
    if not len(values):
        return Estimate(None, None, None, "normal")
    mean = float(values.mean())
    half = Z * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    low, high = (mean - half, mean + half) if math.isfinite(half) else (None, None)
    return Estimate(mean, low, high, "normal")


def _r2(truth: Floats, squares: Floats) -> Estimate:
    spread = (truth - truth.mean()) ** 2 if len(truth) else squares
    if len(truth) < 2 or not spread.any():
        return Estimate(None, None, None, "delta")
    ratio = float(squares.sum() / spread.sum())
    influence = (squares - ratio * spread) / spread.mean()
    half = Z * float(influence.std(ddof=1)) / math.sqrt(len(truth))
    return Estimate(1 - ratio, 1 - ratio - half, 1 - ratio + half, "delta")


# ── a version ────────────────────────────────────────────────────────────────────────────────────────────────────


def roc_of(card: Card, judged: Judged) -> list[RocPoint]:
    """Return the ROC curve of a binary version's scores with known outcomes; empty where it has none."""
    probabilities = [each for each in judged.probability if each is not None]
    if card.task != "binary" or len(probabilities) < len(judged.actual):
        return []
    return roc_curve([int(each) for each in judged.actual], probabilities)


def quality_of(card: Card, judged: Judged) -> tuple[dict[str, Estimate], list[CalibrationBin]]:
    """Return the metrics of a version's scores with known outcomes, and its calibration where it has probabilities."""
    if card.task == "regression":
        return regression_metrics(judged.actual, judged.prediction), []
    actual, predictions = [int(each) for each in judged.actual], [int(each) for each in judged.prediction]
    if card.task == "multiclass":
        every = [each for each in judged.probabilities if each is not None]
        rows = every if every and len(every) == len(actual) else None
        return classification_metrics(actual, predictions, rows, len(card.labels)), []
    probabilities = [each for each in judged.probability if each is not None]
    if not probabilities or len(probabilities) < len(actual):
        return classification_metrics(actual, predictions, None, 2), []
    return classification_metrics(actual, predictions, [[each] for each in probabilities], 2), calibration(
        actual, probabilities
    )
