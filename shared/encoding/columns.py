"""The good rows of a chunk by column, for scorers of thousands of rows at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.cards.features import FeatureType


@dataclass(frozen=True, slots=True)
class Column:
    """The canonical values of one feature: each distinct one once, and which of them every row has."""

    kind: FeatureType
    distinct: NDArray[Any]  # float64 with NaN for null; of text: objects, None for null
    codes: NDArray[np.integer[Any]]  # (n,): each row's place in `distinct`

    def at(self, rows: NDArray[np.intp]) -> "Column":
        """Return the column of these rows only."""
        return Column(self.kind, self.distinct, self.codes[rows])


class Columns:
    """Canonical rows, as RowValidator gives them, turned on their side."""

    def __init__(self, columns: Mapping[str, Column], count: int) -> None:
        self.columns = columns  # in card order
        self.count = count

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, FeatureType]) -> "Columns":
        """Return canonical rows turned on their side; `kinds` are the types of their features, in card order."""
        columns = {}
        for name, kind in kinds.items():
            values = list(map(itemgetter(name), rows))
            places = {value: place for place, value in enumerate(dict.fromkeys(values))}
            dtype = object if kind == "string" else np.float64
            distinct = np.array([_stored(value, kind) for value in places], dtype=dtype)
            codes = np.fromiter(map(places.__getitem__, values), np.intp, len(rows))
            columns[name] = Column(kind, distinct, codes)
        return cls(columns, len(rows))

    def floats(self, name: str) -> NDArray[np.float64]:
        """Return an integer, number or boolean feature as float64, NaN for null; shape (n,)."""
        column = self.columns[name]
        if column.kind == "string":
            raise TypeError(f"{name} is text")
        values: NDArray[np.float64] = column.distinct[column.codes]
        return values

    def objects(self, name: str) -> list[Any]:
        """Return a feature's values as a canonical row holds them: int, float, bool, str, or None for null."""
        column = self.columns[name]
        distinct = column.distinct if column.kind == "string" else _objects(column)
        values: list[Any] = distinct[column.codes].tolist()
        return values

    def rows(self) -> list[dict[str, Any]]:
        """Return the canonical rows."""
        names = list(self.columns)
        return [dict(zip(names, row, strict=True)) for row in zip(*map(self.objects, names), strict=True)]


def _stored(value: Any, kind: FeatureType) -> Any:  # noqa: ANN401 - what a column holds of a canonical value
    return np.nan if value is None and kind != "string" else value


def _objects(column: Column) -> NDArray[np.object_]:
    kinds = {"integer": int, "number": float, "boolean": bool}
    make = kinds[column.kind]
    return np.array([None if value != value else make(value) for value in column.distinct.tolist()], dtype=object)
