"""A card inferred from a bare model: what the encoders know, what the rows show, and nothing invented."""

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, OrdinalEncoder, StandardScaler

from shared.cards.card import Card, Feature
from shared.errors import CardError
from shared.packages.card_inference import infer_card
from shared.packages.package import UNHASHED
from shared.packages.sample import MAX_ROWS, canonical_rows, read_rows, sample, value_of

ROWS = [
    {"age": "31", "pay": "1200.5", "city": "Lyon", "code": "01", "member": "True", "blank": None, "y": "1"},
    {"age": "45", "pay": None, "city": "Paris", "code": "75", "member": "False", "blank": None, "y": "0"},
    {"age": "28", "pay": "900", "city": "Lyon", "code": "75", "member": "True", "blank": None, "y": "1"},
    {"age": "50", "pay": "NaN", "city": "Brest", "code": "29", "member": "False", "blank": None, "y": "0"},
]
NAMES = ["age", "pay", "city", "code", "member", "blank"]


def frame():
    return pd.DataFrame(
        {
            "age": [31, 45, 28, 50],
            "pay": [1200.5, np.nan, 900.0, np.nan],
            "city": ["Lyon", "Paris", "Lyon", "Brest"],
            "code": ["01", "75", "75", "29"],
            "member": [True, False, True, False],
            "blank": [1.0, 2.0, 3.0, 4.0],
        }
    )


def fitted(encoder, target=(1, 0, 1, 0), final=None):
    return make_pipeline(encoder, LogisticRegression(max_iter=10_000) if final is None else final).fit(
        frame(), list(target)
    )


def mixed(texts):
    impute = SimpleImputer(keep_empty_features=True)
    return ColumnTransformer(
        [("numbers", impute, ["age", "pay", "blank", "member"]), ("texts", texts, ["city", "code"])]
    )


def infer(estimator, rows=ROWS, **options):
    return infer_card(estimator, rows, **({"name": "m", "version": 1, "sha256": UNHASHED, "target": "y"} | options))


def test_types_come_from_the_encoders_and_the_rows():
    card = infer(fitted(mixed(OneHotEncoder(handle_unknown="ignore"))))
    assert [feature.name for feature in card.features] == NAMES
    assert [feature.type for feature in card.features] == ["integer", "number", "string", "string", "boolean", "number"]
    assert [feature.nullable for feature in card.features] == [False, True, False, False, False, True]
    # Digits that an encoder knows as text stay text, leading zero and all.
    assert [feature.example for feature in card.features] == [40, 1000.0, "Brest", "01", False, None]


def test_no_range_rule_or_description_is_invented():
    card = infer(fitted(mixed(OneHotEncoder(handle_unknown="ignore"))))
    assert card.rules == []
    for feature in card.features:
        assert (feature.min, feature.max, feature.min_length, feature.max_length) == (None, None, None, None)
        assert feature.description is None
    assert card.metrics == {}


@pytest.mark.parametrize(
    ("encoder", "unknown"),
    [
        (OneHotEncoder(handle_unknown="ignore"), "accept"),
        (OneHotEncoder(handle_unknown="infrequent_if_exist"), "accept"),
        (OneHotEncoder(), "refuse"),
        (OrdinalEncoder(), "refuse"),
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), "accept"),
        (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()), "refuse"),
    ],
)
def test_categories_come_from_the_encoder_with_what_it_does_to_others(encoder, unknown):
    city, code = infer(fitted(mixed(encoder))).features[2:4]
    assert (city.categories, city.unknown) == (["Brest", "Lyon", "Paris"], unknown)
    assert (code.categories, code.unknown) == (["01", "29", "75"], unknown)


@pytest.mark.parametrize(
    "columns",
    [
        [2, 3],
        slice(2, 4),
        slice("city", "code"),
        [False, False, True, True, False, False],
        np.array(["city", "code"]),
        make_column_selector(pattern="city|code"),
        lambda rows: ["city", "code"],
    ],
)
def test_columns_are_found_however_they_were_selected(columns):
    encoder = ColumnTransformer([("texts", OneHotEncoder(), columns)])
    card = infer(fitted(encoder))
    city, code = card.features  # the others are dropped, and none of the model's features
    assert (city.name, city.categories) == ("city", ["Brest", "Lyon", "Paris"])
    assert (code.name, code.categories) == ("code", ["01", "29", "75"])
    assert card.extra == "ignore"


def test_encoder_behind_a_step_that_changes_the_values_is_not_believed():
    bins = make_pipeline(
        KBinsDiscretizer(2, encode="ordinal", quantile_method="averaged_inverted_cdf"), OneHotEncoder()
    )
    encoder = ColumnTransformer([("ages", bins, ["age"])])
    assert infer(fitted(encoder)).features[0].categories is None


def test_true_and_false_that_an_encoder_holds_as_numbers_are_booleans():
    table = frame()[["member"]].astype("boolean")  # of pandas' types that may hold nulls, scikit-learn makes floats
    model = make_pipeline(ColumnTransformer([("o", OneHotEncoder(), ["member"])]), LogisticRegression())
    [member] = infer(model.fit(table, [1, 0, 1, 0])).features
    assert (member.type, member.categories) == ("boolean", [False, True])


