"""How a CSV file is written: options, header and decimal mark, against the card of the attrition model."""

import pytest

from examples.attrition.features import FEATURES
from shared.cards.card import Card
from shared.cards.numbers import NumberForm, find_number_form
from shared.csv.format import CsvOptions, find_id_column, normalise_options, read_records
from shared.csv.uploads.columns import ExpectedColumns
from shared.csv.uploads.header import MAX_COLUMNS, accept_header, header_faults, read_header
from shared.errors import InvalidRequest, RowFaults, TooLarge

NAMES = tuple(feature.name for feature in FEATURES)


def card(**changes):
    fields = {"name": "attrition", "version": 3, "task": "binary", "sha256": "0" * 64, "features": FEATURES}
    return Card.model_validate(fields | changes)


CARD = card()
DETECT = CsvOptions()
PAIR = [{"name": "age", "type": "integer"}, {"name": "pay", "type": "number", "required": False}]


def faults(columns, options=DETECT, of=CARD):
    return [(fault.pointer, fault.code) for fault in header_faults(of, tuple(columns), options)]


def messages(columns, options=DETECT, of=CARD):
    return {fault.pointer: fault.message for fault in header_faults(of, tuple(columns), options)}


@pytest.mark.parametrize(
    ("options", "normalised"),
    [
        (CsvOptions(delimiter="semicolon"), CsvOptions(delimiter=";")),
        (CsvOptions(delimiter="Tab"), CsvOptions(delimiter="\t")),
        (CsvOptions(delimiter="|"), CsvOptions(delimiter="|")),
        (CsvOptions(encoding="UTF8"), CsvOptions(encoding="utf-8")),
        (CsvOptions(encoding="Windows-1252"), CsvOptions(encoding="cp1252")),
        (CsvOptions(encoding="ISO_8859-1"), CsvOptions(encoding="latin-1")),
        (CsvOptions(decimal="comma"), CsvOptions(decimal=",")),
        (CsvOptions(id_column="ref", strict=True), CsvOptions(id_column="ref", strict=True)),
    ],
)
def test_options_are_taken_by_their_usual_names(options, normalised):
    assert normalise_options(options) == normalised
    assert normalise_options(normalised) == normalised


def test_options_that_nothing_can_be_made_of_are_refused_together():
    with pytest.raises(InvalidRequest) as caught:
        normalise_options(CsvOptions(delimiter=":", encoding="ebcdic", decimal=";"))
    assert [(fault.pointer, fault.code) for fault in caught.value.faults] == [
        ("/query/delimiter", "delimiter"),
        ("/query/decimal", "decimal"),
        ("/query/encoding", "encoding"),
    ]
    assert "comma, semicolon, tab, pipe" in caught.value.detail


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_the_one_that_finds_the_features(delimiter):
    names = ["note, brute", "a;b", "c|d", *NAMES]
    header = read_header(delimiter.join(f'"{name}"' for name in names) + "\r\n1", NAMES, CsvOptions(), final=False)
    assert header is not None
    assert (header.delimiter, header.columns) == (delimiter, tuple(names))


def test_excels_own_first_line_names_the_delimiter():
    header = read_header("sep=;\r\nage;pay\r\n1;2\r\n", ("age", "pay"), CsvOptions(), final=True)
    assert header is not None
    assert (header.delimiter, header.columns, header.size) == (";", ("age", "pay"), len("sep=;\r\nage;pay\r\n"))


def test_names_are_stripped_unless_the_card_has_the_blank():
    header = read_header(" age, pay, city\n1", ("age", " pay"), CsvOptions(), final=True)
    assert header is not None
    assert header.columns == ("age", " pay", "city")


def test_header_that_may_go_on_is_not_read_yet():
    assert read_header("age,pay", ("age", "pay"), CsvOptions(), final=False) is None
    assert read_header("age,pay\r", ("age", "pay"), CsvOptions(), final=False) is None
    assert read_header('age,"pa\ny', ("age", "pay"), CsvOptions(), final=False) is None


def test_header_with_every_feature_fits():
    assert faults(NAMES) == []
    assert faults(reversed(NAMES)) == []
    assert faults([*NAMES, "matricule", ""]) == []


def test_missing_columns_are_all_listed_in_card_order():
    assert faults(NAMES[3:]) == [(f"/columns/{name}", "missing") for name in NAMES[:3]]


