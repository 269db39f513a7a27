"""The header of a CSV file: its end, the delimiter of its names, and its check against a card."""

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from shared.cards.card import Card
from shared.cards.validator import may_be_absent
from shared.csv.format import DELIMITERS, CsvOptions, read_records
from shared.errors import RowFaults, TooLarge
from shared.faults import Fault, closest, did_you_mean, pointer_to_unknown, sentence

MAX_COLUMNS = 20_000
MAX_FAULTS = 1000  # of each kind: a header of a megabyte must not become an answer of ten
SUGGESTIONS = 10  # close matches are searched for so many names only, and among so many: the search is slow
CANDIDATES = 500
LONGEST_NAME = 131_072  # characters
NAME_LENGTH = 100  # characters of a name that a message repeats
SAMPLED_ROWS = 10
LINES_ABOVE = 20  # a header is looked for below so many records without one

_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?")


@dataclass(frozen=True, slots=True)
class Header:
    """The first record of a file, read with one delimiter."""

    delimiter: str
    columns: tuple[str, ...]
    size: int  # characters that it takes, all that is before it and its own newline included
    line: int = 1  # the line of the file where it begins
    skipped: int = 0  # records above it: a title, say
    renamed: tuple[tuple[str, str], ...] = ()  # what the file writes, and the feature that is read for it


def read_header(
    text: str, features: Collection[str], options: CsvOptions, *, final: bool, likely: str | None = None
) -> Header | None:
    """Return the header at the start of a text, by the delimiter that finds most features in it.

    Where several find equally many, as in a file of one column, it is the `likely` one, and else the comma.
    What stands above it, without any name of a feature, is no part of it; names may differ in case where that leaves
    no doubt. None when the text does not hold it whole; `final` says that no more text will come.
    """
    directive = re.match(r"\s*sep=([,;\t|])(?:\r\n|\r(?!\n)|\n)", text)  # Excel's own, read by nothing else
    start = directive.end() if directive else 0
    delimiter = options.delimiter or (directive[1] if directive else None)
    best, best_score = None, (-1, -1, False)
    for candidate in [delimiter] if delimiter else DELIMITERS.values():
        header = _read_with(candidate, text[start:], features, options, final=final)
        if header is None:
            return None  # this candidate may still turn out to be the best one
        score = (len(set(features).intersection(header.columns)), len(header.columns), candidate == likely)
        if score > best_score:
            best, best_score = header, score
    assert best is not None
    line = best.line + (text[:start].count("\n") or text[:start].count("\r"))
    return replace(best, size=best.size + start, line=line)


def _read_with(
    delimiter: str, text: str, features: Collection[str], options: CsvOptions, *, final: bool
) -> Header | None:
    lines = io.StringIO(text, newline="")
    # `readline` tells how far the reader has read, which iterating over the lines would not.
    as_in_pandas = any(name.startswith(" ") for name in features)
    records = csv.reader(iter(lines.readline, ""), delimiter=delimiter, skipinitialspace=not as_in_pandas)
    first = _next_record(delimiter, records, lines, features, options)
    header, skipped = first, 0
    while not _has_feature(header, features) and header.columns and skipped < LINES_ABOVE:
        header = _next_record(delimiter, records, lines, features, options)
        skipped += 1
    if header.columns and skipped and lines.tell() == len(text) and not final:
        return None
    # A line of data may hold a word that is a feature's name as well; a header holds most of them.
    if 2 * len(set(features).intersection(header.columns)) < len(features) or not _has_feature(header, features):
        header, skipped = first, 0
    if max(map(len, header.columns), default=0) > LONGEST_NAME:
        raise TooLarge(f"A name in the header is longer than {LONGEST_NAME} characters: a quote is never closed.")
    if header.size == len(text) and not final:  # a quote may be open, or \n may follow \r
        return None
    return replace(header, skipped=skipped)


def _next_record(
    delimiter: str,
    records: Any,  # noqa: ANN401 - the csv module has no type for its reader
    lines: io.StringIO,
    features: Collection[str],
    options: CsvOptions,
) -> Header:
    line = records.line_num + 1
    names: list[str] = []
    for record in records:
        if "".join(record).strip():
            names = record
            break
        line = records.line_num + 1
    # A card may name a feature with a blank around it, as pandas reads a header written with ", ".
    stripped = [name if name in features else name.strip() for name in names]
    renamed = _by_case(stripped, features, options)
    columns = tuple(renamed.get(name, name) for name in stripped)
    return Header(delimiter, columns, lines.tell(), line, renamed=tuple(renamed.items()))


def _has_feature(header: Header, features: Collection[str]) -> bool:
    return not features or any(name in features for name in header.columns)


