"""Bodies: plain JSON is taken as it is, everything else is refused in words that repeat none of it."""

import asyncio
import gzip
import json
import zlib
from contextlib import suppress
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given
from starlette.requests import Request

from api.jobs.json_body import MAX_DEPTH, parse_json, read_body, read_json
from shared.errors import MalformedBody, TooLarge, UnsupportedMediaType

# What JSON can say without loss: 64-bit integers, finite floats, text without NUL and lone surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
TRICKY = st.sampled_from(["a:b", '{"a":1,"a":2}', "\\u0000", "[[[[[[[[[[[[[[[[[[[[", "1" * 500, ":", "\\", '"', ""])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | TRICKY
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | TRICKY, inner, max_size=4),
    max_leaves=12,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


def same(left: Any, right: Any) -> bool:
    """Tell whether two values are equal in type, too: 1, 1.0 and True are three values."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and repr(left) == repr(right)


@given(VALUES, st.booleans(), st.sampled_from([None, 2]), st.sampled_from([None, (",", ":"), (" , ", " : ")]))
@example({"a:b": {"c:d": "e:f"}}, True, None, None)
@example({"digits": "7" * 1000, "nul": "\\u0000"}, True, None, None)
def test_whatever_json_dumps_makes_of_plain_values_is_accepted_and_equal(value, ascii_only, indent, separators):
    if depth(value) <= MAX_DEPTH:
        body = json.dumps(value, ensure_ascii=ascii_only, indent=indent, separators=separators).encode()
        assert same(parse_json(body), value)


@given(st.integers(2**64, 10**300) | st.integers(-(10**300), -(2**63) - 1))
def test_integer_beyond_64_bits_is_taken_as_the_nearest_number(value):
    assert parse_json(str(value).encode()) == float(value)


@given(st.binary(max_size=60))
def test_random_bytes_are_a_value_or_refused_never_an_accident(body):
    with suppress(MalformedBody, UnsupportedMediaType):
        parse_json(body)


NOT_JSON = {
    "empty": b"",
    "blank": b"  \n",
    "cut short": b'{"a": 1',
    "trailing comma": b'{"a": 1,}',
    "two values": b"1 2",
    "single quotes": b"{'a': 1}",
    "comment": b'{"a": 1} // x',
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": Infinity}',
    "minus Infinity": b'{"a": -Infinity}',
    "beyond float64": b'{"a": 1e999}',
    "below float64": b'{"a": -1e999}',
    "leading zero": b'{"a": 01}',
    "hexadecimal": b'{"a": 0x10}',
    "bare point": b'{"a": .5}',
    "plus": b'{"a": +1}',
    "lone surrogate": rb'{"a": "\ud800"}',
    "lone low surrogate": rb'{"a": "\udc00 "}',
    "lone surrogate in a key": rb'{"\ud800": 1}',
    "raw surrogate": b'{"a": "\xed\xa0\x80"}',
    "overlong UTF-8": b'{"a": "\xc0\xaf"}',
    "latin-1": b'{"a": "\xe9"}',
    "byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "raw control character": b'{"a": "\x01"}',
    "raw NUL": b'{"a": "\x00"}',
    "NUL": rb'{"a": "\u0000"}',
    "NUL in a key": rb'{"a\u0000b": 1}',
    "NUL in a list": rb'{"a": ["x", ["y\u0000"]]}',
    "key twice": b'{"a": 1, "a": 2}',
    "key twice, the same value": b'{"a": 1, "a": 1}',
    "key twice, written in two ways": rb'{"a": 1, "\u0061": 2}',
    "key twice below": b'{"x": [{"a": 1, "a": 2}]}',
    "key twice, hidden by a colon in a text": b'{"a": 1, "a": "x:y"}',
    "key twice with a number of 5,000 digits": b'{"a": 1, "a": ' + b"9" * 300 + b"}",
    "number of 400 digits": b'{"a": 0.' + b"1" * 400 + b"}",
    "number of 5,000 digits": b'{"a": 0.' + b"1" * 5000 + b"}",
    "17 lists": b"[" * 17 + b"]" * 17,
    "17 objects": b'{"a":' * 17 + b"1" + b"}" * 17,
    "100,000 lists": b"[" * 100_000,
    "100,000 closed lists": b"[" * 100_000 + b"]" * 100_000,
}


@pytest.mark.parametrize("case", NOT_JSON)
def test_body_that_is_not_plain_json_is_refused_with_400(case):
    with pytest.raises(MalformedBody) as caught:
        parse_json(NOT_JSON[case])
    assert caught.value.detail.endswith(".")


def test_sixteen_levels_are_not_too_deep():
    assert parse_json(b"[" * 16 + b"]" * 16) is not None


def test_key_that_is_repeated_in_different_objects_is_no_duplicate():
    assert parse_json(b'[{"a": 1}, {"a": 2}, {"a": {"a": 3}}]') == [{"a": 1}, {"a": 2}, {"a": {"a": 3}}]


@pytest.mark.parametrize(
    "body",
    [
        b'{"secret": "hunter2", "secret": "hunter2"}',
        rb'{"secret": "hunter2\u0000"}',
        b'{"secret": "hunter2"',
        b'{"secret": hunter2}',
        b'{"secret": 0.' + b"7" * 400 + b"}",
    ],
)
def test_refusal_repeats_nothing_of_the_body(body):
    with pytest.raises(MalformedBody) as caught:
        parse_json(body)
    for word in ("secret", "hunter2", "7777"):
        assert word not in caught.value.detail


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Sender:
    """A caller that sends its body in pieces, and may hang up after them."""

    def __init__(self, *pieces: bytes, hangs_up: bool = False) -> None:
        self.messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": piece, "more_body": hangs_up or index < len(pieces) - 1}
            for index, piece in enumerate(pieces or [b""])
        ]
        if hangs_up:
            self.messages.append({"type": "http.disconnect"})
        self.read = 0

    async def receive(self) -> dict[str, Any]:
        self.read += 1
        return self.messages[self.read - 1]

    def request(self, **headers: str) -> Request:
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "path": "/jobs", "headers": pairs, "query_string": b""}
        return Request(scope, self.receive)  # type: ignore[arg-type]


def test_body_in_pieces_is_put_together():
    request = Sender(b'{"a"', b": ", b"1}").request(content_type="application/json")
    assert asyncio.run(read_json(request, max_bytes=100)) == ({"a": 1}, b'{"a": 1}')


def test_body_announced_too_large_is_refused_before_a_byte_is_read():
    sender = Sender(b"x" * 101)
    with pytest.raises(TooLarge):
        asyncio.run(read_body(sender.request(content_length="101"), max_bytes=100))
    assert sender.read == 0


def test_body_that_grows_too_large_is_refused_without_reading_on():
    sender = Sender(*[b"x" * 40] * 100)
    with pytest.raises(TooLarge):
        asyncio.run(read_body(sender.request(), max_bytes=100))
    assert sender.read == 3


def test_body_of_exactly_the_limit_is_taken():
    assert asyncio.run(read_body(Sender(b"x" * 60, b"y" * 40).request(content_length="100"), max_bytes=100))


def test_caller_that_hangs_up_is_refused_in_order():
    with pytest.raises(MalformedBody):
        asyncio.run(read_body(Sender(b'{"a"', hangs_up=True).request(), max_bytes=100))


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/problem+json",
        "application/vnd.api+json;version=1",
    ],
)
def test_json_media_type_is_taken(content_type):
    request = Sender(b"{}").request(content_type=content_type)
    assert asyncio.run(read_json(request, max_bytes=100))[0] == {}


def test_body_without_a_media_type_is_taken_for_json():
    assert asyncio.run(read_json(Sender(b"{}").request(), max_bytes=100))[0] == {}


@pytest.mark.parametrize(
    "content_type",
    ["text/csv", "text/plain", "application/xml", "multipart/form-data; boundary=x", "+json", "application/jsonl", "x"],
)
def test_other_media_type_is_refused_with_415(content_type):
    sender = Sender(b"{}")
    with pytest.raises(UnsupportedMediaType):
        asyncio.run(read_json(sender.request(content_type=content_type), max_bytes=100))
    assert sender.read == 0


# ── how the bytes are written ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", ['{"é": 1}', "[]", '"x"', "7", ' {"a": 1}'])
def test_body_in_wider_units_is_refused_by_its_name(encoding, text):
    with pytest.raises(UnsupportedMediaType, match=f"is in {encoding[:6].upper()}: encode it in UTF-8"):
        parse_json(text.encode(encoding))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"a": "\xe9"}', r"not UTF-8 \(at byte 8\)"),
        (b'\xef\xbb\xbf{"a": 1}', "byte order mark"),
    ],
)
def test_body_that_is_no_plain_utf8_is_refused_by_what_it_is(body, why):
    with pytest.raises(MalformedBody, match=why):
        parse_json(body)


def test_gzip_without_its_header_is_named():
    with pytest.raises(UnsupportedMediaType, match="say so, Content-Encoding: gzip"):
        parse_json(gzip.compress(b"{}"))


@pytest.mark.parametrize(
    ("coding", "pack"), [("gzip", gzip.compress), ("GZIP", gzip.compress), ("deflate", zlib.compress)]
)
def test_packed_body_is_read_as_the_plain_one(coding, pack):
    plain = b'{"a": "' + b"x" * 90 + b'"}'
    request = Sender(pack(plain)).request(content_encoding=coding)
    assert asyncio.run(read_json(request, max_bytes=100)) == (json.loads(plain), plain)


@pytest.mark.parametrize(
    ("body", "coding", "error"),
    [
        (gzip.compress(b"1" * 101), "gzip", TooLarge),
        (gzip.compress(b" " * 10_000_000), "gzip", TooLarge),
        (gzip.compress(b"{}")[:-1], "gzip", MalformedBody),
        (gzip.compress(b"{}") * 2, "gzip", MalformedBody),
        (b"{}", "gzip", MalformedBody),
        (b"{}", "br", UnsupportedMediaType),
        (b"{}", "gzip, gzip", UnsupportedMediaType),
    ],
    ids=["too long", "a bomb", "cut off", "two of them", "not packed", "another coding", "packed twice"],
)
def test_packed_body_is_refused_where_it_is_damaged_or_unpacks_to_too_much(body, coding, error):
    limit = 20_000 if len(body) > 200 else 100
    with pytest.raises(error):
        asyncio.run(read_json(Sender(body).request(content_encoding=coding), max_bytes=limit))


@pytest.mark.parametrize(
    ("charset", "text", "is_taken"),
    [
        ("utf-8", "é", True),
        ('"UTF8"', "é", True),
        ("iso-8859-1", "e", True),
        ("iso-8859-1", "é", False),
        ("windows-1252", "é", False),
    ],
)
def test_charset_counts_where_it_would_mean_other_letters(charset, text, is_taken):
    body = json.dumps({"a": text}, ensure_ascii=False).encode()
    request = Sender(body).request(content_type=f"application/json; charset={charset}")
    if is_taken:
        assert asyncio.run(read_json(request, max_bytes=100))[0] == {"a": text}
    else:
        with pytest.raises(UnsupportedMediaType, match="another charset than UTF-8"):
            asyncio.run(read_json(request, max_bytes=100))
