"""Compression by zstd for bytes in the database and in temporary files."""

import zstandard

LEVEL = 1  # of zstd: the API compresses while it receives


def pack(data: bytes) -> bytes:
    """Return bytes compressed by zstd."""
    return zstandard.compress(data, LEVEL)


def unpack(data: bytes) -> bytes:
    """Return the original bytes."""
    return zstandard.decompress(data)
