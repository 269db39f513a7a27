"""Reading a request's body: strict JSON, bounded, never echoed; large bodies are read beside the event loop.

orjson refuses NaN, Infinity, 1e999, lone surrogates, control characters and invalid UTF-8. What it lets through is
checked here: NUL (jsonb cannot store it), duplicate keys (RFC 8259 leaves their meaning open), numbers of absurd
length, and depth. The checks cost next to nothing for a good body: each has a cheap test that only a suspect fails.
"""

import asyncio
import codecs
import re
import zlib
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import orjson
from anyio import CapacityLimiter, to_thread
from starlette.requests import ClientDisconnect, Request

from api.auth.rate_limit import payer
from api.services import services_of
from shared.errors import MalformedBody, TooLarge, UnsupportedMediaType

LARGE = 50_000  # bytes; what takes time in proportion to more of them is done beside the event loop
MAX_DEPTH = 16
MAX_DIGITS = 400  # a float64 written out in full has at most 309 digits before the point

T = TypeVar("T")


class Most(NamedTuple):
    """What a large body may hold. It is counted before it is parsed: the parser lets no other thread run meanwhile."""

    containers: int  # objects and lists
    keys: int  # and values of lists


ONE_ROW = Most(1_000, 100_000)  # what is too much for a row, and not worth to be told value by value


def most_of(rows: int, *, containers: int, features: int) -> Most:
    """Return the limits of a body with this number of rows, each with its share of objects, lists and features.

    The card decides whether unknown keys are reported or ignored: up to 50 in each row, and as many again in a single
    row.
    """
    return Most(rows * containers + ONE_ROW.containers, rows * (features + 50) + ONE_ROW.keys)


# Of all callers together: whoever sends large bodies waits for others who do, and for nobody else.
_LARGE_BODIES = CapacityLimiter(2)
_PIECE = 1 << 16  # bytes or values that are looked at in one call: between two calls other threads run

_LARGE_EXPONENT = re.compile(rb"(?<=[0-9])[eE]\+?[0-9]{3}")
# A whole string, so that what stands in it counts for nothing. One without an end reaches to the end of the body.
STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
_STRING = re.compile(STRING, re.DOTALL)
_COLON = re.compile(STRING + rb"|:", re.DOTALL)
_STRUCTURE = re.compile(STRING + rb"|[][{}:,]", re.DOTALL)
_DIGITS = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))  # every digit is 0, all else a blank
_LONG_NUMBER = b"0" * MAX_DIGITS
_INFINITE = b"0" * 300  # about so many digits are a number beyond float64
_QUOTE, _COLON_SIGN, _COMMA = b'":,'
_CONTAINERS = frozenset({dict, list})
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib's wbits: with the header of gzip, or of zlib itself
_UTF_8 = frozenset(["utf-8", "utf8", "us-ascii", "ascii"])


async def in_turn(size: int, work: Callable[[], T]) -> T:
    """Return the result of `work`, whose time grows with a body of `size` bytes.

    A small body is processed at once, a large one in one of two threads, after earlier ones.
    """
    return work() if size <= LARGE else await to_thread.run_sync(work, limiter=_LARGE_BODIES)


async def read_json(request: Request, *, max_bytes: int, most: Most = ONE_ROW) -> tuple[Any, bytes]:
    """Return the parsed body and its bytes; raise 400, 413 or 415 with a sentence on what to do."""
    content_type = request.headers.get("content-type", "application/json")
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise UnsupportedMediaType("The body must be JSON: send it with Content-Type: application/json.")
    body = await read_body(request, max_bytes=max_bytes)
    if ";" in content_type and not body.isascii():
        _check_charset(content_type)
    request.scope["input"] = body  # for its hash in request_logs
    return await in_turn(len(body), lambda: parse_json(body, most=most)), body


async def read_body(request: Request, *, max_bytes: int) -> bytes:
    """Return the body's bytes, unpacked as its Content-Encoding says.

    Raises TooLarge as soon as there are more than `max_bytes`, packed or unpacked, UnsupportedMediaType for another
    coding than gzip and deflate, and MalformedBody where the bytes are not so packed. Raises Unavailable or
    TooManyRequests for a large one where the process holds too many bytes already.
    """
    declared = request.headers.get("content-length", "")
    announced = int(declared) if declared.isascii() and declared.isdigit() else 0
    if announced > max_bytes:
        raise too_large(max_bytes)
    hold: _Hold | None = None
    if announced > LARGE:  # at once: of bodies that grow side by side, each would be refused in its middle
        hold = _Hold(request)
        hold.grow(announced)
    received = bytearray()  # not a list: of pieces of one byte, it would be fifty times as large
    try:
        async for chunk in request.stream():
            received += chunk
            if len(received) > max_bytes:
                raise too_large(max_bytes)
            if len(received) > LARGE:
                hold = hold or _Hold(request)
                hold.grow(len(received))
    except ClientDisconnect:
        raise MalformedBody("The body ended before its announced length.") from None
    body = bytes(received)
    del received
    coding = request.headers.get("content-encoding")
    if coding is None:
        return body
    plain = await _unpack(body, coding.strip().lower(), max_bytes)
    if len(plain) > LARGE:
        hold = hold or _Hold(request)
        hold.grow(len(plain))
    return plain


class _Hold:
    """The bytes of one request's body, which the process holds until it has answered."""

    def __init__(self, request: Request) -> None:
        services = services_of(request)
        settings = services.settings
        self._bodies = services.held_bodies
        self._caller: str | None = None
        if settings.auth != "open":
            self._caller = payer(request, request.scope.get("owner"), proxy_hops=settings.proxy_hops)
        self._size = 0
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(self._release)  # the server answers each request in a task of its own

    def grow(self, size: int) -> None:
        """Hold this number of bytes in total; raise Unavailable or TooManyRequests beyond the limits."""
        if size > self._size:
            self._bodies.add(self._caller, size - self._size)
            self._size = size

    def _release(self, _: object) -> None:
        if self._size:
            self._bodies.remove(self._caller, self._size)