def test_numbers_and_blanks_among_categories_are_integers_that_may_be_null():
    rows = [{"level": "1"}, {"level": "2"}, {"level": None}, {"level": "2"}]
    data = pd.DataFrame({"level": [1.0, 2.0, np.nan, 2.0]})
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(data, [0, 1, 0, 1])
    (level,) = infer(model, rows, target=None).features
    assert (level.type, level.categories, level.nullable) == ("integer", [1, 2], True)


@pytest.mark.parametrize(
    ("target", "options", "task", "labels"),
    [
        ((1, 0, 1, 0), {}, "binary", {"0": "0", "1": "1"}),
        (("no", "yes", "no", "yes"), {}, "binary", {"no": "no", "yes": "yes"}),
        ([0, 1, 2, 0], {}, "multiclass", {"0": "0", "1": "1", "2": "2"}),
        ((1, 0, 1, 0), {"labels": {"0": "stays", "1": "leaves"}}, "binary", {"0": "stays", "1": "leaves"}),
    ],
)
def test_task_and_labels_come_from_the_classes_unless_given(target, options, task, labels):
    card = infer(fitted(mixed(OneHotEncoder()), target), **options)
    assert (card.task, card.labels) == (task, labels)
    assert card.threshold == (0.5 if task == "binary" else None)


def test_regressor_has_neither_labels_nor_threshold():
    card = infer(fitted(mixed(OneHotEncoder()), (1.5, 2.5, 3.5, 4.5), LinearRegression()))
    assert (card.task, card.labels, card.threshold) == ("regression", {}, None)


def test_libraries_are_those_that_the_model_is_made_of():
    card = infer(fitted(mixed(OneHotEncoder()), final=RandomForestClassifier(3)))
    assert set(card.libraries) == {"joblib", "numpy", "scikit-learn"}


def test_model_of_a_bare_array_takes_its_names_from_the_rows():
    model = LogisticRegression().fit(np.array([[31, 1.0], [45, 2.0], [28, 3.0]]), [1, 0, 1])
    rows = [{"age": "31", "pay": "1.0", "y": "1"}]
    card = infer(model, rows)
    assert [feature.name for feature in card.features] == ["age", "pay"]
    assert "they are taken in the order of the reference rows" in card.notes
    with pytest.raises(CardError, match="trained on 2 unnamed columns and the reference rows have 3"):
        infer(model, rows, target=None)


def test_rows_that_lack_a_feature_are_refused_by_its_name():
    rows = [{name: value for name, value in row.items() if name != "pay"} for row in ROWS]
    with pytest.raises(CardError, match=r"lack 1 of the model's 6 features \(pay\)"):
        infer(fitted(mixed(OneHotEncoder())), rows)


def test_object_that_predicts_nothing_is_refused():
    scaler = StandardScaler().fit(np.ones((2, 1)))
    with pytest.raises(CardError, match="StandardScaler has neither classes_ nor predict"):
        infer(scaler, [{"a": "1"}], target=None)


def test_unknown_task_is_refused():
    with pytest.raises(CardError, match="The task 'ranking' is not known: use one of binary, multiclass, regression"):
        infer(fitted(mixed(OneHotEncoder())), task="ranking")


def test_task_that_is_not_the_models_is_refused():
    model = fitted(mixed(OneHotEncoder()))
    assert infer(model, task="binary").task == "binary"
    with pytest.raises(CardError, match=r"with 2 classes: its task is 'binary', not 'regression'\. Leave --task out"):
        infer(model, task="regression")
    with pytest.raises(CardError, match="its task is 'binary', not 'multiclass'"):
        infer(model, task="multiclass")
    regressor = fitted(mixed(OneHotEncoder()), (1.5, 2.5, 3.5, 4.5), LinearRegression())
    with pytest.raises(CardError, match="is a regressor: its task is 'regression', not 'binary'"):
        infer(regressor, task="binary")


def test_target_that_is_no_column_is_refused_with_the_first_ten():
    with pytest.raises(CardError, match=r"no column 'gone' .* they have age, pay, city, code, member, blank, y\.$"):
        infer(fitted(mixed(OneHotEncoder())), target="gone")
    rows = [{f"c{number}": "1" for number in range(12)}]
    with pytest.raises(CardError, match=r"they have c0, .*, c9 and 2 more\.$"):
        infer(fitted(mixed(OneHotEncoder())), rows, target="gone")


# --- reference rows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_is_read_whatever_the_spreadsheet_wrote(tmp_path, delimiter):
    path = tmp_path / "rows.csv"
    lines = [["name", "note"], ["Zoë", '"two\nlines"'], ["", "x"]]
    path.write_text("\ufeff" + "\r\n".join(delimiter.join(line) for line in lines) + "\r\n\r\n", encoding="utf-8")
    sample = read_rows(path)
    assert sample.rows == [{"name": "Zoë", "note": "two\nlines"}, {"name": None, "note": "x"}]
    assert sample.lines == [2, 4]


