"""Text that stands for a number or a boolean in a JSON row, where a card says that it is read."""

import re
from typing import Any

from shared.features import Feature

TRUE = frozenset(["true", "t", "yes", "y", "on", "1", "oui", "vrai"])  # those of pydantic, and of files
FALSE = frozenset(["false", "f", "no", "n", "off", "0", "non", "faux"])

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_DIGITS = re.compile(r"[+-]?[0-9]{1,300}", re.ASCII)  # longer ones are floats: int() takes 4,300 at most


def read_text(feature: Feature, text: str, *, is_read: bool) -> Any:  # noqa: ANN401 - any JSON scalar
    """Return the value that a text stands for, the text itself where it stands for none.

    Percentages are read where the feature says so, all else where `is_read`, as its card says.
    """
    bare = text.strip()
    if feature.type in ("integer", "number"):
        if feature.percent is not None and bare.endswith("%"):
            points = _number(bare.removesuffix("%").rstrip().replace(",", "."))
            if points is None:
                return text
            return points if feature.percent == "points" else points / 100
        if is_read and (number := _number(bare)) is not None:
            return int(number) if feature.type == "integer" and float(number).is_integer() else number
    elif feature.type == "boolean" and is_read:
        word = bare.lower()
        return True if word in TRUE else False if word in FALSE else text
    return text


def _number(bare: str) -> int | float | None:
    if _NUMBER.fullmatch(bare) is None:
        return None
    return int(bare) if _DIGITS.fullmatch(bare) else float(bare)
