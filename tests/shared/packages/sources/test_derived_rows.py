"""Reference rows as callers send them: a contract computes what the model takes, and a card is inferred from that."""

import json

import numpy as np
import pandas as pd
import pytest
from joblib import dump
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from shared.commands.registry import main
from shared.config.settings import get_settings
from shared.database.engine import session_scope
from shared.registry.loading import load
from shared.registry.versions import resolve
from tests.support.registered import use_empty_registry

CONTRACT = {
    "inputs": [
        {"name": "weight", "type": "number", "exclusive_min": 0},
        {"name": "height", "type": "number", "min": 0},
    ],
    "features": [
        {"name": "bmi", "derived": "weight / height ** 2"},
        {"name": "heavy", "derived": "bmi >= 30"},
        {"name": "group", "derived": "'young' if age < 40 else 'old'"},
    ],
}


def features_of(raw):
    """Return what the notebook made of the columns that callers send."""
    bmi = raw["weight"] / raw["height"] ** 2
    group = np.where(raw["age"] < 40, "young", "old")
    return pd.DataFrame({"bmi": bmi, "age": raw["age"], "heavy": (bmi >= 30).astype(int), "group": group})


@pytest.fixture(scope="module")
def raw():
    """Rows as callers send them: none of the three derived features is in them."""
    random = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "weight": random.uniform(50, 120, 60).round(1),
            "height": random.uniform(1.5, 2.0, 60).round(2),
            "age": random.integers(18, 80, 60),
        }
    )


@pytest.fixture
def folder(monkeypatch, tmp_path, raw):
    """An empty registry, and a model that its notebook trained on what it computed itself."""
    use_empty_registry(monkeypatch, tmp_path)
    frame = features_of(raw)
    encode = ColumnTransformer([("group", OneHotEncoder(), ["group"])], remainder="passthrough")
    model = make_pipeline(encode, LinearRegression()).fit(frame, 2 * frame["bmi"] + frame["age"] + frame["heavy"])
    dump(model, tmp_path / "model.joblib")
    (tmp_path / "contract.json").write_text(json.dumps(CONTRACT))
    return tmp_path


def add(folder, rows, *more, name="rows.csv"):
    write = {".csv": rows.to_csv, ".jsonl": lambda path, index: rows.to_json(path, orient="records", lines=True)}
    write[(folder / name).suffix](folder / name, index=False)
    return main(
        [
            "add", str(folder / "model.joblib"), "--reference", str(folder / name), "--name", "risk",
            "--contract", str(folder / "contract.json"), *more,
        ]
    )  # fmt: skip


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_raw_rows_register_a_model_whose_features_its_contract_derives(folder, raw, name):
    assert add(folder, raw, name=name) == 0
    with session_scope() as session:
        row = resolve(session, "risk")
        loaded = load(row, get_settings().models)
        left_out = row.scorer.get("left_out")
    assert left_out is None  # weight and height are inputs
    types = {feature.name: feature.type for feature in loaded.card.row_features}
    assert {name for name, kind in types.items() if kind == "integer"} == {"age", "heavy"}
    assert {name for name, kind in types.items() if kind == "number"} == {"bmi", "weight", "height"}
    assert [feature.name for feature in loaded.card.sent_features] == ["age", "weight", "height"]
    assert not any(feature.nullable for feature in loaded.card.features)
    assert loaded.card.features[3].categories == ["old", "young"]
    reference = pd.DataFrame(loaded.reference)
    expected = features_of(raw)
    assert reference["bmi"].tolist() == pytest.approx(expected["bmi"].tolist(), rel=1e-12)
    assert reference[["heavy", "group"]].to_numpy().tolist() == expected[["heavy", "group"]].to_numpy().tolist()


def test_raw_rows_give_the_scores_that_the_model_gave_where_it_was_trained(folder, raw, capsys):
    frame = features_of(raw)
    scored = raw.assign(score=2 * frame["bmi"] + frame["age"] + frame["heavy"])
    assert add(folder, scored, "--scores", "score") == 0
    assert "Its scores are those of the column score" in capsys.readouterr().out
    wrong = scored.assign(score=scored["score"] + 1)
    assert add(folder, wrong, "--scores", "score", "--version", "9") == 1
    assert "60 of 60 rows differ" in capsys.readouterr().err


def test_columns_of_the_file_stand_against_the_formula_and_must_agree_with_it(folder, raw, capsys):
    frame = features_of(raw)
    assert add(folder, raw.assign(bmi=frame["bmi"])) == 0
    bad = raw.assign(bmi=frame["bmi"] + np.where(raw.index == 3, 1, 0))
    assert add(folder, bad, "--version", "9") == 1
    output = capsys.readouterr().err
    assert "does not fit 1 of 60 reference rows of risk" in output
    assert "must be left out, or be weight / height ** 2" in output
    assert "It is line 5" in output


def test_raw_rows_that_break_the_contract_are_named_by_line_or_left_out(folder, raw, capsys):
    bad = raw.assign(height=np.where(raw.index == 3, 0, raw["height"]))
    assert add(folder, bad) == 1
    output = capsys.readouterr().err
    assert "does not fit 1 of 60 reference rows of risk" in output
    assert "cannot be computed from these values" in output
    assert "It is line 5" in output
    assert add(folder, bad, "--skip-bad") == 0
    with session_scope() as session:
        loaded = load(resolve(session, "risk"), get_settings().models)
    assert len(loaded.reference) == 59


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("height", "line 2: height is missing: give a finite number of at least 0"),
        ("age", "lacks age, which the model takes and the contract does not derive"),
    ],
)
def test_raw_rows_without_a_column_that_a_formula_takes_are_refused_by_its_name(folder, raw, capsys, column, message):
    assert add(folder, raw.drop(columns=column)) == 1
    error = capsys.readouterr().err
    assert message in error


def test_formula_that_gives_text_for_a_number_is_refused_before_the_rows_are_computed(folder, raw, capsys):
    wrong = CONTRACT | {
        "features": [{"name": "bmi", "derived": "'heavy' if weight > 80 else 'light'", "type": "number"}]
    }
    (folder / "contract.json").write_text(json.dumps(wrong))
    assert add(folder, raw) == 1
    assert "gives text, and the feature is number" in capsys.readouterr().err
