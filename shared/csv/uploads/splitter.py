"""The records of a CSV text, and their grouping into chunks.

A quote opens a quoted field at the start of a field only; within it two quotes stand for one, and newlines are text.
After the closing quote, and in a field that begins otherwise, quotes are text (`5" pipe`). A record ends at \\n, \\r\\n
or a lone \\r. Blank lines are no records. pyarrow.csv and the standard library read it the same way.
"""

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from shared.csv.format import Chunk, Limits
from shared.errors import RowFaults, TooLarge
from shared.faults import Fault

LF, CR, QUOTE = b'\n\r"'

Offsets = NDArray[np.intp]


class RecordSplitter:
    """Splits the text below a header into chunks; the sizes of the incoming pieces do not matter."""

    def __init__(self, delimiter: str, limits: Limits, *, blanks: bool = False) -> None:
        """`blanks` says that blanks stand before fields, also before the quote that opens one."""
        self.row_count = 0  # records in the chunks so far
        self._limits = limits
        self._blanks = blanks
        self._record = _record_pattern(delimiter, blanks=blanks)
        self._before_quote = np.zeros(256, dtype=bool)  # bytes after which a quote may open a field
        self._before_quote[[ord(delimiter), LF, CR, QUOTE]] = True
        self._pieces: list[bytes] = []  # text that is in no chunk yet; it starts with a record
        self._size = 0
        self._needed = limits.chunk_bytes + 1  # look for chunks when there is so much text

    def feed(self, text: bytes) -> Iterator[Chunk]:
        """Yield the chunks that are full; raise TooLarge for a record or a file beyond the limits."""
        place = 0
        while place < len(text):
            piece = text[place : place + self._needed - self._size]
            place += len(piece)
            self._pieces.append(piece)
            self._size += len(piece)
            if self._size >= self._needed:
                yield from self._full_chunks(final=False)

    def finish(self) -> Iterator[Chunk]:
        """Yield the last chunks; raise RowFaults if a quote is still open."""
        yield from self._full_chunks(final=True)

    def next_row(self) -> int:
        """Return the number (from 1) of the row at the end of the text so far."""
        _, rows = self._find_lines(b"".join(self._pieces))
        return self.row_count + int(rows[-1]) + 1

    def _full_chunks(self, *, final: bool) -> Iterator[Chunk]:
        text = b"".join(self._pieces)
        ends, rows = self._find_lines(text, final=final)
        self._check(text, ends, rows, final=final)
        line = 0  # how many lines are in chunks
        while line < len(ends) - 1:
            start, rows_before = int(ends[line]), int(rows[line])
            by_bytes = int(np.searchsorted(ends, start + self._limits.chunk_bytes, "right")) - 1
            by_rows = int(np.searchsorted(rows, rows_before + self._limits.chunk_rows))
            if not final and by_rows >= len(ends) and len(text) - start <= self._limits.chunk_bytes:
                break  # the next record may still fit in
            line = max(min(by_bytes, by_rows, len(ends) - 1), line + 1)  # a longer record stands alone
            row_count = int(rows[line]) - rows_before
            if row_count:
                yield Chunk(self.row_count, row_count, text[start : int(ends[line])])
                self.row_count += row_count
        rest = text[int(ends[line]) :]
        self._pieces, self._size = [rest], len(rest)
        # A record larger than a chunk is looked at again when it has doubled, not with each piece.
        self._needed = max(self._limits.chunk_bytes, min(2 * len(rest), self._limits.max_record_bytes)) + 1

    def _check(self, text: bytes, ends: Offsets, rows: Offsets, *, final: bool) -> None:
        longest = self._limits.max_record_bytes
        too_long = np.flatnonzero(np.diff(ends, append=len(text)) > longest)
        if too_long.size:
            row_no = self.row_count + int(rows[too_long[0]]) + 1
            raise TooLarge(
                f"Row {row_no} is longer than {longest} bytes: a quote in it is never closed, or a line end is missing."
            )
        if self.row_count + rows[-1] > self._limits.max_rows:
            raise TooLarge(f"The file has more than {self._limits.max_rows} rows: send it in several files.")
        if final and ends[-1] < len(text):
            row_no = self.row_count + int(rows[-1]) + 1
            fault = Fault("", "unclosed_quote", f"a quote that opens in row {row_no} is never closed")
            raise RowFaults(f"The file ends within quotes: {fault.message}. Close it, or double it.", faults=[fault])

    def _find_lines(self, text: bytes, *, final: bool = False) -> tuple[Offsets, Offsets]:
        """Return the end of each line and the number of records up to it; both begin with 0 for the start."""
        if final and text and not text.endswith(b"\n"):
            ends = np.minimum(self._find_ends(text + b"\n"), len(text))
        else:
            ends = self._find_ends(text)
        ends = np.concatenate([[0], ends])
        first = np.frombuffer(text, dtype=np.uint8)[ends[:-1]]
        return ends, np.concatenate([[0], np.cumsum((first != LF) & (first != CR))])

    def _find_ends(self, text: bytes) -> Offsets:
        """Return the offsets behind the newlines that are outside quotes.

        Where every quote either opens a field, closes it or is doubled, the quotes before a newline tell by their
        parity whether it is within quotes. Only a stray quote makes it necessary to read field by field.
        """
        codes = np.frombuffer(text, dtype=np.uint8)
        newlines = np.flatnonzero(codes == LF)
        if CR in text:
            returns = np.flatnonzero(codes[:-1] == CR)  # after the last byte \n may follow
            lone = returns[codes[returns + 1] != LF]
            if lone.size:
                newlines = np.sort(np.concatenate([newlines, lone]))
        if QUOTE in text:
            if self._blanks:
                return self._read_ends(text)
            quotes = np.flatnonzero(codes == QUOTE)
            opening = quotes[::2] if quotes[0] else quotes[2::2]  # what starts the text starts a field
            if not self._before_quote[codes[opening - 1]].all():
                return self._read_ends(text)
            newlines = newlines[np.searchsorted(quotes, newlines) % 2 == 0]
        return newlines + 1

    def _read_ends(self, text: bytes) -> Offsets:
        """Return the same offsets by reading field by field."""
        ends = []
        record = self._record.match(text)
        while record:
            ends.append(record.end())
            record = self._record.match(text, record.end())
        return np.array(ends, dtype=np.intp)


def _record_pattern(delimiter: str, *, blanks: bool) -> re.Pattern[bytes]:
    """Compile one record with its newline; nothing in it backtracks, so that no text can make it slow."""
    mark = re.escape(delimiter.encode())
    rest = rb"[^%b\r\n]*+" % mark
    quote = rb' *+"' if blanks else b'"'
    field = rb'(?>%b[^"]*+(?:""[^"]*+)*+"%b|(?!%b)%b)' % (quote, rest, quote, rest)
    return re.compile(rb"(?:%b%b)*+%b(?:\n|\r\n|\r(?=[^\n]))" % (field, mark, field))
