"""What a CSV job writes: it reads back exactly, a spreadsheet runs none of it, and rows stay in their places."""

import csv
import io
import re
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.cards.card import Card
from shared.csv.format import CsvFormat
from shared.csv.output import (
    ChunkScores,
    RowError,
    error_records,
    errors_header,
    escape,
    escape_column,
    join_records,
    joined_header,
    number_cells,
    output_columns,
    output_header,
    output_records,
)
from shared.faults import Fault

LABELS = {
    "binary": {"0": "stays", "1": "=leaves"},
    "multiclass": {"7": "red", "8": "a;b", "9": "green"},
    "regression": {},
}


def card_of(task="binary"):
    features = [{"name": "age", "type": "integer"}, {"name": "city", "type": "string"}]
    return Card.model_validate(
        {"name": "m", "version": 1, "task": task, "sha256": "0" * 64, "labels": LABELS[task], "features": features}
    )


def form_of(*columns, delimiter=",", decimal=".", id_column=None, bom=False):
    return CsvFormat(delimiter, "utf-8", decimal, columns or ("age", "note", "city", "id"), id_column, bom)


def back(data, form):
    return list(csv.reader(io.StringIO(data.decode(), newline=""), delimiter=form.delimiter))


BINARY = ChunkScores([0, 2], [1.0, 0.0], ["=leaves", "stays"], [0.75, 1e-7], None)
FAULTS = {1: [Fault("/age", "range", "must be an integer"), Fault("/age", "rule", "age, or what?")]}
KEPT = [["a1", "a2", "a3"], ["x", '=1+"1"', ""]]


# --- headers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        ("binary", ["prediction", "label", "probability", "threshold"]),
        ("regression", ["prediction"]),
        (
            "multiclass",
            ["prediction", "label", "probability", "probability_red", "probability_a;b", "probability_green"],
        ),
    ],
)
def test_output_begins_with_the_row_number_the_id_and_other_columns_and_ends_with_the_error(task, columns):
    form = form_of(id_column="id", delimiter=";")
    (header,) = back(output_header(card_of(task), form), form)
    assert header == ["row_no", "id", "note", *columns, "error"]
    (header,) = back(joined_header(card_of(task), form), form)
    assert header == ["row_no", "age", "note", "city", "id", *columns, "error"]


def test_file_without_an_id_column_keeps_its_columns_in_order():
    assert output_columns(card_of("regression"), form_of("b", "age", "a", "city"))[:3] == ["row_no", "b", "a"]


def test_header_has_the_bom_of_the_input_and_no_formulas():
    form = form_of("=cmd", "age", "city", "a,b", bom=True)
    assert output_header(card_of("regression"), form).decode() == '\ufeffrow_no,\'=cmd,"a,b",prediction,error\n'
    assert errors_header(form).decode() == "\ufeffrow_no,column,code,message,value\n"
    assert not output_header(card_of(), form_of()).startswith(b"\xef\xbb\xbf")


def test_input_column_that_is_called_like_one_of_ours_is_renamed():
    form = form_of("age", "city", "error", "row_no", "input_error", "label")
    assert output_columns(card_of("regression"), form) == (
        ["row_no", "input_input_error", "input_row_no", "input_error", "label", "prediction", "error"]
    )
    assert len(set(output_columns(card_of(), form))) == 10


# --- records -------------------------------------------------------------------------------------------------------


def test_every_row_has_its_line_and_a_failed_one_says_why():
    data = output_records(card_of(), form_of(id_column="id"), KEPT, BINARY, FAULTS, first_row=40, row_count=3)
    assert back(data, form_of()) == [
        ["41", "a1", "x", "1", "'=leaves", "0.75", "0.5", ""],
        ["42", "a2", '\'=1+"1"', "", "", "", "", "age must be an integer; age, or what?"],
        ["43", "a3", "", "0", "stays", "1e-7", "0.5", ""],
    ]


