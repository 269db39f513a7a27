"""A chunk of a CSV file against a card: the same verdicts as for the same rows in JSON, whatever the cells hold."""

import csv
import io
import json

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas._libs.parsers import STR_NA_VALUES  # what pandas.read_csv takes for missing

from shared.cards.card import Card
from shared.cards.features import Feature
from shared.cards.validator import RowValidator
from shared.csv.chunk_reader import ChunkReader, raw_row_json
from shared.csv.format import CsvFormat
from shared.csv.output import RowError
from shared.csv.records import parse_records, split_records
from shared.faults import Fault

NULLS = ["", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "#N/A", "#NA", "<NA>"]
WORDS = {"true": True, "1": True, "yes": True, "oui": True, "vrai": True}
WORDS |= {"false": False, "0": False, "no": False, "non": False, "faux": False}


def as_stored(canonical):
    """A canonical row as JSON text, its keys in jsonb's own order: by length, then by bytes."""
    keys = sorted(canonical, key=lambda name: (len(name.encode()), name.encode()))
    return orjson.dumps({key: canonical[key] for key in keys}).decode()


def card_of(features, *, rules=(), missing="refuse"):
    return Card(
        name="m", version=1, task="regression", sha256="0" * 64, features=features, rules=list(rules), missing=missing
    )


def form_of(columns, *, delimiter=",", decimal=".", id_column=None):
    return CsvFormat(delimiter, "utf-8", decimal, tuple(columns), id_column)


def reader_of(card, form):
    return ChunkReader(card, RowValidator(card), form)


def written(rows, form, *, quoting=csv.QUOTE_MINIMAL, end="\n"):
    out = io.StringIO()
    csv.writer(out, delimiter=form.delimiter, quoting=quoting, lineterminator=end).writerows(rows)
    return out.getvalue().encode()


def one(text, *, decimal=".", **feature):
    """Read one cell of one feature; return the canonical value, or the code of its fault."""
    card = card_of([Feature(name="x", **feature)])
    form = form_of(["id", "x"], decimal=decimal, delimiter=";")
    chunk = reader_of(card, form).read(written([["a", text]], form), first_row=0)
    return chunk.faults[0][0].code if chunk.faults else chunk.columns.objects("x")[0]


# --- cells ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3.5", 3.5),
        (" 3.5 ", 3.5),
        ("\u00a03.5", 3.5),
        ("+3.5", 3.5),
        ("-.5", -0.5),
        ("3.", 3.0),
        ("1e3", 1000.0),
        ("1E+03", 1000.0),
        ("007", 7.0),
        ("0.1", 0.1),
        ("5e-324", 5e-324),
        ("1e-999", 0.0),
        ("179769313486231570000000000000000000000", 1.7976931348623157e38),
        *((text, None) for text in NULLS),
        (" NA ", None),
    ],
)
def test_number_is_read_from_its_usual_texts(text, value):
    number = one(text, type="number", nullable=True)
    assert number == value
    assert type(number) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "inf",
            "-inf",
            "Infinity",
            "NAN",
            "1e999",
            "3,5",
            "1 000",
            "1_000",
            "0x10",
            "1d3",
            "e5",
            ".",
            "-",
            "--1",
        ),
        *("١٢", "½", "NA NA", "true", "3.5\x00", "1\n2", "12%", "€12", "nULL"),
    ],
)
def test_text_that_is_no_number_is_refused_by_its_type(text):
    assert one(text, type="number", nullable=True) == "type"
    assert one(text, type="integer", nullable=True) == "type"


@pytest.mark.parametrize(
    ("text", "value"),
    [("3,5", 3.5), ("3", 3.0), ("-0,25", -0.25), ("1,5e3", 1500.0), ("3.5", "type"), ("1.000,5", "type")],
)
def test_decimal_comma_is_read_where_the_file_has_it(text, value):
    assert one(text, decimal=",", type="number") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("35", 35),
        ("35.0", 35),
        ("3.5e1", 35),
        (" 35", 35),
        ("-0", 0),
        ("35.5", "type"),
        ("9007199254740992", 2**53),
        ("9007199254740993", "range"),
        ("1" * 1000, "type"),
        ("1" * 200, "range"),
        ("NA", "null"),
        ("", "null"),
    ],
)
def test_integer_is_read_exactly(text, value):
    integer = one(text, type="integer")
    assert integer == value
    assert type(integer) is type(value)


