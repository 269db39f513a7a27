"""A report is the same however its rows are cut, and says what scikit-learn, SciPy and counting by hand say."""

import tracemalloc

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, brier_score_loss, confusion_matrix, mean_absolute_error, roc_auc_score

from shared.cards.card import Card
from shared.comparison.judged import Judged
from shared.comparison.pairs import Pairs
from shared.comparison.report import make_report
from shared.comparison.segments import Segments
from shared.comparison.tally import Tally, changes
from shared.encoding.columns import Columns
from shared.monitoring.quality import Z, wilson

LABELS = ["stays", "leaves"]


def _binary(count, seed=1, noise=0.1):
    generator = np.random.default_rng(seed)
    before = generator.random(count)
    after = np.clip(before + generator.normal(0.02, noise, count), 0.0, 1.0)
    decided = [(score >= threshold).astype(np.int16) for score, threshold in ((before, 0.5), (after, 0.4))]
    return Pairs(np.arange(1, count + 1), before, after, *decided)


def _report(pairs, actual=None, *, task="binary", labels=LABELS, costs=(1.0, 5.0), parts=1):
    tally, judged = Tally(task), Judged(task, costs)
    for part in np.array_split(np.arange(len(pairs)), parts):
        tally.add(Tally.load(Tally.of(task, Pairs.load(pairs.at(part).dump())).dump()))
        if actual is not None:
            judged.add(pairs.at(part), actual[part])
    return make_report(tally, judged, labels)


def test_figures_of_two_classes_are_those_of_the_libraries():
    pairs = _binary(3_000)
    actual = (np.random.default_rng(9).random(3_000) < pairs.before).astype(float)
    report = _report(pairs, actual, parts=7)
    up = int(((pairs.decided_before == 0) & (pairs.decided_after == 1)).sum())
    down = int(((pairs.decided_before == 1) & (pairs.decided_after == 0)).sum())
    flips = report["flips"]
    assert (flips["up"], flips["down"], flips["count"]) == (up, down, up + down)
    assert flips["p_value"] == pytest.approx(stats.binomtest(up, up + down).pvalue)
    assert flips["decisions"][1] == {
        "label": "leaves",
        "before": int(pairs.decided_before.sum()),
        "after": int(pairs.decided_after.sum()),
    }
    low, high = wilson(3_000 - up - down, 3_000)
    assert (report["agreement"]["low"], report["agreement"]["high"]) == (low, high)
    shift = pairs.after - pairs.before
    assert report["score_shift"]["value"] == pytest.approx(shift.mean())
    assert report["score_shift"]["high"] == pytest.approx(shift.mean() + Z * stats.sem(shift))
    assert report["score_shift"]["mean_absolute"] == pytest.approx(np.abs(shift).mean())
    assert report["score_shift"]["moved"][1] == {
        "by_more_than": 0.05,
        "rows": int((np.abs(shift) > 0.05).sum()),
        "share": (np.abs(shift) > 0.05).mean(),
    }
    for side, decided, score in (
        ("before", pairs.decided_before, pairs.before),
        ("after", pairs.decided_after, pairs.after),
    ):
        _, false, missed, _ = confusion_matrix(actual, decided).ravel()
        assert report["cost"][side] == {
            "false_positives": false,
            "false_negatives": missed,
            "cost": pytest.approx(false + 5 * missed),
        }
        outcomes = report["outcomes"]
        assert outcomes["accuracy"][side] == pytest.approx(accuracy_score(actual, decided))
        assert outcomes["roc_auc"][side] == pytest.approx(roc_auc_score(actual, score))
        assert outcomes["brier"][side] == pytest.approx(brier_score_loss(actual, score))
    squares = (pairs.after - actual) ** 2 - (pairs.before - actual) ** 2
    assert outcomes["brier"]["difference"]["low"] == pytest.approx(squares.mean() - Z * stats.sem(squares))
    costs = [
        np.where(actual == 1, 5.0, 1.0) * (decided != actual) for decided in (pairs.decided_before, pairs.decided_after)
    ]
    each = costs[1] - costs[0]
    assert report["cost"]["difference"]["value"] == pytest.approx(each.sum())
    assert report["cost"]["difference"]["high"] == pytest.approx(3_000 * (each.mean() + Z * stats.sem(each)))
    right = [decided == actual for decided in (pairs.decided_before, pairs.decided_after)]
    mended, spoilt = int((~right[0] & right[1]).sum()), int((right[0] & ~right[1]).sum())
    assert (outcomes["accuracy"]["mended"], outcomes["accuracy"]["spoilt"]) == (mended, spoilt)
    assert outcomes["accuracy"]["p_value"] == pytest.approx(stats.binomtest(mended, mended + spoilt).pvalue)
    assert outcomes["accuracy"]["difference"]["value"] == pytest.approx((mended - spoilt) / 3_000)