def test_missing_column_is_recognised_under_a_similar_name():
    columns = ["Age", *NAMES[1:-1]]
    texts = messages(columns)
    assert texts["/columns/age"] == 'is not in the header: rename "Age"'
    assert texts[f"/columns/{NAMES[-1]}"] == "is not in the header: add this column"


def test_optional_features_may_be_absent():
    assert faults(["age"], of=card(features=PAIR)) == []
    assert faults(["pay"], of=card(features=PAIR)) == [("/columns/age", "missing")]
    assert faults(["pay"], of=card(features=PAIR, missing="null")) == []


def test_file_without_any_feature_is_refused_even_if_all_may_be_absent():
    assert faults(["x", "y"], of=card(features=PAIR, missing="null")) == [("", "no_header")]


def test_first_line_of_data_is_not_taken_as_a_header():
    assert faults(["41", "3342.67", "Manager"]) == [("", "no_header")]
    assert faults(["-41", "3342,67"]) == [("", "no_header")]


def test_column_that_is_there_twice_is_refused():
    assert faults([*NAMES, "age", "ref", "ref"]) == [("/columns/age", "duplicate"), ("/columns/ref", "duplicate")]
    assert messages([*NAMES, "", ""])["/columns/"] == "2 columns have no name: remove them, or give each its own"


def test_strict_file_has_no_other_columns():
    columns = [*NAMES, "matricule", "agee"]
    assert faults(columns) == []
    texts = messages(columns, CsvOptions(strict=True))
    assert texts == {
        "/columns/matricule": "is not a feature of this model: remove it",
        "/columns/agee": 'is not a feature of this model: did you mean "age"?',
    }
    assert faults([*NAMES, "matricule"], CsvOptions(strict=True, id_column="matricule")) == []


def test_given_id_column_must_be_in_the_header():
    assert faults(NAMES, CsvOptions(id_column="matricule")) == [("/columns/matricule", "missing")]


def test_pointer_is_escaped_and_cut():
    (escaped, cut) = faults([*NAMES, "a/b~c", "x" * 500], CsvOptions(strict=True))
    assert escaped == ("/columns/a~1b~0c", "unknown_feature")
    assert cut[0] == "/columns/" + "x" * 99


def test_refusal_sums_up_the_first_faults():
    with pytest.raises(RowFaults) as caught:
        accept_header(CARD, NAMES[5:], CsvOptions())
    assert caught.value.detail.startswith("The header does not fit attrition@3: age is not in the header: add")
    assert caught.value.detail.endswith("; and 2 more.")
    assert len(caught.value.faults) == 5


def test_single_column_leads_to_the_delimiter():
    with pytest.raises(RowFaults, match="single column: name the file's delimiter, one of comma, semicolon"):
        accept_header(CARD, ("age:pay",), CsvOptions())


