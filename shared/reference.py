"""Reference rows: the sample that shows what a model was trained on, as CSV or JSON lines.

They prove that a faster scorer gives the pipeline's answers, and teach the types of a model without a card.
"""

import csv
import io
import json
import logging
import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.cards import Card
from shared.errors import CardError
from shared.features import missing_words
from shared.rows import RowValidator

log = logging.getLogger(__name__)

MAX_ROWS = 500
JSON_LINES = {".jsonl", ".ndjson"}  # other files are read as CSV
SAMPLE_SEED = 1729  # any number, but always the same one: adding a model twice takes the same sample
_COMMA_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:,[0-9]*)?|,[0-9]+)(?:[eE][+-]?[0-9]+)?")
NULLS = {"", "na", "n/a", "nan", "null", "none"}  # what a number's cell holds when it is not known


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a .csv file (every cell text, None where empty) or of a .jsonl file; CardError otherwise."""
    try:
        text = _decode(path)
    except FileNotFoundError:
        raise CardError(f"{path} is missing: name a CSV or JSON lines file with reference rows.") from None
    except OSError as error:
        raise CardError(f"{path} cannot be read ({error.strerror}): check the file and its rights.") from error
    rows = _read_json_lines(path, text) if path.suffix in JSON_LINES else _read_csv(path, text)
    if not rows:
        raise CardError(f"{path} holds no rows: give at least one, and some hundreds if you can.")
    return rows


def _decode(path: Path) -> str:
    """Return the text of a file in UTF-8, or in CP1252, as spreadsheets in western Europe write it."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        log.warning("%s is not UTF-8: it is read as CP1252 (as Excel writes it)", path)
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError as error:
        raise CardError(f"{path} is neither UTF-8 nor CP1252 text: save it as UTF-8 and try again.") from error


def _read_json_lines(path: Path, text: str) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise CardError(f"{path}, line {number} is not JSON: write one object a line.") from error
        if not isinstance(row, dict):
            raise CardError(f"{path}, line {number} is not an object: write one object of features a line.")
        rows.append(row)
    return rows


def _read_csv(path: Path, text: str) -> list[dict[str, Any]]:
    delimiter = _delimiter(text)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        header = next(lines, [])
        if len(set(header)) != len(header):
            raise CardError(f"{path} names a column twice: give every column its own name.")
        rows = []
        for cells in lines:
            if len(cells) not in (0, len(header)):
                raise CardError(
                    f"{path}, line {lines.line_num} has {len(cells)} cells and the header {len(header)}: correct it."
                )
            if cells:
                rows.append({name: cell or None for name, cell in zip(header, cells, strict=True)})
    except csv.Error as error:
        raise CardError(f"{path}, line {lines.line_num} is not CSV ({error}): save the file again.") from error
    if delimiter == ";":
        _write_points(header, rows)
    return rows


def _write_points(header: Iterable[str], rows: Iterable[dict[str, Any]]) -> None:
    """Write the decimal commas of columns that hold nothing but numbers as points."""
    for name in header:
        cells = [row[name] for row in rows if row[name] is not None]
        if any("," in cell for cell in cells) and all(_COMMA_NUMBER.fullmatch(cell.strip()) for cell in cells):
            for row in rows:
                row[name] = row[name] and row[name].strip().replace(",", ".")


def _delimiter(text: str) -> str:
    header = text.partition("\n")[0]
    return max(",;\t", key=header.count)  # spreadsheets in many languages write semicolons


def value_of(text: object, kind: str) -> Any:  # noqa: ANN401 - one of the JSON types
    """Return a cell's text as a value of this feature type, None where it is not known; other objects as they are.

    Text that is not of this type comes back as it is, for the validator to refuse in its own words.
    """
    if not isinstance(text, str):
        return None if isinstance(text, float) and math.isnan(text) else text
    if kind == "string":
        return text
    word = text.strip().lower()
    if word in NULLS:
        return None
    if kind == "boolean":
        return {"true": True, "false": False, "1": True, "0": False}.get(word, text)
    try:
        return int(word) if kind == "integer" else float(word)
    except ValueError:
        return _integral(word, text) if kind == "integer" else text


def _integral(word: str, text: str) -> int | str:
    try:
        number = float(word)
    except ValueError:
        return text
    return int(number) if number.is_integer() else text


def canonical_rows(card: Card, rows: Iterable[Mapping[str, Any]], *, source: str) -> list[dict[str, Any]]:
    """Return at most 500 of the rows in the card's own form; raise CardError that tells the first bad row's faults.

    Columns that the card does not name (the target, an id) are left out; cells of text become the card's types.
    """
    kinds = {feature.name: feature.type for feature in card.row_features}
    is_json = Path(source).suffix in JSON_LINES
    words = {feature.name: frozenset() if is_json else missing_words(feature) for feature in card.row_features}
    typed = [
        {
            name: None if row[name] in words[name] else value_of(row[name], kind)
            for name, kind in kinds.items()
            if name in row
        }
        for row in sample(list(rows))
    ]
    good, faults = RowValidator(card).validate_many(typed)
    for number, found in enumerate(faults, start=1):
        if found:
            told = "; ".join(f"{fault.pointer} {fault.message}" for fault in found[:3])
            raise CardError(
                f"{source}: sampled row {number} does not fit the card of {card.name} ({told}). "
                "Correct the row, or the card."
            )
    return [row for row in good if row is not None]


def check_target(target: str, rows: Iterable[Mapping[str, Any]], *, use: str = "to be the target") -> None:
    """Raise CardError, with the first ten columns, when no row has the target column, or one for another `use`."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if target not in columns:
        more = f" and {len(columns) - 10} more" if len(columns) > 10 else ""
        raise CardError(
            f"The reference rows have no column {target[:70]!r} {use}: they have {', '.join(columns[:10])}{more}."
        )


def sample(rows: Sequence[Mapping[str, Any]], limit: int = MAX_ROWS) -> list[Mapping[str, Any]]:
    """Return all rows, or `limit` of them drawn with a fixed seed, in their order."""
    if len(rows) <= limit:
        return list(rows)
    chosen = sorted(random.Random(SAMPLE_SEED).sample(range(len(rows)), limit))  # noqa: S311 - not a secret
    return [rows[index] for index in chosen]


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON lines in UTF-8."""
    lines = (json.dumps(dict(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
