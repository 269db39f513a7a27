"""The cells of one CSV column: text to the value that a JSON row would hold, and whether it fits the card.

A chunk repeats itself: each distinct text of a column is read and checked once. Numbers are read by Arrow as long as
that gives what `read_cell` gives; a column with an odd cell is read by `read_cell`, which is the definition.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shared.cards.card import Card
from shared.cards.cell_values import read_cell
from shared.cards.features import LARGEST_INTEGER, Feature, FeatureType, integer_bounds, missing_words, read_value
from shared.cards.formulas import Formula
from shared.cards.numbers import NULLS, NumberForm
from shared.cards.text_values import read_text
from shared.cards.validator import default_of, may_be_absent, may_be_written, takes_null
from shared.encoding.blocks import Matrix
from shared.encoding.columns import Column, Columns

_NULLS = pa.array(NULLS)
_BOOLEANS = {1.0: "true", 0.0: "false"}


@dataclass(frozen=True, slots=True)
class Cells:
    """One feature's cells in one chunk: each distinct text once, its value, and which of them every row has."""

    feature: Feature
    texts: Any  # pyarrow.StringArray of distinct cells; None where the file has no such column
    codes: NDArray[np.integer[Any]]  # (n,): each row's place among the distinct cells
    distinct: NDArray[Any]  # canonical values: float64 with NaN for null, of text objects with None
    good: NDArray[np.bool_]  # which of them fit the card

    @property
    def bad(self) -> NDArray[np.bool_] | None:
        """Return a mask of rows with a bad cell; None when all fit."""
        return None if self.good.all() else ~self.good[self.codes]

    def column(self) -> Column:
        """Return the canonical values of every row."""
        return Column(self.feature.type, self.distinct, self.codes)

    def sent(self, rows: NDArray[np.intp]) -> list[str]:
        """Return the cells of these rows as they were sent."""
        cells: list[str] = self.texts.take(pa.array(self.codes[rows])).to_pylist()
        return cells

    def json(self, prefix: str) -> list[str]:
        """Return each row's canonical value as JSON text behind a prefix, which is a key without raw newlines."""
        pieces = np.array(_json(self.feature.type, self.distinct, prefix), dtype=object)
        texts: list[str] = pieces[self.codes].tolist()
        return texts


def read_cells(card: Card, feature: Feature, texts: Any, codes: NDArray[Any], numbers: NumberForm) -> Cells:  # noqa: ANN401
    """Read a column: `texts` holds its distinct cells (a pyarrow.StringArray), `codes` which of them each row has."""
    closed = feature.categories is not None and feature.unknown == "refuse"
    read: tuple[NDArray[Any], NDArray[np.bool_]] | None = None
    if not closed and feature.type in ("integer", "number"):
        read = _numbers(card, feature, texts, numbers)
    elif not closed and feature.type == "string":
        read = _texts(card, feature, texts)
    distinct, good = read or _one_by_one(card, feature, texts.to_pylist(), numbers)
    return Cells(feature, texts, codes, distinct, good)


def absent_cells(card: Card, feature: Feature, count: int) -> Cells:
    """Return the cells of a feature that the file has no column for: its default or null in every row, if it may be."""
    nothing = np.array([default_of(feature)], dtype=object if feature.type == "string" else np.float64)
    good = np.array([may_be_absent(card, feature)])
    return Cells(feature, None, np.zeros(count, dtype=np.int32), nothing, good)


def derived_cells(formula: Formula, cells: Mapping[str, Cells], sent_cells: Cells | None, count: int) -> Cells:
    """Return a formula's values for every row; bad where it gives none, or the file has another value."""
    feature = formula.feature
    operand_columns = [cells[name].column() for name in formula.names]
    sent = (
        [None] * count
        if sent_cells is None
        else Columns({feature.name: sent_cells.column()}, count).objects(feature.name)
    )
    operands = Columns(dict(zip(formula.names, operand_columns, strict=True)), count)
    distinct = np.full(count, None, dtype=object if feature.type == "string" else np.float64)
    good = np.ones(count, dtype=bool)
    for place, row in enumerate(operands.rows()):
        value, fault = formula.value(row)
        good[place] = fault is None and formula.misfit(sent[place], value) is None
        if good[place]:
            distinct[place] = value
    if sent_cells is not None and (bad := sent_cells.bad) is not None:
        good &= ~bad
    return Cells(feature, None, np.arange(count), distinct, good)


