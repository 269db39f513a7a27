"""Models that another scikit-learn saved: taken in with one command, compared, or refused with what to do.

The files are made by tests/foreign/generate.py.
"""

import shutil
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn.compose._column_transformer as columns
from sklearn.linear_model import LinearRegression, LogisticRegression

from shared.commands.registry import main
from shared.config.settings import get_settings
from shared.database.engine import get_engine, session_scope
from shared.packages import package
from shared.registry.loading import load
from shared.registry.versions import list_versions
from tests.support.registered import use_empty_registry

FOREIGN = Path(__file__).parents[3] / "foreign"
ROWS = FOREIGN / "rows.csv"
CONTRACT = Path(__file__).parents[4] / "examples" / "attrition" / "contract.json"
HERE = version("scikit-learn")


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """The registry's `add` on an empty database: (exit code, what it printed, what it complained of)."""
    use_empty_registry(monkeypatch, tmp_path)

    def run(artefact, *options, reference=ROWS):
        code = main(["add", str(artefact), "--reference", str(reference), "--name", "leavers", *options])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    yield run
    get_engine().dispose()
    get_engine.cache_clear()
    get_settings.cache_clear()


def registered():
    with session_scope(read_only=True) as session:
        return list_versions(session)


# ── taken in ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_model_of_another_scikit_learn_is_taken_in_and_the_command_says_what_was_checked(command, caplog):
    code, out, _ = command(FOREIGN / "model.joblib", "--contract", str(CONTRACT), "--scores", "score")
    assert code == 0
    assert f"scikit-learn 1.5.2 saved this model, and {HERE} is installed here. Checked: it loads" in out
    assert "its 43 features and its 2 classes are those of its card, it scores its 120 reference rows" in out
    assert "Its scores are those of the column score: largest difference" in out
    assert [record.message for record in caplog.records if f"scikit-learn 1.5.2 -> {HERE}" in record.message]
    [row] = registered()
    assert row.card["libraries"] == {"scikit-learn": "1.5.2"}  # what the others were, the file does not tell
    assert row.scorer["scores"]["rows"] == row.scorer["reference_rows"] == 120
    assert row.scorer["scores"]["max_abs_diff"] <= 1e-6
    # The client's words and rules came with the contract, and the service scores as the model did where it was trained.
    model = load(row, get_settings().models)
    assert model.card.labels == {"0": "Reste", "1": "Part"}
    assert len(model.card.rules) == 9
    assert model.card.refusal.status == 400
    scores = model.scorer.score(model.reference).probability
    assert np.abs(scores - pd.read_csv(ROWS)["score"]).max() <= 1e-6


# XGBoost itself warns of a model that an older release pickled
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_xgboost_that_recorded_no_categories_scores_a_row_alone_as_it_did_there(command, caplog):
    rows = pd.read_csv(FOREIGN / "categories.csv")
    code, out, err = command(
        FOREIGN / "categories.joblib",
        "--target",
        "y",
        "--scores",
        "score",
        reference=FOREIGN / "categories.csv",
    )
    assert code == 0, err
    assert "Its scores are those of the column score: largest difference" in out
    assert "XGBoost before 3.1 saved the model without the categories of c" in caplog.text
    [row] = registered()
    model = load(row, get_settings().models)
    assert model.card.features[1].categories == ["x", "y", "z"]
    alone = [model.scorer.score([features]).probability[0] for features in rows[["a", "c"]].to_dict("records")]
    assert np.abs(np.array(alone) - rows["score"]).max() <= 1e-6


def test_command_says_that_scores_were_not_compared_where_there_are_none(command):
    code, out, _ = command(FOREIGN / "model.joblib")
    assert code == 0
    assert "Not checked: whether it gives the scores that it gave there" in out
    code, out, _ = command(FOREIGN / "model.joblib", "--scores", "score")  # the same version, checked later
    assert code == 0
    assert "largest difference" in out
    assert "Not checked" not in out
    [row] = registered()
    assert row.scorer["scores"]["column"] == "score"