async def _unpack(body: bytes, coding: str, max_bytes: int) -> bytes:
    if coding in ("", "identity"):
        return body
    if coding not in _WINDOWS:
        raise UnsupportedMediaType(
            "The body is compressed in a way that is not read here: use gzip or deflate, or send it plain."
        )
    window = _WINDOWS[coding]
    if len(body) <= LARGE:
        with suppress(TooLarge):
            return _inflate(body, window, min(LARGE, max_bytes))
    # What is large unpacked: as few at a time as are parsed.
    return await to_thread.run_sync(_inflate, body, window, max_bytes, limiter=_LARGE_BODIES)


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
    """Raise UnsupportedMediaType for a Content-Type with another charset than UTF-8."""
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in _UTF_8:
            raise UnsupportedMediaType(
                "The Content-Type names another charset than UTF-8, and JSON is read as UTF-8: encode the body so."
            )


def too_large(max_bytes: int) -> TooLarge:
    """Return the error of a body that is larger than it may be."""
    return TooLarge(f"The body is larger than {max_bytes} bytes: send fewer rows in one request.")


def parse_json(body: bytes, *, most: Most = ONE_ROW, count_keys: Callable[[Any], int] | None = None) -> Any:  # noqa: ANN401 - any JSON value
    """Return the JSON value of a body; raise MalformedBody for anything that is not plain, finite, unambiguous JSON.

    Raises TooLarge, before it is parsed, for a large body that holds more than `most`.

    `count_keys` counts the keys of a good body of one kind, faster than a look at every value. Where it finds them
    all, no other object is in the body; how deep its lists go is then left to whoever reads them.
    """
    if len(body) > LARGE:
        _check_structure(body, most)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        _refuse_encoding(body)
        # The library's message quotes nothing of the body.
        if not body.strip():
            raise MalformedBody("The body is empty: send a JSON object.") from None
        hint = " NaN, Infinity and numbers beyond float64 are not JSON values." if _has_no_number(body) else ""
        raise MalformedBody(
            f"The body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno}).{hint}"
        ) from None
    if b"\\u0000" in body:
        _refuse_nul(value)
    # Every key has a colon: as many colons as keys means that no key was written twice.
    colons = body.count(b":")
    if count_keys is None or count_keys(value) != colons:
        if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
            raise _too_deep()
        if colons != (keys := _count_keys(value)):
            _refuse_duplicates(body, keys)
    if _LONG_NUMBER in (digits := body.translate(_DIGITS)):
        _refuse_long_numbers(body, digits)
    return value


def _check_structure(body: bytes, most: Most) -> None:
    """Raise TooLarge for content beyond `most`, MalformedBody for too deep nesting, at the first excess."""
    fits = body.count(b"{") + body.count(b"[") <= most.containers
    if fits and body.count(b":") <= most.keys and body.count(b",") <= most.keys:
        return
    containers = keys = commas = depth = 0
    for match in _STRUCTURE.finditer(body):
        character = body[match.start()]
        if character == _COLON_SIGN:
            keys += 1
            if keys > most.keys:
                raise TooLarge(f"The body holds more than {most.keys} keys: send fewer in one request.")
        elif character == _COMMA:
            commas += 1
            if commas > most.keys:
                raise TooLarge(f"The body holds more than {most.keys} values: send fewer in one request.")
        elif character in b"{[":
            containers += 1
            depth += 1
            if depth > MAX_DEPTH:
                raise _too_deep()
            if containers > most.containers:
                count = f"more than {most.containers} objects and lists"
                raise TooLarge(f"The body holds {count}: send fewer in one request.")
        elif character != _QUOTE:
            depth -= 1


def _too_deep() -> MalformedBody:
    return MalformedBody(f"The body is nested deeper than {MAX_DEPTH} levels: features are plain values.")


def _has_no_number(body: bytes) -> bool:
    if b"NaN" in body or b"Infinity" in body or _INFINITE in body.translate(_DIGITS):
        return True
    return any(_LARGE_EXPONENT.search(body, start, start + _PIECE + 5) for start in range(0, len(body), _PIECE))


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
        members: Collection[Any] = ()
        if isinstance(item, dict):
            count += len(item)
            members = item.values()
        elif isinstance(item, list):
            members = item
        if _have_containers(members):
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
            if _have_containers(members):
                stack.extend((member, depth + 1) for member in members)
    return deepest


def _have_containers(members: Collection[Any]) -> bool:
    if isinstance(members, list) and len(members) > _PIECE:
        return any(_have_containers(members[start : start + _PIECE]) for start in range(0, len(members), _PIECE))
    return not _CONTAINERS.isdisjoint(map(type, members))


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


def _refuse_duplicates(body: bytes, keys: int) -> None:
    """Raise the error of a body that has more colons outside its strings than keys: one was written twice."""
    colons = 0
    for match in _COLON.finditer(body):
        colons += body[match.start()] != _QUOTE
        if colons > keys:
            raise MalformedBody("The body has the same key twice in one object: keep one of them.")


def _refuse_long_numbers(body: bytes, digits: bytes) -> None:
    """Raise the error of a body that has too many digits in a row outside its strings."""
    start = 0
    for match in _STRING.finditer(body):
        if digits.find(_LONG_NUMBER, start, match.start()) >= 0:
            break
        start = match.end()
    if digits.find(_LONG_NUMBER, start) >= 0:
        raise MalformedBody(f"The body has a number of {MAX_DIGITS} digits or more: round it.")