def _numbers(card: Card, feature: Feature, texts: Any, form: NumberForm) -> tuple[Matrix, NDArray[np.bool_]] | None:  # noqa: ANN401
    """Read and check a whole column; None when a cell is not a plain number of its type."""
    bare = pc.ascii_trim_whitespace(texts)
    null = pc.is_in(bare, value_set=_NULLS)
    if form.thousands or form.currency:
        plain = [form.plain(text) for text in bare.to_pylist()]
        bare = pa.array(["" if text is None else text for text in plain], pa.string())
    elif form.decimal == ",":
        if pc.any(pc.match_substring(bare, ".")).as_py():
            return None
        bare = pc.replace_substring(bare, ",", ".")
    try:
        read = pc.cast(pc.if_else(null, None, bare), pa.float64())
    except pa.ArrowInvalid:
        return None
    values: Matrix = read.to_numpy(zero_copy_only=False)
    unknown = np.isnan(values)
    if np.isinf(values).any() or int(unknown.sum()) != read.null_count:  # Arrow reads inf and -nan too
        return None
    if feature.type == "integer":
        if (np.abs(values) >= LARGEST_INTEGER).any():  # the text may be an integer that a float cannot hold
            return None
        low, high = integer_bounds(feature)
        values = values + 0.0  # an integer has no -0.0
        inside = (values >= low) & (values <= high) & (np.floor(values) == values)
    else:
        inside = np.ones(len(values), dtype=bool)
        if feature.min is not None:
            inside &= values >= feature.min
        if feature.max is not None:
            inside &= values <= feature.max
        if feature.exclusive_min is not None:
            inside &= values > feature.exclusive_min
        if feature.exclusive_max is not None:
            inside &= values < feature.exclusive_max
    return values, np.where(unknown, takes_null(card, feature), inside)


def _texts(card: Card, feature: Feature, texts: Any) -> tuple[NDArray[np.object_], NDArray[np.bool_]] | None:  # noqa: ANN401
    """Check the lengths of a whole column; None when a cell holds a NUL."""
    if pc.any(pc.match_substring(texts, "\x00")).as_py():
        return None
    lengths = pc.utf8_length(texts).to_numpy()
    good = lengths >= (feature.min_length or 0)
    if feature.max_length is not None:
        good &= lengths <= feature.max_length
    null = lengths == 0
    if words := missing_words(feature):
        null |= pc.is_in(texts, value_set=pa.array(sorted(words))).to_numpy(zero_copy_only=False)
    good[null] = takes_null(card, feature)
    distinct = np.array(texts.to_pylist(), dtype=object)
    distinct[null] = None
    return distinct, good


def _one_by_one(
    card: Card, feature: Feature, texts: list[str], numbers: NumberForm
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    text = feature.type == "string"
    distinct = np.full(len(texts), None, dtype=object if text else np.float64)
    good = np.zeros(len(texts), dtype=bool)
    words = missing_words(feature)
    for place, cell in enumerate(texts):
        value = None if cell in words else read_cell(feature.type, cell, numbers)
        if isinstance(value, str) and may_be_written(card, feature):
            value = read_text(feature, value, is_read=card.text == "read")
        if value is None:
            good[place] = takes_null(card, feature)
            continue
        canonical, fault = read_value(feature, value)
        if fault is None:
            distinct[place] = canonical
            good[place] = True
    return distinct, good


def _json(kind: FeatureType, distinct: NDArray[Any], prefix: str) -> list[str]:
    if kind == "string":
        return [prefix + orjson.dumps(value).decode() for value in distinct.tolist()]
    if kind == "boolean":
        return [prefix + _BOOLEANS.get(value, "null") for value in distinct.tolist()]
    # One call for all numbers: the shortest text that reads back exactly, null for NaN.
    text = orjson.dumps(distinct, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].decode()
    if kind == "integer":
        text = text.replace(".0", "")  # below 2**53 all are written in full: 35.0
    return (prefix + text.replace(",", "\n" + prefix)).split("\n")