def test_scores_of_a_model_of_this_scikit_learn_are_compared_too(command, tmp_path):
    frame = pd.read_csv(ROWS)[["age", "revenu_mensuel", "a_quitte_l_entreprise"]]
    values, leaves = (
        frame[["age", "revenu_mensuel"]].to_numpy(),
        frame["a_quitte_l_entreprise"].map({0: "no", 1: "yes"}),
    )
    line = LinearRegression().fit(values, frame["a_quitte_l_entreprise"])
    classes = LogisticRegression(max_iter=1000).fit(
        values, pd.cut(frame["age"], [0, 30, 40, 99], labels=["a", "b", "c"])
    )
    both = LogisticRegression(max_iter=1000).fit(values, leaves)
    table = frame.drop(columns="a_quitte_l_entreprise")
    for name, model, scores in (
        ("line", line, line.predict(values)),
        ("classes", classes, classes.predict(values)),
        ("both", both, both.predict_proba(values)[:, 1]),
    ):
        joblib.dump(model, tmp_path / f"{name}.joblib")
        rows = tmp_path / f"{name}.csv"
        table.assign(said=scores).to_csv(rows, index=False)
        code, out, err = command(tmp_path / f"{name}.joblib", "--scores", "said", "--name", name, reference=rows)
        assert code == 0, err
        assert "Its scores are those of the column said: largest difference" in out
        assert "saved this model" not in out
        table.assign(said=scores[::-1]).to_csv(rows, index=False)
        code, _, err = command(tmp_path / f"{name}.joblib", "--scores", "said", "--name", name, reference=rows)
        assert code == 1
        assert "rows differ, by up to" in err
        assert "Check that they are this model's, on these rows." in err


def test_boosted_trees_that_were_saved_without_their_package_are_read(command):
    code, out, err = command(FOREIGN / "histogram.joblib", "--scores", "histogram_score")
    assert code == 0, err
    assert "scikit-learn 1.7.2 saved this model" in out
    assert "Its scores are those of the column histogram_score" in out
    assert "_loss" not in sys.modules


# ── refused ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("file", "saved", "message"),
    [
        (
            "boosting",
            "1.3.2",
            "needs the module 'sklearn.ensemble._gb_losses' of 1.3.2, which the 'sklearn' here lacks",
        ),
        ("passing", "1.3.2", "refuses its own reference rows (AttributeError)"),
        ("forest", "1.3.2", "holds trees that count rows where the installed scikit-learn expects shares"),
        ("adaboost", "1.5.2", "holds an AdaBoostClassifier of the algorithm SAMME.R"),
        ("softmax", "1.5.2", "holds a LogisticRegression whose probabilities follow from multi_class and solver"),
    ],
)
def test_model_that_cannot_be_used_here_is_refused_with_what_saved_it(command, file, saved, message):
    code, _, err = command(FOREIGN / f"{file}.joblib")
    assert code == 1
    assert message in err
    assert saved in err
    assert registered() == []


def test_model_that_scores_otherwise_here_is_refused_with_the_difference(command):
    code, _, err = command(FOREIGN / "model.joblib", "--scores", "forest_score")
    assert code == 1
    assert "120 of 120 rows differ, by up to 0." in err
    assert "scikit-learn 1.5.2 saved it" in err
    assert registered() == []


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("scoer", "The reference rows have no column 'scoer' to hold the scores: they have age, "),
        ("poste", "The column 'poste' holds no number in line 2: give the score of every row"),
    ],
)
def test_scores_that_are_none_are_refused(command, column, message):
    code, _, err = command(FOREIGN / "model.joblib", "--scores", column)
    assert code == 1
    assert message in err


def test_scores_without_reference_rows_are_refused(command, tmp_path):
    assert command(FOREIGN / "model.joblib")[0] == 0
    [row] = registered()
    folder = tmp_path / "alone"
    shutil.copytree(get_settings().models / row.uri, folder)
    (folder / "reference.jsonl").unlink()
    assert main(["add", str(folder), "--scores", "score", "--name", "alone"]) == 1


# ── served ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_older_model_is_read_again_as_often_as_it_is_loaded_and_leaves_nothing_behind():
    had = hasattr(columns, "_RemainderColsList")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = package.unpickle(FOREIGN / "model.joblib", sha256=None)
        second = package.unpickle(FOREIGN / "model.joblib", sha256=None)
    rows = pd.read_csv(ROWS)[list(first.feature_names_in_)]
    assert np.array_equal(first.predict_proba(rows), second.predict_proba(rows))
    assert hasattr(columns, "_RemainderColsList") == had
