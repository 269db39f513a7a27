"""What a model takes is learnt when it is registered; rows that it refuses are named and left out."""

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from shared.cards.card import Card
from shared.cards.validator import RowValidator
from shared.commands.registry import main
from shared.config.settings import get_settings
from shared.csv.chunk_reader import ChunkReader
from shared.csv.format import CsvFormat
from shared.database.engine import get_engine, session_scope
from shared.errors import RowFaults
from shared.packages.card_inference import infer_card
from shared.packages.package import UNHASHED, Package, infer_package
from shared.registry.acceptance import learn
from shared.registry.loading import load
from shared.registry.versions import list_versions
from shared.scoring.selection import choose
from shared.tables import ModelVersion
from tests.support.registered import use_empty_registry


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """The registry's command on an empty database: (exit code, what it printed, what it complained of)."""
    use_empty_registry(monkeypatch, tmp_path)

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    yield run
    get_engine().dispose()
    get_engine.cache_clear()
    get_settings.cache_clear()


def saved(folder, model, rows):
    joblib.dump(model, folder / "model.joblib")
    rows.to_csv(folder / "rows.csv", index=False)
    return folder / "model.joblib", "--reference", folder / "rows.csv"


def lines(count=60, blank=(4,)):
    draw = np.random.default_rng(2)
    table = pd.DataFrame(np.round(draw.normal(size=(count, 2)), 3), columns=["a", "b"])
    model = LinearRegression().fit(table, 2 * table["a"] - table["b"])
    table.loc[list(blank), "b"] = np.nan
    return model, table


def loaded(name="m"):
    with session_scope(read_only=True) as session:
        [row] = list_versions(session, name)
    return load(row, get_settings().models)


def test_blank_that_the_model_refuses_is_left_out_named_and_refused_from_callers(command, tmp_path):
    model, table = lines()
    code, out, err = command("add", *saved(tmp_path, model, table), "--name", "m")
    assert code == 0, err
    assert "refuses 1 of the sampled reference rows, which were left out: line 6 (b null)" in out
    assert "us a row" in out
    served = loaded()
    assert len(served.reference) == 59
    assert [feature.nullable for feature in served.card.features] == [False, False]
    with pytest.raises(RowFaults) as refused:
        RowValidator(served.card).validate({"a": 0.5, "b": None})
    assert [(fault.pointer, fault.code) for fault in refused.value.faults] == [("/b", "null")]
    assert command("list")[:2] == (0, out.splitlines()[0] + "\n")


def test_blank_with_a_score_of_its_own_is_another_model(command, tmp_path):
    model, table = lines(blank=())
    table["said"] = model.predict(table)
    table.loc[4, "b"] = np.nan
    files = saved(tmp_path, model, table)
    code, _, err = command("add", *files, "--name", "m", "--scores", "said")
    assert code == 1
    assert "refuses reference rows that have a score in the column 'said' (lines 6)" in err
    table.loc[4, "said"] = np.nan
    code, out, err = command("add", *saved(tmp_path, model, table), "--name", "m", "--scores", "said")
    assert code == 0, err
    assert "over 59 rows" in out


def test_null_that_the_model_takes_stays_allowed(command, tmp_path):
    _, table = lines()
    model = make_pipeline(SimpleImputer(), LinearRegression()).fit(table, table["a"])
    code, out, err = command("add", *saved(tmp_path, model, table), "--name", "m")
    assert code == 0, err
    assert "left out" not in out
    assert [feature.nullable for feature in loaded().card.features] == [False, True]


def test_card_that_allows_what_the_model_refuses_is_corrected(command, tmp_path):
    model, table = lines(blank=())
    package = infer_package(*(saved(tmp_path, model, table)[::2]), {"name": "m"})
    features = [feature.model_copy(update={"nullable": True}) for feature in package.card.features]
    card = package.card.model_copy(update={"features": features})
    accepted = learn(Package(card, model, package.reference))
    assert [feature.nullable for feature in accepted.package.card.features] == [False, False]
    assert accepted.refused == []


