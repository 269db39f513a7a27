"""A CSV upload, read as it arrives: expanded, decoded, its header checked, and cut into chunks of whole records."""

import re
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import islice
from typing import IO

from shared.cards.card import Card
from shared.cards.numbers import NumberForm, find_number_form, number_notices
from shared.csv.format import Chunk, CsvFormat, CsvOptions, Limits, find_id_column, normalise_options, read_records
from shared.csv.uploads.blanks import cut_empty_rows, has_blanks, without_blanks
from shared.csv.uploads.columns import ExpectedColumns
from shared.csv.uploads.decoding import BadBytes, TextDecoder, wrong_bytes
from shared.csv.uploads.gunzip import Gunzip
from shared.csv.uploads.header import Header, accept_header, check_duplicates, check_width, read_header
from shared.csv.uploads.splitter import RecordSplitter
from shared.csv.uploads.workbook import BadWorkbook, is_workbook, read_workbook
from shared.errors import InvalidRequest, RowFaults, TooLarge, UnsupportedMediaType
from shared.faults import Fault, few

HEAD_BYTES = 1 << 16  # looked at together, before anything else
SAMPLED_ROWS = 1000  # in which numbers and texts are looked at
HELD_CHUNKS = 8  # of empty rows, until it is known whether they are the last ones


