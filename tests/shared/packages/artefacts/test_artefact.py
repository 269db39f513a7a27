"""What strangers save beside plain pipelines: taken in with the scores that it gave, or refused in one sentence."""

import importlib
import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, LabelEncoder, OneHotEncoder, StandardScaler

from shared.commands.registry import main
from shared.config.settings import get_settings
from shared.database.engine import get_engine, session_scope
from shared.registry.loading import load
from shared.registry.versions import list_versions
from shared.scoring.parity import TOLERANCE
from shared.tables import Table
from tests.support.brief import prove_briefly


def people(rows=300):
    rng = np.random.default_rng(11)
    frame = pd.DataFrame(
        {
            "id": np.arange(1000, 1000 + rows),
            "joined": rng.choice(["2024-01-31", "2025-02-28"], rows),
            "a": np.round(rng.normal(size=rows), 4),
            "b": np.round(rng.normal(size=rows), 4),
            "c": rng.choice(["x", "y", "z"], rows),
        }
    )
    frame["y"] = ((frame["a"] - frame["b"] + (frame["c"] == "x")) > rng.normal(size=rows) * 0.5).astype(int)
    return frame


PEOPLE = people()
NUMBERS, LEFT = PEOPLE[["a", "b"]], PEOPLE["y"]
MIXED = PEOPLE[["a", "b", "c"]]