@pytest.mark.parametrize(("text", "value"), [*WORDS.items(), *((text, None) for text in NULLS), ("maybe", "type")])
def test_boolean_is_read_from_words_of_any_case(text, value):
    for cell in {text, f" {text}", text.upper() if text not in NULLS else text}:
        assert one(cell, type="boolean", nullable=True) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("Paris", "Paris"), (" Paris ", " Paris "), ("NA", "NA"), ("a\nb", "a\nb"), ('"', '"'), ("é", "é"), ("", None)],
)
def test_text_is_taken_exactly_and_only_the_empty_one_is_null(text, value):
    assert one(text, type="string", nullable=True) == value


def test_null_is_refused_where_the_card_takes_none():
    assert one("", type="string") == "null"
    assert one("NA", type="boolean") == "null"


# --- columns and rows ----------------------------------------------------------------------------------------------

STAFF = card_of(
    [
        Feature(name="age", type="integer", min=16, max=70),
        Feature(name="pay", type="number", exclusive_min=0, nullable=True),
        Feature(name="grade", type="string", categories=["a", "b"], unknown="refuse"),
        Feature(name="job~/title", type="string", max_length=5),
        Feature(name="remote", type="boolean", required=False),
    ],
    rules=[{"expression": "age < pay", "message": "pay must exceed age"}],
)
COLUMNS = ["id", "age", "pay", "grade", "job~/title", "city"]
GOOD = ["7", "40", "3000.5", "a", "chef", "Paris"]


def read(*records, columns=COLUMNS, card=STAFF, first_row=0):
    form = form_of(columns, id_column="id" if "id" in columns else None)
    return reader_of(card, form).read(written(records, form), first_row=first_row)


def test_good_row_is_canonical_by_column_and_as_json():
    chunk = read(GOOD)
    canonical = {"age": 40, "pay": 3000.5, "grade": "a", "job~/title": "chef", "remote": None}
    assert chunk.columns.rows() == [canonical]
    assert chunk.features == [as_stored(canonical)]
    assert (chunk.faults, chunk.errors, chunk.row_count, chunk.good.tolist()) == ({}, [], 1, [0])
    assert chunk.kept == [["7"], ["Paris"]]


def test_bad_row_has_every_fault_with_its_column_and_cell():
    chunk = read(GOOD, ["8", "200", "x", "c", "chief of", "Lyon"], GOOD, first_row=100)
    assert chunk.good.tolist() == [0, 2]
    assert chunk.columns.count == 2
    assert [(error.row_no, error.column, error.code, error.value) for error in chunk.errors] == [
        (102, "age", "range", "200"),
        (102, "pay", "type", "x"),
        (102, "grade", "category", "c"),
        (102, "job~/title", "length", "chief of"),
    ]
    assert [fault.pointer for fault in chunk.faults[1]] == ["/age", "/pay", "/grade", "/job~0~1title"]
    assert json.loads(chunk.features[1]) == dict(zip(COLUMNS, ["8", "200", "x", "c", "chief of", "Lyon"], strict=True))


def test_broken_rule_is_a_fault_of_the_first_feature_that_it_names():
    chunk = read(["7", "40", "30", "a", "chef", "Paris"])
    assert chunk.faults == {0: [Fault("/age", "rule", "pay must exceed age")]}
    assert chunk.errors == [RowError(1, "age", "rule", "pay must exceed age", "40")]


def test_record_of_the_wrong_width_is_a_fault_of_its_row_and_of_no_other():
    records = [GOOD, GOOD[:4], GOOD, [*GOOD, "more", "still"], ["only"], GOOD]
    chunk = read(*records)
    assert chunk.row_count == 6
    assert chunk.good.tolist() == [0, 2, 5]
    assert {offset: (fault.code, fault.message) for offset, (fault,) in chunk.faults.items()} == {
        1: ("columns", "has 4 cells where the header has 6"),
        3: ("columns", "has 8 cells where the header has 6"),
        4: ("columns", "has 1 cell where the header has 6"),
    }
    assert [error.row_no for error in chunk.errors] == [2, 4, 5]
    assert json.loads(chunk.features[1]) == dict(zip(COLUMNS, GOOD[:4], strict=False))
    assert json.loads(chunk.features[3]) == {**dict(zip(COLUMNS, GOOD, strict=True)), "": ["more", "still"]}
    assert chunk.kept == [["7", "7", "7", "7", "only", "7"], ["Paris", "", "Paris", "Paris", "", "Paris"]]


