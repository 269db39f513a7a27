"""Reading a request's body: strict JSON, bounded, and never echoed.

orjson refuses NaN, Infinity, 1e999, lone surrogates, control characters and invalid UTF-8. What it lets through is
checked here: NUL (jsonb cannot store it), duplicate keys (RFC 8259 leaves their meaning open), numbers of absurd
length, and depth. The checks cost next to nothing for a good body: each has a cheap test that only a suspect fails.
"""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

from shared.errors import MalformedBody, TooLarge, UnsupportedMediaType

MAX_DEPTH = 16
MAX_DIGITS = 400  # a float64 written out in full has at most 309 digits before the point

# A run of digits is looked at once, from its first: else a body of short runs would be read hundreds of times.
_NO_NUMBER = re.compile(rb"NaN|Infinity|[0-9][eE]\+?[0-9]{3}|(?<![0-9])[0-9]{300}")
_CONTAINERS = frozenset({dict, list})
_LONG_NUMBER = re.compile(rb"(?<![0-9])[0-9]{%d}" % MAX_DIGITS)


async def read_json(request: Request, *, max_bytes: int) -> tuple[Any, bytes]:
    """Return the parsed body and its bytes; raise 400, 413 or 415 with a sentence that says what to do."""
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise UnsupportedMediaType("The body must be JSON: send it with Content-Type: application/json.")
    body = await read_body(request, max_bytes=max_bytes)
    return parse_json(body), body


async def read_body(request: Request, *, max_bytes: int) -> bytes:
    """Return the body's bytes; stop reading and raise TooLarge as soon as there are more than `max_bytes`."""
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
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


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
