"""Files named by an operator: only regular files are read, up to a limit of bytes.

A pipe would be waited for without end, a device never ends.
"""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

TEXT_BYTES = 100_000_000


def open_file(path: Path) -> BufferedReader:
    """Open a regular file for reading; raise OSError, with words for the operator, for any other kind."""
    # Without O_NONBLOCK, opening a pipe waits for somebody who writes.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "It is a pipe, a device or a socket, and no file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_file(path: Path, *, limit: int = TEXT_BYTES) -> bytes:
    """Return the content of a regular file; raise OSError for another kind of file, or above the limit of bytes."""
    with open_file(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"It is larger than {limit // 1_000_000} MB", str(path))
    return content
