"""Spooled chunks of an incomplete upload: in memory, and beyond some megabytes on disk."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

from shared.csv.format import Chunk
from shared.csv.packing import pack
from shared.errors import Unavailable
from shared.jobs.chunks.transitions import PackedChunk

log = logging.getLogger(__name__)

MEMORY_BYTES = 4 << 20  # compressed: about twenty megabytes of CSV


class Spool:
    """A file without a name in TMPDIR: it disappears with the process, even after a crash."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115 - closed by __exit__
        self._places: list[tuple[int, int, int]] = []  # first row, row count, bytes

    def __enter__(self) -> Self:
        """Use it in a `with` statement."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give memory and disk back."""
        with suppress(OSError):  # a full disk refuses what was not written yet once more
            self._file.close()

    def add(self, chunk: Chunk) -> None:
        """Keep one more chunk; raise Unavailable when the disk is full."""
        payload = pack(chunk.data)
        with disk():
            self._file.write(payload)
        self._places.append((chunk.first_row, chunk.row_count, len(payload)))

    def chunks(self) -> Iterator[PackedChunk]:
        """Yield the chunks in order, one at a time; it can be done again."""
        with disk():
            self._file.seek(0)
        for first_row, row_count, length in self._places:
            yield PackedChunk(first_row, row_count, self._file.read(length))


@contextmanager
def disk() -> Iterator[None]:
    """Raise Unavailable if the disk refuses to write or read the spooled bytes of the block."""
    try:
        yield
    except OSError as error:
        log.error("an upload could not be kept in %s: %s", tempfile.gettempdir(), error.strerror)
        raise Unavailable("The disk for uploads is full: try again later.", retry_after=30) from None
