"""Values from notebooks as rows of plain JSON values: data frames, series, NumPy scalars, dates.

No library of them is needed: a data frame is known by its methods, a value by its type's. A missing value (NaN, NaT,
pandas.NA) becomes null.
"""

import datetime
import decimal
import math
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO, Protocol, TypeAlias, runtime_checkable

from guichet.errors import Unusable


class Series(Protocol):
    """A row that names its values: a pandas Series."""

    def to_dict(self) -> Any:  # noqa: ANN401, D102
        ...


@runtime_checkable
class Frame(Protocol):
    """A table of rows: a DataFrame of pandas or Polars."""

    @property
    def columns(self) -> Any:  # noqa: ANN401, D102
        ...

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102


Row: TypeAlias = Mapping[str, Any] | Series | Frame  # of a data frame: its only row
Rows: TypeAlias = Iterable[Row] | Frame


def plain_row(row: Row) -> dict[str, Any]:
    """Return one row as plain JSON values; raise Unusable with the feature's name for other values."""
    if isinstance(row, Frame):
        rows = plain_rows(row)
        if len(rows) != 1:
            raise Unusable(f"The data frame has {len(rows)} rows: give one of them, or use predict_batch.")
        return rows[0]
    return _plain_row(row, "")


def plain_rows(rows: Rows) -> list[dict[str, Any]]:
    """Return several rows as plain JSON values; raise Unusable with the row's place, from 0, and the feature's name."""
    if isinstance(rows, Frame):
        rows = _records(rows)
    if isinstance(rows, Mapping | str | bytes) or not isinstance(rows, Iterable):
        raise Unusable("The rows must be a list of rows or a data frame: for one row use predict.")
    return [_plain_row(row, f"row {place}: ") for place, row in enumerate(rows)]


def index_of(rows: object) -> Any:  # noqa: ANN401 - a pandas.Index
    """Return the index of a pandas DataFrame, for the results; None for anything else."""
    return getattr(rows, "index", None) if isinstance(rows, Frame) else None


def write_csv(frame: Frame, *, id_column: str | None) -> BinaryIO:
    """Return a file with the rows of a data frame: UTF-8, commas, points, a header. Its reader closes it.

    The index of a pandas DataFrame is written if it is named and the `id_column`.
    """
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the reader closes it
    try:
        if hasattr(frame, "to_csv"):  # pandas
            _check_names(frame)
            name = getattr(getattr(frame, "index", None), "name", None)
            frame.to_csv(file, index=id_column is not None and name == id_column, encoding="utf-8", mode="wb")
        elif hasattr(frame, "write_csv"):  # Polars
            frame.write_csv(file)
        else:
            raise Unusable("This table cannot be written as CSV: give a DataFrame of pandas or Polars, or a file.")
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _records(frame: Frame) -> Iterable[Row]:
    for name in ("to_dicts", "to_pylist"):  # Polars, Arrow
        if hasattr(frame, name):
            records: list[dict[str, Any]] = getattr(frame, name)()
            return records
    if not hasattr(frame, "to_dict"):
        raise Unusable("This table cannot be read: give a DataFrame of pandas or Polars.")
    _check_names(frame)
    records = frame.to_dict("records")
    return records


def _check_names(frame: Frame) -> None:
    names = list(frame.columns)
    if len(set(names)) < len(names):
        twice = sorted({str(name) for name in names if names.count(name) > 1})
        raise Unusable(f"The data frame has columns of the same name: {', '.join(twice)}.")


def _plain_row(row: object, where: str) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        row = row.to_dict() if hasattr(row, "to_dict") else row._asdict() if hasattr(row, "_asdict") else row
    if not isinstance(row, Mapping):
        raise Unusable(f"{where}a {type(row).__name__} is not a row: give feature names with their values, {{...}}.")
    plain = {}
    for name, value in row.items():
        if not isinstance(name, str):
            raise Unusable(f"{where}a feature's name is text, and {name!r} is not: name the columns of the data frame.")
        try:
            plain[str(name)] = _plain(value)
        except ValueError as error:
            raise Unusable(f"{where}`{name}` cannot be sent: {error}.") from None
    return plain


def _plain(value: Any) -> Any:  # noqa: ANN401 - any value, and the JSON scalar that says it
    """Return a value as JSON has it; raise ValueError unless it is a number, text, boolean, date or missing value."""
    if value is None or type(value) in (str, int, bool):
        return value
    kind = type(value)
    if kind.__name__ in ("NAType", "NaTType"):  # pandas.NA and NaT
        return None
    if kind.__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        if kind.__name__ == "datetime64":
            # as microseconds: nanoseconds would become a plain number
            value = value.astype("datetime64[us]").item()
        elif kind.__name__ != "timedelta64":
            value = value.item()
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if math.isinf(value):
            raise ValueError("JSON has no infinity (a missing value is None or NaN)")
        return float(value)
    if isinstance(value, datetime.date | datetime.time):  # a datetime and a pandas.Timestamp are dates, too
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return _plain(float(value))
    if isinstance(value, str | bool | int | list | dict) or value is None:
        return value  # what JSON can say and no feature is, the service refuses by its row
    raise ValueError(f"a {kind.__name__} is not a number, a text, a boolean, a date or None")