def test_file_of_a_french_spreadsheet_is_read_with_its_commas(tmp_path, caplog):
    path = tmp_path / "rows.csv"
    path.write_bytes("ville;surface;code\nNîmes;143,1;1,2,3\nLyon;-7;4\n".encode("cp1252"))
    sample = read_rows(path)
    assert [value_of(row["surface"], "number", sample.numbers) for row in sample.rows] == [143.1, -7.0]
    assert [(row["ville"], row["code"]) for row in sample.rows] == [("Nîmes", "1,2,3"), ("Lyon", "4")]
    assert "read as cp1252" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("rows.csv", b"a,a\n1,2\n", "a is in the header 2 times"),
        ("rows.csv", b"a,b\n1\n", "line 2 has 1 cells and the header 2"),
        ("rows.csv", b"a,b\n", "has a header but no rows"),
        ("rows.csv", b"", "The file is empty"),
        ("rows.jsonl", b"", "holds no rows"),
        ("rows.csv", b"a\n\x81\n", "is not UTF-8, and its words make no sense in cp1252"),
        ("rows.jsonl", b'{"a": 1}\n{"a": \n', "line 2 is not JSON"),
        ("rows.jsonl", b"7\n", "line 1 is not an object"),
        ("rows.json", b"[1]\n", "row 1 is not an object"),
        ("rows.json", b"[{]\n", "is not JSON"),
        ("rows.json", b"[" * 1_000_000, "lists within lists"),
        ("rows.jsonl", b'{"a": 1}\n{"a": ' + b"[" * 1_000_000, "line 2 is not JSON"),
    ],
)
def test_unreadable_rows_are_refused_with_the_place(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CardError, match=sentence):
        read_rows(tmp_path / name)


@pytest.mark.parametrize("value", [["x"], {"x": 1}])
def test_row_with_a_list_or_an_object_for_a_value_is_refused_with_its_line(value):
    card = Card(name="m", version=1, task="regression", sha256="0" * 64, features=[Feature(name="city", type="string")])
    with pytest.raises(CardError, match="line 7 does not fit the card of m"):
        canonical_rows(card, [{"city": value}], source="rows.jsonl", lines=[7], unit="line")


def test_missing_rows_are_refused(tmp_path):
    with pytest.raises(CardError, match="is missing: name a CSV, Excel, Parquet or JSON file"):
        read_rows(tmp_path / "rows.csv")
    with pytest.raises(CardError, match="cannot be read"):
        read_rows(tmp_path)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("35", "integer", 35),
        ("35.0", "integer", 35),
        ("35.5", "integer", 35.5),
        ("old", "integer", "old"),
        ("1e3", "number", 1000.0),
        ("N/A", "number", None),
        ("much", "number", "much"),
        ("TRUE", "boolean", True),
        ("0", "boolean", False),
        ("maybe", "boolean", "maybe"),
        ("NA", "string", "NA"),
        (None, "string", None),
        (float("nan"), "number", None),
        (7, "integer", 7),
    ],
)
def test_cells_become_values_of_their_feature_or_stay_for_the_validator(text, kind, value):
    assert value_of(text, kind) == value
    assert type(value_of(text, kind)) is type(value)


def test_large_sample_is_the_same_one_each_time():
    rows = [{"a": number} for number in range(2_000)]
    chosen = [row["a"] for row in sample(rows)]
    assert len(chosen) == MAX_ROWS
    assert chosen == sorted(chosen) == [row["a"] for row in sample(rows)]
    assert sample(rows[:3]) == rows[:3]


@pytest.mark.parametrize("suffix", [".xlsx", ".parquet", ".json", ".jsonl", ".csv"])
def test_rows_are_the_same_in_whatever_file_they_come(tmp_path, suffix):
    frame = pd.DataFrame({"age": [35, 41], "pay": [1.5, np.nan], "city": ["Nîmes", "a,b"], "member": [True, False]})
    path = tmp_path / f"rows{suffix}"
    write = {
        ".xlsx": lambda: frame.to_excel(path, index=False),
        ".parquet": lambda: pyarrow.parquet.write_table(pyarrow.Table.from_pandas(frame), path),
        ".json": lambda: frame.to_json(path, orient="records"),
        ".jsonl": lambda: frame.to_json(path, orient="records", lines=True),
        ".csv": lambda: frame.to_csv(path, index=False),
    }
    write[suffix]()
    kinds = {"age": "integer", "pay": "number", "city": "string", "member": "boolean"}
    sample = read_rows(path)
    typed = [{name: value_of(row[name], kind, sample.numbers) for name, kind in kinds.items()} for row in sample.rows]
    assert typed == [
        {"age": 35, "pay": 1.5, "city": "Nîmes", "member": True},
        {"age": 41, "pay": None, "city": "a,b", "member": False},
    ]
