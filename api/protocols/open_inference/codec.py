"""The elements of a tensor: from JSON or bytes to plain Python values, and back (Open Inference Protocol v2).

Bytes are little-endian and row-major, and text is each element's length in four bytes, then its UTF-8: the protocol's
binary tensor data extension. `struct` reads a thousand numbers as fast as numpy does, and one number faster.
"""

import base64
import binascii
import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import orjson

ElementKind = Literal["boolean", "integer", "number", "text"]
Faults = list[tuple[int, str]]  # (an element's place, what it must be)

NULL = type(None)
MAX_FAULTS = 100  # that are told of a request: who reads more of them? No element is looked at after the next one
LENGTH = struct.Struct("<I")  # before each element of BYTES
CONTENT_TYPES = ("np", "pd", "pd_json", "str", "base64")  # MLServer's words for how a tensor was written, read here


@dataclass(frozen=True, slots=True)
class Datatype:
    """A datatype of the protocol."""

    name: str
    kind: ElementKind
    code: str = ""  # of `struct`
    size: int = 0  # bytes of one element; 0: each has its own length
    low: int = 0  # integers only
    high: int = 0

    @property
    def phrase(self) -> str:
        """What an element must be, as the end of a sentence."""
        if self.kind == "integer":
            return f"an integer that {self.name} can hold"
        if self.kind == "number":
            return f"a number that {self.name} can hold"
        return "true or false" if self.kind == "boolean" else "text in UTF-8"


def _integer(name: str, code: str, size: int) -> Datatype:
    low, high = (0, 2 ** (8 * size) - 1) if name.startswith("U") else (-(2 ** (8 * size - 1)), 2 ** (8 * size - 1) - 1)
    return Datatype(name, "integer", code, size, low, high)


BOOL = Datatype("BOOL", "boolean", "?", 1)
INT64 = _integer("INT64", "q", 8)
FP64 = Datatype("FP64", "number", "d", 8)
BYTES = Datatype("BYTES", "text")
DATATYPES: dict[str, Datatype] = {
    datatype.name: datatype
    for datatype in (
        BOOL,
        *(_integer(f"UINT{8 * size}", code, size) for size, code in ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))),
        *(_integer(f"INT{8 * size}", code, size) for size, code in ((1, "b"), (2, "h"), (4, "i"))),
        INT64,
        Datatype("FP16", "number", "e", 2),
        Datatype("FP32", "number", "f", 4),
        FP64,
        BYTES,
    )
}
_PLAIN: dict[ElementKind, frozenset[type]] = {  # what JSON gives for elements that are written as they should be
    "boolean": frozenset({bool, NULL}),
    "integer": frozenset({int, NULL}),
    "number": frozenset({float, int, NULL}),
    "text": frozenset({str, NULL}),
}


# ── from JSON ────────────────────────────────────────────────────────────────────────────────────────────────────


def from_json(datatype: Datatype, data: Sequence[Any]) -> tuple[Sequence[Any], Faults]:
    """Return the elements of a flat JSON list, None for null, and their faults.

    Numbers are rounded to what FP32 and FP16 can hold, as every server of the protocol does. An integer may be
    written 3.0 and a boolean 0 or 1: clients that keep all numbers as floats write them so.
    """
    kinds = set(map(type, data))
    faults: Faults = []
    if not kinds <= _PLAIN[datatype.kind]:
        data, faults = _mend(datatype, data)
    if datatype.kind == "integer":
        present = data if NULL not in kinds and not faults else [value for value in data if value is not None]
        if present and (min(present) < datatype.low or max(present) > datatype.high):
            faults += _first_faults(
                datatype,
                (
                    place
                    for place, value in enumerate(data)
                    if value is not None and not datatype.low <= value <= datatype.high
                ),
            )
    elif datatype.kind == "number" and datatype is not FP64 and not faults:
        return _rounded(datatype, data)
    return data, faults


def _mend(datatype: Datatype, data: Sequence[Any]) -> tuple[list[Any], Faults]:
    values: list[Any] = []
    faults: Faults = []
    for place, element in enumerate(data):
        value = element
        if type(element) is float and datatype.kind == "integer" and element.is_integer():
            value = int(element)
        elif type(element) in (int, float) and datatype.kind == "boolean" and element in (0, 1):
            value = bool(element)
        elif type(element) not in _PLAIN[datatype.kind]:
            value = None
            faults.append((place, f"must be {datatype.phrase}"))
            if len(faults) > MAX_FAULTS:
                break
        values.append(value)
    return values, faults


