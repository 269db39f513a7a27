"""A file with a checked SHA-256: it returns only bytes that were part of the check.

Whoever may write a file may also overwrite it in place, after its SHA-256 was found right and before it is read. A
copy would be safe, and twice as large in memory or on disk. Here the first pass keeps the digest of each block beside
that of the whole, and the second gives a block out only where it still has its digest.
"""

import hashlib
import io
import os
from typing import TYPE_CHECKING

from shared.errors import ArtefactError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK_BYTES = 1 << 20


class VerifiedFile(io.RawIOBase):
    """An open file as it was when its SHA-256 was taken; reading raises ArtefactError where it is another by now.

    `descriptor` stays the caller's to close, and `name` is what the error calls the file. Not for several threads.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self._place = 0
        self._digests: list[bytes] = []
        self._held: tuple[int, bytes] = (-1, b"")  # number and content of the block that was read last
        whole = hashlib.sha256()
        size = 0
        while block := _read_block(descriptor, size):
            whole.update(block)
            self._digests.append(hashlib.sha256(block).digest())
            size += len(block)
        self._size = size
        self.sha256 = whole.hexdigest()

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place in the file and return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def tell(self) -> int:
        """Return the place in the file."""
        return self._place

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Fill the buffer from the present block; return the number of bytes, 0 at the end of the file."""
        if self._place >= self._size:
            return 0
        number, offset = divmod(self._place, BLOCK_BYTES)
        target = memoryview(buffer).cast("B")
        part = self._block(number)[offset : offset + len(target)]
        target[: len(part)] = part
        self._place += len(part)
        return len(part)

    def _block(self, number: int) -> bytes:
        held, block = self._held
        if held != number:
            block = _read_block(self._descriptor, number * BLOCK_BYTES)
            if hashlib.sha256(block).digest() != self._digests[number]:
                raise ArtefactError(
                    f"{self._name} was overwritten while it was being loaded: its new content was not read. Put the "
                    "original back; a file is replaced safely by moving the new one over it."
                )
            self._held = number, block
        return block


def _read_block(descriptor: int, offset: int) -> bytes:
    """Return the whole block at this place; it is shorter only at the end of the file."""
    parts = []
    missing = BLOCK_BYTES
    while missing and (part := os.pread(descriptor, missing, offset + BLOCK_BYTES - missing)):
        parts.append(part)
        missing -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
