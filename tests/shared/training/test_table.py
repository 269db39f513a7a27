"""A file becomes a table of typed columns, or is refused in words that say what to do."""

import pytest

from shared.errors import InvalidRequest
from shared.training.checks import refusal_of
from shared.training.options import TrainingOptions, check_options
from shared.training.table import read_table
from tests.support.trainings import TARGET, csv_of, make_rows


def _read(tmp_path, rows, **options):
    path = tmp_path / "rows.csv"
    path.write_bytes(rows if isinstance(rows, bytes) else csv_of(rows))
    return read_table(path, TrainingOptions(**{"name": "leavers", "target": TARGET} | options))


def _refusal(tmp_path, rows, **options):
    with pytest.raises(InvalidRequest) as refused:
        _read(tmp_path, rows, **options)
    return refusal_of(refused.value)


def test_columns_get_their_types_and_gaps_are_none(tmp_path):
    rows = make_rows()
    table = _read(tmp_path, rows)
    assert {column.name: column.kind for column in table.columns} == {
        "age": "integer",
        "pay": "number",
        "team": "string",
        "remote": "boolean",
    }
    assert table.rows() == [{name: value for name, value in row.items() if name != TARGET} for row in rows]
    assert (table.task, table.labels) == ("binary", ["no", "yes"])
    assert table.answers == [float(row[TARGET] == "yes") for row in rows]


def test_constant_column_is_refused_by_name(tmp_path):
    rows = [row | {"country": "FR"} for row in make_rows()]
    assert _refusal(tmp_path, rows) == {
        "code": "constant_columns",
        "message": "The column 'country' has the same value in every row, from which nothing can be learned: leave it "
        "out (`leave_out`; `--leave-out COLUMN` of the command), or send rows with other values.",
    }
    table = _read(tmp_path, rows, leave_out=("country",))
    assert [column.name for column in table.columns] == ["age", "pay", "team", "remote"]
    assert table.notes == ["Left out on request: country."]


def test_all_constant_columns_are_named_at_once(tmp_path):
    rows = [row | {"country": "FR", "hours": 80, "empty": ""} for row in make_rows()]
    message = _refusal(tmp_path, rows)["message"]
    assert message.startswith("The columns 'country', 'hours', 'empty' have the same value in every row")
    _read(tmp_path, rows, leave_out=("country", "hours", "empty"))


def test_column_with_gaps_beside_one_value_is_not_constant(tmp_path):
    rows = [row | {"country": "FR" if place % 2 else ""} for place, row in enumerate(make_rows())]
    assert "country" in [column.name for column in _read(tmp_path, rows).columns]


def test_column_is_left_out_where_it_is_asked_for(tmp_path):
    table = _read(tmp_path, [row | {"id": f"p{place}"} for place, row in enumerate(make_rows())], leave_out=("id",))
    assert [column.name for column in table.columns] == ["age", "pay", "team", "remote"]


def test_positive_class_is_the_one_that_is_named(tmp_path):
    table = _read(tmp_path, make_rows(), positive="no")
    assert table.labels == ["yes", "no"]
    assert _refusal(tmp_path, make_rows(), positive="maybe")["code"] == "positive"


@pytest.mark.parametrize(
    ("values", "task"),
    [([1, 2, 3, 4], "multiclass"), ([0, 1], "binary"), (["a", "b", "c"], "multiclass"), (range(40), "regression")],
)
def test_task_follows_from_the_target(tmp_path, values, task):
    rows = [row | {TARGET: values[place % len(values)]} for place, row in enumerate(make_rows())]
    assert _read(tmp_path, rows).task == task


def test_too_few_rows_are_refused(tmp_path):
    assert _refusal(tmp_path, make_rows(49)) == {
        "code": "too_few_rows",
        "message": "The file has 49 rows, and a training needs 50 at least: send more.",
    }


def test_missing_target_column_is_refused_with_the_columns(tmp_path):
    refused = _refusal(tmp_path, make_rows(), target="gone")
    assert refused["code"] == "no_column"
    assert "it has age, pay, team, remote, left" in refused["message"]


def test_missing_answers_are_counted(tmp_path):
    rows = make_rows()
    for row in rows[:7]:
        row[TARGET] = ""
    refused = _refusal(tmp_path, rows)
    assert refused["code"] == "missing_target"
    assert "no value in 7 of 200 rows" in refused["message"]


