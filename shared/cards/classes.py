"""The classes of a classifier as values: a card writes them as text, since JSON's keys are text."""

import math
from collections.abc import Callable
from functools import lru_cache

from shared.cards.card import Card

ClassValue = str | int | float | bool


def classes_of(card: Card) -> dict[str, ClassValue]:
    """Return the classes of a classifier, each as the card writes it and as its own value: `{"0": 0, "1": 1}`.

    They are numbers if all of them are written as Python writes numbers (`01` and `1e3` stay text), unless the card
    declares text.
    """
    return {text: text for text in card.labels} if card.class_type == "string" else class_values(tuple(card.labels))


@lru_cache(maxsize=512)
def class_values(texts: tuple[str, ...]) -> dict[str, ClassValue]:
    """Return the values of classes that are written so, by their texts; the dict is shared: do not change it."""
    if set(texts) == {"True", "False"}:
        return {text: text == "True" for text in texts}
    kinds: tuple[Callable[[str], int | float], ...] = (int, float)
    for kind in kinds:
        values = {text: value for text in texts if (value := _read(kind, text)) is not None}
        if len(values) == len(texts):
            return dict(values)
    return {text: text for text in texts}


def _read(kind: Callable[[str], int | float], text: str) -> int | float | None:
    try:
        value = kind(text)
    except ValueError:
        return None
    return value if str(value) == text and math.isfinite(value) else None
