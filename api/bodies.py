"""Reading a request's body: strict JSON, bounded, and never echoed.

orjson refuses NaN, Infinity, 1e999, lone surrogates, control characters and invalid UTF-8. What it lets through is
checked here: NUL (jsonb cannot store it), duplicate keys (RFC 8259 leaves their meaning open), numbers of absurd
length, and depth. The checks cost next to nothing for a good body: each has a cheap test that only a suspect fails.
"""

import codecs
import json
import re
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from shared.errors import MalformedBody, TooLarge, UnsupportedMediaType

MAX_DEPTH = 16
MAX_DIGITS = 400  # a float64 written out in full has at most 309 digits before the point

# A run of digits is looked at once, from its first: else a body of short runs would be read hundreds of times.
_NO_NUMBER = re.compile(rb"NaN|Infinity|[0-9][eE]\+?[0-9]{3}|(?<![0-9])[0-9]{300}")
_CONTAINERS = frozenset({dict, list})
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib's wbits: with the header of gzip, or of zlib itself
_UTF_8 = frozenset(["utf-8", "utf8", "us-ascii", "ascii"])
_LONG_NUMBER = re.compile(rb"(?<![0-9])[0-9]{%d}" % MAX_DIGITS)


async def read_json(request: Request, *, max_bytes: int) -> tuple[Any, bytes]:
    """Return the parsed body and its bytes; raise 400, 413 or 415 with a sentence that says what to do."""
    content_type = request.headers.get("content-type", "application/json")
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise UnsupportedMediaType("The body must be JSON: send it with Content-Type: application/json.")
    body = await read_body(request, max_bytes=max_bytes)
    if ";" in content_type and not body.isascii():
        _check_charset(content_type)
    return parse_json(body), body


async def read_body(request: Request, *, max_bytes: int) -> bytes:
    """Return the body's bytes, unpacked as its Content-Encoding says.

    Raises TooLarge as soon as there are more than `max_bytes`, packed or unpacked, UnsupportedMediaType for another
    coding than gzip and deflate, and MalformedBody where the bytes are not so packed.
    """
    declared = request.headers.get("content-length")
    if declared is not None and declared.isascii() and declared.isdigit() and int(declared) > max_bytes:
        raise too_large(max_bytes)
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > max_bytes:
                raise too_large(max_bytes)
            chunks.append(chunk)
    except ClientDisconnect:
        raise MalformedBody("The body ended before its announced length.") from None
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    coding = request.headers.get("content-encoding")
    return body if coding is None else await _unpack(body, coding.strip().lower(), max_bytes)


async def _unpack(body: bytes, coding: str, max_bytes: int) -> bytes:
    if coding in ("", "identity"):
        return body
    if coding not in _WINDOWS:
        raise UnsupportedMediaType(
            "The body is compressed in a way that is not read here: use gzip or deflate, or send it plain."
        )
    return await run_in_threadpool(_inflate, body, _WINDOWS[coding], max_bytes)


def _inflate(body: bytes, window: int, max_bytes: int) -> bytes:
    unpacker = zlib.decompressobj(window)
    try:
        plain = unpacker.decompress(body, max_bytes + 1)
    except zlib.error:
        raise MalformedBody("The body is not compressed as its Content-Encoding says: leave that out.") from None
    if len(plain) > max_bytes:
        raise too_large(max_bytes)
    if not unpacker.eof or unpacker.unused_data:
        raise MalformedBody("The compressed body is cut off, or something follows it: send it whole and alone.")
    return plain


def _check_charset(content_type: str) -> None:
    """Raise UnsupportedMediaType where a Content-Type says that JSON is in something else than UTF-8."""
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in _UTF_8:
            raise UnsupportedMediaType(
                "The Content-Type names another charset than UTF-8, and JSON is read as UTF-8: encode the body so."
            )


