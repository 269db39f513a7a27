"""The output files of a CSV job: output.csv, errors.csv, and the input joined with its output.

They are written as the input was: its delimiter, its decimal mark. A cell that a spreadsheet would run as a formula
gets a leading apostrophe.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import orjson

from shared.cards.card import Card
from shared.cards.classes import classes_of
from shared.cards.response import ResponseField, rename, shaped_fields
from shared.csv.format import CsvFormat
from shared.encoding.blocks import Matrix
from shared.faults import Fault, unpointer

OWN_COLUMNS = ("row_no", "error")  # the first and the last column of output.csv
ERRORS = ("row_no", "column", "code", "message", "value")
# Excel's Japanese version takes the wide forms, too.
SIGNS = "=+-@＝＋－＠"
FORMULA = (*SIGNS, "\t", "\r", "\n")
# Where a program that splits by another delimiter than the file's begins a cell, after quotes that are no quotes to it.
_MARKS = ",;\t|\r\n"
_INNER_FORMULA = re.compile(rf'([{re.escape(_MARKS)}])"*(?=[{re.escape(SIGNS)}])')
PLAIN_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?")
SHOWN = 200  # characters of a wrong cell in errors.csv
BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class RowError:
    """One line of errors.csv."""

    row_no: int
    column: str  # empty: the row as a whole
    code: str
    message: str
    value: str  # the cell as it was sent


@dataclass(frozen=True, slots=True)
class ChunkScores:
    """What the model said about the rows of a chunk that it could score."""

    offsets: list[int]  # of these rows in the chunk; by row:
    prediction: list[float]
    label: list[str | None]
    probability: list[float | None]
    probabilities: Matrix | None  # (n, k) of many classes, where the model gives them


def passthrough_columns(card: Card, form: CsvFormat) -> list[str]:
    """Return the input columns that output.csv repeats: the id column, then those that are no features."""
    features = {feature.name for feature in card.row_features}
    extra = [name for name in form.columns if name not in features and name != form.id_column]
    return extra if form.id_column is None else [form.id_column, *extra]


def response_columns(card: Card) -> list[str]:
    """Return the columns that the model fills, without `error`: named as in the card's response where it says so."""
    sources = ["prediction", "label", "probability", "threshold"]
    probabilities = [f"probability_{label}" for label in card.labels.values()] if card.task == "multiclass" else []
    source_count = {"regression": 1, "multiclass": 3, "binary": 4}[card.task]
    positive = list(card.labels.values())[1] if card.task == "binary" and card.labels else None
    shaped = _shaped_fields(card)
    others = [*OWN_COLUMNS, *probabilities, *shaped]
    return [*rename(card.response, sources[:source_count], others=others, positive=positive), *probabilities, *shaped]


def shaped_columns(card: Card) -> list[ResponseField]:
    """Return the fields of the last response columns: bands, percentages, whole numbers, texts."""
    return list(_shaped_fields(card).values())


def _shaped_fields(card: Card) -> dict[str, ResponseField]:
    probabilities = [f"probability_{label}" for label in card.labels.values()]
    return shaped_fields(card.response, others=[*OWN_COLUMNS, *probabilities])


def output_columns(card: Card, form: CsvFormat) -> list[str]:
    """Return the columns of output.csv; an input column that is called like one of ours becomes `input_...`."""
    return _around(passthrough_columns(card, form), card)


def joined_columns(card: Card, form: CsvFormat) -> list[str]:
    """Return the columns of output.csv with every column of the input."""
    return _around(list(form.columns), card)


def output_header(card: Card, form: CsvFormat) -> bytes:
    """Return the first line of output.csv."""
    return header_line(output_columns(card, form), form)


def joined_header(card: Card, form: CsvFormat) -> bytes:
    """Return the first line of output.csv with the input's columns."""
    return header_line(joined_columns(card, form), form)


def errors_header(form: CsvFormat) -> bytes:
    """Return the first line of errors.csv."""
    return header_line(ERRORS, form)


def output_records(
    card: Card,
    form: CsvFormat,
    kept: Sequence[list[str]],
    answers: ChunkScores,
    faults: Mapping[int, list[Fault]],
    *,
    first_row: int,
    row_count: int,
) -> bytes:
    """Return the records of a chunk: every row in its order, scored or with its error.

    `kept` holds one list of cells for each of `passthrough_columns`, `faults` is by offset in the chunk.
    """
    numbers = list(map(str, range(first_row + 1, first_row + row_count + 1)))
    before = [escape_column(cells, form.delimiter) for cells in kept]
    response = [spread(cells, answers.offsets, row_count) for cells in _response(card, form, answers)]
    error = [""] * row_count
    for offset, row_faults in faults.items():
        error[offset] = escape(error_text(row_faults), form.delimiter)
    return records_of([numbers, *before, *response, error], form)