class UploadReader:
    """Takes the bytes of one upload and gives out its chunks; it holds a few chunks at most, whatever it is fed.

    Chunks are made while the caller iterates, which is also when RowFaults (422), UnsupportedMediaType (415),
    TooLarge (413) and MalformedBody (400) are raised. Where the bytes were cut on their way makes no difference.
    """

    def __init__(
        self,
        card: Card | None,
        options: CsvOptions,
        limits: Limits,
        *,
        expected: ExpectedColumns | None = None,
        answers: Collection[str] = (),
    ) -> None:
        """Read a file for a card or, without one, for the columns that are expected; `answers` may hold numbers too."""
        self.byte_count = 0  # uncompressed
        self.row_count = 0  # data rows in the chunks so far
        self.first_line = 1  # line of the file where the first row begins
        self.likely_delimiter: str | None = None  # where its header can be read by several
        self._card = card
        self._expected = expected or (ExpectedColumns() if card is None else ExpectedColumns.of(card, answers))
        self._options = normalise_options(options)
        self._limits = limits
        self._gunzip = Gunzip()
        self._head = bytearray()  # until there is a decoder: bytes; from then on until there is a header: text
        self._decoder: TextDecoder | None = None
        self._workbook: IO[bytes] | None = None  # an upload that is no CSV but one, until it is there whole
        self._header: Header | None = None
        self._needed = HEAD_BYTES  # characters of text with which to look for the header
        self._numbers: NumberForm | None = None  # until there is a chunk
        self._has_blanks = False
        self._splitter: RecordSplitter | None = None
        self._empty: list[Chunk] = []  # empty rows, which are left out if none but such follow
        self._notices: list[str] = []

    @property
    def notices(self) -> list[str]:
        """What was read otherwise than it is written, as sentences; final after `finish`."""
        notices = list(self._notices)
        if self._decoder is not None and self._decoder.is_guess:
            notices.insert(0, "The file is not UTF-8: it is read as cp1252, as Excel in western Europe writes it.")
        return notices

    @property
    def format(self) -> CsvFormat | None:
        """Return the format of the file: None before the first chunk, final after `finish`.

        In between, a file that was ASCII so far says utf-8, and may still turn out to be cp1252.
        """
        if self._header is None or self._decoder is None or self._numbers is None:
            return None
        features = self._expected.kinds
        return CsvFormat(
            delimiter=self._header.delimiter,
            encoding=self._decoder.encoding,
            decimal=self._numbers.decimal,
            columns=self._header.columns,
            id_column=find_id_column(self._header.columns, features, self._options.id_column),
            bom=self._decoder.bom,
            thousands=self._numbers.thousands,
            currency=self._numbers.currency,
        )

    def feed(self, data: bytes) -> Iterator[Chunk]:
        """Take the next bytes as they came, compressed or not; yield the chunks that they fill."""
        for piece in self._gunzip.expand(data):
            yield from self._read(piece, final=False)

    def finish(self) -> Iterator[Chunk]:
        """Yield the last chunks; raise for a file that is cut off, or without rows."""
        yield from self._read(self._gunzip.finish(), final=True)
        if self._splitter is None:
            yield from self._take(b"", final=True)
        assert self._splitter is not None
        yield from self._give(self._splitter.finish())
        if dropped := sum(chunk.row_count for chunk in self._empty):
            rows = "1 empty row" if dropped == 1 else f"{dropped:,} empty rows"
            verb = "was" if dropped == 1 else "were"
            self._notices.append(f"{rows} at the end of the file {verb} left out.")
        if not self.row_count:
            raise _refusal("no_rows", "The file has a header but no rows: send at least one.")

    def _read(self, data: bytes, *, final: bool) -> Iterator[Chunk]:
        self.byte_count += len(data)
        self._check_size(self.byte_count)
        if self._decoder is None and self._workbook is None:
            self._head += data
            if len(self._head) < HEAD_BYTES and not final:
                return
            data = bytes(self._head)
            self._head.clear()
            if is_workbook(data[:HEAD_BYTES]):
                self._workbook = tempfile.NamedTemporaryFile(suffix=".xlsx")  # noqa: SIM115 - closed by `_open_workbook`
            else:
                self._refuse_sheet()
                self._decoder = TextDecoder(data[:HEAD_BYTES], self._options.encoding)
        if self._workbook is not None:
            self._workbook.write(data)
            if final:
                yield from self._open_workbook()
            return
        yield from self._decode(data, final=final)

    def _refuse_sheet(self) -> None:
        if self._options.sheet is not None:
            message = "is for Excel workbooks, and the file is none: leave it out"
            raise InvalidRequest(f"`sheet` {message}.", faults=[Fault("/query/sheet", "sheet", message)])

    def _open_workbook(self) -> Iterator[Chunk]:
        """Read the workbook that has come whole, as the CSV text of one of its sheets."""
        assert self._workbook is not None
        self._decoder = TextDecoder(b"", "utf-8")
        self._decoder.bom = True  # Excel reads the output, too
        self._options = replace(self._options, delimiter=",", encoding=None)
        size = 0
        with self._workbook as file:
            file.flush()
            try:
                for piece in read_workbook(file.name, self._options.sheet):
                    if piece.startswith(b"\x00"):
                        self._notices[:0] = piece[1:].decode().split("\n")
                        continue
                    size += len(piece)
                    self._check_size(size)
                    yield from self._decode(piece, final=False)
            except BadWorkbook as error:
                raise UnsupportedMediaType(f"The Excel workbook cannot be read: {error}.") from None
        yield from self._decode(b"", final=True)

    def _decode(self, data: bytes, *, final: bool) -> Iterator[Chunk]:
        assert self._decoder is not None
        try:
            for text in self._decoder.decode(data, final=final):
                yield from self._take(text)
        except BadBytes:
            self._needed = 0  # the header may be there, and tells the row
            self._empty.clear()
            yield from self._take(b"")
            raise wrong_bytes(self._decoder.encoding, self._place()) from None

    def _check_size(self, byte_count: int) -> None:
        if byte_count > self._limits.max_bytes:
            raise TooLarge(f"The file is larger than {self._limits.max_bytes} bytes: send it in several files.")

    def _place(self) -> str:
        """Say where the text so far ends."""
        if self._splitter:
            return f"row {self._splitter.next_row()}"
        return "row 1" if self._head.lstrip(b"\r\n").endswith((b"\r", b"\n")) else "the header"

    def _take(self, text: bytes, *, final: bool = False) -> Iterator[Chunk]:
        if self._splitter is None:
            self._head += text
            if len(self._head) < self._needed and not final:
                return
            self._begin(final=final)
            text = bytes(self._head)
        if self._splitter is not None:
            yield from self._give(self._splitter.feed(text))

    def _begin(self, *, final: bool) -> None:
        """Read the header if it is there whole; raise for a header that does not fit."""
        text, longest = self._head.decode(), self._limits.max_record_bytes
        names = self._expected.kinds
        is_whole = final or len(self._head) > longest
        header = read_header(text, names, self._options, final=is_whole, likely=self.likely_delimiter)
        if header is None:
            self._needed = min(2 * len(self._head), longest) + 1
            return
        size = len(text[: header.size].encode())
        if size > longest:
            raise TooLarge(f"The header is longer than {longest} bytes: a quote in it is never closed.")
        if not header.columns:
            raise _refusal("empty_file", "The file is empty: send a header and at least one row.")
        if size == len(self._head) and "\n" in header.columns[-1]:
            raise _refusal("unclosed_quote", "The file ends within quotes that open in the header: close them.")
        if self._card is None:
            check_duplicates(header.columns)
        else:
            accept_header(self._card, header.columns, self._options)
        self._header = header
        self.first_line += len(re.findall(r"\r\n|\r|\n", text[: header.size]))
        self._tell_header(header)
        sample = self._head[size:HEAD_BYTES]
        if not final or len(self._head) > HEAD_BYTES:
            del sample[max(sample.rfind(b"\n"), sample.rfind(b"\r")) + 1 :]
        if has_blanks(sample.decode(), header.delimiter) and not self._expected.keeps_blanks:
            self._has_blanks = True
            self._notices.append("Blanks behind the delimiters were left out of the cells; those in quotes were kept.")
        self._splitter = RecordSplitter(header.delimiter, self._limits, blanks=self._has_blanks)
        del self._head[:size]

    def _tell_header(self, header: Header) -> None:
        if header.skipped:
            self._notices.append(f"The header is in line {header.line}: the lines above it were left out.")
        if header.renamed:
            pairs = few([f"{written[:70]!r} as {name!r}" for written, name in header.renamed], 5)
            self._notices.append(f"Columns whose names differ in case are read as features: {pairs}.")

    def _give(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """Yield chunks for reading: without blanks around cells, and without empty rows at the end."""
        assert self._header is not None
        for chunk in chunks:
            data = without_blanks(chunk.data, self._header.delimiter) if self._has_blanks else chunk.data
            rest, empty, count = data, b"", 0
            if not self._expected.takes_empty_rows:
                rest, empty, count = cut_empty_rows(data, self._header.delimiter)
            full = Chunk(chunk.first_row, chunk.row_count - count, rest)
            if full.row_count or len(self._empty) == HELD_CHUNKS:
                self._sample(full)
                yield from map(self._counted, self._empty)
                self._empty.clear()
            if full.row_count:
                yield self._counted(full)
            if count:
                self._empty.append(Chunk(chunk.first_row + full.row_count, count, empty))

    def _counted(self, chunk: Chunk) -> Chunk:
        self.row_count += chunk.row_count
        return chunk

    def _sample(self, chunk: Chunk) -> None:
        """Look at the first rows for how numbers are written, and for texts that the model does not know."""
        if self._numbers is not None:
            return
        assert self._header is not None
        columns, delimiter = self._header.columns, self._header.delimiter
        check_width(columns, delimiter, chunk.data)
        records = list(islice(read_records(chunk.data.decode(), delimiter), SAMPLED_ROWS))
        self._numbers = find_number_form(
            self._expected.number_columns(columns, records),
            delimiter=delimiter,
            decimal=self._options.decimal,
            thousands=self._options.thousands,
        )
        self._notices += number_notices(self._numbers)
        self._notices += self._expected.strange_values(columns, records)


def split_chunk(data: bytes, delimiter: str, *, rows: int) -> list[Chunk]:
    """Return the records of a chunk as chunks of so many rows; their first one is row 0."""
    size = len(data) + 1
    splitter = RecordSplitter(delimiter, Limits(size, size, size, chunk_bytes=size, chunk_rows=rows))
    return [*splitter.feed(data), *splitter.finish()]


def _refusal(code: str, sentence: str) -> RowFaults:
    return RowFaults(sentence, faults=[Fault("", code, sentence)])
