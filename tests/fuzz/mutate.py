"""Mutants: what was whole, changed in a few places by chance."""

import copy
import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

DEEP = "@deep"  # stands for lists within lists: Python itself could not copy or write these
LEVELS = 20_000
# What a value of a document is replaced by: other types, and values at which readers stumble.
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 1e308, -0.0, 2**53 + 1, 10**30, float("nan"), float("inf"), "", " ", "\0", DEEP),
    *("NaN", "1e999", "9" * 400, "../../etc/passwd", "/dev/zero", "a" * 5_000, "\ud800", "é\u202e", "=1+1", "{}", "[["),
    *([], {}, [[]], [{}], {"": None}, ["a", 1, None], {"name": "age"}, "2024-02-30", "inf", "a/b\\c", "(((((", "*"),
)


def mutant(chance: random.Random, whole: bytes, pieces: Sequence[bytes]) -> bytes:
    """Return bytes with one to four places changed: cut, doubled, replaced, or with one of the pieces put in."""
    content = bytearray(whole)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(content) + 1)
        kind = chance.randrange(5)
        if kind == 0:
            content[place : place + chance.randint(1, 30)] = b""
        elif kind == 1:
            content[place:place] = content[place : place + chance.randint(1, 60)]
        elif kind == 2:
            content[place : place + 1] = bytes([chance.randrange(256)])
        else:
            content[place:place] = chance.choice(pieces)
    return bytes(content)


def mutant_document(chance: random.Random, whole: Any) -> Any:
    """Return a document with one to three values removed, doubled, renamed, replaced, or copied to another place."""
    root = {"": copy.deepcopy(whole)}
    for _ in range(chance.randint(1, 3)):
        places = list(_places(root))
        holder, key = chance.choice(places)
        kind = chance.randrange(5)
        if kind == 0 and holder is not root:
            del holder[key]
        elif kind == 1 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif kind == 2 and isinstance(holder, dict) and holder is not root:
            holder[chance.choice([key + " ", key.upper(), "", "\0", "a" * 300])] = holder.pop(key)
        elif kind == 3:
            other, at = chance.choice(places)
            holder[key] = copy.deepcopy(other[at])
        else:
            holder[key] = copy.deepcopy(chance.choice(ODD))
    return root[""]


def _places(holder: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each (holder, key or index) of a document."""
    for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
        yield holder, key
        if isinstance(holder[key], dict | list):
            yield from _places(holder[key])


def written(value: Any, *, levels: int = LEVELS) -> str:
    """Return a document as JSON text, with NaN and lone surrogates as Python writes them."""
    return json.dumps(value).replace(json.dumps(DEEP), "[" * levels + "]" * levels)
