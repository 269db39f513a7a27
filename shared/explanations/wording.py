"""Contributions as sentences: the value, the usual value in the reference sample, the direction and the size."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from shared.cards.card import Card
from shared.cards.features import Feature, plain
from shared.explanations.attribution import Row, Scale

SHOWN = 40  # characters of a text value


@dataclass(frozen=True, slots=True)
class Reference:
    """The population that a row is compared with."""

    rows: int
    usual: Mapping[str, Any]  # feature -> median of its numbers, or its most frequent value
    seed: int
    words: tuple[tuple[str, str], ...]  # by feature: its name, and what is usual, as every sentence has them

    def about(self) -> dict[str, Any]:
        """Return the description of the reference in an explanation."""
        if self.rows == 0:
            return {"rows": 0, "source": "the training rows that the trees counted", "seed": None}
        return {"rows": self.rows, "source": "the reference sample of the model version", "seed": self.seed}


def summarise_reference(card: Card, rows: Sequence[Row], *, seed: int) -> Reference:
    """Return the usual values of canonical rows."""
    usual: dict[str, Any] = {}
    for feature in card.features:
        values = [row[feature.name] for row in rows if row[feature.name] is not None]
        if not values:
            usual[feature.name] = None
        elif feature.type in ("integer", "number") and not feature.categories:
            usual[feature.name] = plain(float(median(values)))
        else:
            usual[feature.name] = Counter(values).most_common(1)[0][0]
    return Reference(len(rows), usual, seed, tuple(_words(feature, usual[feature.name]) for feature in card.features))


def _words(feature: Feature, usual: object) -> tuple[str, str]:
    name = f"{feature.name} ({feature.description.rstrip('. ')})" if feature.description else feature.name
    is_number = feature.type in ("integer", "number") and not feature.categories
    kind = "median" if is_number else "most frequent value"
    return name, f" (reference {kind} {_shown(usual)})" if usual is not None else ""


def describe_factors(
    card: Card,
    row: Row,
    reference: Reference,
    *,
    contributions: Sequence[float],
    errors: Sequence[float] | None,
    scale: Scale,
    label: str | None,
) -> list[dict[str, Any]]:
    """Return each feature of a row with its contribution and a sentence, the largest first."""
    what = _what(card, scale, label)
    factors = []
    for place, feature in enumerate(card.features):
        amount, value = contributions[place], row[feature.name]
        error = None if errors is None else errors[place]
        factor: dict[str, Any] = {
            "feature": feature.name,
            "value": value,
            "contribution": amount,
            "reference": reference.usual[feature.name],
            "text": _sentence(*reference.words[place], value, amount, error, what),
        }
        if error is not None:
            factor["standard_error"] = error
        factors.append(factor)
    return sorted(factors, key=lambda factor: -abs(factor["contribution"]))


def _sentence(name: str, beside: str, value: object, amount: float, error: float | None, what: str) -> str:
    if amount == 0.0:
        return f"{name} is {_shown(value)}{beside}: it changes nothing here."
    direction = "raises" if amount > 0 else "lowers"
    unsure = f", standard error {_number(error)}" if error else ""
    return f"{name} is {_shown(value)}{beside}: it {direction} {what} by {_number(abs(amount))}{unsure}."


def _what(card: Card, scale: Scale, label: str | None) -> str:
    """Return the unit of contributions, in words."""
    target = card.target or "the prediction"
    return {
        "log_odds": f"the log-odds of {label}",
        "probability": f"the probability of {label}",
        "target": target,
        "log_target": f"the logarithm of {target}",
        "margin": f"the score of {label}",
    }[scale]


def _shown(value: object) -> str:
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _number(value)
    text = str(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "?"
    if float(value).is_integer() and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.1f}"