def test_largest_disagreements_are_those_of_a_sort():
    pairs = _binary(500)
    order = np.argsort(-np.abs(pairs.after - pairs.before))[:10]
    largest = _report(pairs, parts=9)["largest"]
    assert [each["input_id"] for each in largest] == (order + 1).tolist()
    assert [each["difference"] for each in largest] == (pairs.after - pairs.before)[order].tolist()
    assert {each["label_before"] for each in largest} <= set(LABELS)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_report_does_not_depend_on_how_the_rows_are_cut(task):
    pairs = _binary(400)
    if task == "regression":
        pairs = Pairs(pairs.input_ids, pairs.before, pairs.after, np.empty(0, np.int16), np.empty(0, np.int16))
    actual = (np.arange(400) % 2).astype(float)
    whole, cut = _report(pairs, actual, task=task), _report(pairs, actual, task=task, parts=23)
    assert _rounded(whole) == _rounded(cut)


def _rounded(figures):
    if isinstance(figures, dict):
        return {name: _rounded(value) for name, value in figures.items()}
    if isinstance(figures, list):
        return [_rounded(value) for value in figures]
    return pytest.approx(figures, rel=1e-9, abs=1e-12) if isinstance(figures, float) else figures


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_same_version_has_no_flip_and_a_shift_of_exactly_nothing(task):
    pairs = _binary(100)
    decided = [] if task == "regression" else pairs.decided_before
    same = Pairs(pairs.input_ids, pairs.before, pairs.before, *[np.asarray(decided, np.int16)] * 2)
    report = _report(same, np.ones(100), task=task, parts=3)
    assert [report["score_shift"][name] for name in ("value", "low", "high", "mean_absolute", "largest")] == [0.0] * 5
    assert report["largest"] == []
    if task != "regression":
        assert report["flips"]["count"] == 0
        assert report["agreement"]["value"] == 1.0
        assert report["flips"]["p_value"] == (1.0 if task == "binary" else None)


def test_several_classes_have_transitions_and_no_direction():
    decided = np.array([0, 0, 1, 2, 2, 2], np.int16), np.array([0, 1, 1, 0, 0, 2], np.int16)
    pairs = Pairs(np.arange(6), np.full(6, 0.5), np.full(6, 0.6), *decided)
    report = _report(pairs, np.array([0.0, 1, 1, 2, 0, 2]), task="multiclass", labels=["a", "b", "c"])
    assert (report["flips"]["up"], report["flips"]["p_value"], report["cost"]) == (None, None, None)
    assert report["flips"]["transitions"] == [{"from": "c", "to": "a", "rows": 2}, {"from": "a", "to": "b", "rows": 1}]
    assert report["outcomes"]["accuracy"] | {"difference": None} == {
        "before": pytest.approx(4 / 6),
        "after": pytest.approx(5 / 6),
        "difference": None,
        "mended": 2,
        "spoilt": 1,
        "p_value": 1.0,
    }
    assert "roc_auc" not in report["outcomes"]
    assert "no flip is up or down" in report["notes"][0]


def test_regression_has_errors_and_no_decisions():
    generator = np.random.default_rng(4)
    actual, none = generator.normal(size=200), np.empty(0, np.int16)
    pairs = Pairs(np.arange(200), actual + 1.0, actual + generator.normal(size=200), none, none)
    report = _report(pairs, actual, task="regression")
    assert (report["agreement"], report["flips"], report["cost"]) == (None, None, None)
    assert report["outcomes"]["mae"]["after"] == pytest.approx(mean_absolute_error(actual, pairs.after))
    each = np.abs(pairs.after - actual) - np.abs(pairs.before - actual)
    assert report["outcomes"]["mae"]["difference"]["low"] == pytest.approx(each.mean() - Z * stats.sem(each))
    assert "decides nothing" in report["notes"][0]


def test_model_without_probabilities_has_flips_and_no_shift():
    pairs = _binary(50)
    bare = Pairs(pairs.input_ids, np.full(50, np.nan), pairs.after, pairs.decided_before, pairs.decided_after)
    report = _report(bare, np.ones(50))
    assert report["score_shift"] is None
    assert report["flips"]["count"] > 0
    assert "roc_auc" not in report["outcomes"]
    assert "50 of 50 pairs have no probability" in report["notes"][0]