def encoder(**options):
    return ColumnTransformer(
        [("numbers", StandardScaler(), ["a", "b"]), ("texts", OneHotEncoder(sparse_output=False), ["c"])], **options
    )


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """The registry's `add` of an object or a file on an empty database: (exit code, what it printed)."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("RUNTIME", "sync")
    for name in ("DATABASE_URL", "MODELS_DIR", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    prove_briefly(monkeypatch)
    get_settings.cache_clear()
    get_engine.cache_clear()
    (tmp_path / "data").mkdir()
    Table.metadata.create_all(get_engine())

    def run(thing, rows=None, *options):
        path = thing
        if not isinstance(thing, Path):
            path = tmp_path / "model.joblib"
            joblib.dump(thing, path)
        rows = (MIXED if rows is None else rows).iloc[:80]
        rows.to_csv(tmp_path / "rows.csv", index=False)
        reference = ["--reference", str(tmp_path / "rows.csv"), "--name", "taken"]
        code = main(["add", str(path), *reference, *map(str, options)])
        printed = capsys.readouterr()
        return code, printed.out or printed.err

    yield run
    get_engine().dispose()
    get_engine.cache_clear()
    get_settings.cache_clear()


def served():
    """The newest version as a worker loads it."""
    with session_scope(read_only=True) as session:
        row = list_versions(session)[-1]
    return load(row, get_settings().models)


def scores_of(model, frame):
    rows = frame.iloc[:80].to_dict("records")
    known_rows = [{name: row[name] for name in row if name in {f.name for f in model.card.features}} for row in rows]
    scores = model.scorer.score(known_rows)
    return scores.prediction if scores.probability is None else scores.probability


# ── taken in ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_dict_gives_its_model_with_its_threshold_and_its_labels(command):
    model = LogisticRegression().fit(NUMBERS, LEFT)
    names = LabelEncoder().fit(["left", "stayed"])
    code, out = command({"model": model, "threshold": 0.3, "encoder": names, "when": "May"}, NUMBERS)
    assert code == 0
    assert "The model is what the file calls model (LogisticRegression)." in out
    assert "Its threshold is 0.3, which the file calls threshold." in out
    assert "Not used: when." in out
    package = served()
    assert package.card.threshold == 0.3
    assert package.card.labels == {"0": "left", "1": "stayed"}
    chances = model.predict_proba(NUMBERS.iloc[:80])[:, 1]
    assert np.allclose(scores_of(package, NUMBERS), chances, atol=TOLERANCE)
    decided = package.scorer.score(package.reference).prediction
    assert ((chances >= 0.3) == decided).all()
    assert ((chances >= 0.5) != decided).any()


def test_threshold_of_the_command_goes_before_that_of_the_dict(command):
    model = LogisticRegression().fit(NUMBERS, LEFT)
    assert command({"model": model, "best_threshold": np.float64(0.3)}, NUMBERS, "--threshold", 0.6)[0] == 0
    assert served().card.threshold == 0.6


def test_labels_and_threshold_are_taken_from_json_files_beside_the_model(command, tmp_path):
    names, threshold = tmp_path / "labels.json", tmp_path / "threshold.json"
    names.write_text('{"Stays": 0, "Leaves": 1}')
    threshold.write_text('{"best": {"threshold": 0.37}}')
    options = ("--labels", str(names), "--threshold-from", str(threshold))
    assert command(LogisticRegression().fit(NUMBERS, LEFT), NUMBERS, *options)[0] == 0
    card = served().card
    assert (card.labels, card.threshold) == ({"0": "Stays", "1": "Leaves"}, 0.37)


def test_dict_puts_its_preprocessor_before_its_model(command):
    first = encoder().fit(MIXED)
    model = LogisticRegression().fit(first.transform(MIXED), LEFT)
    code, out = command({"clf": model, "preprocessor": first}, MIXED)
    assert code == 0, out
    assert "Before it comes the preprocessor (ColumnTransformer)." in out
    expected = model.predict_proba(first.transform(MIXED.iloc[:80]))[:, 1]
    assert np.allclose(scores_of(served(), MIXED), expected, atol=TOLERANCE)


def test_dict_names_the_columns_of_a_model_that_knows_none(command):
    model = LogisticRegression().fit(NUMBERS[["b", "a"]].to_numpy(), LEFT)
    code, out = command((model, {"unused": 1}), NUMBERS)
    assert code == 0, out
    assert [feature.name for feature in served().card.features] == ["a", "b"]  # nobody knows better
    code, out = command({"model": model, "feature_columns": ["b", "a"]}, NUMBERS)
    assert code == 0, out
    assert [feature.name for feature in served().card.features] == ["b", "a"]
    expected = model.predict_proba(NUMBERS[["b", "a"]].to_numpy()[:80])[:, 1]
    assert np.allclose(scores_of(served(), NUMBERS), expected, atol=TOLERANCE)


@pytest.mark.parametrize("final", [LogisticRegression(), xgboost.XGBClassifier(n_estimators=5)], ids=["linear", "xgb"])
def test_model_and_preprocessor_of_two_files_become_one_artefact(command, tmp_path, final):
    first = encoder().fit(MIXED)
    model = final.fit(first.transform(MIXED), LEFT)
    joblib.dump(first, tmp_path / "pre.joblib")
    code, out = command(model, MIXED)
    assert code == 1
    assert "trained on 5 unnamed columns and the reference rows have 3" in out
    assert "preprocessor" in out
    assert "--preprocessor" in out
    code, out = command(model, PEOPLE.drop(columns=["id", "joined"]), "--preprocessor", tmp_path / "pre.joblib",
                        "--target", "y")  # fmt: skip
    assert code == 0, out
    expected = model.predict_proba(first.transform(MIXED.iloc[:80]))[:, 1]
    assert np.allclose(scores_of(served(), MIXED), expected, atol=TOLERANCE)
    assert command(model, MIXED, "--preprocessor", tmp_path / "pre.joblib", "--target", "y")[0] == 1  # no such column
    again = ["--preprocessor", tmp_path / "pre.joblib", "--target", "y"]
    assert command(model, PEOPLE.drop(columns=["id", "joined"]), *again)[0] == 0
    with session_scope(read_only=True) as session:
        assert [row.version for row in list_versions(session)] == [1]  # the same files are the same version


def test_preprocessor_of_another_model_is_refused_with_both_widths(command, tmp_path):
    first = encoder().fit(MIXED)
    model = LogisticRegression().fit(first.transform(MIXED), LEFT)
    joblib.dump(StandardScaler().fit(NUMBERS), tmp_path / "scaler.joblib")
    code, out = command(model, MIXED, "--preprocessor", tmp_path / "scaler.joblib")
    assert code == 1
    assert "makes 2 columns of a, b, and the model in" in out
    assert "takes 5" in out


BOOSTERS = {
    "binary": (LEFT, {"objective": "binary"}, {"objective": "binary:logistic"}),
    "three": (PEOPLE["c"].map({"x": 0, "y": 1, "z": 2}), {"objective": "multiclass", "num_class": 3},
              {"objective": "multi:softprob", "num_class": 3}),
    "number": (PEOPLE["a"] * 2 + PEOPLE["b"], {"objective": "regression"}, {"objective": "reg:squarederror"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", BOOSTERS)
def test_bare_booster_of_lightgbm_gives_its_own_predictions(command, kind):
    answers, options, _ = BOOSTERS[kind]
    data = lightgbm.Dataset(NUMBERS, answers)
    booster = lightgbm.train({"verbose": -1, "num_leaves": 5, **options}, data, 12)
    code, out = command(booster, NUMBERS)
    assert code == 0, out
    expected = booster.predict(NUMBERS.iloc[:80])
    model = served()
    assert model.card.task == {"binary": "binary", "three": "multiclass", "number": "regression"}[kind]
    assert np.allclose(scores_of(model, NUMBERS), expected.max(axis=1) if kind == "three" else expected, atol=TOLERANCE)


@pytest.mark.parametrize("kind", BOOSTERS)
def test_bare_booster_of_xgboost_gives_its_own_predictions_also_after_early_stopping(command, kind):
    answers, _, options = BOOSTERS[kind]
    train, rest = NUMBERS[:200], NUMBERS[200:]
    booster = xgboost.train(
        {"max_depth": 5, "eta": 0.9, **options}, xgboost.DMatrix(train, answers[:200]), 30, verbose_eval=False,
        evals=[(xgboost.DMatrix(rest, answers[200:]), "rest")], early_stopping_rounds=5,
    )  # fmt: skip
    assert booster.best_iteration + 1 < booster.num_boosted_rounds()  # and yet predict asks all of its trees
    code, out = command(booster, NUMBERS)
    assert code == 0, out
    expected = booster.predict(xgboost.DMatrix(NUMBERS.iloc[:80]))
    assert np.allclose(
        scores_of(served(), NUMBERS), expected.max(axis=1) if kind == "three" else expected, atol=TOLERANCE
    )


def test_search_is_scored_as_the_estimator_that_it_found_and_by_a_fast_path(command):
    search = GridSearchCV(make_pipeline(encoder(), LogisticRegression()), {"logisticregression__C": [0.1, 1]}, cv=3)
    code, out = command(search.fit(MIXED, LEFT), MIXED)
    assert code == 0, out
    assert "scored by pipeline" not in out
    assert 'c (string: "x", "y", "z")' in out
    assert np.allclose(scores_of(served(), MIXED), search.predict_proba(MIXED.iloc[:80])[:, 1], atol=TOLERANCE)


def test_regressor_of_a_transformed_target_gives_its_own_numbers(command):
    model = TransformedTargetRegressor(
        make_pipeline(encoder(), LinearRegression()), func=np.log1p, inverse_func=np.expm1
    ).fit(MIXED, np.exp(PEOPLE["a"]))
    code, out = command(model, MIXED)
    assert code == 0, out
    assert np.allclose(scores_of(served(), MIXED), model.predict(MIXED.iloc[:80]))


def test_pipeline_of_imbalanced_learn_is_scored_past_its_samplers_by_a_fast_path(command):
    from imblearn.over_sampling import RandomOverSampler
    from imblearn.pipeline import Pipeline as Balanced

    rare = LEFT & (PEOPLE["a"] > 0.5)
    steps = [("encode", encoder()), ("more", RandomOverSampler(random_state=3)), ("model", LogisticRegression())]
    model = Balanced(steps).fit(MIXED, rare)
    code, out = command(model, MIXED)
    assert code == 0, out
    assert "scored by pipeline" not in out
    assert np.allclose(scores_of(served(), MIXED), model.predict_proba(MIXED.iloc[:80])[:, 1], atol=TOLERANCE)
    first = Balanced([steps[1], steps[0], steps[2]])
    code, out = command(first.fit(MIXED, rare), MIXED)
    assert code == 0, out
    assert "scored by pipeline" not in out
    assert np.allclose(scores_of(served(), MIXED), first.predict_proba(MIXED.iloc[:80])[:, 1], atol=TOLERANCE)


@pytest.mark.parametrize("by", ["names", "positions", "mask"])
def test_columns_that_the_pipeline_drops_are_no_features_and_may_be_sent(command, by):
    frame = PEOPLE.drop(columns="y")
    numbers = {"names": ["a", "b"], "positions": [2, 3], "mask": [False, False, True, True, False]}[by]
    texts = {"names": ["c"], "positions": [4], "mask": [False, False, False, False, True]}[by]
    encode = ColumnTransformer([("n", StandardScaler(), numbers), ("t", OneHotEncoder(sparse_output=False), texts)])
    model = make_pipeline(encode, LogisticRegression()).fit(frame, LEFT)
    code, out = command(model, frame)
    assert code == 0, out
    assert "Features: a (number), b (number), c (string:" in out
    assert "Left out, as no features of the model: id, joined." in out
    assert "scored by pipeline" not in out
    package = served()
    assert package.card.extra == "ignore"
    assert np.allclose(scores_of(package, frame), model.predict_proba(frame.iloc[:80])[:, 1], atol=TOLERANCE)
    code, out = command(model, MIXED)  # rows without them are reference rows as well
    assert code == 0, out


def test_names_with_blanks_that_lightgbm_writes_otherwise_stay_those_of_the_rows(command):
    frame = NUMBERS.rename(columns={"a": "debt ratio", "b": "years_of work"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(frame, LEFT)
    code, out = command(model, frame)
    assert code == 0, out
    assert [feature.name for feature in served().card.features] == ["debt ratio", "years_of work"]
    assert np.allclose(scores_of(served(), frame), model.predict_proba(frame.iloc[:80])[:, 1], atol=TOLERANCE)
    code, out = command(model, frame.rename(columns={"debt ratio": "Debt"}))
    assert code == 1
    assert "lack 1 of the model's 2 features (debt_ratio)" in out


# ── code of one's own ────────────────────────────────────────────────────────────────────────────────────────────────

CODE = '''
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from ratios_help import SHIFT


class Ratio(TransformerMixin, BaseEstimator):
    """Adds a ratio."""

    def __init__(self, floor=1.0):
        self.floor = floor

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        X = np.asarray(X, dtype=float)
        return np.column_stack([X, X[:, 0] / (SHIFT + np.abs(X[:, 1]) + self.floor)])

    def __sklearn_is_fitted__(self):
        return True
'''


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """A folder with two modules, a model that needs them, and rows with the scores that it gave."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "ratios.py").write_text(CODE)
    (folder / "ratios_help.py").write_text("SHIFT = 2.0\n")
    monkeypatch.syspath_prepend(str(folder))
    ratios = importlib.import_module("ratios")
    model = make_pipeline(ratios.Ratio(0.5), LogisticRegression()).fit(NUMBERS, LEFT)
    joblib.dump(model, tmp_path / "own.joblib")
    rows = NUMBERS.assign(y=LEFT, score=model.predict_proba(NUMBERS)[:, 1])
    for name in ("ratios", "ratios_help"):
        del sys.modules[name]
    sys.path.remove(str(folder))
    return folder, tmp_path / "own.joblib", rows