def _by_case(names: Sequence[str], features: Collection[str], options: CsvOptions) -> dict[str, str]:
    """Return the features that columns mean whose names differ in case alone, where nothing else can be meant."""
    there = set(names)
    lacking: dict[str, list[str]] = {}
    for feature in features:
        if feature not in there:
            lacking.setdefault(feature.casefold(), []).append(feature)
    if not lacking:
        return {}
    written: dict[str, list[str]] = {}
    for name in names:
        if name not in features and name != options.id_column:
            written.setdefault(name.casefold(), []).append(name)
    return {
        spellings[0]: lacking[key][0]
        for key, spellings in written.items()
        if len(spellings) == 1 and len(lacking.get(key, ())) == 1
    }


def accept_header(card: Card, columns: tuple[str, ...], options: CsvOptions) -> None:
    """Raise TooLarge, or RowFaults with everything that is wrong with a header."""
    if len(columns) > MAX_COLUMNS:
        raise TooLarge(f"The header has more than {MAX_COLUMNS} columns: send those that the model needs.")
    faults = header_faults(card, columns, options)
    if not faults:
        return
    hint = ""
    if len(columns) == 1 and len(card.sent_features) > 1:
        words = ", ".join(DELIMITERS)
        hint = f" The header has a single column: name the file's delimiter, one of {words}."
    raise RowFaults(
        sentence(faults, subject=f"The header does not fit {card.name}@{card.version}") + hint, faults=faults
    )


def check_duplicates(columns: Iterable[str]) -> None:
    """Raise RowFaults where a name is there twice."""
    faults = [_duplicate(name, count) for name, count in Counter(columns).items() if count > 1][:MAX_FAULTS]
    if faults:
        raise RowFaults(sentence(faults, subject="The header names columns twice"), faults=faults)


def header_faults(card: Card, columns: tuple[str, ...], options: CsvOptions) -> list[Fault]:
    """Return a fault for each name that is missing, there twice, or not taken; pointers like `/columns/age`."""
    features = [feature.name for feature in card.row_features]
    counts = Counter(columns)
    extra = [name for name in counts if name not in set(features)]
    missing = [] if card.missing == "null" else _absent(card, counts)
    if len(extra) == len(counts) and any(_NUMBER.fullmatch(name) for name in extra):
        return [Fault("", "no_header", "the first line looks like data: put the names of the columns there")]
    if len(extra) == len(counts) and not missing:  # every row would be scored as nulls alone
        return [Fault("", "no_header", "no column of the file is a feature: name the columns as the model does")]
    faults = [_duplicate(name, count) for name, count in counts.items() if count > 1][:MAX_FAULTS]
    faults += _missing(missing, extra)
    if options.id_column is not None and options.id_column not in counts:
        faults.append(Fault(_pointer(options.id_column), "missing", "is the given id_column but not in the header"))
    if options.strict:
        faults += _unknown([name for name in extra if name != options.id_column][:MAX_FAULTS], features)
    return faults


def _absent(card: Card, counts: Counter[str]) -> list[str]:
    return [
        feature.name for feature in card.row_features if not may_be_absent(card, feature) and feature.name not in counts
    ]


def _duplicate(name: str, count: int) -> Fault:
    words = (
        f"is in the header {count} times: keep one"
        if name
        else f"{count} columns have no name: remove them, or give each its own"
    )
    return Fault(_pointer(name), "duplicate", words)


def _missing(names: list[str], extra: list[str]) -> list[Fault]:
    """Return a fault for each feature that has no column, with the column that was probably meant."""
    candidates = [name[:NAME_LENGTH] for name in extra[:CANDIDATES] if name]
    faults = []
    for position, name in enumerate(names):
        close = closest(name, candidates) if position < SUGGESTIONS else None
        hint = f'rename "{close}"' if close else "add this column"
        faults.append(Fault(_pointer(name), "missing", f"is not in the header: {hint}"))
    return faults


def _unknown(names: list[str], features: list[str]) -> list[Fault]:
    """Return a fault for each column that is not a feature, with the feature that was probably meant."""
    faults = []
    for position, name in enumerate(names):
        hint = did_you_mean(name[:NAME_LENGTH], features if position < SUGGESTIONS else ())
        faults.append(Fault(_pointer(name), "unknown_feature", f"is not a feature of this model: {hint}"))
    return faults


def _pointer(name: str) -> str:
    return "/columns" + pointer_to_unknown(name)


def check_width(columns: tuple[str, ...], delimiter: str, sample: bytes) -> None:
    """Raise RowFaults when each of the first rows (UTF-8, without the header) has one cell more than the header.

    That is how R's write.table leaves the row names: every row would fail, and none of them is wrong.
    """
    records = read_records(sample.decode("utf-8"), delimiter)
    widths = [len(record) for record in islice(records, SAMPLED_ROWS)]
    if len(widths) > 1 and set(widths) == {len(columns) + 1}:
        sentence = (
            f"The header has {len(columns)} names, but the rows have {len(columns) + 1} cells: name the first column "
            "(in R: write.table(..., col.names = NA))."
        )
        raise RowFaults(sentence, faults=[Fault("", "columns", sentence)])
