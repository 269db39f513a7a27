"""How unusual a row is, and how sure its decision: beside brute force over the reference."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from shared.cards.card import Card
from shared.monitoring.drift.profiles import MAX_KEPT, Profile, make_profile
from shared.monitoring.row_quality import Outside, RowExaminer, confidence_of

CARD = Card.model_validate(
    {
        "name": "m",
        "version": 1,
        "task": "binary",
        "sha256": "0" * 64,
        "labels": {"0": "no", "1": "yes"},
        "features": [
            {"name": "x", "type": "number", "nullable": True},
            {"name": "kind", "type": "string"},
            {"name": "flag", "type": "boolean"},
        ],
    }
)
rng = np.random.default_rng(11)
ROWS: list[dict[str, Any]] = [
    {
        "x": None if rng.random() < 0.1 else float(rng.normal()),
        "kind": str(rng.choice(["a", "b", "c"], p=[0.7, 0.25, 0.05])),
        "flag": bool(rng.random() < 0.02),
    }
    for _ in range(500)
]
CHANCES = [float(rng.beta(1, 4)) for _ in ROWS]
PROFILE = make_profile(CARD, ROWS, [{"score": chance, "decision": "no"} for chance in CHANCES])


def judge(row: dict[str, Any], profile: Profile = PROFILE) -> Any:
    return RowExaminer(profile).examine(row, probability=None, threshold=None)


def test_unusual_is_the_share_of_the_reference_that_is_less_so() -> None:
    placed = [tuple(bins.count([row[bins.name]]).index(1) for bins in PROFILE.features) for row in ROWS]
    counted = [Counter(place[n] for place in placed) for n in range(3)]

    def surprise(place: tuple[int, ...]) -> float:
        shares = [
            (counts[at] + 0.5) / (len(ROWS) + 0.5 * bins.width)
            for counts, at, bins in zip(counted, place, PROFILE.features, strict=True)
        ]
        return math.fsum(-math.log(share) for share in shares)

    surprises = [surprise(place) for place in placed]
    for row, own in zip(ROWS[:100], surprises, strict=False):
        assert judge(row).unusual == sum(other < own for other in surprises) / len(ROWS)
    assert judge({"x": 99.0, "kind": "z", "flag": True}).unusual == 1.0


def test_values_that_the_reference_has_not_are_named() -> None:
    report = judge({"x": -99.0, "kind": "z", "flag": None})
    assert (report.outside, report.unseen, report.missing) == ([Outside("x", "below")], ["kind"], ["flag"])
    assert report.missing_share == pytest.approx(1 / 3)
    report_of_seen = judge({"x": 99, "kind": "a", "flag": False})
    assert (report_of_seen.outside, report_of_seen.unseen, report_of_seen.missing) == ([Outside("x", "above")], [], [])
    assert judge({"x": math.nan, "kind": "a", "flag": False}).missing == ["x"]
    usual = judge({"x": 0.0, "kind": "a", "flag": False})
    assert (usual.outside, usual.unseen, usual.missing, usual.missing_share) == ([], [], [], 0.0)


@pytest.mark.parametrize("threshold", [0.05, 0.2, 0.5])
def test_confidence_is_the_share_of_like_decisions_that_are_nearer_to_the_threshold(threshold: float) -> None:
    for chance in (*CHANCES[:60], threshold, 0.0, 1.0):
        alike = [other for other in CHANCES if (other >= threshold) == (chance >= threshold)]
        nearer = sum(abs(other - threshold) < abs(chance - threshold) for other in alike)
        assert confidence_of(sorted(CHANCES), chance, threshold) == pytest.approx(nearer / len(alike), abs=1e-12)
    assert confidence_of(sorted(CHANCES), threshold, threshold) == 0.0


def test_there_is_no_confidence_without_a_threshold_or_a_like_decision() -> None:
    assert confidence_of(sorted(CHANCES), 0.5, None) is None
    assert confidence_of([0.1, 0.2], 0.9, 0.5) is None
    assert confidence_of([], 0.9, 0.5) is None


def test_large_references_are_kept_as_so_many_values_and_older_profiles_have_none() -> None:
    rows = [{"x": float(place), "kind": "a", "flag": False} for place in range(5_000)]
    profile = make_profile(CARD, rows, [{"score": place / 5_000, "decision": "no"} for place in range(5_000)])
    assert len(profile.scores) == len(profile.surprises) == MAX_KEPT
    assert (profile.scores[0], profile.scores[-1]) == (0.0, 4_999 / 5_000)
    assert confidence_of(profile.scores, 0.75, 0.5) == pytest.approx(0.5, abs=2e-3)
    older = {name: value for name, value in profile.dump().items() if name not in ("surprises", "scores")}
    assert judge(rows[0], Profile.load(older)).unusual is None


def test_a_row_of_a_feature_without_numbers_in_the_reference_is_outside() -> None:
    nothing = make_profile(CARD, [{"x": None, "kind": "a", "flag": False}] * 300, None)
    assert judge({"x": 1.0, "kind": "a", "flag": False}, nothing).outside == [Outside("x", "above")]