def test_model_with_classes_of_its_own_never_sends_anyone_to_a_strangers_package(command, own_code):
    _, model, rows = own_code
    code, out = command(model, rows, "--target", "y")
    assert code == 1
    assert "needs the module 'ratios', which is not installed here" in out
    assert "name the folder that holds ratios.py or ratios/ with --code" in out
    assert "pip install" not in out


@pytest.mark.flow
def test_code_that_is_named_is_carried_along_in_the_model(command, own_code, tmp_path):
    folder, model, rows = own_code
    options = ["--target", "y", "--scores", "score", "--code", folder]
    code, out = command(model, rows, *options)
    assert code == 0, out
    assert "Its scores are those of the column score: largest difference" in out
    assert command(model, rows, *options)[0] == 0
    with session_scope(read_only=True) as session:
        [row] = list_versions(session)  # the same model with the same code is the same version
    shutil.rmtree(folder)
    assert "ratios" not in sys.modules
    ask = "import joblib, sys; print(joblib.load(sys.argv[1]).predict_proba([[0.5, -1.0]])[0, 1])"
    artefact = get_settings().models / row.uri / "model.joblib"
    elsewhere = subprocess.run(
        [sys.executable, "-c", ask, str(artefact)], check=True, cwd=tmp_path, capture_output=True, text=True
    )
    assert float(elsewhere.stdout) == pytest.approx(served().estimator.predict_proba([[0.5, -1.0]])[0, 1], abs=1e-12)


