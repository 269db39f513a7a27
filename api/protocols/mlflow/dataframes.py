"""The bodies of MLflow's scoring server, as rows by feature name.

`dataframe_split`, `dataframe_records`, `inputs` and `instances` in JSON, or CSV:
https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/. As there, other fields of the body are left alone
and NaN, which Python's json module writes, is null.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from api.jobs.json_body import ONE_ROW, STRING, Most, most_of, parse_json
from api.models.catalog import Version
from shared.cards.validator import Tally
from shared.config.settings import Settings
from shared.csv import format as csv_format
from shared.errors import MAX_FAULTS, MalformedBody, RowFaults, TooLarge
from shared.faults import FIRST, Fault, OwnWords, sentence

FORMS = ("dataframe_split", "dataframe_records", "inputs", "instances")

_STRING = re.compile(STRING, re.DOTALL)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RawFrame:
    """The rows of a request as it has them."""

    form: str
    rows: list[Any]
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DataFrame:
    """The rows of a request, checked against the model's card, and the requested outputs."""

    rows: list[Row]  # canonical
    params: Mapping[str, Any]


def read_json_frame(version: Version, body: bytes, settings: Settings) -> DataFrame:
    """Return the rows of a JSON body; raise MalformedBody, TooLarge, or RowFaults with all that is wrong with them."""
    return validate_frame(version, read_form(version, body, settings))


def read_form(version: Version, body: bytes, settings: Settings) -> RawFrame:
    """Return the rows of a JSON body before they are checked; raise MalformedBody, TooLarge, or RowFaults."""
    # Values may be lists of one value each, by row or by column.
    width = len(version.card.sent_features)
    content = _parse(body, most_of(settings.max_batch_rows, containers=width + 2, features=width))
    if not isinstance(content, dict):
        raise _refusal("not_an_object", f"The body must be an object with one of {', '.join(FORMS)}")
    forms = [form for form in FORMS if form in content]
    if len(forms) != 1:
        count = f"it has {' and '.join(forms)}" if forms else "it has none of them"
        raise _refusal("form", f"The body must have exactly one of {', '.join(FORMS)}: {count}")
    params = content.get("params")
    if not isinstance(params, dict | None):
        raise _refusal("type", '`params` must be an object such as {"output": "predict_proba"}, or be left out')
    rows = _rows_of(version, forms[0], content[forms[0]], max_rows=settings.max_batch_rows)
    return RawFrame(forms[0], rows, params or {})


def validate_frame(version: Version, frame: RawFrame) -> DataFrame:
    """Return the canonical rows; raise RowFaults with all that is wrong with them."""
    tally = Tally()
    canonical, faults = version.validator.validate_many(frame.rows, tally)
    row_faults = [(place, fault) for place, one_row in enumerate(faults) for fault in one_row]
    if row_faults:
        raise _invalid_rows(version, frame.form, row_faults, tally.count)
    return DataFrame([row for row in canonical if row is not None], frame.params)


def read_csv_frame(version: Version, body: bytes, settings: Settings, *, encoding: str | None) -> DataFrame:
    """Return the rows of a CSV body with a header; raise as files in CSV are refused, or RowFaults."""
    from shared.csv.chunk_reader import ChunkReader
    from shared.csv.uploads.reader import UploadReader  # Arrow: an API that is never sent CSV does without

    limits = csv_format.Limits(settings.max_body_bytes, settings.max_batch_rows, settings.max_csv_record_bytes)
    strict = version.card.extra == "refuse"
    file = UploadReader(version.card, csv_format.CsvOptions(encoding=encoding, strict=strict), limits)
    chunks = [*file.feed(body), *file.finish()]
    assert file.format is not None
    reader = ChunkReader(version.card, version.validator, file.format)
    rows: list[Row] = []
    faults: list[tuple[int, Fault]] = []
    for chunk in chunks:
        read = reader.read(chunk.data, first_row=chunk.first_row, row_count=chunk.row_count)
        rows += [orjson.loads(text) for text in read.features]
        faults += [
            (chunk.first_row + offset, fault) for offset, row_faults in read.faults.items() for fault in row_faults
        ]
    if faults:
        raise _invalid_rows(version, "rows", faults, len(faults))
    names = [feature.name for feature in version.card.row_features]
    return DataFrame([{name: row[name] for name in names} for row in rows], {})


def _parse(body: bytes, most: Most = ONE_ROW) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return parse_json(body, most=most)
    except MalformedBody:
        if b"NaN" not in body:
            raise
    pieces: list[bytes] = []
    start = 0
    for string in _STRING.finditer(body):  # what stands in one is left alone
        pieces += body[start : string.start()].replace(b"NaN", b"null"), string[0]
        start = string.end()
    return parse_json(b"".join([*pieces, body[start:].replace(b"NaN", b"null")]), most=most)