def test_absurd_headers_are_refused_quickly_with_a_bounded_answer():
    with pytest.raises(TooLarge, match="more than 20000 columns"):
        accept_header(CARD, ("a",) * (MAX_COLUMNS + 1), CsvOptions())
    names = tuple(f"{'long name ' * 5}{number}" for number in range(MAX_COLUMNS // 2))
    with pytest.raises(RowFaults) as caught:
        accept_header(CARD, names + names, CsvOptions(strict=True))
    assert len(caught.value.faults) <= 2000 + len(NAMES)


@pytest.mark.parametrize(
    ("columns", "options", "expected"),
    [
        (("age", "Id"), None, "Id"),
        (("id_poste", "age", "employee_id", "id"), None, "id"),
        (("age", "employee_id", "id_poste"), None, "employee_id"),
        (("age", "ID_salarie"), None, "ID_salarie"),
        (("age", "identite", "valid"), None, None),
        (("age", "id", "ref"), "ref", "ref"),
        (("age",), None, None),
    ],
)
def test_id_column_is_an_extra_column_that_is_called_so(columns, options, expected):
    assert find_id_column(columns, {"age"}, options) == expected


def test_feature_is_never_the_id_column_by_itself():
    assert find_id_column(("id", "age"), {"id", "age"}, None) is None


def form_of(delimiter, sample, *, decimal=None, thousands=None):
    """How the numbers of a file without its header are written."""
    columns = ("age", "pay", "note")
    expected = ExpectedColumns.of(card(features=PAIR))
    records = list(read_records(sample, delimiter))
    marks = {"decimal": decimal, "thousands": thousands}
    return find_number_form(expected.number_columns(columns, records), delimiter=delimiter, **marks)


@pytest.mark.parametrize(
    ("delimiter", "sample", "decimal", "thousands"),
    [
        (";", "35;3000,5;a,b\n", ",", ""),
        (";", "35;3000.5;a,b\n", ".", ""),
        (";", "35;3000;1,5\n", ".", ""),  # a text cell says nothing
        (";", "35; -3,2e5 ;x\n36;NA;\n", ",", ""),
        (";", '35;"3000,5";x\n', ",", ""),
        (";", "35;1.5;x\n35;1,5;x\n35;1,5;x\n", ",", ""),  # the first row is wrong
        (",", '35,"3,5",x\n35,3.5,x\n', ".", ""),
        (";", "35;3 000;x\n", ".", " "),
        (";", "35;3\u00a0000,5;x\n", ",", " "),
        (";", "35;3\u202f000;x\n", ".", " "),
        (";", "35;1'000.50;x\n", ".", "'"),
        ("\t", "35\t0,5\tx\n", ",", ""),
        ("\t", "35\t0,500\tx\n", ",", ""),  # no thousands begin with a zero
        ("\t", "35\t1,234,567\tx\n35\t52,000\tx\n", ".", ","),
        (",", '35,"52,000.5",x\n', ".", ","),
        (",", '35,"3,500",x\n35,0.5,x\n', ".", ","),
        (",", '35,"3,5",x\n35,"3,500",x\n', ",", ""),
        (",", "35,1.234,x\n", ".", ""),
        (";", "35;1.234;x\n35;12,50;x\n", ",", "."),
        (";", "35;1.234.567;x\n", ",", "."),
        (";", "35;1.234,5;x\n", ",", "."),
        (";", "35;1234.567;x\n", ".", ""),
        (";", "35\n;;;;\n", ".", ""),
    ],
)
def test_marks_of_numbers_are_those_that_the_number_cells_prove(delimiter, sample, decimal, thousands):
    assert form_of(delimiter, sample) == NumberForm(decimal, thousands)


@pytest.mark.parametrize(
    ("delimiter", "sample"),
    [
        ("\t", "35\t950\tx\n36\t52,000\tx\n"),
        (",", '35,"950",x\n36,"3,500",x\n'),
        (";", "35;950;x\n36;1.234;x\n"),  # a German spreadsheet's whole numbers, or decimals
        (";", "35;1,5;x\n36;1.234;x\n36;2.5;x\n"),  # both marks are decimal ones elsewhere
    ],
)
def test_numbers_that_mean_two_things_are_refused_until_the_mark_is_given(delimiter, sample):
    with pytest.raises(RowFaults, match=r"in row 2, column 'pay' has a .* before three digits") as caught:
        form_of(delimiter, sample)
    assert [(fault.pointer, fault.code) for fault in caught.value.faults] == [("/columns/pay", "ambiguous_number")]
    assert form_of(delimiter, sample, decimal=".").decimal == "."
    assert form_of(delimiter, sample, decimal=",").decimal == ","


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ({"decimal": "."}, NumberForm(".", ",")),
        ({"decimal": ","}, NumberForm(",", "")),
        ({"thousands": ","}, NumberForm(".", ",")),
        ({"thousands": ""}, NumberForm(",", "")),
        ({"thousands": " "}, NumberForm(",", " ")),
        ({"decimal": ".", "thousands": ""}, NumberForm(".", "")),
    ],
)
def test_given_mark_settles_what_the_other_one_is(marks, expected):
    assert form_of("\t", "35\t52,000\tx\n", **marks) == expected


@pytest.mark.parametrize("cell", ["€12", "12 €", "€ 12", "-€12", "12\u00a0€", "$12", "12£"])
def test_currency_sign_beside_numbers_is_known(cell):
    form = form_of(";", f"35;{cell};x\n")
    assert form.currency in cell
    assert form.plain(cell) == "-12" if cell.startswith("-") else "12"
    assert form.plain("12") == "12"
    assert form.plain("12 ¥") is None  # another currency is another number


@pytest.mark.parametrize("text", ["1.23.456", "12.34", "1,5,5", "1.2345", "1234.567", "+-1", "€", ""])
def test_misplaced_separators_are_no_number(text):
    assert NumberForm(",", ".", "€").plain(text) is None


def test_mark_of_thousands_is_another_than_the_decimal_one():
    with pytest.raises(InvalidRequest, match="thousands must be another mark than the decimal one"):
        normalise_options(CsvOptions(decimal="comma", thousands="comma"))
