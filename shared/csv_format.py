"""How a CSV file is written: what the caller says about it, and what its first rows show."""

import csv
import io
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from shared.cards import Card
from shared.errors import Fault, InvalidRequest

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
DECIMALS = {"point": ".", "comma": ","}
ENCODINGS = {
    "utf-8": ("utf8", "utf-8-sig", "ascii", "us-ascii"),
    "utf-16": ("utf16", "utf-16le", "utf-16-le", "utf-16be", "utf-16-be"),
    "cp1252": ("windows-1252", "ansi"),
    "latin-1": ("latin1", "iso-8859-1", "iso8859-1"),
}
# Of the whole process, for all time: what a record may hold is checked at the door, where it is cut off.
csv.field_size_limit(2**31 - 1)
ENOUGH_NUMBERS = 2000  # numbers with a decimal mark in the sample: more of them would not change the verdict

_POINT = re.compile(r"[+-]?\d*\.\d+(?:[eE][+-]?\d+)?")
_DECIMALS = re.compile(r"[+-]?\d*,(?!\d{3}$)\d+")  # never thousands
_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class CsvFormat:
    """How a file is written, as the job says it."""

    delimiter: str  # one of , ; TAB |
    encoding: str  # utf-8, utf-16, cp1252 or latin-1: what the upload was; the chunks are always UTF-8
    decimal: str  # . or ,
    columns: tuple[str, ...]  # the header's names in file order, stripped
    id_column: str | None  # a column that identifies rows for the caller
    bom: bool = False  # the upload had a BOM or was not UTF-8: the output starts with one, for Excel's sake


@dataclass(frozen=True, slots=True)
class Given:
    """What the caller said about the file; None: detect it."""

    delimiter: str | None = None
    encoding: str | None = None
    decimal: str | None = None
    id_column: str | None = None
    strict: bool = False  # refuse columns that are not features


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a file may hold, and how large its chunks become."""

    max_bytes: int  # uncompressed
    max_rows: int
    max_record_bytes: int
    chunk_bytes: int = 1 << 20
    chunk_rows: int = 4000


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of whole records: one unit of work."""

    first_row: int  # 0-based
    row_count: int
    data: bytes  # UTF-8 text of the records without the header, newlines as they came


def check_given(given: Given) -> Given:
    """Return what the caller said in our own words (`;`, `cp1252`); raise InvalidRequest for what cannot be meant."""
    words = {name: name for name in ENCODINGS} | {word: name for name, words in ENCODINGS.items() for word in words}
    known = {"delimiter": DELIMITERS, "decimal": DECIMALS, "encoding": words}
    faults: list[Fault] = []
    settled: dict[str, str | None] = {}
    for option, names in known.items():
        said = getattr(given, option)
        settled[option] = said if said in names.values() else names.get((said or "").lower().replace("_", "-"))
        if said is not None and settled[option] is None:
            allowed = ", ".join(ENCODINGS if names is words else names)
            faults.append(Fault(f"/query/{option}", option, f"must be one of {allowed}"))
    if faults:
        detail = "; ".join(f"{fault.code} {fault.message}" for fault in faults)
        raise InvalidRequest(f"The file cannot be read as asked: {detail}.", faults=faults)
    return Given(settled["delimiter"], settled["encoding"], settled["decimal"], given.id_column, given.strict)


def read_records(text: str, delimiter: str) -> Iterator[list[str]]:
    """Return the records of a text that are not blank."""
    return (record for record in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if record)


def find_decimal(card: Card, columns: tuple[str, ...], delimiter: str, sample: bytes) -> str:
    """Return the decimal mark of a file by the number cells of its first rows (UTF-8, without the header).

    Next to a comma as the delimiter, commas in quoted cells may separate thousands: it is the point unless some comma
    has other than three digits behind it, and no cell has a point.
    """
    if b"," not in sample:
        return "."
    quoted = delimiter == ","
    numbers = {feature.name for feature in card.row_features if feature.type in ("integer", "number")}
    places = [place for place, name in enumerate(columns) if name in numbers]
    points = commas = decimals = 0
    for record in read_records(sample.decode("utf-8"), delimiter):
        cells = [record[place].strip() for place in places if place < len(record)]
        points += sum(1 for cell in cells if "." in cell and _POINT.fullmatch(cell))
        commas += sum(1 for cell in cells if "," in cell and _COMMA.fullmatch(cell))
        decimals += sum(1 for cell in cells if "," in cell and _DECIMALS.fullmatch(cell))
        if points + commas > ENOUGH_NUMBERS:
            break
    if quoted:
        return "," if decimals and not points else "."
    return "," if commas > points else "."


def find_id_column(columns: tuple[str, ...], features: Collection[str], given: str | None) -> str | None:
    """Return the column that identifies rows: the given one, else an extra one named `id`, `x_id` or `id_x`."""
    if given is not None:
        return given
    extra = [name for name in columns if name not in features]
    exact = [name for name in extra if name.lower() == "id"]
    alike = [name for name in extra if name.lower().endswith("_id") or name.lower().startswith("id_")]
    return next(iter(exact + alike), None)
