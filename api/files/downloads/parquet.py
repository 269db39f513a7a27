"""The table of a CSV job as Parquet, written while it is sent.

Imported when the first one is asked for: it needs pyarrow. The scores are parsed from the stored lines of output.csv,
whose numbers read back exactly; the caller's own columns come from the chunks of the file, as they were sent.
"""

import csv
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from sqlalchemy import Engine

from api.files.downloads.outputs import Changed
from api.models.catalog import Version
from shared.cards.card import Card
from shared.cards.classes import classes_of
from shared.cards.response import ResponseField
from shared.csv.format import CsvFormat
from shared.csv.output import escape, joined_columns, output_columns, passthrough_columns, shaped_columns, spread_cells
from shared.csv.records import parse_records
from shared.explanations.lines import explanation_columns
from shared.jobs.queries.files import read_chunk
from shared.jobs.queries.jobs import StoredJob
from shared.tables import JobKind

GROUP_BYTES = 8 << 20  # a row group is written as soon as its columns take so much memory
GROUP_ROWS = 100_000


def write_table(
    engine: Engine, job: StoredJob, version: Version, first_rows: list[int], *, join: bool
) -> Iterator[bytes]:
    """Yield the bytes of a Parquet file with the rows of these chunks, as they come; for a thread."""
    assert job.csv is not None
    layout: Layout | ExplanationLayout
    if job.kind != JobKind.EXPLAIN_BATCH:
        layout = Layout(version.card, job.csv.format, join=join)
    else:
        layout = ExplanationLayout(version.card, job.csv.format)
    sink = _Sink()
    about = {"job_id": job.id, "model": version.label}
    with pa.parquet.ParquetWriter(
        pa.PythonFile(sink, "w"), layout.schema.with_metadata(about), compression="zstd"
    ) as writer:
        group: list[Any] = []
        for first_row in first_rows:
            with engine.connect() as connection:
                output = read_chunk(connection, job.id, first_row, "output")
                payload = read_chunk(connection, job.id, first_row, "payload") if layout.kept else b""
            group.append(layout.read(payload, output))
            size, rows = sum(table.nbytes for table in group), sum(table.num_rows for table in group)
            if size >= GROUP_BYTES or rows >= GROUP_ROWS:
                yield from _write(writer, group, sink)
                group = []
        if group:
            yield from _write(writer, group, sink)
    yield sink.take()  # the footer


def _write(writer: Any, group: list[Any], sink: "_Sink") -> Iterator[bytes]:  # noqa: ANN401 - pyarrow has no types
    writer.write_table(pa.concat_tables(group), row_group_size=GROUP_ROWS)
    if written := sink.take():
        yield written


class Layout:
    """The columns of the table: their names, their types, and where they come from."""

    def __init__(self, card: Card, form: CsvFormat, *, join: bool) -> None:
        self._form = form
        self.kept = list(form.columns) if join else passthrough_columns(card, form)
        names = joined_columns(card, form) if join else output_columns(card, form)
        ours = _response_types(card)
        types = [pa.int32(), *[pa.string()] * len(self.kept), *ours]
        self.schema = pa.schema([pa.field(name, kind) for name, kind in zip(names, types, strict=True)])
        # A line of output.csv has the row number, the kept columns (which are not read from there), and the scores.
        # A label follows from its class.
        skipped = 1 + len(passthrough_columns(card, form))
        self._written = [str(place) for place in range(skipped + len(ours))]
        self._types = {"0": pa.int32()} | {
            name: kind
            for name, kind in zip(self._written[skipped:], ours, strict=True)
            if not pa.types.is_dictionary(kind)
        }
        self._labels = pa.array(card.labels.values(), pa.string())
        self._classes = self._written_classes = pa.array(range(len(card.labels)), pa.int32())
        if card.task == "multiclass":
            self._types[self._written[skipped]] = pa.string()
            self._classes = pa.array(card.labels, pa.string()).cast(ours[0])
            self._written_classes = pa.array([_as_written(name, form) for name in card.labels], pa.string())

    def read(self, payload: bytes, output: bytes) -> Any:  # noqa: ANN401 - pyarrow has no types
        """Return the rows of a chunk from its records and its lines of output.csv."""
        try:
            row_no, *scores = self._parse(output).columns
        except pa.ArrowInvalid as error:  # it has no lines any more
            raise Changed from error
        kept = self._read_kept(payload)
        if any(len(column) != len(row_no) for column in kept):
            raise Changed
        if len(self._labels):
            places = pc.index_in(scores[0].combine_chunks(), value_set=self._written_classes)
            scores[:1] = [self._classes.take(places), pa.DictionaryArray.from_arrays(places, self._labels)]
        return pa.Table.from_arrays([row_no, *kept, *scores], schema=self.schema)

    def _read_kept(self, payload: bytes) -> list[Any]:
        if not self.kept:
            return []
        records = parse_records(payload, self._form, encoded=self.kept)
        if records.ragged:
            places = [self._form.columns.index(name) for name in self.kept]
            return [pa.array(spread_cells(records, self._form.columns[place], place), pa.string()) for place in places]
        return [texts.take(pa.array(codes)) for texts, codes in (records.encoded[name] for name in self.kept)]

    def _parse(self, output: bytes) -> Any:  # noqa: ANN401 - pyarrow has no types
        return _parse(output, self._form, self._written, self._types)


