"""The format of a CSV file: options of the caller, and detection from the first rows."""

import csv
import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from shared.cards.numbers import DECIMALS, THOUSANDS, NumberForm
from shared.errors import InvalidRequest
from shared.faults import Fault

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
ENCODINGS = {
    "utf-8": ("utf8", "utf-8-sig", "ascii", "us-ascii"),
    "utf-16": ("utf16",),  # of the order that its mark says, or its zero bytes
    "utf-16-le": ("utf-16le", "utf16le"),
    "utf-16-be": ("utf-16be", "utf16be"),
    "cp1252": ("windows-1252", "ansi"),
    "latin-1": ("latin1", "iso-8859-1", "iso8859-1"),
}
# Of the whole process, for all time: what a record may hold is checked at the door, where it is cut off.
csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True, slots=True)
class CsvFormat:
    """The format of a file, as its job shows it."""

    delimiter: str  # one of , ; TAB |
    encoding: str  # one of ENCODINGS: what the upload was; the chunks are always UTF-8
    decimal: str  # . or ,
    columns: tuple[str, ...]  # the header's names in file order, stripped
    id_column: str | None  # a column that identifies rows for the caller
    bom: bool = False  # the upload had a BOM or was not UTF-8: the output starts with one, for Excel's sake
    thousands: str = ""  # what separates thousands, if anything does
    currency: str = ""  # the sign beside numbers, if they have one

    @property
    def numbers(self) -> NumberForm:
        """How its numbers are written."""
        return NumberForm(self.decimal, self.thousands, self.currency)


@dataclass(frozen=True, slots=True)
class CsvOptions:
    """The caller's options for the file; None: detect it."""

    delimiter: str | None = None
    encoding: str | None = None
    decimal: str | None = None
    id_column: str | None = None
    strict: bool = False  # refuse columns that are not features
    thousands: str | None = None  # empty: they are not separated
    sheet: str | None = None  # of a workbook; None: its first visible one


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


def likely_delimiter(filename: str | None) -> str | None:
    """Return the delimiter that a file's name tells of: a tab for `.tsv` and `.tab`, else None."""
    name = (filename or "").lower().removesuffix(".gz")
    return "\t" if name.endswith((".tsv", ".tab")) else None


def normalise_options(options: CsvOptions) -> CsvOptions:
    """Return the options in our own words (`;`, `cp1252`); raise InvalidRequest for unknown or conflicting ones."""
    words = {name: name for name in ENCODINGS} | {word: name for name, words in ENCODINGS.items() for word in words}
    words_of = {"delimiter": DELIMITERS, "decimal": DECIMALS, "thousands": THOUSANDS, "encoding": words}
    faults: list[Fault] = []
    settled: dict[str, str | None] = {}
    for option, names in words_of.items():
        word = getattr(options, option)
        settled[option] = word if word in names.values() else names.get((word or "").lower().replace("_", "-"))
        if word is not None and settled[option] is None:
            allowed = ", ".join(ENCODINGS if names is words else names)
            faults.append(Fault(f"/query/{option}", option, f"must be one of {allowed}"))
    if settled["thousands"] and settled["thousands"] == settled["decimal"]:
        faults.append(Fault("/query/thousands", "thousands", "must be another mark than the decimal one"))
    if faults:
        detail = "; ".join(f"{fault.code} {fault.message}" for fault in faults)
        raise InvalidRequest(f"The options of the file are not valid: {detail}.", faults=faults)
    return replace(options, **settled)  # type: ignore[arg-type] # all four are texts or None


def read_records(text: str, delimiter: str) -> Iterator[list[str]]:
    """Return the records of a text that are not blank."""
    return (record for record in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if record)


def find_id_column(columns: tuple[str, ...], features: Collection[str], id_column: str | None) -> str | None:
    """Return the column that identifies rows: the given one, else an extra one named `id`, `x_id` or `id_x`."""
    if id_column is not None:
        return id_column
    extra = [name for name in columns if name not in features]
    exact = [name for name in extra if name.lower() == "id"]
    alike = [name for name in extra if name.lower().endswith("_id") or name.lower().startswith("id_")]
    return next(iter(exact + alike), None)