# ── forms ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _rows_of(version: Version, form: str, content: Any, *, max_rows: int) -> list[Any]:  # noqa: ANN401
    """Return the rows as they were given, by the names of their columns."""
    if form == "dataframe_split":
        rows = _from_split(version, content, max_rows=max_rows)
    elif form == "dataframe_records":
        if not isinstance(content, list):
            raise _refusal("type", "`dataframe_records` must be a list of objects, one for each row")
        rows = content
    elif isinstance(content, dict):
        rows = _from_columns(form, content, max_rows=max_rows)
    elif isinstance(content, list):
        rows = _from_list(version, form, content, max_rows=max_rows)
    else:
        raise _refusal("type", f"`{form}` must be a list of rows, or an object of columns")
    if not rows:
        raise _refusal("length", f"`{form}` must hold at least one row")
    _check_count(rows, max_rows)
    return rows


def _from_split(version: Version, content: object, *, max_rows: int) -> list[Row]:
    keys = {"columns", "data", "index"}
    if not isinstance(content, dict) or "data" not in content or content.keys() - keys:
        raise _refusal("type", "`dataframe_split` must be an object with `columns`, `data` and, if you like, `index`")
    data, columns, index = content["data"], content.get("columns"), content.get("index")
    if not isinstance(data, list):
        raise _refusal("type", "`data` of `dataframe_split` must be a list of rows, each a list of values")
    _check_count(data, max_rows)
    if index is not None and (not isinstance(index, list) or len(index) != len(data)):
        raise _refusal("length", f"`index` of `dataframe_split` must be a list as long as `data`: {len(data)}")
    if columns is None or _are_numbered(columns, len(version.card.sent_features)):
        return _from_matrix(version, "dataframe_split", data)
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise _refusal("type", "`columns` of `dataframe_split` must be a list of names")
    if len(set(columns)) < len(columns):
        counts = Counter(columns)
        twice = [feature.name for feature in version.card.row_features if counts[feature.name] > 1]
        which = f" ({', '.join(twice[:5])})" if twice else ""
        raise _refusal("duplicate", f"`columns` of `dataframe_split` has a name twice{which}: keep one of them")
    return [dict(zip(columns, row, strict=True)) for row in _same_width("dataframe_split", data, len(columns))]


def _are_numbered(columns: object, count: int) -> bool:
    """Return whether columns are those of pandas for a matrix without names: 0, 1, ...; False and 1.0 are equal."""
    return isinstance(columns, list) and columns == list(range(count)) and all(type(name) is int for name in columns)


def _from_columns(form: str, content: Row, *, max_rows: int) -> list[Row]:
    """Return the rows of values by column: a list for each, or one value for each, which is one row."""
    if not any(isinstance(values, list) for values in content.values()):
        return [content] if content else []
    columns: dict[str, list[Any]] = {}
    for name, values in content.items():
        if not isinstance(values, list):
            raise _refusal("type", f"`{form}` must give every column a list of values, or every column one value")
        flat = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in values]  # [n] or [n, 1]
        _check_count(flat, max_rows)
        columns[name] = flat
    sizes = {len(values) for values in columns.values()}
    if len(sizes) > 1:
        raise _refusal(
            "length", f"`{form}` has columns of different lengths, from {min(sizes)} to {max(sizes)}: give each as many"
        )
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _from_list(version: Version, form: str, content: list[Any], *, max_rows: int) -> list[Any]:
    _check_count(content, max_rows)
    if not content or isinstance(content[0], dict):
        return content
    features = version.card.sent_features
    if len(features) == 1 and not any(isinstance(value, list) for value in content):
        return [{features[0].name: value} for value in content]
    return _from_matrix(version, form, content)


def _from_matrix(version: Version, form: str, content: list[Any]) -> list[Row]:
    """Return the rows of a matrix in the order of the card, which is clear enough only where all are numbers."""
    features = version.card.sent_features
    text = next((feature.name for feature in features if feature.type == "string"), None)
    if text is not None:
        raise _refusal(
            "names",
            f"`{form}` has no names of columns, and {version.label} has features of text, such as {text}: name its "
            f"{len(features)} features, in dataframe_records for instance",
        )
    names = [feature.name for feature in features]
    return [dict(zip(names, row, strict=True)) for row in _same_width(form, content, len(names))]


def _same_width(form: str, rows: list[Any], width: int) -> list[Sequence[Any]]:
    for place, row in enumerate(rows):
        if not isinstance(row, list):
            raise _refusal("type", f"`{form}` must hold rows that are lists of {width} values: row {place} is no list")
        if len(row) != width:
            raise _refusal("shape", f"`{form}` has {len(row)} values in row {place} where {width} are expected")
    return rows


# ── checks ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _invalid_rows(version: Version, form: str, faults: list[tuple[int, Fault]], count: int) -> RowFaults:
    """Return the error for rows, by their places from 0 in the DataFrame; `count` is of all faults."""
    shown = [OwnWords("", fault.code, f"row {place}: {fault.clause()}") for place, fault in faults[:FIRST]]
    return RowFaults(
        sentence(shown, subject=f"The input does not fit {version.label}", count=count),
        faults=[fault.under(f"/{form}/{place}") for place, fault in faults[:MAX_FAULTS]],
        fault_count=count,
    )


def _check_count(rows: Sequence[Any], limit: int) -> None:
    if len(rows) > limit:
        raise TooLarge(f"A request holds at most {limit} rows: send several.")


def _refusal(code: str, sentence: str) -> RowFaults:
    return RowFaults(f"{sentence}.", faults=[Fault("", code, sentence)])
