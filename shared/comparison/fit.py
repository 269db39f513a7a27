"""Whether rows of one version are rows of another one, and how they are read as such."""

from typing import Any

from shared.cards.card import Card
from shared.cards.validator import RowValidator
from shared.faults import Fault, few


def differences(card: Card, other: Card) -> list[str]:
    """Return, as sentences, why rows of another card do not fit this one: missing features, other types."""
    if card.task != other.task or list(card.labels.values()) != list(other.labels.values()):
        return ["their answers are not of the same kind, or have other labels"]
    theirs = {feature.name: feature for feature in other.row_features}
    needed = [feature for feature in card.sent_features if feature.required and feature.default is None]
    lacking = [feature.name for feature in needed if feature.name not in theirs and card.missing == "refuse"]
    kinds = {"integer": "number"}
    others = [
        f"{feature.name} ({theirs[feature.name].type} there, {feature.type} here)"
        for feature in card.sent_features
        if feature.name in theirs
        and kinds.get(feature.type, feature.type) != kinds.get(theirs[feature.name].type, theirs[feature.name].type)
    ]
    reasons = [f"these rows lack {few(lacking)}"] if lacking else []
    return reasons + ([f"another type has {few(others)}"] if others else [])


def takes_as_is(card: Card, other: Card) -> bool:
    """Return whether every stored row of another card fits this one unchanged."""
    return (
        card.features == other.features
        and card.inputs == other.inputs
        and card.rules == other.rules
        and card.missing == other.missing
    )


class RowsOfOthers:
    """Reads stored rows of other versions as one version takes them."""

    def __init__(self, card: Card) -> None:
        self._validator = RowValidator(card)
        self._sent = {feature.name for feature in card.sent_features}

    def read(self, row: dict[str, Any]) -> tuple[dict[str, Any] | None, list[Fault]]:
        """Return a row of another version as this one reads it, or its fault."""
        sent = {name: value for name, value in row.items() if name in self._sent}
        (canonical,), (faults,) = self._validator.validate_many([sent])
        return canonical, faults
