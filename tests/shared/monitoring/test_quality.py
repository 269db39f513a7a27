"""Live quality: the figures of scikit-learn on the same rows, and intervals that are as wide as they say."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn import metrics
from sklearn.calibration import calibration_curve

from shared.monitoring.metric_order import METRICS, in_order
from shared.monitoring.quality import (
    Estimate,
    calibration,
    classification_metrics,
    regression_metrics,
    roc_auc,
    roc_curve,
    wilson,
)


def values(estimates: dict[str, Estimate]) -> dict[str, float | None]:
    return {name: estimate.value for name, estimate in estimates.items()}


def sample(seed: int, count: int, *, decimals: int = 12) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    chances = rng.random(count).round(decimals)
    return (rng.random(count) < chances**2).astype(int), chances


@pytest.mark.parametrize(("seed", "count", "decimals"), [(1, 1000, 12), (2, 300, 1), (3, 25, 2), (4, 5000, 3)])
def test_binary_figures_are_those_of_scikit_learn(seed: int, count: int, decimals: int) -> None:
    actual, chances = sample(seed, count, decimals=decimals)
    predictions = (chances >= 0.4).astype(int)
    assert values(classification_metrics(actual, predictions, chances[:, None], 2)) == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(actual, predictions),
            "balanced_accuracy": metrics.balanced_accuracy_score(actual, predictions),
            "precision": metrics.precision_score(actual, predictions),
            "recall": metrics.recall_score(actual, predictions),
            "f1": metrics.f1_score(actual, predictions),
            "roc_auc": metrics.roc_auc_score(actual, chances),
            "average_precision": metrics.average_precision_score(actual, chances),
            "log_loss": metrics.log_loss(actual, chances),
            "brier": metrics.brier_score_loss(actual, chances),
        },
        abs=1e-12,
    )
    bins = calibration(actual, chances)
    share, mean = calibration_curve(actual, chances, n_bins=10)
    assert [each.share for each in bins] == pytest.approx(share.tolist(), abs=1e-12)
    assert [each.mean_probability for each in bins] == pytest.approx(mean.tolist(), abs=1e-12)
    assert sum(each.rows for each in bins) == count
    points = roc_curve(actual, chances)
    alarms, hits, thresholds = metrics.roc_curve(actual, chances, drop_intermediate=False)
    assert len(points) == min(len(thresholds) - 1, 101)
    exact = dict(zip(thresholds.tolist(), zip(alarms.tolist(), hits.tolist(), strict=True), strict=True))
    for point in points:
        rates = (point.false_positive_rate, point.true_positive_rate)
        assert rates == pytest.approx(exact[point.threshold], abs=1e-12)
    assert (points[-1].false_positive_rate, points[-1].true_positive_rate) == (1.0, 1.0)
    assert roc_curve([1, 1], [0.2, 0.3]) == []


def test_multiclass_figures_are_macro_means_of_scikit_learn() -> None:
    rng = np.random.default_rng(5)
    actual = rng.integers(0, 4, 800)
    chances = rng.dirichlet([1, 1, 1, 1], 800) * 0.5 + 0.5 * np.eye(4)[actual] * rng.random((800, 1))
    chances /= chances.sum(axis=1, keepdims=True)
    predictions = chances.argmax(axis=1)
    one_hot = np.eye(4)[actual]
    assert values(classification_metrics(actual, predictions, chances, 4)) == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(actual, predictions),
            "balanced_accuracy": metrics.balanced_accuracy_score(actual, predictions),
            "precision": metrics.precision_score(actual, predictions, average="macro"),
            "recall": metrics.recall_score(actual, predictions, average="macro"),
            "f1": metrics.f1_score(actual, predictions, average="macro"),
            "roc_auc": metrics.roc_auc_score(actual, chances, multi_class="ovr"),
            "average_precision": metrics.average_precision_score(one_hot, chances, average="macro"),
            "log_loss": metrics.log_loss(actual, chances),
            "brier": ((chances - one_hot) ** 2).sum(axis=1).mean(),
        },
        abs=1e-12,
    )


def test_regression_figures_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(6)
    actual = rng.normal(50, 10, 700)
    predictions = actual + rng.normal(1.5, 4, 700)
    assert values(regression_metrics(actual, predictions)) == pytest.approx(
        {
            "mae": metrics.mean_absolute_error(actual, predictions),
            "rmse": metrics.root_mean_squared_error(actual, predictions),
            "r2": metrics.r2_score(actual, predictions),
            "bias": float((predictions - actual).mean()),
        },
        abs=1e-12,
    )


def test_metrics_are_computed_in_the_order_in_which_they_are_shown() -> None:
    binary = classification_metrics([0, 1, 1], [0, 1, 0], [[0.2], [0.9], [0.4]], 2)
    regression = regression_metrics([1.0, 2.0], [1.5, 2.5])
    assert [*binary, *regression] == list(METRICS)
    mixed = dict.fromkeys(["recall", "zeta", "accuracy", "alpha"])
    assert list(in_order(mixed)) == ["accuracy", "recall", "alpha", "zeta"]


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(7)
    names = ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "roc_auc", "average_precision", "brier")

    def draw(count: int) -> Any:
        actual = (rng.random(count) < 0.3).astype(int)
        score = 1 / (1 + np.exp(-rng.normal(actual * 1.2 - 0.8)))
        return classification_metrics(actual, (score >= 0.5).astype(int), score[:, None], 2)

    truth = draw(200_000)
    hits = dict.fromkeys(names, 0)
    for _ in range(300):
        metrics = draw(150)
        for name in names:
            hits[name] += metrics[name].low <= truth[name].value <= metrics[name].high
    assert all(count >= 270 for count in hits.values()), hits  # 285 are expected


@pytest.mark.parametrize(
    ("actual", "predictions", "chances"),
    [
        ([1, 1], [1, 1], [0.9, 0.8]),  # one class alone
        ([0, 0], [0, 0], [0.1, 0.1]),
        ([1], [0], [0.2]),
        ([0, 1], [0, 1], [0.0, 1.0]),  # perfect, and sure of it
        ([0, 1], [1, 0], [1.0, 0.0]),  # wrong, and sure of it
        ([], [], []),
    ],
)
def test_rows_that_define_no_metric_give_none_and_no_error(
    actual: list[int], predictions: list[int], chances: list[float]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = classification_metrics(
            actual, predictions, np.reshape(chances, (-1, 1)).tolist() or np.empty((0, 1)), 2
        )
    assert (metrics["roc_auc"].value is None) == (len(set(actual)) < 2)
    for estimate in metrics.values():
        parts = [part for part in (estimate.value, estimate.low, estimate.high) if part is not None]
        assert all(math.isfinite(part) for part in parts)
        assert parts == [] or len(parts) == 1 or estimate.low <= estimate.value <= estimate.high  # type: ignore[operator]
    assert values(regression_metrics([2.0] * len(actual), [3.0] * len(actual)))["r2"] is None


def test_perfect_separation_has_an_interval_that_shrinks_with_the_rows() -> None:
    few, wide = (roc_auc(np.arange(n) >= n / 2, np.arange(n) / n) for n in (10, 1000))
    assert few.value == wide.value == 1.0
    assert few.low is not None
    assert wide.low is not None
    assert few.low < wide.low < 1.0
    assert wilson(0, 10)[0] == 0.0