def tenfold(frame):
    return frame.assign(a=frame["a"] * 10)


def test_function_of_a_notebook_is_named_and_may_come_as_a_file(command, tmp_path, monkeypatch):
    monkeypatch.setattr(tenfold, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "tenfold", tenfold, raising=False)
    model = make_pipeline(FunctionTransformer(tenfold), LogisticRegression()).fit(NUMBERS, LEFT)
    joblib.dump(model, tmp_path / "notebook.joblib")
    rows = NUMBERS.assign(y=LEFT, score=model.predict_proba(NUMBERS)[:, 1])
    # Whatever the program that reads it calls so, as `load` or `main` of the registry, is not the notebook's.
    monkeypatch.setattr(sys.modules["__main__"], "tenfold", lambda frame: frame, raising=False)
    code, out = command(tmp_path / "notebook.joblib", rows, "--target", "y")
    assert code == 1
    assert "needs 'tenfold', which the script or notebook that saved it defined itself (__main__)" in out
    assert "Put it into a module" in out
    (tmp_path / "features.py").write_text('def tenfold(frame):\n    return frame.assign(a=frame["a"] * 10)\n')
    options = ["--target", "y", "--scores", "score", "--code", tmp_path / "features.py"]
    code, out = command(tmp_path / "notebook.joblib", rows, *options)
    assert code == 0, out
    assert "Its scores are those of the column score: largest difference" in out


