"""The seal of a row: its SHA-256 when it was accepted, by which a later change of what is stored shows.

It is taken of the JSON text of the canonical row, which has its keys in card order, or in the order of a jsonb where a
file was read by columns. PostgreSQL keeps the values and not the text: it is made again from them and the card.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from shared.cards.card import Card


def text_sha256(text: str) -> bytes:
    """Return the SHA-256 of the JSON text of a canonical row."""
    return hashlib.sha256(text.encode()).digest()


def jsonb_order(name: str) -> tuple[int, bytes]:
    """Return by what PostgreSQL sorts the keys of a jsonb: their length, then their bytes."""
    return len(name.encode()), name.encode()


def is_intact(card: Card, features: Mapping[str, Any], sha256: bytes | None) -> bool | None:
    """Return whether a stored row is still the accepted one; None if no seal of it was stored."""
    if sha256 is None:
        return None
    names = [feature.name for feature in card.row_features]
    if features.keys() != set(names):
        return False
    numbers = {feature.name for feature in card.row_features if feature.type == "number"}
    read = {name: _as_number(value) if name in numbers else value for name, value in features.items()}
    orders = (names, sorted(names, key=jsonb_order))
    return any(text_sha256(_text(row, order)) == sha256 for row in (read, features) for order in orders)


def _as_number(value: Any) -> Any:  # noqa: ANN401 - any JSON scalar: it may be what somebody wrote there
    """Return a number as it was: 1e16 comes out of a jsonb as 10000000000000000."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _text(row: Mapping[str, Any], names: Iterable[str]) -> str:
    return orjson.dumps({name: row[name] for name in names}).decode()