def test_one_class_is_refused(tmp_path):
    assert _refusal(tmp_path, [row | {TARGET: "yes"} for row in make_rows()])["code"] == "one_class"


def test_class_with_too_few_rows_is_refused_by_name(tmp_path):
    rows = make_rows()
    rows[0][TARGET] = "perhaps"
    refused = _refusal(tmp_path, rows)
    assert refused["code"] == "rare_class"
    assert "perhaps (1)" in refused["message"]


def test_texts_among_numbers_are_refused_by_name_and_are_not_made_categories(tmp_path):
    rows = [row | {"age": "?" if place % 20 == 0 else row["age"]} for place, row in enumerate(make_rows(1_000))]
    refused = _refusal(tmp_path, rows)
    assert refused["code"] == "mixed_column"
    assert "'age' holds numbers in 950 of 1,000 rows, and in the others '?' (50 times)" in refused["message"]
    assert [column.name for column in _read(tmp_path, rows, leave_out=("age",)).columns] == ["pay", "team", "remote"]
    rows = [row | {"age": "" if row["age"] == "?" else row["age"]} for row in rows]
    assert {column.name: column.kind for column in _read(tmp_path, rows).columns}["age"] == "integer"


@pytest.mark.parametrize("codes", [["1", "2", "3", "A"], [f"{code}{'V' * (code % 2)}" for code in range(60, 80)]])
def test_codes_with_letters_and_digits_are_categories(tmp_path, codes):
    rows = [row | {"code": codes[place % len(codes)]} for place, row in enumerate(make_rows(1_000))]
    assert {column.name: column.kind for column in _read(tmp_path, rows).columns}["code"] == "string"


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        ("age,", ",", "no_name"),  # as pandas writes its index
        ("age,", "a" * 201 + ",", "no_name"),
        ("north", "nor\0th", "not_text"),
        ("\r\n", "\r\n9007199254740993", "out_of_range"),  # before the first age
    ],
)
def test_what_no_card_lets_in_is_refused_before_anything_is_trained(tmp_path, before, after, code):
    content = csv_of(make_rows()).decode().replace(before, after, 1).encode()
    assert _refusal(tmp_path, content)["code"] == code


def test_answers_that_differ_by_capital_letters_are_refused(tmp_path):
    rows = [
        row | {TARGET: "Yes" if row[TARGET] == "yes" and place % 2 else row[TARGET]}
        for place, row in enumerate(make_rows())
    ]
    refused = _refusal(tmp_path, rows)
    assert refused["code"] == "letter_case"
    assert "Yes, yes" in refused["message"]


def test_more_categories_than_rows_allow_are_refused_by_name(tmp_path):
    refused = _refusal(tmp_path, [row | {"id": f"person {place}"} for place, row in enumerate(make_rows())])
    assert refused["code"] == "too_many_categories"
    assert "'id' has 200 different texts in 200 rows, and so many rows allow 40" in refused["message"]


def test_file_without_a_varying_column_is_refused(tmp_path):
    assert _refusal(tmp_path, [{"a": 1, TARGET: row[TARGET]} for row in make_rows()])["code"] == "no_features"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01\x02", b"a,b\n1,2,3\n4,5,6,7\n"])
def test_unreadable_file_is_refused(tmp_path, content):
    assert _refusal(tmp_path, content)["code"] == "unreadable"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"estimators": ("forest",)}, "estimator"),
        ({"estimators": ()}, "estimator"),
        ({"draws": 0}, "draws"),
        ({"cost_fp": -1.0}, "cost"),
        ({"cost_fp": 0.0, "cost_fn": 0.0}, "cost"),
        ({"target_recall": 0.0}, "target_recall"),
        ({"target_recall": 0.8, "cost_fn": 5.0}, "target_recall"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, code):
    with pytest.raises(InvalidRequest) as refused:
        check_options(TrainingOptions(name="leavers", target=TARGET, **options))
    assert refusal_of(refused.value)["code"] == code


def test_options_are_read_as_they_were_written():
    options = TrainingOptions(name="leavers", target=TARGET, estimators=("linear",), leave_out=("id",), seed=3)
    assert TrainingOptions.load(options.dump()) == options