def too_large(max_bytes: int) -> TooLarge:
    """Return the error of a body that is larger than it may be."""
    return TooLarge(f"The body is larger than {max_bytes} bytes: send fewer rows in one request.")


def parse_json(body: bytes, *, count_keys: Callable[[Any], int] | None = None) -> Any:  # noqa: ANN401 - any JSON value
    """Return the JSON value of a body; raise MalformedBody for anything that is not plain, finite, unambiguous JSON.

    `count_keys` counts the keys of a good body of one kind, faster than a look at every value. Where it finds them
    all, no other object is in the body; how deep its lists go is then left to whoever reads them.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        _refuse_encoding(body)
        # The library's message quotes nothing of the body.
        if not body.strip():
            raise MalformedBody("The body is empty: send a JSON object.") from None
        hint = " NaN, Infinity and numbers beyond float64 are not JSON values." if _NO_NUMBER.search(body) else ""
        raise MalformedBody(
            f"The body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno}).{hint}"
        ) from None
    if b"\\u0000" in body:
        _refuse_nul(value)
    # Every key has a colon: as many colons as keys means that no key was written twice.
    colons = body.count(b":")
    if count_keys is None or count_keys(value) != colons:
        if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
            raise MalformedBody(f"The body is nested deeper than {MAX_DEPTH} levels: features are plain values.")
        if colons != _count_keys(value):
            _refuse_duplicates(body)
    if _LONG_NUMBER.search(body):
        _refuse_long_numbers(body)
    return value


def _refuse_encoding(body: bytes) -> None:
    """Raise the error of bytes that are no UTF-8; of what begins as UTF-16, UTF-32 or gzip do, in these words."""
    if body.startswith(b"\x1f\x8b"):
        raise UnsupportedMediaType("The body is gzip: say so, Content-Encoding: gzip, or send it plain.")
    if body.startswith(codecs.BOM_UTF8):
        raise MalformedBody("The body begins with a byte order mark, which JSON must not: leave it out (RFC 8259).")
    # The first character of JSON is in ASCII, and in wider units has zeros beside it.
    if body.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, b"\0\0\0")) or body[1:4] == b"\0\0\0":
        raise UnsupportedMediaType("The body is in UTF-32: encode it in UTF-8.")
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"\0")) or body[1:2] == b"\0":
        raise UnsupportedMediaType("The body is in UTF-16: encode it in UTF-8.")
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise MalformedBody(f"The body is not UTF-8 (at byte {error.start + 1}): encode it in UTF-8.") from None


def _count_keys(value: object) -> int:
    count = 0
    stack = [value]
    while stack:
        item = stack.pop()
        members: Iterable[Any] = ()
        if isinstance(item, dict):
            count += len(item)
            members = item.values()
        elif isinstance(item, list):
            members = item
        if not _CONTAINERS.isdisjoint(map(type, members)):
            stack.extend(members)
    return count


def _depth(value: object) -> int:
    deepest = 0
    stack = [(value, 1)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, dict | list):
            deepest = max(deepest, depth)
            members = item.values() if isinstance(item, dict) else item
            if not _CONTAINERS.isdisjoint(map(type, members)):
                stack.extend((member, depth + 1) for member in members)
    return deepest


def _refuse_nul(value: object) -> None:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if "\x00" in item:
                raise MalformedBody("The body holds a NUL character (\\u0000), which cannot be stored: remove it.")
        elif isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _refuse_duplicates(body: bytes) -> None:
    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            raise MalformedBody("The body has the same key twice in one object: keep one of them.")
        return members

    json.loads(body, object_pairs_hook=check, parse_int=float)


def _refuse_long_numbers(body: bytes) -> None:
    def check(text: str) -> float:
        if len(text) >= MAX_DIGITS:
            raise MalformedBody(f"The body has a number of {MAX_DIGITS} digits or more: round it.")
        return 0.0

    json.loads(body, parse_int=check, parse_float=check)
