"""Example rows of a model, made up from its card: they contain no one's data.

A card that is inferred gets its examples here, from what is common to its reference rows; the rows of `/examples` are
variations of those, made from the card alone.
"""

import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from shared.cards.card import Card
from shared.cards.features import Feature, integer_bounds, read_value
from shared.cards.rules import parse_rule
from shared.cards.validator import RowValidator

SEED = 1729  # any number, but always the same one: the examples stay as they are
TRIES = 50  # variations tried for each row; rules between features refuse some
MADE_UP = "examples are made up"  # what the notes of a card say whose examples are nobody's values
ENOUGH = 5  # a text that so many rows share, or a quantile of so many, tells of nobody
MASKED_LENGTH = 40

_OF_ROWS = ("This card was inferred from", "Taken from a folder that MLflow saved")  # how notes of such cards begin
_DIGITS = re.compile(r"\d+")
_LETTERS = re.compile(r"[^\W\d_]")


def with_examples(card: Card, rows: Sequence[Mapping[str, Any]]) -> Card:
    """Return the card with an example for each feature without one; the examples are like typed rows, and nobody's.

    They are medians and frequent values, rounded; together they keep the card's rules, and no reference row equals
    them. If no such row exists, the features of rules stay without examples.
    """
    bare = [feature for feature in card.sent_features if feature.example is None]
    if not bare:
        return card
    choices = {
        feature.name: _fitting(feature, _like([row.get(feature.name) for row in rows], feature)) for feature in bare
    }
    choices = {name: values for name, values in choices.items() if values}
    chosen = {name: values[0] for name, values in choices.items()}
    validator = RowValidator(card)
    rng = random.Random(SEED)  # noqa: S311 - not a secret
    for _ in range(4 * TRIES):
        row = card.example() | chosen
        if not validator.validate_many([row])[1][0] and not _is_one_of(row, rows):
            break
        chosen = {name: rng.choice(values) for name, values in choices.items()}
    else:
        rules = [parse_rule(rule.expression, rule.message, card.row_features) for rule in card.rules]
        ruled = {name for rule in rules for name in rule.names}
        chosen = {name: values[0] for name, values in choices.items() if name not in ruled}
    features, inputs = (
        [feature.model_copy(update={"example": chosen.get(feature.name, feature.example)}) for feature in part]
        for part in (card.features, card.inputs)
    )
    return card.model_copy(update={"features": features, "inputs": inputs})


def without_people(card: Card) -> Card:
    """Return the card without the examples that an earlier release took from the first of its reference rows."""
    if not is_of_people(card):
        return card
    features = [feature.model_copy(update={"example": None}) for feature in card.features]
    return card.model_copy(update={"features": features})


def is_of_people(card: Card) -> bool:
    """Return whether the examples of a card may be values of its reference rows."""
    return card.notes.startswith(_OF_ROWS) and MADE_UP not in card.notes


def _like(values: Sequence[Any], feature: Feature) -> list[Any]:
    """Return values like these, the likeliest first."""
    if feature.categories:
        return list(feature.categories[:ENOUGH])
    if feature.type == "boolean":
        return [False, True]
    present = [value for value in values if value is not None]
    if feature.type == "string":
        return _like_texts(present)
    present.sort()
    digits = 2 if len(present) >= ENOUGH else 1
    places = (len(present) // 2, len(present) // 4, 3 * len(present) // 4, 0, len(present) - 1)
    typical = [_rounded(present[place], digits) for place in places] if present else []
    return list(dict.fromkeys([*typical, *(value + 1 for value in typical)]))


def _like_texts(texts: Sequence[str]) -> list[str]:
    if not texts:
        return []
    [(text, count)] = Counter(texts).most_common(1)
    return [text] if count >= ENOUGH else [masked(text)]


def masked(text: str) -> str:
    """Return a text of the same form: x for letters, other digits, dates on the first of January 2000."""
    # Of dates, however they are written, a date: 2024-05-17 becomes 2000-01-01, and 17/05/24 becomes 01/01/01.
    forms = {8: "20000101", 4: "2000", 2: "01"}
    text = _DIGITS.sub(lambda match: forms.get(len(match[0]), "1" * len(match[0])), text[:MASKED_LENGTH])
    is_time = re.search(r"\d[T ]\d", text) is not None or text.endswith("Z")  # its letters are part of the form
    return text if is_time else _LETTERS.sub(lambda match: "X" if match[0].isupper() else "x", text)


def _rounded(value: float, digits: int) -> float:
    """Return a number rounded to this number of significant digits; an integer stays one."""
    if value == 0:
        return value
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return round(value, places)


def _fitting(feature: Feature, values: Sequence[Any]) -> list[Any]:
    return [value for value in values if read_value(feature, value)[1] is None]


def _is_one_of(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bool:
    return any(all(other.get(name) == value for name, value in row.items()) for other in rows)


def example_rows(validator: RowValidator, count: int) -> list[dict[str, Any]]:
    """Return at most `count` different canonical rows that fit the card: its example first, then variations of it.

    A variation changes one to three features, each within its own limits; where the rules leave little room there
    may be fewer, and only the example itself where that breaks a rule.
    """
    card = validator.card
    first = card.example()
    [canonical], _ = validator.validate_many([first])
    if canonical is None:
        return [first]
    rows = [first := {feature.name: canonical[feature.name] for feature in card.sent_features}]
    rng = random.Random(SEED)  # noqa: S311 - not a secret
    for _ in range(TRIES * count):
        if len(rows) >= count:
            break
        row = _vary(card, first, rng)
        if row not in rows and not validator.validate_many([row])[1][0]:
            rows.append(row)
    return rows


def _vary(card: Card, row: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    features = card.sent_features
    chosen = rng.sample(features, k=min(rng.randint(1, 3), len(features)))
    return row | {feature.name: _other_value(feature, row[feature.name], rng) for feature in chosen}


def _other_value(feature: Feature, value: Any, rng: random.Random) -> Any:  # noqa: ANN401 - any JSON scalar
    """Return a value near the example's, or another category."""
    if feature.categories:
        return rng.choice(feature.categories)
    if feature.type == "boolean":
        return not value
    if feature.type == "integer" and value is not None:
        low, high = integer_bounds(feature)
        return min(max(value + rng.choice((-3, -2, -1, 1, 2, 3)), low), high)
    if feature.type == "number" and value is not None:
        return round(value * rng.uniform(0.8, 1.2), 2)
    return value