class ExplanationLayout:
    """The columns of a table of explanations, read from its lines."""

    kept = ()  # nothing is read from the file whose rows are explained

    def __init__(self, card: Card, form: CsvFormat) -> None:
        self._form = form
        number, text = pa.float64(), pa.string()
        names = explanation_columns(card, form)
        types = [
            pa.int32(),
            *[text] * len(passthrough_columns(card, form)),
            *[text, text, text, number],  # label, method, scale, base_value
            *[number] * len(card.features),
            *[number, number, text, text],  # value, standard_error, top, error
        ]
        self.schema = pa.schema([pa.field(name, kind) for name, kind in zip(names, types, strict=True)])
        self._types = {str(place): kind for place, kind in enumerate(types)}

    def read(self, _payload: bytes, output: bytes) -> Any:  # noqa: ANN401 - pyarrow has no types
        """Return the rows of a chunk from its lines of output.csv."""
        try:
            columns = _parse(output, self._form, list(self._types), self._types).columns
        except pa.ArrowInvalid as error:  # it has no lines any more
            raise Changed from error
        return pa.Table.from_arrays(columns, schema=self.schema)


def _parse(output: bytes, form: CsvFormat, written: list[str], types: dict[str, Any]) -> Any:  # noqa: ANN401
    """Return columns of the stored lines of a chunk; `written` are all of them, `types` those that are read."""
    return pyarrow.csv.read_csv(
        pa.py_buffer(output),
        read_options=pyarrow.csv.ReadOptions(
            use_threads=False, block_size=min(len(output) + 1, 2**31 - 1), column_names=written
        ),
        parse_options=pyarrow.csv.ParseOptions(delimiter=form.delimiter, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=list(types),
            column_types=types,
            null_values=[""],
            strings_can_be_null=True,
            decimal_point=form.decimal,
        ),
    )


def _response_types(card: Card) -> list[Any]:
    """Return the types of the response columns and of `error`."""
    number, text = pa.float64(), pa.string()
    last = [*map(_shaped_type, shaped_columns(card)), text]
    if card.task == "regression":
        return [number, *last]
    label = pa.dictionary(pa.int32(), text)
    if card.task == "binary":
        return [pa.int32(), label, number, number, *last]
    numbered = all(len(name) < 18 and type(value) is int for name, value in classes_of(card).items())
    return [pa.int64() if numbered else text, label, number, *([number] * len(card.labels)), *last]


def _shaped_type(field: ResponseField) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return the type of a column that holds something else than its source."""
    if field.text is not None or field.bands is not None:
        if field.text is None and field.bands and all(type(band.value) is bool for band in field.bands):
            return pa.bool_()
        return pa.string()
    return pa.int64() if field.whole else pa.float64()


def _as_written(name: str, form: CsvFormat) -> str:
    """Return the text that a class has in output.csv, where a formula has an apostrophe before it."""
    [[text]] = csv.reader([escape(name, form.delimiter)], delimiter=form.delimiter)
    return text


class _Sink:
    """A file object for the Parquet writer: it keeps the written bytes until they are taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        content, self._parts = b"".join(self._parts), []
        return content
