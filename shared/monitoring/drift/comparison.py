"""Drift: a window's counters beside the reference's, or another window's; levels, and what to do about them.

A level needs two things: a PSI that passes a threshold (the change is large) and p < 0.01 after Benjamini and Hochberg
(it is no accident). PSI alone raises alarms on small windows, the test alone on large ones.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from shared.monitoring.drift.profiles import DECISION, SCORE, Bins, Profile
from shared.monitoring.drift.statistics import false_discovery, g_test, ks_lower_bound, psi

Level = Literal["none", "low", "moderate", "high", "too_few_rows"]

THRESHOLDS: dict[Level, float] = {"low": 0.1, "moderate": 0.2, "high": 0.3}  # of PSI
ORDER: tuple[Level, ...] = ("none", "low", "moderate", "high")
SIGNIFICANCE = 0.01  # after Benjamini and Hochberg
LEAST_ROWS = 200
ADVICE: dict[Level, str] = {
    "none": "The population is the one that the model was trained on, as far as the counters show. Nothing to do.",
    "low": "Something has begun to move. Look at the features below, ask where their data come from, and look again "
    "in a week.",
    "moderate": "The population has moved. Check the data source of the features below, and the model's quality on "
    "recent outcomes (GET /metrics/model); plan a training on recent rows.",
    "high": "The model sees another population than it was trained on. Check the data source today; until it is "
    "explained, let people decide on the rows concerned, and train on recent rows.",
    "too_few_rows": "Too few rows to tell: PSI of two samples of 200 rows from one population passes 0.1 in a third of "
    "all cases. Choose a longer window.",
}


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """What has become of one feature, the score or the decision."""

    feature: str
    psi: float
    p_value: float
    adjusted_p_value: float
    ks_lower_bound: float | None  # None: categories have no order
    missing_share: float
    missing_delta: float  # share of missing values in the window, less that of the reference
    unseen: int  # values out of the reference's range, or of no category of it
    level: Level


@dataclass(frozen=True, slots=True)
class Drift:
    """A comparison of two sets of counters."""

    rows: int
    reference_rows: int
    level: Level
    advice: str
    features: list[FeatureDrift]  # worst first
    score: FeatureDrift | None  # None: the reference has no scores
    decision: FeatureDrift | None
    decision_rate: dict[str, float]  # label -> share of the window's decisions


def compare(
    profile: Profile, window: Sequence[int], *, rows: int, baseline: Sequence[int] | None, baseline_rows: int
) -> Drift:
    """Compare a window's counters with a baseline's, None meaning the reference's own.

    Levels are given to windows and baselines of at least 200 rows; the figures are there in any case.
    """
    before = (
        [bins.reference for bins in profile.all]
        if baseline is None
        else [counts for _, counts in profile.split(baseline)]
    )
    pairs = [
        (bins, reference, counts)
        for (bins, counts), reference in zip(profile.split(window), before, strict=True)
        if sum(reference)  # there is something to compare with
    ]
    p_values = [g_test(reference, counts) for _, reference, counts in pairs]
    is_enough = min(rows, baseline_rows) >= LEAST_ROWS
    described = [
        _describe(*pair, p_value, adjusted, is_enough=is_enough)
        for pair, p_value, adjusted in zip(pairs, p_values, false_discovery(p_values), strict=True)
    ]
    count = len(profile.features)
    features, outputs = described[:count], {each.feature: each for each in described[count:]}
    level: Level = "too_few_rows"
    if is_enough:
        level = max((each.level for each in described), key=ORDER.index, default="none")
    advice = ADVICE[level]
    if not is_enough and rows >= LEAST_ROWS:
        remedy = (
            "Load reference data (`python -m shared.registry reference load`), or compare with another window."
            if baseline is None
            else "Choose a longer window, or compare with the reference (against=reference)."
        )
        advice = (
            f"Too few rows to compare with: the baseline has {baseline_rows}, and {LEAST_ROWS} are needed. {remedy}"
        )
    return Drift(
        rows,
        baseline_rows,
        level,
        advice,
        sorted(features, key=lambda each: -each.psi),
        outputs.get(SCORE),
        outputs.get(DECISION),
        _decision_rate(profile, window),
    )


def _describe(
    bins: Bins, reference: list[int], counts: list[int], p_value: float, adjusted: float, *, is_enough: bool
) -> FeatureDrift:
    index = psi(reference, counts)
    level: Level = "too_few_rows"
    if is_enough:
        passed = [name for name, threshold in THRESHOLDS.items() if index >= threshold]
        level = passed[-1] if passed and adjusted < SIGNIFICANCE else "none"
    total = sum(counts)
    missing = counts[0] / total if total else 0.0
    return FeatureDrift(
        bins.name,
        index,
        p_value,
        adjusted,
        ks_lower_bound(reference[1:], counts[1:]) if bins.kind == "number" else None,
        missing,
        missing - reference[0] / sum(reference) if total else 0.0,
        bins.unseen(counts),
        level,
    )


def _decision_rate(profile: Profile, window: Sequence[int]) -> dict[str, float]:
    for bins, counts in profile.split(window):
        total = sum(counts)
        if total and bins.name == DECISION and bins in profile.outputs:
            return {str(label): count / total for label, count in zip(bins.categories, counts[1:], strict=False)}
    return {}


def as_json(drift: Drift) -> dict[str, Any]:
    """Return a comparison as the HTTP answer and the report have it."""
    return asdict(drift)
