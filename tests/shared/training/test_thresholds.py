"""The threshold is the one that brute force finds, and calibration is applied where it is worth it."""

import numpy as np
import pytest

from shared.training.calibration import calibrations
from shared.training.options import TrainingOptions
from shared.training.search import make_folds
from shared.training.thresholds import best_place, curve_of, threshold_report


def _scored(count=300, *, seed=1):
    rng = np.random.default_rng(seed)
    probability = np.round(rng.beta(2, 3, count), 2)  # with ties
    return (rng.random(count) < probability).astype(float), probability


@pytest.mark.parametrize(("cost_fp", "cost_fn"), [(1, 1), (1, 5.757), (10, 1), (0, 1), (1, 0)])
def test_threshold_has_the_least_cost_of_all(cost_fp, cost_fn):
    answers, probability = _scored()
    options = TrainingOptions(name="a", target="y", cost_fp=cost_fp, cost_fn=cost_fn)
    curve = curve_of(answers, probability)
    report = threshold_report(curve, best_place(curve, options), options)

    def cost(threshold):
        positive = probability >= threshold
        return (cost_fp * (positive & (answers == 0)).sum() + cost_fn * (~positive & (answers == 1)).sum()) / 300

    costs = {threshold: cost(threshold) for threshold in [*np.unique(probability), 1.0]}
    least = min(costs.values())
    assert report["mean_cost"] == pytest.approx(least, abs=1e-12)
    assert report["threshold"] == max(
        threshold for threshold, each in costs.items() if each == pytest.approx(least, abs=1e-12)
    )
    assert cost(report["threshold"]) == pytest.approx(report["mean_cost"], abs=1e-12)


@pytest.mark.parametrize("recall", [0.1, 0.5, 0.9, 1.0])
def test_threshold_is_the_highest_with_the_target_recall(recall):
    answers, probability = _scored()
    options = TrainingOptions(name="a", target="y", target_recall=recall)
    curve = curve_of(answers, probability)
    report = threshold_report(curve, best_place(curve, options), options)
    recalls = {each: ((probability >= each) & (answers == 1)).sum() / answers.sum() for each in np.unique(probability)}
    assert report["threshold"] == max(each for each, reached in recalls.items() if reached >= recall)
    assert report["recall"] == pytest.approx(recalls[report["threshold"]])


def test_curve_has_a_point_for_each_probability():
    answers, probability = _scored()
    curve = curve_of(answers, probability)
    assert curve.thresholds.tolist() == [1.0, *np.unique(probability)[::-1]]
    for threshold, hits, alarms in zip(curve.thresholds, curve.true_positives, curve.false_positives, strict=True):
        positive = probability >= threshold
        assert (hits, alarms) == ((positive & (answers == 1)).sum(), (positive & (answers == 0)).sum())


@pytest.mark.parametrize("decides", [True, False])
def test_overconfident_scores_are_calibrated_and_honest_ones_are_not(decides):
    rng = np.random.default_rng(3)
    honest = rng.uniform(0.05, 0.95, 900)
    answers = (rng.random(900) < honest).astype(float)
    odds = honest / (1 - honest)
    overconfident = odds**4 / (1 + odds**4)
    folds = make_folds(answers, "binary", 0)
    [of_overconfident] = calibrations(answers, overconfident, folds, decides=decides)
    [of_honest] = calibrations(answers, honest, folds, decides=decides)
    assert of_overconfident.is_worth_it
    assert not of_honest.is_worth_it
    before, after = ((scores - answers) ** 2 for scores in (overconfident, of_overconfident.scores))
    assert of_overconfident.improvement == pytest.approx((before - after).mean())


def test_isotonic_regression_is_tried_with_enough_rows():
    rng = np.random.default_rng(3)
    scores = rng.random(1_000)
    answers = (rng.random(1_000) < scores).astype(float)
    tried = calibrations(answers, scores, make_folds(answers, "binary", 0), decides=False)
    assert [each.method for each in tried] == ["sigmoid", "isotonic"]
