"""The inputs that a model accepts, tried at registration: nulls, unknown categories, its own reference rows.

What the card refuses, the caller reads before anything is scored; what only the model refuses looks like its error.
"""

import logging
import math
from dataclasses import dataclass, replace
from typing import Any

from shared.cards.card import Card
from shared.cards.features import PHRASES, Feature, read_value
from shared.encoding.estimator_inputs import known_categories, may_be_null
from shared.encoding.native_categories import native_categories
from shared.errors import CardError
from shared.packages.package import Package
from shared.scoring.parity import refuses_all, score_with_refusals
from shared.scoring.scorers import PipelineScorer
from shared.scoring.scores import response_reader

TRIES = 3  # reference rows in which a value is tried: the model refuses it where it refuses all of them

log = logging.getLogger(__name__)
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A package that scores its reference rows, with a card that names the values that the model refuses."""

    package: Package
    refused: list[int]  # the places of the reference rows that the model refuses, and that were left out


def learn(package: Package) -> Acceptance:
    """Return the package with a card that says which nulls and unknown categories its model refuses.

    Lists of categories that gradient boosting learnt are put in. Where the model refuses every reference row, only
    that is done: there is nothing to learn from. Raises CardError where the card and such a list contradict each other.
    """
    card = _with_native_categories(package.card, package.estimator)
    score = PipelineScorer(card, package.estimator, response_reader(card, package.estimator)).score
    if refuses_all(score, package.reference, task=card.task):
        bad = [True] * len(package.reference)
    else:
        bad = score_with_refusals(score, package.reference, task=card.task).refused.tolist()
    rows = [row for row, is_bad in zip(package.reference, bad, strict=True) if not is_bad]
    if not rows:
        return Acceptance(replace(package, card=card), [])
    probes: list[tuple[Feature, Any]] = [(feature, None) for feature in card.features if may_be_null(card, feature)]
    probes += [(feature, value) for feature in card.features if (value := _outside(feature)) is not None]
    probe_rows = [row | {feature.name: value} for feature, value in probes for row in rows[:TRIES]]
    refused = (
        [
            probe
            for probe, is_bad in zip(
                probes,
                score_with_refusals(score, probe_rows, task=card.task).refused.reshape(len(probes), -1),
                strict=True,
            )
            if is_bad.all() and not any(_is_like(row, *probe) for row in rows)
        ]
        if probes
        else []
    )
    no_null = {feature.name for feature, value in refused if value is None}
    closed = {feature.name for feature, value in refused if value is not None}
    features = [
        _limited(feature, no_null=feature.name in no_null, closed=feature.name in closed) for feature in card.features
    ]
    card = card.model_copy(update={"features": features})
    if no_null and card.missing == "null":
        log.warning(
            "%s turns absent features into null, and the model refuses null in %s: rows without them are refused",
            card.name,
            ", ".join(sorted(no_null)),
        )
    lines = package.lines
    if lines is not None:
        lines = [line for line, is_bad in zip(lines, bad, strict=True) if not is_bad]
    return Acceptance(
        replace(package, card=card, reference=rows, lines=lines), [place for place, is_bad in enumerate(bad) if is_bad]
    )


def _with_native_categories(card: Card, estimator: object) -> Card:
    lists = native_categories(estimator, [feature.name for feature in card.features], known_categories(card))
    if not lists:
        return card
    features = []
    for feature in card.features:
        native = lists.get(feature.name)
        if native is None:
            features.append(feature)
            continue
        values = [
            int(value) if isinstance(value, float) and value.is_integer() else value for value in native.categories
        ]
        plain = feature.model_copy(update={"categories": None, "unknown": "accept"})
        if any(read_value(plain, value)[1] is not None for value in values):
            raise CardError(
                f"The card of {card.name} says that {feature.name} is {PHRASES[feature.type]}, and the model knows "
                f"the categories {', '.join(map(str, values[:5]))}: correct its type and limits."
            )
        features.append(
            feature.model_copy(update={"categories": values, "unknown": "refuse" if native.strict else feature.unknown})
        )
    return card.model_copy(update={"features": features})


def _outside(feature: Feature) -> Any:  # noqa: ANN401 - any JSON scalar
    """Return a value outside an open feature's categories that fits the card; None without one."""
    if feature.categories is None or feature.unknown == "refuse" or feature.type == "boolean":
        return None
    if feature.type == "string":
        value: Any = "?" * max(1, feature.min_length or 0)
    else:
        value = math.floor(max(map(float, feature.categories))) + 1
    return None if value in feature.categories or read_value(feature, value)[1] is not None else value


def _is_like(row: Row, feature: Feature, value: object) -> bool:
    """Return whether a row that was scored holds null there, or an unknown category, as the probe did."""
    cell = row[feature.name]
    return cell is None if value is None else cell is not None and cell not in (feature.categories or ())


def _limited(feature: Feature, *, no_null: bool, closed: bool) -> Feature:
    changes: dict[str, Any] = {"nullable": False, "required": True} if no_null else {}
    return feature.model_copy(update=changes | ({"unknown": "refuse"} if closed else {}))
