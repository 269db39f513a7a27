"""Category encoders as tables: read from the fitted encoder's own answers, not imitated.

Every known category, an unknown one and a missing one are sent through OneHotEncoder, OrdinalEncoder or TargetEncoder
when a model is loaded, so that dropped, rare, unknown and missing categories come out as the encoder has them.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.encoding.blocks import EncodedBlock, Estimator, FeatureBlock, Matrix, RowValues, Unsupported
from shared.encoding.pipelines import one_hot_widths
from shared.encoding.transformers import apply_own_transform, is_missing, to_float64, without_feature_names


class UnknownCategory(ValueError):
    """A value outside the categories of an encoder that was told to refuse them."""


class CategoryTable(dict[Any, float]):
    """Category -> encoded value; `unknown` for any other, or UnknownCategory where the encoder refuses."""

    __slots__ = ("name", "unknown")

    def __init__(self, entries: dict[Any, float], *, unknown: float | None, name: str) -> None:
        super().__init__(entries)
        self.unknown = unknown
        self.name = name

    def __missing__(self, key: object) -> float:
        # A null that is not an entry was refused by the encoder, and must not pass as unknown.
        if key is None:
            raise UnknownCategory(f"{self.name} is null, and the model was not trained with nulls there")
        if self.unknown is None:
            raise UnknownCategory(f"{self.name} has a category that the model was not trained with")
        return self.unknown


def one_hot(step: Estimator, block: FeatureBlock | EncodedBlock) -> EncodedBlock:
    """OneHotEncoder: one column per category, by a table from value to column."""
    if isinstance(block, EncodedBlock):
        return apply_own_transform(step, block)
    widths = one_hot_widths(step)
    answers = _probe(step, block.names)
    starts = np.concatenate([[0], np.cumsum(widths)])
    width = int(starts[-1])
    if answers and answers[0].width != width:
        raise Unsupported("OneHotEncoder has columns that we cannot attribute to its features")
    tables = []
    for answer, low, high in zip(answers, starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        # Column `width` does not exist in the result: it takes the ones of values that set no column.
        def place(line: Matrix, low: int = low, high: int = high) -> int:
            hits = np.flatnonzero(line[low:high])
            return low + int(hits[0]) if len(hits) else width

        tables.append(answer.table(place, block.fills))
    getters = [table.__getitem__ for table in tables]
    index = [block.plan.column(name) for name in block.names]

    def fill(rows: RowValues, out: Matrix) -> None:
        columns = rows.columns
        places = np.array([list(map(get, columns[i])) for get, i in zip(getters, index, strict=True)], dtype=np.intp)
        wide = np.zeros((len(out), width + 1))
        wide[np.arange(len(out)), places] = 1.0
        out[:] = wide[:, :width]

    features = [(name,) for name, count in zip(block.names, widths, strict=True) for _ in range(count)]
    counts = ", ".join(f"{name} {count}" for name, count in zip(block.names, widths, strict=True))
    return block.then(step, fill, features, becomes=f"one column a category, by a table: {counts}")


def ordinal_or_target(step: Estimator, block: FeatureBlock | EncodedBlock) -> EncodedBlock:
    """OrdinalEncoder or TargetEncoder: one number per feature, by a table."""
    if isinstance(block, EncodedBlock):
        return apply_own_transform(step, block)
    answers = _probe(step, block.names)
    if answers and answers[0].width != len(block.names):
        raise Unsupported(f"{type(step).__name__} gives several columns per feature")
    tables = [
        answer.table(lambda line, j=j: float(line[j]), block.fills)  # type: ignore[misc]
        for j, answer in enumerate(answers)
    ]
    getters = [table.__getitem__ for table in tables]
    index = [block.plan.column(name) for name in block.names]

    def fill(rows: RowValues, out: Matrix) -> None:
        columns = rows.columns
        for j, (get, i) in enumerate(zip(getters, index, strict=True)):
            out[:, j] = list(map(get, columns[i]))

    return block.then(step, fill, [(name,) for name in block.names], becomes="one number a category, by a table")


@dataclass(slots=True)
class _ProbeResult:
    """What a fitted encoder makes of one feature's categories; a line is an encoded row, None a refusal."""

    name: str
    lines: dict[Any, Matrix]
    unknown: Matrix | None
    missing: Matrix | None
    width: int

    def table(self, read: Callable[[Matrix], float], fills: dict[str, Any]) -> CategoryTable:
        """Keep of every line only what `read` finds, and send None to where the imputer before sends it."""
        entries = {key: read(line) for key, line in self.lines.items()}
        unknown = None if self.unknown is None else read(self.unknown)
        table = CategoryTable(entries, unknown=unknown, name=self.name)
        fill = fills.get(self.name)
        if fill is not None:
            if fill in entries or unknown is not None:
                table[None] = table[fill]
        elif self.missing is not None:
            table[None] = read(self.missing)
        return table


def _probe(step: Estimator, names: list[str]) -> list[_ProbeResult]:
    encoder = without_feature_names(step)
    categories = [list(np.asarray(values).tolist()) for values in step.categories_]
    text = any(np.asarray(values).dtype.kind not in "biuf" for values in step.categories_)
    present = [[value for value in values if not is_missing(value)] for values in categories]
    if not all(present):
        raise Unsupported(f"{type(step).__name__} has a feature without categories")

    def send(lines: list[list[Any]]) -> Matrix | None:
        try:
            return to_float64(encoder.transform(np.array(lines, dtype=object if text else np.float64)))
        except ValueError:
            return None  # the encoder refuses such a value

    answers = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # encoders warn about the unknown value that we send on purpose
        first = [values[0] for values in present]
        for j, name in enumerate(names):
            encoded = send([[*first[:j], value, *first[j + 1 :]] for value in present[j]])
            if encoded is None:
                raise Unsupported(f"{type(step).__name__} refuses its own categories of {name}")
            absent = None if None in categories[j] else np.nan
            outside = _outside(present[j], text=text)
            unknown = send([[*first[:j], outside, *first[j + 1 :]]])
            missing = send([[*first[:j], absent, *first[j + 1 :]]])
            lines = dict(zip(present[j], encoded, strict=True))
            answers.append(
                _ProbeResult(
                    name,
                    lines,
                    None if unknown is None else unknown[0],
                    None if missing is None else missing[0],
                    encoded.shape[1],
                )
            )
    return answers


def _outside(categories: list[Any], *, text: bool) -> str | float:
    if text:
        return "\x00outside"
    return float(max(categories)) + 1.0