def test_numbers_have_the_decimal_mark_of_the_input():
    form = form_of(delimiter=";", decimal=",")
    data = output_records(card_of(), form, KEPT, BINARY, FAULTS, first_row=0, row_count=3)
    assert [line[5:7] for line in back(data, form)] == [["0,75", "0,5"], ["", ""], ["1e-7", "0,5"]]


def test_number_with_the_delimiter_as_its_decimal_mark_is_quoted():
    assert number_cells([0.5, 2.0], form_of(decimal=",")) == ['"0,5"', '"2,0"']


def test_classes_are_written_by_name_with_a_probability_each():
    answers = ChunkScores(
        [0, 1], [0.0, 1.0], ["red", "a;b"], [0.5, 0.625], np.array([[0.5, 0.25, 0.25], [0.25, 0.625, 0.125]])
    )
    form = form_of("age", "city", delimiter=";")
    data = output_records(card_of("multiclass"), form, [], answers, {}, first_row=0, row_count=2)
    assert back(data, form) == [
        ["1", "7", "red", "0.5", "0.5", "0.25", "0.25", ""],
        ["2", "8", "a;b", "0.625", "0.25", "0.625", "0.125", ""],
    ]


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_model_without_probabilities_leaves_their_cells_empty(task):
    answers = ChunkScores([0], [1.0], [list(LABELS[task].values())[1]], [None], None)
    form = form_of("age", "city")
    (line,) = back(output_records(card_of(task), form, [], answers, {}, first_row=0, row_count=1), form)
    assert set(line[3:]) <= {"", "0.5"}
    assert len(line) == len(output_columns(card_of(task), form))


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_chunk_without_a_scored_row_has_all_its_lines(task):
    faults = {offset: [Fault("", "timeout", "took too long")] for offset in range(3)}
    form = form_of(id_column="id")
    nothing = ChunkScores([], [], [], [], None)
    lines = back(output_records(card_of(task), form, KEPT, nothing, faults, first_row=0, row_count=3), form)
    assert [line[0] for line in lines] == ["1", "2", "3"]
    assert {line[-1] for line in lines} == {"took too long"}
    assert {len(line) for line in lines} == {len(output_columns(card_of(task), form))}


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20), st.sampled_from([".", ","]))
def test_number_reads_back_exactly(values, decimal):
    cells = number_cells(values, form_of(delimiter=";", decimal=decimal))
    assert [repr(float(cell.replace(",", "."))) for cell in cells] == [repr(value) for value in values]


# --- cells ---------------------------------------------------------------------------------------------------------

TEXTS = st.text(st.sampled_from("=+-@\t\r\n\"';,|.0159eEaé "), max_size=6)


@pytest.mark.parametrize("text", ["=1+1", "+33 6", "-", "@me", "\tx", "\rx", "--1", "-1-1", "+", "=1", "-1,2,3", "-a"])
def test_cell_that_a_spreadsheet_would_run_gets_an_apostrophe(text):
    assert next(csv.reader([escape(text, ";")], delimiter=";")) == ["'" + text]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("x;=1+cmd|' /C calc'!A0", "x;'=1+cmd|' /C calc'!A0"),
        ("x,@SUM(1)", "x,'@SUM(1)"),
        ("x\t=1", "x\t'=1"),
        ("x|+a", "x|'+a"),
        ("x\n=1", "x\n'=1"),
        ("x\r-a", "x\r'-a"),
        ('x;"=1"', 'x;"\'=1"'),
        ("\n=1", "'\n'=1"),
        ("\nx", "'\nx"),
        ("x;-1,cmd|a", "x;'-1,cmd|a"),
        *((f"{sign}1+1", f"'{sign}1+1") for sign in "＝＋－＠"),
        ("x;＝1", "x;'＝1"),
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_cell_that_becomes_a_formula_behind_another_delimiter_gets_an_apostrophe_there(text, written, delimiter):
    assert next(csv.reader(io.StringIO(escape(text, delimiter), newline=""), delimiter=delimiter))[0] == written


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_numbers_behind_delimiters_stay_numbers(delimiter):
    text = delimiter.join(["x", "-1.5", "+2", "-1e-7", "-.5"])
    assert escape(text, "#") == text