def _first_faults(datatype: Datatype, places: Iterable[int]) -> Faults:
    """Return the faults of elements, up to one more than the error lists."""
    return [(place, f"must be {datatype.phrase}") for place in islice(places, MAX_FAULTS + 1)]


def _rounded(datatype: Datatype, data: Sequence[Any]) -> tuple[Sequence[Any], Faults]:
    filled = [0.0 if value is None else value for value in data]
    layout = struct.Struct(f"<{len(filled)}{datatype.code}")
    try:
        rounded = layout.unpack(layout.pack(*filled))
    except (OverflowError, struct.error):  # the second, for integers
        one = struct.Struct(f"<{datatype.code}")
        return data, _first_faults(datatype, (place for place, value in enumerate(filled) if not _fits(one, value)))
    if filled == data:
        return rounded, []
    return [None if element is None else value for element, value in zip(data, rounded, strict=True)], []


def _fits(layout: struct.Struct, value: float) -> bool:
    try:
        layout.pack(value)
    except (OverflowError, struct.error):
        return False
    return True


# ── from bytes ───────────────────────────────────────────────────────────────────────────────────────────────────


def from_bytes(datatype: Datatype, data: memoryview, count: int) -> tuple[Sequence[Any], Faults]:
    """Return `count` elements, None for NaN, and their faults; raise ValueError if the length is wrong.

    The ValueError's sentence says what was expected and what was given.
    """
    if datatype is BYTES:
        return _texts(data, count)
    if len(data) != count * datatype.size:
        raise ValueError(
            f"{count} elements of {datatype.name} are {count * datatype.size} bytes, but {len(data)} were given"
        )
    values: Sequence[Any] = struct.unpack(f"<{count}{datatype.code}", data)
    if datatype.kind == "number" and any(map(math.isnan, values)):
        values = [None if value != value else value for value in values]
    return values, []


def _texts(data: memoryview, count: int) -> tuple[list[Any], Faults]:
    values: list[Any] = []
    faults: Faults = []
    start, end = 0, len(data)
    while start + LENGTH.size <= end and len(values) < count:
        stop = start + LENGTH.size + LENGTH.unpack_from(data, start)[0]
        if stop > end:
            break
        try:
            values.append(str(data[start + LENGTH.size : stop], "utf-8"))
        except UnicodeDecodeError:
            if len(faults) <= MAX_FAULTS:
                faults.append((len(values), f"must be {BYTES.phrase}"))
            values.append(None)
        start = stop
    if len(values) < count or start < end:
        raise ValueError(
            f"{count} elements of BYTES, each with its length in four bytes before it, do not fill its {end} bytes"
        )
    return values, faults


# ── MLServer's content types ─────────────────────────────────────────────────────────────────────────────────────


def decode_texts(content_type: str, values: Sequence[Any], faults: Faults) -> list[Any]:
    """Return texts, decoded by content type: `base64` of text, `pd_json` any JSON scalar; add to `faults`."""
    decoded: list[Any] = []
    for place, text in enumerate(values):
        if len(faults) > MAX_FAULTS:
            break
        value: Any = None
        if text is not None:
            try:
                value = orjson.loads(text) if content_type == "pd_json" else _from_base64(text)
            except (orjson.JSONDecodeError, binascii.Error, ValueError):
                faults.append((place, f"must be text in {'JSON' if content_type == 'pd_json' else content_type}"))
            if isinstance(value, dict | list):
                value = None
                faults.append((place, "must be one value in JSON, not a list or an object"))
        decoded.append(value)
    return decoded


def _from_base64(text: str) -> str:
    return base64.b64decode(text, validate=True).decode("utf-8")


# ── to bytes ─────────────────────────────────────────────────────────────────────────────────────────────────────


def to_bytes(datatype: Datatype, values: Sequence[Any]) -> bytes:
    """Return elements as the binary extension writes them."""
    if datatype is not BYTES:
        return struct.pack(f"<{len(values)}{datatype.code}", *values)
    encoded = [value.encode() for value in values]
    return b"".join(LENGTH.pack(len(text)) + text for text in encoded)
