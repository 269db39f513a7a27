"""Rows to try a model with, made up from its card alone: no row of anyone's data is among them."""

import random
from typing import Any

from shared.cards import Card
from shared.features import Feature, integer_bounds
from shared.rows import RowValidator

SEED = 1729  # any number, but always the same one: the examples stay as they are
TRIES = 50  # variations tried for each row; rules between features refuse some


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
    rows = [first := {feature.name: canonical[feature.name] for feature in card.asked}]
    rng = random.Random(SEED)  # noqa: S311 - not a secret
    for _ in range(TRIES * count):
        if len(rows) >= count:
            break
        row = _vary(card, first, rng)
        if row not in rows and not validator.validate_many([row])[1][0]:
            rows.append(row)
    return rows


def _vary(card: Card, row: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    asked = card.asked
    chosen = rng.sample(asked, k=min(rng.randint(1, 3), len(asked)))
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
