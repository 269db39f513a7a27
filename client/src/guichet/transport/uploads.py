"""A file on its way to the service: a multipart body that is read piece by piece, and again for a retry."""

import asyncio
import io
import os
import re
import secrets
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeAlias

from guichet.errors import Unusable
from guichet.values import Frame, write_csv

PIECE = 256 * 1024

Source: TypeAlias = str | os.PathLike[str] | BinaryIO | Frame
OnProgress: TypeAlias = Callable[[int, int | None], None]  # bytes so far, bytes in all if they are known


class Upload:
    """One file as a request's body. Use it as a context manager: it closes its file."""

    def __init__(
        self,
        source: Source,
        *,
        filename: str | None = None,
        compress: bool = False,
        on_progress: OnProgress | None = None,
        id_column: str | None = None,
    ) -> None:
        if isinstance(source, Frame):
            source = write_csv(source, id_column=id_column)
            self._owned = True
        else:
            self._owned = isinstance(source, str | os.PathLike)
        if isinstance(source, io.TextIOBase) or not (self._owned or hasattr(source, "read")):
            raise Unusable("Give a path, a file opened in binary mode (open(path, 'rb')), or a data frame.")
        self._file = _open(source) if isinstance(source, str | os.PathLike) else source
        self._start = self._file.tell() if self._file.seekable() else None
        self._size = None if self._start is None else self._file.seek(0, os.SEEK_END) - self._start
        if self._start is not None:
            self._file.seek(self._start)
        self._compress = compress
        self._on_progress = on_progress
        self._is_started = False
        # The same bytes at every attempt, boundary and gzip header too: an Idempotency-Key goes with one body.
        self._boundary = secrets.token_hex(16)
        quoted = re.sub(r'["\x00-\x1f]', "_", filename or _name_of(source))
        kind = "application/gzip" if compress or quoted.lower().endswith(".gz") else "text/csv"
        self._head = (
            f'--{self._boundary}\r\nContent-Disposition: form-data; name="file"; filename="{quoted}"\r\n'
            f"Content-Type: {kind}\r\n\r\n"
        ).encode(errors="replace")
        self._tail = f"\r\n--{self._boundary}--\r\n".encode()

    def __enter__(self) -> "Upload":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file if it was opened here."""
        if self._owned:
            self._file.close()

    @property
    def is_repeatable(self) -> bool:
        """Whether it can be sent (once more): a pipe that was read from cannot."""
        return self._start is not None or not self._is_started

    @property
    def headers(self) -> dict[str, str]:
        """What the body is, and how long, if that is known."""
        headers = {"Content-Type": f"multipart/form-data; boundary={self._boundary}"}
        if self._size is not None and not self._compress:
            headers["Content-Length"] = str(len(self._head) + self._size + len(self._tail))
        return headers

    def __iter__(self) -> Iterator[bytes]:
        """Read the body from its beginning."""
        if self._start is not None:
            self._file.seek(self._start)
        self._is_started = True
        yield self._head
        if self._compress:
            packer = zlib.compressobj(1, wbits=31)  # 31: a gzip header, without a date
            for piece in self._read():
                if packed := packer.compress(piece):
                    yield packed
            yield packer.flush()
        else:
            yield from self._read()
        yield self._tail

    async def in_thread(self) -> AsyncIterator[bytes]:
        """Read the same in a thread: disks and gzip take their time."""
        pieces = iter(self)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece

    def _read(self) -> Iterator[bytes]:
        done = 0
        while piece := self._file.read(PIECE if self._size is None else min(PIECE, self._size - done)):
            done += len(piece)
            yield piece
            if self._on_progress is not None:
                self._on_progress(done, self._size)
        if self._size is not None and done < self._size:
            raise Unusable("The file became shorter while it was sent: send it when it is complete.")


def _open(path: str | os.PathLike[str]) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        why = getattr(error, "strerror", None) or error
        raise Unusable(f"{path} cannot be read: {why}.") from error


def _name_of(source: Source) -> str:
    name = source if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
    if not isinstance(name, str | os.PathLike) or os.fspath(name).startswith("<"):
        return "rows.csv"  # a pipe, <stdin>, bytes in memory
    return Path(name).name