def test_chunk_of_ragged_records_only_has_no_good_row():
    chunk = read(["a"], ["b", "c"])
    assert (chunk.row_count, chunk.columns.count, sorted(chunk.faults)) == (2, 0, [0, 1])
    assert chunk.columns.rows() == []


@pytest.mark.parametrize("place", range(len(COLUMNS)))
def test_nul_in_any_cell_is_a_fault_of_its_row_and_is_never_stored(place):
    record = [cell + "\x00" if i == place else cell for i, cell in enumerate(GOOD)]
    chunk = read(GOOD, record)
    assert [(error.row_no, error.column) for error in chunk.errors] == [(2, COLUMNS[place])]
    assert "\\u0000" not in chunk.features[1]
    assert "\ufffd" in chunk.features[1]
    assert not any("\x00" in cell for cells in chunk.kept for cell in cells)


def test_cells_beyond_the_header_stand_beside_the_column_without_a_name():
    assert json.loads(raw_row_json(["a", "b", "c"], form_of(["x", ""]))) == {"x": "a", "": ["b", "c"]}


def test_nul_in_a_ragged_record_is_never_stored():
    assert json.loads(raw_row_json(["a"], form_of(["x\x00"]))) == {"x\ufffd": "a"}
    assert json.loads(raw_row_json(["a\x00", "b", "c\x00"], form_of(["x"]))) == {"x": "a\ufffd", "": ["b", "c\ufffd"]}
    assert json.loads(raw_row_json(["\\u0000"], form_of(["x"]))) == {"x": "\\u0000"}


def test_column_that_the_file_lacks_is_null_where_the_card_allows_it():
    feature = Feature(name="y", type="number")
    strict, lenient = card_of([Feature(name="x", type="number"), feature]), None
    lenient = card_of(strict.features, missing="null")
    assert read(["1"], columns=["x"], card=strict).faults[0][0].code == "missing"
    chunk = read(["1"], columns=["x"], card=lenient)
    assert chunk.features == ['{"x":1.0,"y":null}']
    assert np.isnan(chunk.columns.floats("y")[0])


def test_feature_may_be_the_id_column():
    card = card_of([Feature(name="x", type="integer")])
    form = form_of(["x", "z"], id_column="x")
    chunk = reader_of(card, form).read(b" 5,q\n5.0,r\n", first_row=0)
    assert chunk.kept == [[" 5", "5.0"], ["q", "r"]]
    assert chunk.columns.objects("x") == [5, 5]


def test_other_number_of_records_than_the_splitter_counted_is_an_error():
    card, form = card_of([Feature(name="x", type="integer")]), form_of(["x"])
    assert reader_of(card, form).read(b"1\n2\n", first_row=0, row_count=2).row_count == 2
    with pytest.raises(ValueError, match="holds 2 records, not 3"):
        reader_of(card, form).read(b"1\n2\n", first_row=0, row_count=3)


def test_bytes_that_are_not_utf8_are_an_error():
    card, form = card_of([Feature(name="x", type="string")]), form_of(["x"])
    with pytest.raises(ValueError, match="utf-8"):
        reader_of(card, form).read(b"\xe9\n", first_row=0)


def test_cell_that_begins_with_a_byte_order_mark_keeps_it():
    card, form = card_of([Feature(name="x", type="string")]), form_of(["x"])
    assert reader_of(card, form).read("\ufeffa\nb\n".encode(), first_row=0).columns.objects("x") == ["\ufeffa", "b"]


def test_long_cell_is_read_in_an_odd_chunk_too():
    card, form = card_of([Feature(name="x", type="string"), Feature(name="y", type="string")]), form_of(["x", "y"])
    long = "a" * 500_000
    chunk = reader_of(card, form).read(f"{long},b\nc\n".encode(), first_row=0)
    assert chunk.good.tolist() == [0]
    assert chunk.columns.objects("x") == [long]


