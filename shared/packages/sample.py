"""Reference rows: the sample that shows what a model was trained on, as CSV, JSON, Parquet or an Excel workbook.

They prove that a faster scorer gives the pipeline's answers, and teach the types of a model without a card. CSV is read
here as it is where it is sent to be scored.
"""

import csv
import io
import json
import logging
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from shared.cards.card import Card
from shared.cards.cell_values import read_cell
from shared.cards.features import FeatureType, missing_words
from shared.cards.numbers import POINT, NumberForm
from shared.cards.validator import RowValidator
from shared.csv.format import Chunk, CsvOptions, Limits, likely_delimiter
from shared.errors import CardError, GuichetError
from shared.faults import few, sentence
from shared.files import open_file

if TYPE_CHECKING:
    from shared.csv.uploads.columns import ExpectedColumns
    from shared.csv.uploads.reader import UploadReader

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_ROWS = 500
JSON_LINES = {".jsonl", ".ndjson"}
TYPED = {*JSON_LINES, ".json", ".parquet", ".pq"}  # other files hold texts
SAMPLE_SEED = 1729  # any number, but always the same one: adding a model twice takes the same sample
LIMITS = Limits(max_bytes=2**63 - 1, max_rows=2**31 - 2, max_record_bytes=1_000_000)
READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ReferenceRows:
    """The rows of one file, in its order."""

    rows: list[dict[str, Any]]  # of CSV: text as it is written, None where a cell is empty; else the file's own values
    lines: list[int]  # of each row: its place in the file, from 1; of text, the line where it begins
    numbers: NumberForm = POINT  # how numbers are written where they are text
    notices: list[str] = field(default_factory=list)  # what was read otherwise than it is written
    unit: Literal["line", "row"] = "line"  # what `lines` counts: a table and a JSON array have no lines


def read_rows(
    path: Path, expected: "ExpectedColumns | None" = None, csv_options: CsvOptions | None = None
) -> ReferenceRows:
    """Return the rows of a file: CSV, an Excel workbook, Parquet, JSON lines or a JSON array; CardError otherwise.

    `expected` holds the known columns of the model, `csv_options` the known format of a CSV file; the rest is detected.
    """
    try:
        open_file(path).close()
    except FileNotFoundError:
        raise CardError(f"{path} is missing: name a CSV, Excel, Parquet or JSON file with reference rows.") from None
    except OSError as error:
        raise CardError(f"{path} cannot be read ({error.strerror}): check the file and its rights.") from error
    if path.suffix in {*JSON_LINES, ".json"}:
        file_rows = _read_json(path)
    elif path.suffix in {".parquet", ".pq"}:
        file_rows = _read_parquet(path)
    else:
        file_rows = _read_csv(path, expected, csv_options or CsvOptions())
    if not file_rows.rows:
        raise CardError(f"{path} holds no rows: give at least one, and some hundreds if you can.")
    for notice in file_rows.notices:
        log.warning("%s: %s", path, notice)
    return file_rows


def _read_json(path: Path) -> ReferenceRows:
    try:
        with open_file(path) as file:
            text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CardError(f"{path} is not UTF-8 text, as JSON is: save it as UTF-8 and try again.") from error
    if text.lstrip().startswith("["):
        return _read_json_array(path, text)
    rows, lines = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CardError(
                f"{path}, line {number} is not JSON: write one object a line, or a list of objects."
            ) from error
        if not isinstance(row, dict):
            raise CardError(f"{path}, line {number} is not an object: write one object of features a line.")
        rows.append(row)
        lines.append(number)
    return ReferenceRows(rows, lines)


def _read_json_array(path: Path, text: str) -> ReferenceRows:
    try:
        rows = json.loads(text)
    except RecursionError:
        raise CardError(f"{path} holds lists within lists without end: write a list of objects.") from None
    except ValueError as error:
        raise CardError(f"{path} is not JSON ({error}): write a list of objects, or one object a line.") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise CardError(
                f"{path}, row {number} is not an object: write a list of objects (in pandas: "
                'to_json(..., orient="records")).'
            )
    return ReferenceRows(rows, list(range(1, len(rows) + 1)), unit="row")


def _read_parquet(path: Path) -> ReferenceRows:
    import pyarrow as pa  # heavy, and only few bring such rows
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise CardError(f"{path} cannot be read as Parquet ({type(error).__name__}): write it again.") from error
    names = [name for name in table.column_names if not name.startswith("__index_level_")]  # pandas' own
    rows = [{name: _plain(path, name, value) for name, value in row.items()} for row in table.select(names).to_pylist()]
    return ReferenceRows(rows, list(range(1, len(rows) + 1)), unit="row")


