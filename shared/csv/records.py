"""The bytes of one chunk to columns: by Arrow, or by Python's csv module for irregular records.

Both read the same records out of the same bytes, which tests/shared/csv/test_chunk_reader.py tries on random ones; the
module is the definition. An empty line is no record.
"""

import csv
import io
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from shared.csv.format import CsvFormat

BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Records:
    """The records of one chunk by column; those with too few or too many cells stand apart."""

    row_count: int  # all records
    offsets: NDArray[np.intp]  # of the whole records, in the chunk
    encoded: dict[str, tuple[Any, NDArray[np.int32]]]  # column -> distinct cells (StringArray), each record's place
    plain: dict[str, list[str]]  # column -> cells
    ragged: dict[int, list[str]]  # offset in the chunk -> cells

    def cells(self, name: str) -> list[str]:
        """Return one column's cells of the whole records."""
        if name in self.plain:
            return self.plain[name]
        texts, codes = self.encoded[name]
        cells: list[str] = np.array(texts.to_pylist(), dtype=object)[codes].tolist()
        return cells


def parse_records(data: bytes, form: CsvFormat, encoded: Collection[str] = ()) -> Records:
    """Return the records of a chunk, the named columns with each distinct cell once; ValueError where not UTF-8."""
    width = len(form.columns)
    is_encoded = {place: name in encoded for place, name in enumerate(form.columns)}
    texts, pairs = pa.string(), pa.dictionary(pa.int32(), pa.string())
    try:
        if data.startswith(BOM):  # here it belongs to a cell, and Arrow would drop it
            raise pa.ArrowInvalid
        table = pyarrow.csv.read_csv(
            pa.py_buffer(data),
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False,
                block_size=min(len(data) + 1, 2**31 - 1),  # one block: no cell is cut, no column is in pieces
                column_names=[str(place) for place in is_encoded],
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=form.delimiter,
                quote_char='"',
                double_quote=True,
                escape_char=False,
                newlines_in_values=True,
                ignore_empty_lines=True,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={str(place): pairs if pair else texts for place, pair in is_encoded.items()},
                null_values=[],
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return _sort(split_records(data, form), form, encoded)
    columns = {name: table.column(place).combine_chunks() for place, name in enumerate(form.columns)}
    assert table.num_columns == width
    return Records(
        table.num_rows,
        np.arange(table.num_rows),
        {name: _pair(columns[name]) for place, name in enumerate(form.columns) if is_encoded[place]},
        {name: columns[name].to_pylist() for place, name in enumerate(form.columns) if not is_encoded[place]},
        {},
    )


def split_records(data: bytes, form: CsvFormat) -> list[list[str]]:
    """Return the records of a chunk as Python's csv module reads them, whatever their number of cells."""
    lines = io.StringIO(data.decode("utf-8"), newline="")
    return [record for record in csv.reader(lines, delimiter=form.delimiter) if record]


def _sort(records: list[list[str]], form: CsvFormat, encoded: Collection[str]) -> Records:
    width = len(form.columns)
    offsets = [offset for offset, record in enumerate(records) if len(record) == width]
    ragged = {offset: record for offset, record in enumerate(records) if len(record) != width}
    turned = zip(*(records[offset] for offset in offsets), strict=True) if offsets else [()] * width
    columns = {name: list(cells) for name, cells in zip(form.columns, turned, strict=True)}
    return Records(
        len(records),
        np.array(offsets, dtype=np.intp),
        {
            name: _pair(pa.array(cells, pa.string()).dictionary_encode())
            for name, cells in columns.items()
            if name in encoded
        },
        {name: cells for name, cells in columns.items() if name not in encoded},
        ragged,
    )


def _pair(column: Any) -> tuple[Any, NDArray[np.int32]]:  # noqa: ANN401 - pyarrow has no types
    return column.dictionary, column.indices.to_numpy()