def test_keys_that_need_escaping_are_json_all_the_same():
    name = 'a"b\\c,d:é'
    card = card_of([Feature(name=name, type="integer"), Feature(name="\u2028", type="string")])
    form = form_of([name, "\u2028"])
    chunk = reader_of(card, form).read(written([["1", 'x"\n\u2028'], ["2", "y"]], form), first_row=0)
    assert [json.loads(text) for text in chunk.features] == chunk.columns.rows()


# --- records -------------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.sampled_from(["a", '"', '""', ",", "\n", "\r", "\r\n", " ", "é", "\x00", "\t", 'b"', "\ufeff"]), max_size=14
    ),
    st.integers(1, 3),
)
@settings(max_examples=150)
def test_records_are_those_of_the_csv_module_whatever_the_text(parts, width):
    data = "".join(parts).encode()
    form = form_of([str(place) for place in range(width)])
    expected = [record for record in csv.reader(io.StringIO(data.decode(), newline="")) if record]
    assert split_records(data, form) == expected
    for encoded in ((), form.columns):
        records = parse_records(data, form, encoded)
        assert records.row_count == len(expected)
        whole = zip(*(records.cells(name) for name in form.columns), strict=True)
        assert [list(record) for record in whole] == [expected[offset] for offset in records.offsets]
        assert records.ragged == {offset: row for offset, row in enumerate(expected) if len(row) != width}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_empty_lines_are_no_rows_and_a_quoted_nothing_is_one(end):
    card, form = card_of([Feature(name="x", type="string", nullable=True)]), form_of(["x"])
    data = end.join(["", "a", "", '""', "", '"b\nc"', ""]).encode()
    assert reader_of(card, form).read(data, first_row=0).columns.objects("x") == ["a", None, "b\nc"]


# --- the same verdict as JSON --------------------------------------------------------------------------------------


def reference_value(kind, text, decimal):
    """Return what a cell would be in JSON: another reading of the same words, cell by cell."""
    if kind == "string":
        return text if text else None
    bare = text.strip()
    if bare in NULLS:
        return None
    if kind == "boolean":
        return WORDS.get(bare.lower(), text)
    if not set(bare) <= set("0123456789+-eE" + decimal) or not set(bare) & set("0123456789"):
        return text
    try:
        number = float(bare.replace(decimal, "."))
    except ValueError:
        return text
    return int(bare) if bare.lstrip("+-").isdigit() and len(bare) < 100 else number


BOUNDS = st.sampled_from([None, -1.5, 0.0, 0.5, 10.0])


def shape(kind, **fields):
    return st.fixed_dictionaries(
        {"type": st.just(kind), "nullable": st.booleans(), "required": st.booleans()}
        | {name: field if isinstance(field, st.SearchStrategy) else st.just(field) for name, field in fields.items()}
    )


SHAPES = st.one_of(
    shape("integer", min=BOUNDS, max=st.sampled_from([None, 11, 2.0**53])),
    shape("integer", categories=[1, 2], unknown="refuse"),
    shape("number", min=BOUNDS, exclusive_max=1e6),
    shape("number", exclusive_min=BOUNDS, max=1e6),
    shape("number", categories=[0.5, 1], unknown="refuse"),
    shape("boolean"),
    shape("string", min_length=st.sampled_from([None, 2]), max_length=4),
    shape("string", categories=["a", "é"], unknown=st.sampled_from(["accept", "refuse"])),
)
PLAIN = st.one_of(
    st.integers(-20, 20).map(str), st.floats(allow_nan=False).map(repr), st.sampled_from(["1", "2", "0.5", "a", "é"])
)
ODD = st.sampled_from(
    [
        *(*NULLS, *WORDS, " 1", "2 ", "\u00a03", "1.0", "1,0", "0,5", "-0", "-0.0", "+1", ".5", "1.", "1e2", "1e999"),
        *("inf", "9007199254740992", "9007199254740993", "1" * 40, "1_0", "0x1", "TRUE", "Oui", "a\nb", 'a"b'),
        *("a,b", "a;b", "\x00", "aaaaa", "é" * 4, "𝔸𝔹", "=1+1", "\ufeff", "none", "\r"),
    ]
)
CELLS = st.one_of(PLAIN, PLAIN, PLAIN, ODD, st.text(st.characters(codec="utf-8"), max_size=4))