def test_no_pairs_are_no_error():
    report = _report(Pairs.empty())
    assert (report["pairs"], report["agreement"], report["score_shift"], report["segments"]) == (0, None, None, [])


def _card():
    features = [
        {"name": "age", "type": "integer"},
        {"name": "job", "type": "string", "categories": ["cook", "clerk"]},
        {"name": "senior", "type": "boolean", "nullable": True},
    ]
    return Card.model_validate(
        {"name": "m", "version": 1, "task": "binary", "sha256": "0" * 64, "labels": {"0": "no", "1": "yes"}}
        | {"features": features}
    )


def test_flips_are_counted_in_the_segment_of_each_value():
    card = _card()
    rows = [{"age": place % 40 + 20, "job": "cook" if place % 3 else "clerk", "senior": None} for place in range(600)]
    pairs = _binary(600)
    flip = np.array([row["job"] == "clerk" and row["age"] > 40 for row in rows])
    pairs = Pairs(pairs.input_ids, pairs.before, pairs.after, np.zeros(600, np.int16), flip.astype(np.int16))
    tally = Tally("binary")
    segments = Segments.of(card, rows)
    kinds = {feature.name: feature.type for feature in card.row_features}
    for part in np.array_split(np.arange(600), 4):
        part_pairs = pairs.at(part)
        one = Tally.of("binary", part_pairs)
        one.segments = segments.count(
            Columns.of([rows[place] for place in part], kinds), *changes("binary", part_pairs)
        )
        tally.add(Tally.load(one.dump()))
    report = make_report(tally, Judged("binary"), ["no", "yes"])["segments"]
    clerks = next(each for each in report if each["segment"] == "clerk")
    expected = sum(flip)
    assert (clerks["feature"], clerks["rows"], clerks["up"], clerks["down"]) == ("job", 200, expected, 0)
    assert (clerks["share"]["low"], clerks["share"]["high"]) == wilson(expected, 200)
    assert clerks["p_value"] < 1e-6
    assert not any(each["segment"] == "cook" for each in report)  # of which none flips
    missing = next(each for each in report if each["feature"] == "senior")
    assert (missing["segment"], missing["rows"], missing["p_value"]) == ("missing", 600, 1.0)


def test_auc_of_many_rows_is_that_of_a_fair_sample_of_bounded_size():
    pairs = _binary(20_000)
    actual = (np.random.default_rng(5).random(20_000) < pairs.before).astype(float)
    judged = Judged("binary", max_ranked=2_000)
    for part in np.array_split(np.arange(20_000), 40):
        judged.add(pairs.at(part), actual[part])
    assert (judged.sampled, judged.ranked) == (2_000, 20_000)
    assert judged.auc().before == pytest.approx(roc_auc_score(actual, pairs.before), abs=0.03)
    report = make_report(Tally.of("binary", pairs), judged, LABELS)
    assert report["outcomes"]["roc_auc"]["rows"] == 2_000
    assert "ROC AUC is of a random 2000 of the 20000 rows" in report["notes"][-1]


def test_memory_does_not_grow_with_the_pairs():
    part = _binary(20_000)
    actual = (part.before > 0.5).astype(float)
    tally, judged = Tally("binary"), Judged("binary", max_ranked=40_000)
    tracemalloc.start()
    for number in range(12):
        more = Pairs(part.input_ids + 20_000 * number, part.before, part.after, part.decided_before, part.decided_after)
        tally.add(Tally.of("binary", more))
        judged.add(more, actual)
    report = make_report(tally, judged, LABELS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report["pairs"] == 240_000
    assert peak < 12e6  # 20,000 pairs are 0.6 MB, those of all 8 MB


def test_ranges_that_read_the_same_are_counted_together():
    features = [{"name": "n", "type": "number"}]
    card = Card.model_validate(
        {"name": "m", "version": 1, "task": "binary", "sha256": "0" * 64, "labels": {"0": "no", "1": "yes"}}
        | {"features": features}
    )
    rows = [{"n": 1e9 + place / 1000} for place in range(100)]
    counts = Segments.of(card, rows).count(Columns.of(rows, {"n": "number"}), np.ones(100), np.zeros(100))
    assert sum(rows for rows, *_ in counts["n"].values()) == 100
    assert sum(ones for _, ones, _ in counts["n"].values()) == 100
