"""An upload that may be compressed with gzip, expanded in bounded pieces as it arrives."""

import zlib
from collections.abc import Iterator

from shared.errors import MalformedBody

PIECE_BYTES = 1 << 18  # the most that is expanded at once: a gzip bomb is counted before it is held
MAGIC = b"\x1f\x8b"


class Gunzip:
    """Passes plain bytes through and expands gzip, of one member or of several."""

    def __init__(self) -> None:
        self._start = b""  # the first byte, when it came alone
        self._compressed: bool | None = None
        self._member = zlib.decompressobj(31)  # 31: with gzip's own header and checksum
        self._ended = False  # between two members

    def expand(self, data: bytes) -> Iterator[bytes]:
        """Yield the plain bytes in pieces; raise MalformedBody for a damaged stream."""
        if self._compressed is None:
            data = self._start + data
            if len(data) < len(MAGIC) and MAGIC.startswith(data):
                self._start = data
                return
            self._compressed = data.startswith(MAGIC)
        if not self._compressed:
            yield data
            return
        # What was not expanded yet is copied after each piece: with small slices that costs nothing.
        for start in range(0, len(data), PIECE_BYTES >> 3):
            yield from self._expand(data[start : start + (PIECE_BYTES >> 3)])

    def _expand(self, data: bytes) -> Iterator[bytes]:
        full = True  # the member may hold more plain bytes than the last piece took
        while data or full:
            if self._ended:
                data = data.lstrip(b"\x00")  # padding, which gzip itself takes too
                if not data:
                    return
                self._member, self._ended = zlib.decompressobj(31), False
            try:
                piece = self._member.decompress(data, PIECE_BYTES)
            except zlib.error:
                raise MalformedBody("The gzip data is damaged: compress the file again and send it whole.") from None
            if piece:
                yield piece
            full = len(piece) == PIECE_BYTES
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            self._ended = self._member.eof

    def finish(self) -> bytes:
        """Return the rest of the data; raise MalformedBody for a stream that stops within a member."""
        if self._compressed and not self._ended:
            raise MalformedBody("The gzip data is cut off before its end: send the file whole.")
        return self._start if self._compressed is None else b""