# ── refused in one sentence ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html>", "is a web page, not a model"),
        (b"tree\nversion=v4\n", r"is a LightGBM model as text: read it with lightgbm.Booster\(model_file="),
        (b'{"learner": {}}', "is JSON and not a joblib file: an XGBoost model is read with"),
        (b"PK\x03\x04rest", "is a zip archive and not a joblib file"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, as Keras writes it"),
        (b"ckeras.src.models\nSequential\n.", "holds a Keras model: this service serves fitted estimators"),
        (b"ctorch.nn.modules\nLinear\n.", "holds a PyTorch model: this service serves fitted estimators"),
        (b"cstatsmodels.base.wrapper\nResultsWrapper\n.", "holds a statsmodels result: this service serves"),
        (b"csrc.features\nRatio\n.", r"needs the module 'src'.*folder that holds src.py or src/ with --code"),
        (b"ccategory_encoders.woe\nWOEEncoder\n.", r"\(`python -m pip install category-encoders`\)"),
    ],
)
def test_file_that_is_no_model_says_what_it_is(command, tmp_path, content, message):
    (tmp_path / "strange.joblib").write_bytes(content)
    code, out = command(tmp_path / "strange.joblib")
    assert code == 1
    assert len(out.splitlines()) == 1

    assert re.search(message, out), out


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (LogisticRegression(), "holds a LogisticRegression that is not fitted: call its fit, and save it again."),
        (make_pipeline(StandardScaler(), LogisticRegression()), "holds a Pipeline that is not fitted"),
        (
            MultiOutputClassifier(LogisticRegression()).fit(NUMBERS, np.column_stack([LEFT, LEFT])),
            "gives 2 answers a row",
        ),
        (MultiOutputRegressor(LinearRegression()).fit(NUMBERS, NUMBERS), "gives 2 answers a row"),
        (LinearRegression().fit(NUMBERS, NUMBERS), "gives 2 answers a row: one answer is served. Save a model for"),
        (
            StandardScaler().fit(NUMBERS),
            "transforms rows and predicts nothing: add the model's own file, and name this",
        ),
        (GridSearchCV(LogisticRegression(), {"C": [1]}, cv=2, refit=False).fit(NUMBERS, LEFT), "refit=True"),
        (NUMBERS, "holds a DataFrame and no model"),
        (LogisticRegression, "holds the class LogisticRegression itself"),
        ({"accuracy": 0.9, "when": "May"}, "holds accuracy, when and no fitted model among them"),
        (
            {"one": LogisticRegression().fit(NUMBERS, LEFT), "two": LogisticRegression().fit(NUMBERS, LEFT)},
            "holds 2 models (one, two): save each in a file of its own",
        ),
        (
            {"model": LogisticRegression().fit(NUMBERS, LEFT), "s": StandardScaler(), "e": OneHotEncoder()},
            "holds 2 transformers beside the model (s, e)",
        ),
        (
            {"model": LogisticRegression().fit(NUMBERS, LEFT), "threshold": 30},
            "a threshold is a probability from 0 to 1",
        ),
    ],
)
def test_object_that_cannot_be_served_says_what_it_is_and_what_to_do(command, thing, message):
    code, out = command(thing, NUMBERS)
    assert code == 1
    assert message in out
    assert len(out.splitlines()) == 1