@st.composite
def files(draw):
    shapes = draw(st.lists(SHAPES, min_size=1, max_size=4))
    features = [Feature(name=f"f{place}", **shape) for place, shape in enumerate(shapes)]
    numbers = [feature.name for feature in features if feature.type in ("integer", "number")]
    rules = []
    if numbers and draw(st.booleans()):
        left, right = draw(st.sampled_from(numbers)), draw(st.sampled_from(numbers))
        rules.append(
            draw(st.sampled_from([f"{left} <= {right} + 1", f"{left} / {right} < 2", f"{left} * 2 != {right}"]))
        )
    card = card_of(features, rules=rules, missing=draw(st.sampled_from(["refuse", "null"])))
    names = [feature.name for feature in features if draw(st.integers(0, 9)) < 9]
    columns = draw(st.permutations([*names, "id", "extra"]))
    delimiter, decimal = draw(st.sampled_from([(",", "."), (";", ","), (";", "."), ("\t", ","), ("|", ".")]))
    form = form_of(columns, delimiter=delimiter, decimal=decimal, id_column="id")
    cells = PLAIN.map(lambda text: text.replace(".", decimal)) if draw(st.booleans()) else CELLS
    records = draw(st.lists(st.lists(cells, min_size=len(columns), max_size=len(columns)), min_size=1, max_size=6))
    if draw(st.integers(0, 4)) == 0:
        records.append(draw(st.lists(cells, min_size=1, max_size=len(columns) + 2).filter(lambda row: row != [""])))
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    data = written(records, form, quoting=quoting, end=draw(st.sampled_from(["\n", "\r\n"])))
    return card, form, split_records(data, form), data  # the csv module does not quote a lone CR


@given(files())
@settings(max_examples=150)
def test_verdict_values_and_faults_are_those_of_the_same_row_in_json(file):
    card, form, records, data = file
    validator = RowValidator(card)
    chunk = ChunkReader(card, validator, form).read(data, first_row=10, row_count=len(records))
    types = {feature.name: feature.type for feature in card.features}
    missing = {  # words by which a model that knows nulls and categories means a null
        feature.name: STR_NA_VALUES.difference(feature.categories)
        for feature in card.features
        if feature.type == "string" and feature.categories and (feature.nullable or not feature.required)
    }
    good = []
    for offset, record in enumerate(records):
        sent = dict(zip(form.columns, record, strict=False))
        if len(record) != len(form.columns):
            assert [fault.code for fault in chunk.faults[offset]] == ["columns"]
            continue
        typed = {
            name: None if text in missing.get(name, ()) else reference_value(types[name], text, form.decimal)
            for name, text in sent.items()
            if name in types
        }
        (canonical,), (faults,) = validator.validate_many([typed])
        if faults and not any(map(str.strip, sent.values())):
            faults = [Fault("", "empty_row", "the row is empty: remove it")]
        extra = sorted(name for name in ("id", "extra") if "\x00" in sent[name])
        row_faults = chunk.faults.get(offset, [])
        assert row_faults[: len(faults)] == faults
        assert sorted(fault.pointer[1:] for fault in row_faults[len(faults) :]) == extra
        if row_faults:
            assert json.loads(chunk.features[offset]) == {
                name: text.replace("\x00", "\ufffd") for name, text in sent.items()
            }
        else:
            good.append(canonical)
            assert chunk.features[offset] == as_stored(canonical)
        lines = [error for error in chunk.errors if error.row_no == offset + 11]
        assert [(line.column, line.code, line.message) for line in lines] == [
            (fault.pointer[1:], fault.code, fault.message) for fault in row_faults
        ]
        assert all(line.value == sent.get(line.column, "") for line in lines)
    assert chunk.columns.rows() == good
    assert repr(chunk.columns.rows()) == repr(good)  # 1 is not 1.0, and -0.0 is not 0.0
    for feature in card.features:
        if feature.type != "string" and good:
            expected = np.array([row[feature.name] for row in good], dtype=np.float64)
            assert chunk.columns.floats(feature.name).tobytes() == expected.tobytes()