def _plain(path: Path, name: str, value: object) -> object:
    """Return a value of a table as JSON has it: dates as text, NaN as null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, date | time):
        return str(value)
    raise CardError(f"{path}: the column {name!r} holds {type(value).__name__}, which is no number and no text.")


def _read_csv(path: Path, expected: "ExpectedColumns | None", csv_options: CsvOptions) -> ReferenceRows:
    from shared.csv.uploads.columns import ExpectedColumns
    from shared.csv.uploads.reader import UploadReader  # heavy; a package's own rows are JSON lines

    file = UploadReader(None, csv_options, LIMITS, expected=expected or ExpectedColumns(others=None))
    file.likely_delimiter = likely_delimiter(path.name)
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    read = 0  # lines of the chunks so far
    try:
        with path.open("rb") as source:
            for chunk in _chunks(file, source):
                assert file.format is not None
                names = file.format.columns
                records = csv.reader(io.StringIO(chunk.data.decode(), newline=""), delimiter=file.format.delimiter)
                before = 0
                for cells in records:
                    line, before = file.first_line + read + before, records.line_num
                    if len(cells) not in (0, len(names)):
                        raise CardError(
                            f"{path}, line {line} has {len(cells)} cells and the header {len(names)}: correct it."
                        )
                    if cells:
                        rows.append({name: cell or None for name, cell in zip(names, cells, strict=True)})
                        lines.append(line)
                read += before
    except CardError:
        raise
    except GuichetError as error:
        raise CardError(f"{path}: {error.detail}") from error
    assert file.format is not None
    return ReferenceRows(rows, lines, file.format.numbers, file.notices)


def _chunks(file: "UploadReader", source: BufferedReader) -> Iterator[Chunk]:
    while data := source.read(READ_BYTES):
        yield from file.feed(data)
    yield from file.finish()


def value_of(text: object, kind: FeatureType, numbers: NumberForm = POINT) -> Any:  # noqa: ANN401 - one of the JSON types
    """Return a cell's text as a value of this feature type, None for a missing one; other objects unchanged.

    Text that is not of this type comes back as it is, for the validator to refuse in its own words.
    """
    if not isinstance(text, str):
        return None if isinstance(text, float) and math.isnan(text) else text
    value = read_cell(kind, text, numbers)
    return int(value) if kind == "integer" and isinstance(value, float) and value.is_integer() else value


def canonical_rows(
    card: Card,
    rows: Sequence[Mapping[str, Any]],
    *,
    source: str,
    numbers: NumberForm = POINT,
    lines: Sequence[int] | None = None,
    unit: str = "row",
) -> list[dict[str, Any]]:
    """Return at most 500 of the rows in the card's own form; raise CardError that tells the first bad row's faults.

    Columns that the card does not name (the target, an id) are left out; cells of text become the card's types. `lines`
    are the places of the rows in their file, in this `unit`, by which a bad one is named.
    """
    kinds = {feature.name: feature.type for feature in card.row_features}
    is_typed = Path(source).suffix in TYPED
    words = {feature.name: frozenset() if is_typed else missing_words(feature) for feature in card.row_features}
    typed = [
        {
            name: None
            if isinstance(row[name], str) and row[name] in words[name]
            else value_of(row[name], kind, numbers)
            for name, kind in kinds.items()
            if name in row
        }
        for row in sample(rows)
    ]
    good, faults = RowValidator(card).validate_many(typed)
    for line, row_faults in zip(sample(lines or range(1, len(rows) + 1)), faults, strict=True):
        if row_faults:
            subject = f"{source}: {unit} {line} does not fit the card of {card.name}"
            raise CardError(f"{sentence(row_faults, subject=subject)} Correct the row, or the card.")
    return [row for row in good if row is not None]


def check_target(target: str, rows: Iterable[Mapping[str, Any]], *, use: str = "to be the target") -> None:
    """Raise CardError, with the first ten columns, when no row has the target column, or one for another `use`."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if target not in columns:
        raise CardError(f"The reference rows have no column {target[:70]!r} {use}: they have {few(columns, 10)}.")


def sample(rows: Sequence[T], limit: int = MAX_ROWS) -> list[T]:
    """Return all rows, or `limit` of them drawn with a fixed seed, in their order."""
    if len(rows) <= limit:
        return list(rows)
    chosen = sorted(random.Random(SAMPLE_SEED).sample(range(len(rows)), limit))  # noqa: S311 - not a secret
    return [rows[index] for index in chosen]


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON lines in UTF-8."""
    path.write_text(rows_text(rows), encoding="utf-8")


def rows_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as JSON lines."""
    return "".join(json.dumps(dict(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
