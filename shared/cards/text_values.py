"""Texts for numbers and booleans in JSON rows, where a card accepts them."""

from typing import Any

from shared.cards import cell_values
from shared.cards.cell_values import read_number
from shared.cards.features import Feature

TRUE = cell_values.TRUE | {"t", "y", "on"}  # those of files, and of pydantic
FALSE = cell_values.FALSE | {"f", "n", "off"}


def read_text(feature: Feature, text: str, *, is_read: bool) -> Any:  # noqa: ANN401 - any JSON scalar
    """Return the value of a text, or the text itself if it has none.

    Percentages are read if the feature allows them; other texts are read if `is_read`, as the card decides.
    """
    bare = text.strip()
    if feature.type in ("integer", "number"):
        if feature.percent is not None and bare.endswith("%"):
            points = read_number(bare.removesuffix("%").rstrip().replace(",", "."))
            if points is None:
                return text
            return points if feature.percent == "points" else points / 100
        if is_read and (number := read_number(bare)) is not None:
            return int(number) if feature.type == "integer" and float(number).is_integer() else number
    elif feature.type == "boolean" and is_read:
        word = bare.lower()
        return True if word in TRUE else False if word in FALSE else text
    return text
