"""A file means the same values as reference rows of a model and as rows that it scores."""

import csv
import io
import itertools
import random
from pathlib import Path

import pytest

from shared.cards.card import Card
from shared.cards.features import Feature
from shared.cards.validator import RowValidator
from shared.csv.chunk_reader import ChunkReader
from shared.csv.format import CsvOptions, normalise_options
from shared.csv.uploads.columns import ExpectedColumns
from shared.csv.uploads.reader import UploadReader
from shared.errors import CardError, GuichetError
from shared.faults import sentence
from shared.packages.sample import LIMITS, canonical_rows, read_rows
from shared.reference.load import ReferenceFile

TYPES = ("boolean", "number", "integer", "string")
CARD = Card(
    name="m",
    version=1,
    task="binary",
    sha256="0" * 64,
    features=[Feature(name=kind, type=kind, nullable=kind != "integer") for kind in TYPES],
)
PLAIN = {"boolean": "true", "number": "2.5", "integer": "7", "string": "abc"}
# Cells that two readers of this service once took for different values, and others like them.
CELLS = (
    *("oui", "Yes", "NON", "vrai", "0", "1", "2", "TRUE", "t"),
    *("#N/A", "n/a", "Null", "NULL", "nan", "-nan", "<NA>", "None", "none", "", " ", "-", "?"),
    *("1_000", "inf", "-Infinity", "１２", "٣", "0x10", "1e3", "1E400", "-0", "+5", ".5", "5.", "1e", "007", "3.0"),
    *("12 %", "€ 12", "1 234", "1\u00a0234", " 12", "12 ", "9007199254740993", "1" * 400),
    *('say "no"', "a,b;c|d\te", "two\nlines", "=1+1", "\u00e9t\u00e9", "'7", "~", "/"),
)
DELIMITERS = (",", ";", "\t", "|")
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252")
ALPHABET = "0123456789.,-+eE_ %'\"aNoé\u00a0\u2009€;|/"


def generated(draw: random.Random) -> str:
    """Return a cell that is nearly a number, a word or a date."""
    if draw.random() < 0.5:
        cell = list(draw.choice(CELLS) or "0")
        cell.insert(draw.randrange(len(cell) + 1), draw.choice(ALPHABET))
        return "".join(cell)
    return "".join(draw.choice(ALPHABET) for _ in range(draw.randint(1, 8)))


def written(path: Path, rows: list[list[str]], delimiter: str, encoding: str) -> Path:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([TYPES, *rows])
    codec = encoding.removesuffix("-sig")
    mark = "" if encoding in ("utf-8", "cp1252", "utf-16") else "\ufeff"
    path.write_bytes((mark + text.getvalue()).encode(codec, "replace"))
    return path


def as_reference(path: Path, options: CsvOptions) -> list[object]:
    """Return what `registry add --reference` makes of each row: its values, or what is wrong with it."""
    try:
        sample = read_rows(path, ExpectedColumns.of(CARD), options)
    except CardError as error:
        return [error.detail.removeprefix(f"{path}: ")]
    results: list[object] = []
    for row in sample.rows:
        try:
            results += canonical_rows(CARD, [row], source=str(path), numbers=sample.numbers)
        except CardError as error:
            results.append(error.detail.partition(" does not fit the card of m: ")[2].partition(" Correct the row")[0])
    return results


def as_upload(path: Path, options: CsvOptions) -> list[object]:
    """Return what `/predict_csv` makes of each row: its values, or what is wrong with it."""
    results: list[object] = []
    validator = RowValidator(CARD)
    try:
        file = UploadReader(CARD, options, LIMITS)
        for chunk in [*file.feed(path.read_bytes()), *file.finish()]:
            assert file.format is not None
            read = ChunkReader(CARD, validator, file.format).read(chunk.data, first_row=0, row_count=chunk.row_count)
            good = iter(read.columns.rows())
            results += [
                sentence(read.faults[place], subject="").removeprefix(": ") if place in read.faults else next(good)
                for place in range(chunk.row_count)
            ]
    except GuichetError as error:
        return [error.detail]
    return results


def loaded(path: Path, options: CsvOptions) -> int:
    """Return how many rows `reference load` keeps; -1 where it refuses the file."""
    with ReferenceFile(CARD, options, None, filename=path.name) as rows, path.open("rb") as file:
        try:
            rows.read(file)
        except GuichetError:
            return -1
        return rows.row_count


def compared(path: Path, rows: list[list[str]], delimiter: str, encoding: str, options: CsvOptions) -> list[object]:
    written(path, rows, delimiter, encoding)
    uploaded = as_upload(path, options)
    assert as_reference(path, options) == uploaded, f"{rows} written with {delimiter!r} in {encoding}"
    kept = sum(isinstance(row, dict) for row in uploaded)
    assert loaded(path, options) == (kept if len(uploaded) == len(rows) else -1)
    return uploaded


def test_reference_rows_and_uploads_are_read_to_the_same_values(tmp_path: Path) -> None:
    draw = random.Random("one reader")
    forms = itertools.cycle(itertools.product(ENCODINGS, DELIMITERS))
    cells = [*CELLS, *(generated(draw) for _ in range(200))]
    outcomes: list[object] = []
    for group in zip(*[iter(cells)] * 4, strict=False):
        encoding, delimiter = next(forms)
        rows = [[cell if kind == odd else PLAIN[kind] for kind in TYPES] for cell in group for odd in TYPES]
        outcomes += compared(tmp_path / "rows.csv", rows, delimiter, encoding, normalise_options(CsvOptions()))
    values = sum(isinstance(row, dict) for row in outcomes)
    assert values > len(cells)  # most cells are a text at least
    assert len(outcomes) - values > len(cells)


@pytest.mark.parametrize(
    ("kind", "cell", "value"),
    [
        ("boolean", "oui", True),
        ("boolean", "Yes", True),
        ("number", "#N/A", None),
        ("number", "n/a", None),
        ("string", "", None),
    ],
)
def test_words_for_values_mean_the_same_at_every_door(tmp_path: Path, kind: str, cell: str, value: object) -> None:
    rows = [[cell if kind == name else PLAIN[name] for name in TYPES], [PLAIN[name] for name in TYPES]]
    values = compared(tmp_path / "rows.csv", rows, ",", "utf-8", normalise_options(CsvOptions()))
    assert isinstance(values[0], dict)
    assert values[0][kind] == value


@pytest.mark.parametrize(
    ("kind", "cell"), [("number", "Null"), ("number", "1_000"), ("number", "inf"), ("integer", "１２")]
)
def test_what_only_one_of_two_readers_took_for_a_number_is_refused_at_every_door(
    tmp_path: Path, kind: str, cell: str
) -> None:
    rows = [[cell if kind == name else PLAIN[name] for name in TYPES], [PLAIN[name] for name in TYPES]]
    values = compared(tmp_path / "rows.csv", rows, "|", "utf-16", normalise_options(CsvOptions()))
    assert str(values[0]).startswith(f"{kind} must be ")
