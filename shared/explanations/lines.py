"""Explanations of many rows as a table: a line for each row, a column for each feature of the card."""

from collections.abc import Mapping, Sequence

from shared.cards.card import Card
from shared.csv.format import CsvFormat
from shared.csv.output import (
    error_text,
    escape,
    escape_column,
    header_line,
    number_cells,
    passthrough_columns,
    records_of,
    spread,
)
from shared.explanations.explanation import Explanation
from shared.faults import Fault

BEFORE = ("row_no",)
ABOUT = ("label", "method", "scale", "base_value")
AFTER = ("value", "standard_error", "top", "error")
_OURS = frozenset((*BEFORE, *ABOUT, *AFTER))


def explanation_columns(card: Card, form: CsvFormat) -> list[str]:
    """Return the columns of the table: the row's number, the kept columns of its file, and the contributions.

    A feature that is called like a column of ours becomes `contribution_...`, a kept column `input_...`.
    """
    used = {*_OURS}
    features = [_free(feature.name, "contribution", used) for feature in card.features]
    kept = [_free(name, "input", used) for name in passthrough_columns(card, form)]
    return [*BEFORE, *kept, *ABOUT, *features, *AFTER]


def _free(name: str, prefix: str, used: set[str]) -> str:
    while name in used:
        name = f"{prefix}_{name}"
    used.add(name)
    return name


def explanation_header(card: Card, form: CsvFormat) -> bytes:
    """Return the first line of the table."""
    return header_line(explanation_columns(card, form), form)


def explanation_records(
    card: Card,
    form: CsvFormat,
    kept: Sequence[list[str]],
    explained: Mapping[int, Explanation],
    faults: Mapping[int, list[Fault]],
    *,
    first_row: int,
    row_count: int,
) -> bytes:
    """Return the records of a chunk: every row in its order, explained or with its error.

    `kept` holds one list of cells for each of `passthrough_columns`; `explained` and `faults` are by offset in the
    chunk.
    """
    offsets = sorted(explained)
    explanations = [explained[offset] for offset in offsets]
    amounts = [{one["feature"]: one["contribution"] for one in each.contributions} for each in explanations]
    errors = [[one.get("standard_error") for one in each.contributions] for each in explanations]
    delimiter = form.delimiter
    columns = [
        [escape(each.label or "", delimiter) for each in explanations],
        [each.method for each in explanations],
        [each.scale for each in explanations],
        number_cells([each.base_value for each in explanations], form),
        *(number_cells([amount[feature.name] for amount in amounts], form) for feature in card.features),
        number_cells([each.value for each in explanations], form),
        [
            "".join(number_cells([max(standard_errors)], form))
            if (standard_errors := [e for e in each if e is not None])
            else ""
            for each in errors
        ],
        [escape(" ".join(each.top), delimiter) for each in explanations],
    ]
    error = [""] * row_count
    for offset, some_faults in faults.items():
        error[offset] = escape(error_text(some_faults), delimiter)
    numbers = list(map(str, range(first_row + 1, first_row + row_count + 1)))
    before = [escape_column(cells, delimiter) for cells in kept]
    return records_of([numbers, *before, *(spread(cells, offsets, row_count) for cells in columns), error], form)