def test_add_prints_the_features_what_it_left_out_and_a_request(command):
    model = make_pipeline(encoder(), LogisticRegression()).fit(MIXED, LEFT)
    code, out = command(model, PEOPLE, "--target", "y")
    assert code == 0, out
    assert 'Features: a (number), b (number), c (string: "x", "y", "z").' in out
    assert "Left out, as no features of the model: id, joined, y (the target)." in out
    request = out.strip().splitlines()[-1]
    assert request.startswith("curl -s 'http://127.0.0.1:8000/models/taken/predict' ")
    body = json.loads(request.partition(" -d ")[2].strip("'"))
    shown = body["features"]  # made up, and nobody's
    assert list(shown) == ["a", "b", "c"]
    assert shown["a"] not in list(MIXED["a"])
    assert shown["b"] not in list(MIXED["b"])
    assert shown["c"] in ("x", "y", "z")


def test_rows_that_break_a_contract_are_all_told_by_line_and_may_be_left_out(command, tmp_path):
    model = LogisticRegression().fit(NUMBERS, LEFT)
    rows = NUMBERS.assign(score=model.predict_proba(NUMBERS)[:, 1]).iloc[:40].copy()
    (tmp_path / "rule.json").write_text('{"rules": ["a < 1.5"], "features": [{"name": "b", "min": -1}]}')
    bad = [place + 2 for place, row in enumerate(rows.to_dict("records")) if row["a"] >= 1.5 or row["b"] < -1]
    assert 1 < len(bad) < 20
    options = ["--scores", "score", "--contract", tmp_path / "rule.json"]
    code, out = command(model, rows, *options)
    assert code == 1
    assert f"does not fit {len(bad)} of 40 reference rows of taken" in out
    assert f"They are the lines {', '.join(map(str, bad))}." in out
    assert " a < 1.5 must hold (" in out
    assert " b must be a finite number of at least -1 (" in out
    code, out = command(model, rows, *options, "--skip-bad")
    assert code == 0, out
    assert "over 40 rows" in out  # the model's scores are compared on every row: the rules are the client's
    assert len(served().reference) == 40 - len(bad)