def error_records(errors: Iterable[RowError], form: CsvFormat) -> bytes:
    """Return the records of errors.csv."""
    lines = [
        form.delimiter.join(
            [
                str(error.row_no),
                *(escape(text, form.delimiter) for text in (error.column, error.code, error.message)),
                escape(error.value[:SHOWN].replace("\x00", "\ufffd"), form.delimiter),
            ]
        )
        for error in errors
    ]
    return "".join(line + "\n" for line in lines).encode()


def join_records(card: Card, form: CsvFormat, data: bytes, output: bytes) -> bytes:
    """Return the records of a chunk with the input's columns in place of the kept ones.

    A record with too many cells is cut to the header, one with too few is filled up: its error says so.
    """
    from shared.csv.records import parse_records

    records = parse_records(data, form)
    columns = [clean(spread_cells(records, name, place)) for place, name in enumerate(form.columns)]
    names = [str(place) for place in range(len(output_columns(card, form)))]
    written = parse_records(output, CsvFormat(form.delimiter, "utf-8", form.decimal, tuple(names), None))
    if written.row_count != records.row_count or written.ragged:
        raise ValueError(f"{written.row_count} records of output do not belong to {records.row_count} rows")
    row_no, *answers = [written.cells(name) for name in names]
    answers = answers[len(passthrough_columns(card, form)) :]
    return records_of([row_no, *(escape_column(cells, form.delimiter) for cells in [*columns, *answers])], form)


def spread_cells(records: Any, name: str, place: int) -> list[str]:  # noqa: ANN401 - Records, which need pyarrow
    """Return one column's cells of all records of a chunk, empty where a ragged one has none."""
    cells: list[str] = records.cells(name)
    if not records.ragged:
        return cells
    all_cells = spread(cells, records.offsets.tolist(), records.row_count)
    for offset, record in records.ragged.items():
        all_cells[offset] = record[place] if place < len(record) else ""
    return all_cells


def clean(cells: list[str]) -> list[str]:
    """Return the cells without NULs, which neither spreadsheets nor jsonb take."""
    return [cell.replace("\x00", "\ufffd") for cell in cells] if "\x00" in "".join(cells) else cells


def error_text(faults: Iterable[Fault]) -> str:
    """Return all that is wrong with a row, for its `error` cell."""
    return "; ".join(fault.clause() for fault in faults)


def fault_column(fault: Fault) -> str:
    """Return the column that a fault points to; empty for the row as a whole."""
    return unpointer(fault.pointer)[0]


def escape(text: str, delimiter: str) -> str:
    """Return a cell in its written form: no formula, and quoted where any reader's delimiter requires it."""
    if any(mark in text for mark in _MARKS):
        text = _INNER_FORMULA.sub(_defused, text)
    if text.startswith(FORMULA) and PLAIN_NUMBER.fullmatch(text) is None:
        text = "'" + text
    if '"' in text or delimiter in text or "\n" in text or "\r" in text:
        return '"' + text.replace('"', '""') + '"'
    return text


def _defused(match: re.Match[str]) -> str:
    """Return a delimiter with an apostrophe behind it, unless a plain number follows."""
    text, start, mark = match.string, match.end(), match[1]
    end = text.find(mark, start)
    cell = text[start : len(text) if end < 0 else end].strip('"')
    return match[0] if PLAIN_NUMBER.fullmatch(cell) else match[0] + "'"


def escape_column(cells: list[str], delimiter: str) -> list[str]:
    """Return the cells of a column in their written form."""
    # Most columns need nothing: that is seen in the whole text, for a twentieth of the price of each cell.
    text = "\n" + "\n".join(cells)
    if (
        '"' not in text
        and "\r" not in text
        and delimiter not in text
        and text.count("\n") == len(cells)
        and not any("\n" + start in text for start in FORMULA[:-1])
        and not (any(mark in text for mark in _MARKS[:-2]) and _INNER_FORMULA.search(text))
    ):
        return cells
    return [escape(cell, delimiter) for cell in cells]