class Prices(TransformerMixin, BaseEstimator):
    """Knows two words, and none other."""

    def fit(self, rows, y=None):
        self.feature_names_in_ = np.array(rows.columns, dtype=object)
        self.n_features_in_ = 1
        return self

    def transform(self, rows):
        return np.array([[{"low": 1.0, "high": 2.0}[word]] for word in rows.iloc[:, 0]])


def test_model_that_refuses_an_unknown_category_has_it_refused_by_the_card(tmp_path):
    table = pd.DataFrame({"price": ["low", "high"] * 10})
    model = make_pipeline(Prices(), Ridge()).fit(table, [1.0, 2.0] * 10)
    package = infer_package(*(saved(tmp_path, model, table)[::2]), {"name": "m"})
    feature = package.card.features[0].model_copy(update={"categories": ["low", "high"]})
    card = package.card.model_copy(update={"features": [feature]})
    assert card.features[0].unknown == "accept"
    accepted = learn(Package(card, model, package.reference))
    assert accepted.package.card.features[0].unknown == "refuse"


def test_model_that_refuses_every_row_is_refused_with_the_reason_and_leaves_nothing(command, tmp_path):
    model, table = lines(blank=range(60))
    code, _, err = command("add", *saved(tmp_path, model, table), "--name", "m")
    assert code == 1
    assert "refuses its own reference rows" in err
    assert "It says: Input X contains NaN" in err  # the words of scikit-learn
    with session_scope(read_only=True) as session:
        assert list_versions(session) == []
    assert not list(get_settings().models.glob("m/*"))


def test_one_broken_entry_is_named_and_the_others_are_listed(command, tmp_path):
    model, table = lines()
    for name in ("first", "second"):
        assert command("add", *saved(tmp_path, model, table), "--name", name)[0] == 0
    with session_scope() as session:
        row = session.query(ModelVersion).filter_by(name="first").one()
        row.scorer = {"kind": "numpy"}
    for options in ((), ("--json",)):
        code, out, err = command("list", *options)
        assert "second" in out
        if not options:
            assert code == 1
            assert "error: the entry of first@1 cannot be read (KeyError" in err


def test_older_entry_without_a_measured_speed_is_listed(command, tmp_path):
    model, table = lines()
    command("add", *saved(tmp_path, model, table), "--name", "m")
    with session_scope() as session:
        row = session.query(ModelVersion).one()
        row.scorer = row.scorer | {"one_row_us": None, "rows_per_s": None}
    code, out, _ = command("list")
    assert code == 0
    assert "speed not measured" in out


# --- words that pandas read as missing -----------------------------------------------------------------------------


def housing(*, as_word=False):
    """Return the rows of a file and a model of them; pandas reads its NA as missing unless it is told otherwise."""
    rows = "alley,area,price\nNA,10,100\nPave,10,100\nGrvl,10,40\nNA,20,200\nPave,20,200\nPave,30,300\nGrvl,30,240\n"
    return rows, {"keep_default_na": False} if as_word else {}


def trained_housing(folder, *, as_word=False):
    text, options = housing(as_word=as_word)
    (folder / "rows.csv").write_text(text)
    table = pd.read_csv(folder / "rows.csv", **options)
    words = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    encode = ColumnTransformer([("words", words, ["alley"])], remainder="passthrough")
    model = make_pipeline(encode, Ridge(alpha=0.01)).fit(table[["alley", "area"]], table["price"])
    joblib.dump(model, folder / "model.joblib")
    return model, table[["alley", "area"]]


def read_file(card, text):
    form = CsvFormat(",", "utf-8", ".", ("alley", "area"), None)
    return ChunkReader(card, RowValidator(card), form).read(text.encode(), first_row=0).columns.rows()


