"""A training gives the same model for the same file, seed and libraries, and refuses a leaked target."""

import json
import subprocess
import sys

import numpy as np
import pytest

from scripts.checkout import ROOT
from shared.encoding.estimator_inputs import make_frame_input
from shared.errors import InvalidRequest
from shared.packages.sample import ReferenceRows
from shared.training import estimators
from shared.training.checks import refusal_of
from shared.training.estimators import draws
from shared.training.frames import frame_of
from shared.training.leaks import check_leaks
from shared.training.model_card import model_card
from shared.training.options import TrainingOptions
from shared.training.table import table_of
from shared.training.train import train
from tests.support.trainings import TARGET, csv_of, make_rows

QUICK = TrainingOptions(name="leavers", target=TARGET, draws=2, estimators=("linear", "hist_gradient_boosting"))
SHA256 = "a" * 64

_CHILD = """
import json, sys
from pathlib import Path
from shared.training.frames import frame_of
from shared.training.options import TrainingOptions
from shared.training.table import read_table
from shared.training.train import train
options = TrainingOptions.load(json.loads(sys.argv[2]))
table = read_table(Path(sys.argv[1]), options)
trained = train(table, options, sha256="a" * 64)
scores = trained.package.estimator.predict_proba(frame_of(table))[:, 1].tolist()
print(json.dumps([scores, trained.report["threshold"], trained.report["search"]["best"]]))
"""


def _table(rows, options=QUICK):
    text = [{name: None if value is None else str(value) for name, value in row.items()} for row in rows]
    return table_of(ReferenceRows(text, list(range(2, len(rows) + 2))), options)


def _refusal(rows):
    with pytest.raises(InvalidRequest) as refused:
        check_leaks(_table(rows))
    return refusal_of(refused.value)


@pytest.fixture(scope="module")
def trained():
    return train(_table(make_rows()), QUICK, sha256=SHA256)


@pytest.mark.flow
def test_same_file_and_seed_give_the_same_predictions_in_two_processes(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(csv_of(make_rows()))
    names = ("hist_gradient_boosting", "random_forest", "lightgbm", "xgboost")
    options = TrainingOptions(name="leavers", target=TARGET, draws=4, estimators=names)
    command = [sys.executable, "-c", _CHILD, str(path), json.dumps(options.dump())]
    children = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(2)]
    (scores, *first), (again, *second) = (json.loads(child.communicate()[0]) for child in children)
    assert len(scores) == 200
    assert np.abs(np.subtract(scores, again)).max() <= 1e-12
    assert first == second


def test_report_has_metrics_with_intervals_and_the_whole_curve(trained):
    report = trained.report
    auc = report["metrics"]["roc_auc"]
    assert 0.6 < auc["low"] < auc["value"] < auc["high"] < 1
    assert report["threshold"]["threshold"] == trained.package.card.threshold
    assert report["threshold"]["threshold"] in report["curve"]["threshold"]
    assert {len(each) for each in report["curve"].values()} == {len(report["curve"]["threshold"])}
    assert {each["feature"] for each in report["importance"]} == {"age", "pay", "team", "remote"}
    assert report["importance"][-1]["feature"] == "remote"  # the target does not depend on it
    assert report["data_sha256"] == SHA256
    json.dumps(report, allow_nan=False)


def test_best_draw_is_reported_first(trained):
    best, other = trained.report["search"]["tried"]
    assert best == trained.report["search"]["best"]
    assert best["mean"] >= other["mean"]


def test_rows_are_scored_as_they_were_trained_on(trained):
    table = _table(make_rows())
    package = trained.package
    served = make_frame_input(package.card, package.estimator)(table.rows())
    frame = frame_of(table)
    assert served.dtypes.to_dict() == frame.dtypes.to_dict()
    assert np.array_equal(package.estimator.predict_proba(served), package.estimator.predict_proba(frame))