@pytest.mark.parametrize("text", [";-" * 20_000, ";-,-|-" * 10_000, '"' * 40_000, ";" + '"' * 40_000])
def test_long_cell_is_escaped_in_time_in_proportion(text):
    began = time.thread_time()
    escape(text, ";")
    assert time.thread_time() - began < 1


@pytest.mark.parametrize("text", ["-1", "+1.5", "-0,25", "-1e-7", "-.5", "a=b", "'=1", "", " =1", "1-1"])
def test_number_and_harmless_text_are_left_alone(text):
    assert escape(text, ";") == text


@given(st.lists(TEXTS, max_size=8), st.sampled_from(",;\t|"))
def test_column_is_escaped_as_each_of_its_cells_is(cells, delimiter):
    assert escape_column(cells, delimiter) == [escape(cell, delimiter) for cell in cells]


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8), st.sampled_from(",;\t|"))
def test_cells_read_back_as_they_were_but_for_the_apostrophe(rows, delimiter):
    form = form_of("a", "b", "age", "city", delimiter=delimiter)
    kept = [list(cells) for cells in zip(*rows, strict=True)]
    scored = ChunkScores(list(range(len(rows))), [1.5] * len(rows), [None] * len(rows), [None] * len(rows), None)
    data = output_records(card_of("regression"), form, kept, scored, {}, first_row=0, row_count=len(rows))
    lines = back(data, form)
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        for cell, text in zip(line[1:3], row, strict=True):
            assert cell.replace("'", "") == text.replace("'", "")
            assert not cell.startswith(("=", "@", "\t", "\r", "\n"))
            assert not re.search(r"[,;\t|\r\n][=@]", cell)


# --- errors.csv ----------------------------------------------------------------------------------------------------


def test_error_has_its_row_column_code_message_and_cell():
    errors = [
        RowError(3, "age", "type", "must be, you see, an integer", '=HYPERLINK("x")'),
        RowError(4, "", "columns", "m", ""),
    ]
    assert back(error_records(errors, form_of()), form_of()) == [
        ["3", "age", "type", "must be, you see, an integer", '\'=HYPERLINK("x")'],
        ["4", "", "columns", "m", ""],
    ]


def test_wrong_cell_is_cut_and_has_no_nul():
    (line,) = back(error_records([RowError(1, "=a", "type", "m", "\x00" + "b" * 500)], form_of()), form_of())
    assert line[1] == "'=a"
    assert line[4] == "\ufffd" + "b" * 199


# --- joined --------------------------------------------------------------------------------------------------------


def joined(data, *, faults=FAULTS, answers=BINARY, form=None, kept=KEPT, count=3):
    form = form or form_of(id_column="id")
    output = output_records(card_of(), form, kept, answers, faults, first_row=0, row_count=count)
    return back(join_records(card_of(), form, data, output), form)


def test_join_repeats_the_input_as_it_was_written():
    data = b'40.0,x,"Lyon, 3e",a1\r\n\r\n x ,"=1+""1""",,a2\n-5,,"a\nb",a3'
    assert joined(data) == [
        ["1", "40.0", "x", "Lyon, 3e", "a1", "1", "'=leaves", "0.75", "0.5", ""],
        ["2", " x ", '\'=1+"1"', "", "a2", "", "", "", "", "age must be an integer; age, or what?"],
        ["3", "-5", "", "a\nb", "a3", "0", "stays", "1e-7", "0.5", ""],
    ]


def test_join_fills_up_a_short_record_and_cuts_a_long_one():
    lines = joined(b"1,2\n1,2,3,4,5,6\n1,2,3,4\x00\n")
    assert [line[1:5] for line in lines] == [["1", "2", "", ""], ["1", "2", "3", "4"], ["1", "2", "3", "4\ufffd"]]


def test_join_refuses_output_of_other_rows():
    with pytest.raises(ValueError, match="3 records of output do not belong to 1 rows"):
        joined(b"1,2,3,4\n")