def test_word_that_pandas_read_as_missing_is_missing_in_files(command, tmp_path):
    model, table = trained_housing(tmp_path)
    code, _, err = command(
        "add", tmp_path / "model.joblib", "--reference", tmp_path / "rows.csv", "--name", "m", "--target", "price"
    )
    assert code == 0, err
    served = loaded()
    alley = served.card.features[0]
    assert (alley.categories, alley.nullable) == (["Grvl", "Pave"], True)
    rows = read_file(served.card, "NA,10\nNA,20\n,30\nPave,30\n")
    assert [row["alley"] for row in rows] == [None, None, None, "Pave"]
    expected = model.predict(pd.DataFrame({"alley": [np.nan, np.nan, np.nan, "Pave"], "area": [10, 20, 30, 30]}))
    assert served.scorer.score(rows).prediction == pytest.approx(expected)
    assert expected == pytest.approx([100, 200, 300, 300], abs=0.2)
    assert served.scorer.score(served.reference).prediction == pytest.approx(model.predict(table))
    # JSON has null, so that there a word is a word, as in a DataFrame of it.
    assert RowValidator(served.card).validate({"alley": None, "area": 10})["alley"] is None
    assert RowValidator(served.card).validate({"alley": "NA", "area": 10})["alley"] == "NA"


def test_word_that_the_encoder_knows_stays_a_word(command, tmp_path):
    model, table = trained_housing(tmp_path, as_word=True)
    command("add", tmp_path / "model.joblib", "--reference", tmp_path / "rows.csv", "--name", "m", "--target", "price")
    served = loaded()
    assert served.card.features[0].categories == ["Grvl", "NA", "Pave"]
    assert served.card.features[0].nullable is False
    rows = read_file(served.card, "NA,10\nNA,20\n")
    assert [row["alley"] for row in rows] == ["NA", "NA"]
    assert served.scorer.score(served.reference).prediction == pytest.approx(model.predict(table))


@pytest.mark.parametrize("terms", [{}, {"nullable": True}, {"categories": ["Grvl"]}])
def test_word_stays_a_word_where_the_model_knows_no_null_or_no_categories(terms):
    card = Card(
        name="m",
        version=1,
        task="regression",
        sha256="0" * 64,
        features=[{"name": "alley", "type": "string"} | terms, {"name": "area", "type": "integer"}],
    )
    assert [row["alley"] for row in read_file(card, "NA,10\nnull,20\n")] == ["NA", "null"]


class Doubling(LinearRegression):
    """A regressor that says that it has no classes as those of CatBoost do."""

    __module__ = "catboost.core"

    classes_ = ()


def test_regressor_with_an_empty_list_of_classes_is_one():
    table = pd.DataFrame({"a": [0.0, 1.0, 2.5]})
    model = Doubling().fit(table, 2 * table["a"])
    card = infer_card(model, table.to_dict("records"), name="m", version=1, sha256=UNHASHED)
    accepted = learn(Package(card, model, table.to_dict("records")))
    choice = choose(accepted.package.card, model, accepted.package.reference)
    assert choice.card.task == "regression"
    assert choice.scorer.score([{"a": 3.0}]).prediction == pytest.approx([6.0])


def test_true_and_false_with_blanks_are_what_pandas_reads(command, tmp_path):
    cells = ["True", "False", "", "True", "", "False"] * 10
    (tmp_path / "rows.csv").write_text("member,age\n" + "".join(f"{word},{age}\n" for age, word in enumerate(cells)))
    table = pd.read_csv(tmp_path / "rows.csv")  # an object column: True, False and NaN
    y = [{"True": 1, "False": 0, "": age % 2}[word] for age, word in enumerate(cells)]
    encode = ColumnTransformer([("o", OneHotEncoder(), ["member"])], remainder="passthrough")
    model = make_pipeline(encode, LogisticRegression()).fit(table, y)
    joblib.dump(model, tmp_path / "model.joblib")
    code, _, err = command("add", tmp_path / "model.joblib", "--reference", tmp_path / "rows.csv", "--name", "m")
    assert code == 0, err
    scorer = loaded().scorer
    rows = [{"member": {"True": True, "False": False, "": None}[word], "age": age} for age, word in enumerate(cells)]
    expected = model.predict_proba(table)[:, 1]
    assert scorer.score(rows).probability == pytest.approx(expected, abs=1e-9)
    assert [scorer.score([row]).probability[0] for row in rows[:3]] == pytest.approx(expected[:3], abs=1e-9)