def test_model_card_names_data_metrics_limits_use_and_libraries(trained):
    page = model_card(trained.report, label="leavers@1", sha256="b" * 64, trained_at="2026-01-01")
    for heading in ("Data", "Metrics", "Threshold", "Calibration", "Limits", "Intended use", "Libraries"):
        assert f"## {heading}" in page
    assert SHA256 in page
    assert "scikit-learn" in page


def test_names_of_the_caller_mark_nothing_up(trained):
    report = trained.report | {"target": "<b>left</b> | [x](http://example.org)\n# Title"}
    page = model_card(report, label="leavers@1", sha256="b" * 64, trained_at="2026-01-01")
    assert "<b>" not in page
    assert "\n# Title" not in page


@pytest.mark.parametrize("kind", ["number", "class"])
def test_number_and_several_classes_are_learnt(kind):
    rows = make_rows(120)
    for row in rows:
        row[TARGET] = row["age"] * 1.5 + (row["pay"] or 50) if kind == "number" else row["team"] + str(row["age"] > 40)
        row["age"] += len(row["team"]) % 3
    options = TrainingOptions(name="leavers", target=TARGET, draws=1, estimators=("linear",))
    trained = train(_table(rows, options), options, sha256=SHA256)
    if kind == "number":
        assert trained.report["task"] == "regression"
        assert trained.report["metrics"]["r2"]["value"] > 0.8
    else:
        assert trained.package.card.labels["0"] == "northFalse"
        assert trained.report["metrics"]["accuracy"]["value"] > 0.8
    assert "threshold" not in trained.report


# ── draws ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_draws_are_dealt_in_turn_and_begin_with_the_defaults():
    options = TrainingOptions(name="a", target="y", draws=5, estimators=("random_forest", "linear"), seed=4)
    drawn = draws(options, "binary")
    assert [each.estimator for each in drawn] == ["linear", "random_forest", "linear", "random_forest", "linear"]
    assert [bool(each.parameters) for each in drawn] == [False, False, True, True, True]
    assert drawn == draws(options, "binary")
    assert drawn != draws(TrainingOptions(**options.dump() | {"seed": 5}), "binary")


def test_estimator_that_is_not_installed_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(estimators, "installed", lambda: ["linear", "random_forest"])
    with pytest.raises(InvalidRequest, match="xgboost cannot be trained here"):
        draws(TrainingOptions(name="a", target="y", estimators=("linear", "xgboost")), "binary")
    assert {each.estimator for each in draws(TrainingOptions(name="a", target="y"), "binary")} == {
        "linear",
        "random_forest",
    }


# ── leaks ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_without_a_leak_pass():
    check_leaks(_table(make_rows()))


@pytest.mark.parametrize(
    "leak",
    [
        lambda row, place: 1000 + place if row[TARGET] == "yes" else place,  # by its numbers
        lambda row, place: -place if row[TARGET] == "yes" else 5000 + place,  # the other way round
        lambda row, place: "notice" if row[TARGET] == "yes" else ["none", "other"][place % 2],  # by category
        lambda row, place: 0.5 + place % 7 if row[TARGET] == "yes" else None,  # by whether it is missing
        lambda row, place: [1, 3][place % 2] if row[TARGET] == "yes" else 2,  # by few numbers
    ],
)
def test_column_that_tells_the_target_is_named(leak):
    rows = [row | {"ended": leak(row, place)} for place, row in enumerate(make_rows())]
    refused = _refusal(rows)
    assert refused["code"] == "leaked_target"
    assert "'ended' alone tells the target 'left' (a ROC AUC of 1.0000)" in refused["message"]


def test_copy_of_a_number_is_named():
    rows = [
        row | {TARGET: row["age"] * 3.5 + place, "copy": row["age"] * 7 + place * 2}
        for place, row in enumerate(make_rows())
    ]
    assert "'copy' alone tells" in _refusal(rows)["message"]


def test_column_that_tells_one_of_three_classes_is_no_leak():
    rows = make_rows()
    for place, row in enumerate(rows):
        row[TARGET] = "abc"[place % 3]
        row["length"] = 10 if row[TARGET] == "a" else place % 2
    check_leaks(_table(rows))
