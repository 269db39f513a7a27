"""A CSV upload, read as it arrives: expanded, decoded, its header checked, and cut into chunks of whole records."""

from collections.abc import Iterator

from shared.cards import Card
from shared.csv_format import Chunk, CsvFormat, Given, Limits, check_given, find_decimal, find_id_column
from shared.csv_gzip import Gunzip
from shared.csv_header import Header, accept_header, check_width, read_header
from shared.csv_splitter import RecordSplitter
from shared.csv_text import BadBytes, TextDecoder, wrong_bytes
from shared.errors import Fault, RowFaults, TooLarge

HEAD_BYTES = 1 << 16  # looked at together, before anything else


class CsvFile:
    """Takes the bytes of one upload and gives out its chunks; it holds a few chunks at most, whatever it is fed.

    Chunks are made while the caller iterates, which is also when RowFaults (422), UnsupportedMediaType (415),
    TooLarge (413) and MalformedBody (400) are raised. Where the bytes were cut on their way makes no difference.
    """

    def __init__(self, card: Card, given: Given, limits: Limits) -> None:
        self.byte_count = 0  # uncompressed
        self._card = card
        self._given = check_given(given)
        self._limits = limits
        self._gunzip = Gunzip()
        self._head = bytearray()  # until there is a decoder: bytes; from then on until there is a header: text
        self._decoder: TextDecoder | None = None
        self._header: Header | None = None
        self._wanted = 0  # characters of text with which to look for the header again
        self._decimal = self._given.decimal
        self._splitter: RecordSplitter | None = None

    @property
    def row_count(self) -> int:
        """Return how many data rows the chunks so far hold."""
        return self._splitter.row_count if self._splitter else 0

    @property
    def format(self) -> CsvFormat | None:
        """Return how the file is written: None before the first chunk, final after `finish`.

        In between, a file that was ASCII so far says utf-8, and may still turn out to be cp1252.
        """
        if self._header is None or self._decoder is None or self._decimal is None:
            return None
        features = {feature.name for feature in self._card.row_features}
        return CsvFormat(
            delimiter=self._header.delimiter,
            encoding=self._decoder.encoding,
            decimal=self._decimal,
            columns=self._header.columns,
            id_column=find_id_column(self._header.columns, features, self._given.id_column),
            bom=self._decoder.bom,
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
        yield from map(self._sampled, self._splitter.finish())
        if not self.row_count:
            raise _refusal("no_rows", "The file has a header but no rows: send at least one.")

    def _read(self, data: bytes, *, final: bool) -> Iterator[Chunk]:
        self.byte_count += len(data)
        if self.byte_count > self._limits.max_bytes:
            raise TooLarge(f"The file is larger than {self._limits.max_bytes} bytes: send it in several files.")
        if self._decoder is None:
            self._head += data
            if len(self._head) < HEAD_BYTES and not final:
                return
            data = bytes(self._head)
            self._head.clear()
            self._decoder = TextDecoder(data[:HEAD_BYTES], self._given.encoding)
        try:
            for text in self._decoder.decode(data, final=final):
                yield from self._take(text)
        except BadBytes:
            self._wanted = 0  # the header may be there, and tells the row
            yield from self._take(b"")
            raise wrong_bytes(self._decoder.encoding, self._place()) from None

    def _place(self) -> str:
        """Say where the text so far ends."""
        if self._splitter:
            return f"row {self._splitter.next_row()}"
        return "row 1" if self._head.lstrip(b"\r\n").endswith((b"\r", b"\n")) else "the header"

    def _take(self, text: bytes, *, final: bool = False) -> Iterator[Chunk]:
        if self._splitter is None:
            self._head += text
            if len(self._head) < self._wanted and not final:
                return
            self._begin(final=final)
            text = bytes(self._head)
        if self._splitter is not None:
            yield from map(self._sampled, self._splitter.feed(text))

    def _begin(self, *, final: bool) -> None:
        """Read the header if it is there whole; raise for a header that does not fit."""
        text, longest = self._head.decode(), self._limits.max_record_bytes
        header = read_header(text, self._card, self._given, final=final or len(self._head) > longest)
        if header is None:
            self._wanted = min(2 * len(self._head), longest) + 1
            return
        size = len(text[: header.size].encode())
        if size > longest:
            raise TooLarge(f"The header is longer than {longest} bytes: a quote in it is never closed.")
        if not header.columns:
            raise _refusal("empty_file", "The file is empty: send a header and at least one row.")
        if size == len(self._head) and "\n" in header.columns[-1]:
            raise _refusal("unclosed_quote", "The file ends within quotes that open in the header: close them.")
        accept_header(self._card, header.columns, self._given)
        self._header = header
        self._splitter = RecordSplitter(header.delimiter, self._limits)
        del self._head[:size]

    def _sampled(self, chunk: Chunk) -> Chunk:
        """Look at the first chunk for the decimal mark."""
        if self._decimal is None:
            assert self._header is not None
            self._decimal = find_decimal(self._card, self._header.columns, self._header.delimiter, chunk.data)
        if not chunk.first_row:
            assert self._header is not None
            check_width(self._header.columns, self._header.delimiter, chunk.data)
        return chunk


def cut(data: bytes, delimiter: str, *, rows: int) -> list[Chunk]:
    """Return the records of a chunk as chunks of so many rows; their first one is row 0."""
    size = len(data) + 1
    splitter = RecordSplitter(delimiter, Limits(size, size, size, chunk_bytes=size, chunk_rows=rows))
    return [*splitter.feed(data), *splitter.finish()]


def _refusal(code: str, sentence: str) -> RowFaults:
    return RowFaults(sentence, faults=[Fault("", code, sentence)])
