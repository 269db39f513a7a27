"""One chunk of a CSV file against a card: every row's verdict, the good ones by column, the bad ones with reasons.

Whole columns are checked at once. A row that does not plainly pass is left to what RowValidator does to a row that
does not: each feature checked by itself (each distinct cell once), then the rules. So verdicts, codes and messages
are those of the same row in JSON.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from shared.cards.card import Card
from shared.cards.cell_values import read_cell
from shared.cards.features import Feature, missing_words
from shared.cards.rules import parse_rule
from shared.cards.seal import jsonb_order
from shared.cards.validator import RowValidator, read_feature
from shared.csv.cells import Cells, absent_cells, derived_cells, read_cells
from shared.csv.column_rules import possibly_broken_rows
from shared.csv.format import CsvFormat
from shared.csv.output import RowError, clean, fault_column, passthrough_columns, spread_cells
from shared.csv.records import Records, parse_records, split_records
from shared.encoding.columns import Columns
from shared.faults import Fault, pointer

Rows = NDArray[np.intp]  # places among the whole records of a chunk


_EMPTY = Fault("", "empty_row", "the row is empty: remove it")


@dataclass(slots=True)
class ReadChunk:
    """What the rows of a chunk are, before any model has seen them. Offsets are places in the chunk."""

    row_count: int
    columns: Columns  # of the good rows
    good: Rows  # offsets of the good rows
    features: list[str]  # of every row, JSON text: canonical, or the cells as they were sent where the row is bad
    faults: dict[int, list[Fault]]  # of the bad rows, in their order
    errors: list[RowError]  # the same, as errors.csv lists them
    kept: list[list[str]]  # cells of every row in each of `passthrough_columns`


class ChunkReader:
    """Reads the chunks of one file; built once per card and format, safe to share between threads."""

    def __init__(self, card: Card, validator: RowValidator, form: CsvFormat) -> None:
        self.card = card
        self.validator = validator
        self.format = form
        features = {feature.name for feature in card.row_features}
        self._in_file = features.intersection(form.columns)
        self._extra = [name for name in form.columns if name not in features]
        self._kept = passthrough_columns(card, form)
        self._rules = [parse_rule(rule.expression, rule.message, card.row_features) for rule in card.rules]
        # PostgreSQL sorts the keys of a jsonb by length, then by bytes; keys that come so are not sorted again.
        keys = sorted((feature.name for feature in card.row_features), key=jsonb_order)
        self._prefixes = {
            key: ("," if place else "{") + orjson.dumps(key).decode() + ":" for place, key in enumerate(keys)
        }

    def read(self, data: bytes, *, first_row: int, row_count: int | None = None) -> ReadChunk:
        """Parse and validate one chunk, whose first row has this index in the file.

        Raises ValueError where the bytes are not UTF-8, or hold another number of records than `row_count`.
        """
        records = parse_records(data, self.format, self._in_file)
        _check_count(records.row_count, row_count)
        count = len(records.offsets)
        file_cells = {feature.name: self._cells(records, feature, count) for feature in self.card.row_features}
        cells = dict(file_cells)
        for formula in self.validator.formulas:
            name = formula.feature.name
            cells[name] = derived_cells(formula, cells, file_cells[name] if name in self._in_file else None, count)
        doubtful = np.flatnonzero(self._doubtful(cells, records, count))
        sent = self._raw_cells(file_cells, records, doubtful)
        row_faults = [
            [_EMPTY] if faults and not any(map(str.strip, cells)) else faults
            for faults, *cells in zip(self._validate(sent, len(doubtful)), *sent.values(), strict=True)
        ]
        bad = np.zeros(count, dtype=bool)
        bad[doubtful] = [bool(faults) for faults in row_faults]

        offsets = records.offsets.tolist()
        features = self._features(cells, count)
        faults: dict[int, list[Fault]] = {}
        values: dict[int, dict[str, str]] = {}
        for place, (row, why) in enumerate(zip(doubtful.tolist(), row_faults, strict=True)):
            if why:
                faults[offsets[row]] = why
                values[offsets[row]] = {name: column[place] for name, column in sent.items()}
                features[row] = raw_row_json(list(values[offsets[row]].values()), self.format)
        if records.ragged:
            by_offset = dict(zip(offsets, features, strict=True))
            for offset, record in records.ragged.items():
                faults[offset] = [_ragged(record, self.format)]
                by_offset[offset] = raw_row_json(record, self.format)
            features = [by_offset[offset] for offset in range(records.row_count)]
            faults = dict(sorted(faults.items()))

        good = np.flatnonzero(~bad)
        columns = {name: cell.column() for name, cell in cells.items()}
        if len(good) < count:
            columns = {name: column.at(good) for name, column in columns.items()}
        return ReadChunk(
            records.row_count,
            Columns(columns, len(good)),
            records.offsets[good],
            features,
            faults,
            [
                row_error(first_row + offset, fault, values.get(offset, {}))
                for offset, why in faults.items()
                for fault in why
            ],
            self._keep(records),
        )

    def read_unvalidated(self, data: bytes, *, row_count: int | None = None) -> tuple[list[str], list[list[str]]]:
        """Return the features as sent and the kept cells, without any check.

        For a chunk that did not survive `read` or its scoring: no Arrow, no validation, no model.
        """
        records = split_records(data, self.format)
        _check_count(len(records), row_count)
        places = [self.format.columns.index(name) for name in self._kept]
        kept = [clean([record[place] if place < len(record) else "" for record in records]) for place in places]
        return [raw_row_json(record, self.format) for record in records], kept

    def _cells(self, records: Records, feature: Feature, count: int) -> Cells:
        if feature.name not in self._in_file:
            return absent_cells(self.card, feature, count)
        texts, codes = records.encoded[feature.name]
        if feature.derived is not None:  # what is not given is computed
            feature = feature.model_copy(update={"nullable": True})
        return read_cells(self.card, feature, texts, codes, self.format.numbers)

    def _doubtful(self, cells: dict[str, Cells], records: Records, count: int) -> NDArray[np.bool_]:
        doubtful = np.zeros(count, dtype=bool)
        for cell in cells.values():
            if (bad := cell.bad) is not None:
                doubtful |= bad
        named = {name for rule in self._rules for name in rule.names}
        broken = possibly_broken_rows(self._rules, {name: cells[name].distinct[cells[name].codes] for name in named})
        if broken is not None:
            doubtful |= broken
        for name in self._extra:
            column = records.cells(name)
            if "\x00" in "".join(column):
                doubtful |= np.array(["\x00" in cell for cell in column])
        return doubtful

    def _raw_cells(self, cells: dict[str, Cells], records: Records, rows: Rows) -> dict[str, list[str]]:
        """Return the cells of these rows in every column of the file."""
        if not len(rows):
            return {name: [] for name in self.format.columns}
        extra = {name: records.cells(name) for name in self._extra}
        return {
            name: cells[name].sent(rows) if name in cells else [extra[name][row] for row in rows.tolist()]
            for name in self.format.columns
        }

    def _validate(self, sent: dict[str, list[str]], count: int) -> list[list[Fault]]:
        """Return the faults of each of these rows: those of RowValidator, and NULs in other cells."""
        columns = []
        for feature in self.card.row_features:
            if feature.name in self._in_file:
                texts = sent[feature.name]
                faults_of = {text: self._read_cell(feature, text) for text in set(texts)}
                columns.append([faults_of[text] for text in texts])
            else:
                columns.append([read_feature(self.card, feature, {})] * count)
        faults = [self.validator.combine_checks(row)[1] for row in zip(*columns, strict=True)]
        for name in self._extra:
            for place, text in enumerate(sent[name]):
                if "\x00" in text:
                    faults[place].append(Fault(pointer(name), "type", "must be text without NUL characters"))
        return faults

    def _read_cell(self, feature: Feature, text: str) -> tuple[Any, Fault | None]:
        value = None if text in missing_words(feature) else read_cell(feature.type, text, self.format.numbers)
        return read_feature(self.card, feature, {feature.name: value})

    def _features(self, cells: dict[str, Cells], count: int) -> list[str]:
        """Return the canonical rows as JSON text; the text of bad rows is not used."""
        pieces = [cells[name].json(prefix) for name, prefix in self._prefixes.items()]
        return list(map("".join, zip(*pieces, ["}"] * count, strict=True)))

    def _keep(self, records: Records) -> list[list[str]]:
        places: Callable[[str], int] = self.format.columns.index
        return [clean(spread_cells(records, name, places(name))) for name in self._kept]


def row_error(row_index: int, fault: Fault, sent: dict[str, str]) -> RowError:
    """Return the line of errors.csv for a fault of a row whose cells are known by column."""
    column = fault_column(fault)
    return RowError(row_index + 1, column, fault.code, fault.message, sent.get(column, ""))


def raw_row_json(record: list[str], form: CsvFormat) -> str:
    """Return the cells of a record as a JSON object by column, those beyond the header in a list without a name."""
    row: dict[str, Any] = dict(zip(form.columns, record, strict=False))
    if len(record) > len(form.columns):
        row[""] = [*([row[""]] if "" in row else []), *record[len(form.columns) :]]
    text = orjson.dumps(row).decode()
    if "\\u0000" not in text:  # jsonb has no NUL; an escaped backslash before `u0000` only costs a second look
        return text
    return orjson.dumps({name.replace("\x00", "\ufffd"): _without_nul(value) for name, value in row.items()}).decode()


def _without_nul(value: str | list[str]) -> str | list[str]:
    return value.replace("\x00", "\ufffd") if isinstance(value, str) else clean(value)


def _ragged(record: list[str], form: CsvFormat) -> Fault:
    message = f"has {len(record)} cell{'s' * (len(record) > 1)} where the header has {len(form.columns)}"
    return Fault("", "columns", message)


def _check_count(count: int, expected: int | None) -> None:
    if expected is not None and count != expected:
        raise ValueError(f"the chunk holds {count} records, not {expected}")