def number_cells(values: Sequence[float], form: CsvFormat) -> list[str]:
    """Return numbers in their written form: the shortest text that reads back exactly, with the file's decimal mark."""
    cells = orjson.dumps(values)[1:-1].decode().split(",") if values else []
    if form.decimal == ".":
        return cells
    cells = "\n".join(cells).replace(".", form.decimal).split("\n") if cells else []
    return escape_column(cells, form.delimiter) if form.decimal == form.delimiter else cells


def _response(card: Card, form: CsvFormat, answers: ChunkScores) -> list[list[str]]:
    """Return the cells of each response column for the scored rows."""
    count = len(answers.offsets)
    shaped = [_shaped(field, card, form, answers) for field in shaped_columns(card)]
    if card.task == "regression":
        return [number_cells(answers.prediction, form), *shaped]
    names = ["0", "1"] if card.task == "binary" else [escape(name, form.delimiter) for name in card.labels]
    labels = {label: escape(label, form.delimiter) for label in card.labels.values()}
    probabilities = [chance for chance in answers.probability if chance is not None]
    columns = [
        [names[int(value)] for value in answers.prediction],
        ["" if label is None else labels[label] for label in answers.label],
        number_cells(probabilities, form) if len(probabilities) == count else [""] * count,
    ]
    if card.task == "binary":
        decided = [""] if card.threshold is None or len(probabilities) < count else number_cells([card.threshold], form)
        return [*columns, decided * count, *shaped]
    if answers.probabilities is None:
        return [*columns, *repeat([""] * count, len(card.labels)), *shaped]
    by_class = np.transpose(answers.probabilities).tolist()
    return [*columns, *(number_cells(column, form) for column in by_class), *shaped]


def _shaped(field: ResponseField, card: Card, form: CsvFormat, answers: ChunkScores) -> list[str]:
    """Return the cells of a field that holds something else than its source."""
    contents = list(map(field.shape, _source(field, card, answers)))
    if contents and all(isinstance(content, float) for content in contents):
        return number_cells(contents, form)
    return [_cell(content, form) for content in contents]


def _source(field: ResponseField, card: Card, answers: ChunkScores) -> Sequence[Any]:
    """Return the values of a field's source, by row."""
    if field.source == "threshold":
        return [None if chance is None else card.threshold for chance in answers.probability]
    if field.source == "label":
        return answers.label
    if field.source == "prediction":
        if card.task == "regression":
            return answers.prediction
        names = list(classes_of(card).values())
        return [int(value) if card.task == "binary" else names[int(value)] for value in answers.prediction]
    label = field.label
    if card.task == "binary":
        positive = list(card.labels.values())[1]
        whose = answers.label if field.source == "confidence" else [label or positive] * len(answers.label)
        return [
            chance if chance is None or label == positive else 1.0 - chance
            for chance, label in zip(answers.probability, whose, strict=True)
        ]
    if label is None:  # of many classes, the probability is that of the predicted one
        return answers.probability
    place = list(card.labels.values()).index(label)
    return [None] * len(answers.offsets) if answers.probabilities is None else answers.probabilities[:, place].tolist()


def _cell(content: Any, form: CsvFormat) -> str:  # noqa: ANN401 - what a field holds
    if content is None:
        return ""
    if isinstance(content, bool):
        return "true" if content else "false"
    if isinstance(content, float):
        return number_cells([content], form)[0]
    return str(content) if isinstance(content, int) else escape(content, form.delimiter)


def spread(cells: list[str], offsets: list[int], count: int) -> list[str]:
    """Return `count` cells, those given at their offsets and the others empty."""
    if len(cells) == count:
        return cells
    spread = [""] * count
    for offset, cell in zip(offsets, cells, strict=True):
        spread[offset] = cell
    return spread


def records_of(columns: Sequence[list[str]], form: CsvFormat) -> bytes:
    """Return columns of cells, which are escaped already, as records."""
    lines = list(map(form.delimiter.join, zip(*columns, strict=True)))
    lines.append("")
    return "\n".join(lines).encode()


def _around(names: Iterable[str], card: Card) -> list[str]:
    ours = [OWN_COLUMNS[0], *response_columns(card), OWN_COLUMNS[1]]
    used = {*ours, *names}
    shown = []
    for name in names:
        free = name
        while name in ours and free in used:
            free = f"input_{free}"
        used.add(free)
        shown.append(free)
    return [ours[0], *shown, *ours[1:]]


def header_line(names: Iterable[str], form: CsvFormat) -> bytes:
    """Return the first line of a file with these columns."""
    line = form.delimiter.join(escape(name, form.delimiter) for name in names)
    return ((BOM if form.bom else "") + line + "\n").encode()
