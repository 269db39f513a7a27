"""The table of a training: its columns with their types, its target, and its faults as sentences."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.cards.features import LARGEST_INTEGER, Category, FeatureType
from shared.cards.numbers import NumberForm
from shared.csv.format import CsvOptions
from shared.errors import CardError, InvalidRequest
from shared.faults import counted, few
from shared.packages.card_inference import narrowest_type
from shared.packages.sample import ReferenceRows, read_rows, value_of
from shared.training.checks import bare, check_answers, check_columns, check_row_count
from shared.training.options import TrainingOptions, refusal

MIN_OF_CLASS = 5  # rows: one for each fold of the cross-validation
MAX_CLASSES = 50
CLASS_VALUES = 10  # an integer target with more distinct values is a quantity
ROWS_OF_CATEGORY = 5  # a text column has at least so many rows for each of its categories, on average
MAX_CATEGORIES = 200
MIXED_NUMBERS, MIXED_TEXTS = 10, 5  # a column of more numbers and fewer texts than these holds numbers, but for them


@dataclass(frozen=True, slots=True)
class Column:
    """A column of features: its values by row, None for a missing value."""

    name: str
    kind: FeatureType
    values: list[Any]

    @property
    def has_missing(self) -> bool:
        """Whether a row has no value here."""
        return None in self.values

    @property
    def categories(self) -> list[Category] | None:
        """The distinct texts in order; None for other types."""
        return sorted({value for value in self.values if value is not None}) if self.kind == "string" else None


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a training, column by column, and their answers."""

    columns: list[Column]
    target: str
    task: str  # binary, multiclass or regression
    answers: list[float]  # by row: the place of its class in `labels`, or the number
    labels: list[str]  # of the classes in order; empty for a regression
    notes: list[str] = field(default_factory=list)  # what was left out, and why

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return len(self.answers)

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of features as callers send them."""
        names = [column.name for column in self.columns]
        return [
            dict(zip(names, values, strict=True))
            for values in zip(*(column.values for column in self.columns), strict=True)
        ]


def read_table(path: Path, options: TrainingOptions, csv_options: CsvOptions | None = None) -> Table:
    """Read a file of rows (CSV as where it is scored) for a training; or raise InvalidRequest."""
    try:
        file_rows = read_rows(path, csv_options=csv_options)
    except CardError as error:
        raise refusal("unreadable", f"The file cannot be read: {error.detail.replace(str(path), 'it')}") from error
    return table_of(file_rows, options)


def table_of(file_rows: ReferenceRows, options: TrainingOptions) -> Table:
    """Return the table of rows that were read; raise InvalidRequest where they are not fit for a training."""
    rows = file_rows.rows
    names = list(rows[0]) if rows else []
    check_columns(names, options)
    check_row_count(len(rows))
    cells = [bare(row[options.target]) for row in rows]
    check_answers(cells, options.target)
    task, answers, labels = _answers(cells, options, file_rows)
    notes: list[str] = []
    columns = []
    if options.leave_out:
        notes.append(f"Left out on request: {few(options.leave_out, 10)}.")
    for name in names:
        if name == options.target or name in options.leave_out:
            continue
        values = [bare(row[name]) for row in rows]
        kind = options.types.get(name) or narrowest_type(values, file_rows.numbers)
        column = Column(
            name, kind, [None if value is None else value_of(value, kind, file_rows.numbers) for value in values]
        )
        _check_values(column)
        if name not in options.types:
            _check_mixed(column, file_rows.numbers)
        _check_categories(column)
        columns.append(column)
    constant = [column.name for column in columns if len(set(column.values)) == 1]
    if len(constant) == len(columns):
        raise refusal(
            "no_features",
            f"No column beside the target {options.target[:70]!r} has two different values: there is nothing to learn "
            "from.",
        )
    if constant:
        raise _constant_columns(constant)
    return Table(columns, options.target, task, answers, labels, notes)


# ── the target ───────────────────────────────────────────────────────────────────────────────────────────────────


def _answers(
    cells: Sequence[Any], options: TrainingOptions, file_rows: ReferenceRows
) -> tuple[str, list[float], list[str]]:
    """Return the task, the answer of each row, and the labels of the classes."""
    kind = narrowest_type(cells, file_rows.numbers)
    values = [value_of(cell, kind, file_rows.numbers) for cell in cells]
    distinct = set(values)
    task = options.task or _task_of(kind, len(distinct))
    if task == "regression":
        if kind not in ("integer", "number"):
            raise refusal(
                "task",
                f"The target {options.target[:70]!r} does not hold numbers: a regression needs them. Leave `task` out.",
                column=options.target,
            )
        return task, [float(value) for value in values], []
    if (task == "binary") != (len(distinct) == 2):
        raise refusal(
            "task",
            f"The target {options.target[:70]!r} has {len(distinct):,} different values, which is not {task}: leave "
            "`task` out, or send another target.",
            column=options.target,
        )
    classes = sorted(distinct)
    labels = [_label(value) for value in classes]
    if options.positive is not None:
        classes, labels = _positive_last(classes, labels, task, options)
    _check_classes(Counter(values), dict(zip(classes, labels, strict=True)), options.target)
    places = {value: float(place) for place, value in enumerate(classes)}
    return task, [places[value] for value in values], labels


def _task_of(kind: str, distinct: int) -> str:
    if distinct == 2:
        return "binary"
    if kind == "string" or (kind == "integer" and distinct <= CLASS_VALUES):
        return "multiclass"
    return "regression"


def _label(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _positive_last(
    classes: list[Any], labels: list[str], task: str, options: TrainingOptions
) -> tuple[list[Any], list[str]]:
    if task != "binary":
        raise refusal("positive", f"`positive` is for two classes, and {options.target[:70]!r} has {len(classes)}.")
    if options.positive not in labels:
        raise refusal(
            "positive", f"{str(options.positive)[:70]!r} is no value of {options.target[:70]!r}: it has {few(labels)}."
        )
    if options.positive == labels[0]:
        return classes[::-1], labels[::-1]
    return classes, labels


def _check_classes(counts: Counter[Any], labels: dict[Any, str], target: str) -> None:
    if len(labels) > MAX_CLASSES:
        raise refusal(
            "too_many_classes",
            f"The target {target[:70]!r} has {len(labels):,} different texts, and a classifier at most {MAX_CLASSES}: "
            "group them, or send a number to predict.",
            column=target,
        )
    ways = Counter(label.casefold() for label in labels.values())
    if alike := [label for label in labels.values() if ways[label.casefold()] > 1]:
        raise refusal(
            "letter_case",
            f"Answers of the target {target[:70]!r} differ by capital letters only: {few(alike)}. Write each one way.",
            column=target,
        )
    rare = [f"{labels[value]} ({counts[value]})" for value in labels if counts[value] < MIN_OF_CLASS]
    if rare:
        raise refusal(
            "rare_class",
            f"Too few rows have the answer {few(rare)}: each needs {MIN_OF_CLASS} at least, one for each part of the "
            "cross-validation. Send more of them, or leave these rows out.",
            column=target,
        )


# ── features ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _check_values(column: Column) -> None:
    """Refuse what no card lets in, before anything is trained on it."""
    if column.kind == "integer":
        beyond = next((value for value in column.values if value is not None and abs(value) > LARGEST_INTEGER), None)
        if beyond is not None:
            raise refusal(
                "out_of_range",
                f"The column {column.name[:70]!r} holds {str(beyond)[:40]}, and beyond {LARGEST_INTEGER} no model "
                "tells neighbours apart: leave the column out (`leave_out`) if it is an id.",
                column=column.name,
            )
    if column.kind == "string" and any(value is not None and "\x00" in value for value in column.values):
        raise refusal(
            "not_text",
            f"The column {column.name[:70]!r} holds NUL characters, which no text may: is the file binary, or UTF-16?",
            column=column.name,
        )


def _check_mixed(column: Column, numbers: NumberForm) -> None:
    """Refuse a column of numbers with a few texts among them: as categories the numbers would lose their order."""
    if column.kind != "string":
        return
    counts = Counter(value for value in column.values if value is not None)
    texts: dict[str, int] = {}
    for value, count in counts.items():
        if narrowest_type([value], numbers) == "string":
            texts[value] = count
            if len(texts) > MIXED_TEXTS:
                return
    present, rest = sum(counts.values()), sum(texts.values())
    if len(counts) - len(texts) <= MIXED_NUMBERS or 2 * rest >= present:
        return
    named = ", ".join(f"{value[:70]!r} ({counted(count, 'time')})" for value, count in texts.items())
    raise refusal(
        "mixed_column",
        f"The column {column.name[:70]!r} holds numbers in {present - rest:,} of {counted(present, 'row')}, and in the "
        f"others {named}: leave a cell empty where a value is missing, write them as numbers, or leave the column out "
        "(`leave_out`).",
        column=column.name,
    )


def _constant_columns(names: list[str]) -> InvalidRequest:
    """Return the error for columns with one value: no model can learn what another value means."""
    subject, pronoun = (f"column {names[0][:70]!r} has", "it") if len(names) == 1 else ("", "them")
    subject = subject or f"columns {few((repr(name[:70]) for name in names), 10)} have"
    return refusal(
        "constant_columns",
        f"The {subject} the same value in every row, from which nothing can be learned: leave {pronoun} out "
        "(`leave_out`; `--leave-out COLUMN` of the command), or send rows with other values.",
        column=names[0],
    )


def _check_categories(column: Column) -> None:
    categories = column.categories
    if categories is None:
        return
    present = sum(value is not None for value in column.values)
    most = min(MAX_CATEGORIES, present // ROWS_OF_CATEGORY)
    if len(categories) > most:
        raise refusal(
            "too_many_categories",
            f"The column {column.name[:70]!r} has {len(categories):,} different texts in {counted(present, 'row')}, "
            f"and so many rows allow {most}: group the rare ones, make numbers of dates, or leave the column out "
            "(`leave_out`) if it is an id.",
            column=column.name,
        )
