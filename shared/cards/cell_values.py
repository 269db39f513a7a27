"""The value of one text cell: the one definition by which every file is read."""

import re
from typing import Any

from shared.cards.features import FeatureType
from shared.cards.numbers import NULLS, POINT, NumberForm

TRUE = frozenset(["true", "1", "yes", "oui", "vrai"])
FALSE = frozenset(["false", "0", "no", "non", "faux"])
NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
DIGITS = re.compile(r"[+-]?[0-9]{1,300}")  # longer ones are floats: int() takes 4,300 at most


def read_cell(kind: FeatureType, text: str, numbers: NumberForm) -> Any:  # noqa: ANN401  # any JSON scalar
    """Return the value of a cell, None for null; the text itself if it is no value of this type."""
    if kind == "string":
        return text or None
    bare = text.strip()
    if bare in NULLS:
        return None
    if kind == "boolean":
        lower = bare.lower()
        return True if lower in TRUE else False if lower in FALSE else text
    plain = bare if numbers == POINT else numbers.plain(bare)
    number = None if plain is None else read_number(plain)
    if number is None:
        return text
    return number if kind == "integer" else float(number)


def read_number(plain: str) -> int | float | None:
    """Return the number in a text with a decimal point, an int for digits alone; None for other texts."""
    if NUMBER.fullmatch(plain) is None:
        return None
    return int(plain) if DIGITS.fullmatch(plain) else float(plain)
