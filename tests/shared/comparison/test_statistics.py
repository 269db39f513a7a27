"""The statistics of pairs give what SciPy, scikit-learn and the definitions themselves give."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from shared.comparison.statistics import Moments, mcnemar, paired_auc
from shared.monitoring.quality import Z


@pytest.mark.parametrize(
    ("one", "other"),
    [(0, 0), (0, 1), (5, 5), (3, 12), (40, 61), (400, 600), (501, 500), (1_200, 900), (49_700, 50_300)],
)
def test_mcnemar_is_the_exact_binomial_test(one, other):
    expected = stats.binomtest(one, one + other, 0.5).pvalue if one + other else 1.0
    assert mcnemar(one, other) == pytest.approx(expected, rel=1e-8)
    assert mcnemar(other, one) == mcnemar(one, other)


def test_mcnemar_of_a_million_changes_one_way_is_nothing_and_no_error():
    assert mcnemar(1_000_000, 0) == 0.0


def test_mcnemar_of_the_published_example():
    # Agresti, Categorical Data Analysis (2002), table 10.1: 150 and 86 changed their opinion of the prime minister.
    assert mcnemar(150, 86) == pytest.approx(stats.binomtest(86, 236).pvalue, rel=1e-9)
    assert mcnemar(150, 86) < 1e-4


def test_moments_of_parts_are_those_of_all_values():
    values = np.random.default_rng(1).normal(1e6, 3.0, 1_000)
    joined = Moments()
    for part in np.split(values, [1, 3, 400]):
        joined.add(Moments.of(part))
    joined.add(Moments.of(np.empty(0)))
    assert joined.count == 1_000
    assert joined.mean == pytest.approx(values.mean(), rel=1e-14)
    assert joined.squares / 999 == pytest.approx(values.var(ddof=1), rel=1e-8)
    half = Z * stats.sem(values)
    estimate = joined.estimate(2.0)
    assert (estimate.low, estimate.high) == pytest.approx((2 * (values.mean() - half), 2 * (values.mean() + half)))


def test_moments_of_zeros_are_exactly_zero():
    joined = Moments()
    for rows in (3, 5, 7):
        joined.add(Moments.of(np.zeros(rows)))
    estimate = joined.estimate()
    assert (estimate.value, estimate.low, estimate.high) == (0.0, 0.0, 0.0)


def test_mean_of_one_value_has_no_interval():
    assert Moments.of(np.array([2.0])).estimate().low is None
    assert Moments().estimate().value is None


def _delong(truth, before, after):
    """The definition of DeLong, DeLong and Clarke-Pearson (1988), row against row."""
    areas, v10, v01 = [], [], []
    for score in (before, after):
        positive, negative = score[truth], score[~truth]
        kernel = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
        areas.append(kernel.mean())
        v10.append(kernel.mean(axis=1))
        v01.append(kernel.mean(axis=0))
    covariance = np.cov(v10) / truth.sum() + np.cov(v01) / (~truth).sum()
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    return areas, math.sqrt(variance)


@pytest.mark.parametrize("digits", [1, 15])
def test_difference_of_two_auc_is_delongs(digits):
    generator = np.random.default_rng(2)
    truth = generator.random(300) < 0.3
    before = np.round(generator.normal(truth, 1.0), digits)
    after = np.round(0.7 * before + generator.normal(0.5 * truth, 0.7), digits)
    areas, error = _delong(truth, before, after)
    estimate = paired_auc(truth, before, after)
    assert (estimate.before, estimate.after) == pytest.approx(areas, abs=1e-12)
    assert (estimate.before, estimate.after) == pytest.approx([roc_auc_score(truth, each) for each in (before, after)])
    assert estimate.difference.value == pytest.approx(areas[1] - areas[0], abs=1e-12)
    assert estimate.difference.high - estimate.difference.value == pytest.approx(Z * error, rel=1e-9)
    assert estimate.p_value == pytest.approx(2 * stats.norm.sf(abs(areas[1] - areas[0]) / error), rel=1e-9)


def test_auc_of_equal_scores_differs_by_exactly_nothing():
    truth = np.arange(100) % 3 == 0
    score = np.random.default_rng(3).random(100)
    estimate = paired_auc(truth, score, score.copy())
    assert (estimate.difference.value, estimate.difference.low, estimate.difference.high) == (0.0, 0.0, 0.0)
    assert estimate.p_value is None


def test_auc_needs_two_rows_of_each_class():
    truth = np.array([True, False, False])
    assert paired_auc(truth, np.arange(3.0), np.arange(3.0)).before is None
