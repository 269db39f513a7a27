"""Drift as pure functions: statistics beside other libraries' and brute force, false alarms, power, odd features."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shared.cards.card import Card
from shared.monitoring.drift.comparison import ADVICE, Drift, FeatureDrift, compare
from shared.monitoring.drift.profiles import MAX_CATEGORIES, Profile, make_profile, number_bins
from shared.monitoring.drift.statistics import chi2_sf, false_discovery, g_test, ks_lower_bound, psi

COUNTS = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000)), min_size=2, max_size=20)


def card(*features: dict[str, Any], task: str = "binary") -> Card:
    labels = {} if task == "regression" else {"0": "no", "1": "yes"}
    return Card.model_validate(
        {"name": "m", "version": 1, "task": task, "sha256": "0" * 64, "labels": labels, "features": features}
    )


def drift_of(kind: str, reference: Sequence[Any], window: Sequence[Any], **more: Any) -> FeatureDrift:
    """Return the drift of one feature, `x`, between the values of two samples."""
    return whole_drift(kind, reference, window, **more).features[0]


def whole_drift(kind: str, reference: Sequence[Any], window: Sequence[Any], **more: Any) -> Drift:
    profile = make_profile(card({"name": "x", "type": kind, **more}), [{"x": value} for value in reference], None)
    no_scores = [{"score": None, "decision": None} for _ in window]
    counts = profile.count([{"x": value} for value in window], no_scores)
    return compare(profile, counts, rows=len(window), baseline=None, baseline_rows=len(reference))


# ── statistics ───────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=40)
@given(st.floats(0.0, 400.0), st.integers(1, 60))
def test_chi_squared_tail_is_that_of_scipy(statistic: float, degrees: int) -> None:
    assert chi2_sf(statistic, degrees) == pytest.approx(stats.chi2.sf(statistic, degrees), rel=1e-9, abs=1e-300)


@settings(max_examples=40)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_false_discovery_rate_is_that_of_scipy(p_values: list[float]) -> None:
    assert false_discovery(p_values) == pytest.approx(stats.false_discovery_control(p_values).tolist(), abs=1e-12)


@settings(max_examples=40)
@given(COUNTS)
def test_g_test_of_bins_that_are_full_is_that_of_scipy_with_the_correction_of_williams(
    counts: list[tuple[int, int]],
) -> None:
    full = [(before + 20, after + 20) for before, after in counts]
    table = np.array(full).T
    raw, _, degrees, _ = stats.chi2_contingency(table, correction=False, lambda_="log-likelihood")
    rows, columns, total = table.sum(axis=0), table.sum(axis=1), table.sum()
    correction = 1 + (total * (1 / rows).sum() - 1) * (total * (1 / columns).sum() - 1) / (6 * total * degrees)
    few = min(columns) / total * min(rows) < 10
    if not few:
        expected = stats.chi2.sf(raw / correction, degrees)
        assert g_test(*zip(*full, strict=True)) == pytest.approx(expected, rel=1e-6, abs=1e-300)


@settings(max_examples=40)
@given(COUNTS)
def test_psi_is_zero_for_equal_shares_and_symmetric(counts: list[tuple[int, int]]) -> None:
    before, after = zip(*counts, strict=True)
    assert psi(before, before) == pytest.approx(0.0, abs=1e-12)
    assert psi(before, after) == pytest.approx(psi(after, before), abs=1e-9)
    assert psi(before, after) >= -1e-12


def test_ks_of_bins_is_a_lower_bound_of_the_one_of_the_rows() -> None:
    rng = np.random.default_rng(1)
    for shift in (0.0, 0.3, 2.0):
        reference, window = rng.normal(size=700), rng.normal(shift, 1, size=400)
        bound = drift_of("number", reference.tolist(), window.tolist()).ks_lower_bound
        assert bound is not None
        assert bound <= stats.ks_2samp(reference, window).statistic + 1e-12
    assert ks_lower_bound([0, 0], [0, 0]) == 0.0


def test_figures_are_those_of_brute_force_over_the_rows() -> None:
    rng = np.random.default_rng(2)
    reference = [None if rng.random() < 0.1 else float(rng.normal()) for _ in range(900)]
    window = [None if rng.random() < 0.3 else float(rng.normal(0.4, 1.2)) for _ in range(650)]
    figures = drift_of("number", reference, window)
    present = sorted(value for value in reference if value is not None)
    ends = sorted({present[math.ceil(len(present) * part / 10) - 1] for part in range(1, 11)})

    def shares(values: Sequence[float | None]) -> list[float]:
        cells = [0] * (len(ends) + 3)
        for value in values:
            if value is None:
                cells[0] += 1
            elif value < present[0]:
                cells[1] += 1
            else:
                cells[2 + sum(end < value for end in ends)] += 1
        return cells

    before, after = shares(reference), shares(window)
    live = [(a, b) for a, b in zip(before, after, strict=True) if a or b]
    brute = 0.0
    for a, b in live:
        p, q = (a + 0.5) / (len(reference) + 0.5 * len(live)), (b + 0.5) / (len(window) + 0.5 * len(live))
        brute += (q - p) * math.log(q / p)
    assert figures.psi == pytest.approx(brute, abs=1e-9)
    assert figures.missing_delta == pytest.approx(window.count(None) / 650 - reference.count(None) / 900, abs=1e-12)
    assert figures.unseen == sum(value is not None and not present[0] <= value <= present[-1] for value in window)


# ── levels ───────────────────────────────────────────────────────────────────────────────────────────────────────


def windows(rng: np.random.Generator, kinds: int, count: int) -> list[np.ndarray[Any, Any]]:
    """Return samples of features of several kinds: continuous, rounded, rare counts."""
    draws = [lambda: rng.normal(size=count), lambda: np.round(rng.normal(size=count) * 2)]
    draws.append(lambda: rng.poisson(0.3, count).astype(float))
    return [draws[place % 3]() for place in range(kinds)]


def has_level(reference: list[Any], window: list[Any]) -> bool:
    features = [number_bins(str(place), values) for place, values in enumerate(reference)]
    profile = Profile(features, [], len(reference[0]))
    counts = [count for bins, values in zip(features, window, strict=True) for count in bins.count(values)]
    drift = compare(profile, counts, rows=len(window[0]), baseline=None, baseline_rows=profile.rows)
    return drift.level in ("low", "moderate", "high")


def test_at_most_one_in_a_hundred_windows_without_drift_raises_a_level() -> None:
    rng = np.random.default_rng(3)
    sizes = ((200, 200), (500, 200), (500, 1000), (2000, 500))
    alarms = sum(
        has_level(windows(rng, 4, before), windows(rng, 4, after)) for before, after in sizes for _ in range(250)
    )
    assert alarms <= 10


def test_a_shift_of_half_a_standard_deviation_raises_a_level_at_a_thousand_rows() -> None:
    rng = np.random.default_rng(4)
    alarms = 0
    for _ in range(100):
        window = windows(rng, 10, 1000)
        window[0] = window[0] + 0.5
        alarms += has_level(windows(rng, 10, 500), window)
    assert alarms >= 95


def test_fewer_than_200_rows_have_figures_and_no_level() -> None:
    drift = whole_drift("number", [1.0, 2.0] * 250, [9.0] * 199)
    assert (drift.level, drift.features[0].level) == ("too_few_rows", "too_few_rows")
    assert drift.advice == ADVICE["too_few_rows"]
    assert drift.features[0].unseen == 199
    assert "baseline has 60" in whole_drift("number", [1.0, 2.0] * 30, [1.0, 2.0] * 500).advice


# ── what users of other libraries ran into ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "reference", "window", "level"),
    [
        ("number", [5.0] * 300, [5.0] * 300, "none"),  # a constant feature
        ("number", [5.0] * 300, [6.0] * 300, "high"),  # another constant
        ("number", [None] * 300, [None] * 300, "none"),  # nothing but missing values
        ("number", [None] * 300, [1.0] * 300, "high"),  # values where there were none
        ("number", [1.0, 2.0] * 200, [None] * 400, "high"),  # a column that has gone
        ("number", [0.0] * 380 + [1.0] * 20, [0.0] * 200 + [1.0] * 200, "high"),  # a flag, all deciles tied
        ("number", [float("nan"), 1.0, 2.0] * 100, [None, 1.0, 2.0] * 100, "none"),  # NaN is missing
        ("number", [1e308, -1e308] * 200, [1e308, -1e308] * 200, "none"),
        ("string", ["a", "b"] * 200, ["a", "c"] * 200, "high"),  # a new category
        ("string", [f"id-{place}" for place in range(400)], [f"id-{place}" for place in range(400)], "none"),
        ("string", ["", "a"] * 200, ["", "a"] * 200, "none"),
        ("boolean", [True, False] * 200, [True] * 400, "high"),
        ("string", ["a", None] * 200, [None, "b"] * 200, "high"),  # categories that go, with missing ones
        ("string", ["bad"] * 370 + ["good"] * 130, ["bad"] * 260 + ["good"] * 240, "moderate"),
        ("integer", [1] * 300, [1] * 299 + [2], "none"),  # one stranger
        ("integer", [1, 2] * 200, [1.0, 2.0] * 200, "none"),  # JSON's 1 and 1.0
    ],
)
def test_odd_features_are_compared(kind: str, reference: list[Any], window: list[Any], level: str) -> None:
    drift = drift_of(kind, reference, window)
    assert drift.level == level
    assert all(math.isfinite(each) for each in (drift.psi, drift.p_value, drift.missing_delta))


def test_p_value_of_two_categories_is_that_of_scipy() -> None:
    """One of the libraries compared a window with the reference as if that had no error of its own."""
    drift = drift_of("string", ["bad"] * 370 + ["good"] * 130, ["bad"] * 260 + ["good"] * 240)
    expected = stats.chi2_contingency([[370, 130], [260, 240]], correction=False, lambda_="log-likelihood")
    assert drift.p_value == pytest.approx(expected.pvalue, rel=0.1)
    assert drift.p_value < 1e-10


def test_two_rows_without_a_value_have_figures_and_no_level() -> None:
    drift = whole_drift("number", [1.0, 2.0, 3.0, 4.0, 5.0] * 1000, [None, None])
    assert (drift.level, drift.features[0].missing_share) == ("too_few_rows", 1.0)


def test_an_empty_window_has_too_few_rows() -> None:
    drift = whole_drift("number", [1.0, 2.0, None] * 200, [])
    assert (drift.level, drift.rows, drift.decision_rate) == ("too_few_rows", 0, {})
    assert (drift.features[0].missing_share, drift.features[0].missing_delta) == (0.0, 0.0)
    assert (drift.features[0].p_value, drift.features[0].psi) == (1.0, 0.0)


def test_categories_beyond_the_limit_share_a_bin() -> None:
    names = [f"c{place % 80}" for place in range(4000)]
    profile = make_profile(card({"name": "x", "type": "string"}), [{"x": name} for name in names], None)
    bins = profile.features[0]
    assert len(bins.categories) == MAX_CATEGORIES
    assert bins.is_open
    assert bins.count(["unheard of", None, names[0]])[-1] >= 1
    assert bins.unseen(bins.count(["unheard of"])) == 0  # it cannot be told from a rare one


def test_true_is_no_number_and_profiles_survive_json() -> None:
    features: Any = [{"name": "x", "type": "integer", "categories": [0, 1]}, {"name": "y", "type": "boolean"}]
    rows = [{"x": place % 2, "y": place % 3 == 0} for place in range(300)]
    scores = [{"score": place / 300, "decision": "yes"} for place in range(300)]
    profile = make_profile(card(*features), rows, scores)
    assert Profile.load(profile.dump()) == profile
    assert profile.features[0].count([True, 1, 1.0, 0]) == [0, 1, 2, 1]
    assert [bins.name for bins in profile.outputs] == ["score", "decision"]
    assert all(len(bins.labels) == bins.width for bins in profile.all)


def test_regression_has_a_score_and_no_decision() -> None:
    rows = [{"x": float(place)} for place in range(300)]
    scores = [{"score": place * 2.0, "decision": None} for place in range(300)]
    regression = card({"name": "x", "type": "number"}, task="regression")
    profile = make_profile(regression, rows, scores)
    drift = compare(profile, profile.count(rows, scores), rows=300, baseline=None, baseline_rows=300)
    assert (drift.decision, drift.decision_rate, drift.level) == (None, {}, "none")
    assert drift.score is not None
    assert make_profile(regression, rows, None).outputs == []
