"""Rows at the boundaries of a model's splits, where errors of a fast path appear first.

Values exactly on the thresholds of trees and beside them (the next float64, the next float32), the ends of every
range, every category, an unknown one, and null wherever the card allows it.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.cards.card import Card
from shared.cards.features import Feature
from shared.encoding.blocks import FeatureOrigin
from shared.encoding.estimator_inputs import may_be_null

SPLITS_PER_FEATURE = 24  # thresholds of one feature that are tried, evenly spread over all of them
MAX_SINGLE_CHANGES = 600  # rows in which one feature alone lies on an edge
CATEGORIES_PER_FEATURE = 30

Row = dict[str, Any]


def boundary_rows(
    card: Card, reference: list[Row], origins: list[FeatureOrigin | None], splits: dict[int, NDArray[np.float64]]
) -> list[Row]:
    """Return rows around the edges, made from rows of the reference sample by changing features.

    `origins` says of which feature an encoded column is a scaled copy, `splits` where trees split that column.
    """
    points: dict[str, list[float]] = {}
    for column, split_values in splits.items():
        origin = origins[column] if column < len(origins) else None
        if origin is not None:
            name, scale, shift = origin
            points.setdefault(name, []).extend(_spread(split_values * scale + shift))
    edges = {
        feature.name: _edges(feature, points.get(feature.name, []), reference)
        for feature in card.features
        if feature.type in ("integer", "number")
    }
    edges = {name: values for name, values in edges.items() if values}
    rows: list[Row] = []
    longest = max(map(len, edges.values()), default=0)
    for i in range(longest):  # all features at once: every edge of every feature in few rows
        changes = {name: values[i % len(values)] for name, values in edges.items()}
        rows.append(reference[i % len(reference)] | changes)
    share = max(1, MAX_SINGLE_CHANGES // max(1, len(edges)))
    for name, values in edges.items():  # one at a time, so that the rest of the row stays usual
        places = np.linspace(0, len(values) - 1, min(share, len(values))).astype(int).tolist()
        rows += [reference[(i * 7) % len(reference)] | {name: values[i]} for i in places]
    for i, feature in enumerate(card.features):
        base = reference[i % len(reference)]
        rows += [base | {feature.name: value} for value in _categories(feature)]
        if may_be_null(card, feature):
            rows.append(base | {feature.name: None})
    nulls = {feature.name: None for feature in card.features if may_be_null(card, feature)}
    if len(nulls) > 1:
        rows.append(reference[0] | nulls)
    return rows


def _edges(feature: Feature, points: list[float], reference: list[Row]) -> list[int | float]:
    if feature.categories is not None and feature.unknown == "refuse":
        return []
    seen = sorted({float(row[feature.name]) for row in reference if row.get(feature.name) is not None})
    low, high = (seen[0], seen[-1]) if seen else (0.0, 1.0)
    ends = [
        end for end in (feature.min, feature.max, low, high, low - (high - low), high + (high - low)) if end is not None
    ]
    ends += [0.0, *(_spread(np.array(seen))[:4] if seen else ())]
    if feature.exclusive_min is not None:
        ends.append(math.nextafter(feature.exclusive_min, math.inf))
    if feature.exclusive_max is not None:
        ends.append(math.nextafter(feature.exclusive_max, -math.inf))
    beside = [near for point in points + ends for near in _neighbours(point)]
    if feature.type == "integer":
        whole = sorted({math.floor(value) for value in beside} | {math.ceil(value) for value in beside})
        return [value for value in whole if _fits(feature, value)]
    return [value for value in dict.fromkeys(beside) if _fits(feature, value)]


def _neighbours(point: float) -> Iterable[float]:
    yield point
    yield math.nextafter(point, math.inf)
    yield math.nextafter(point, -math.inf)
    with np.errstate(over="ignore"):
        single = np.float32(point)
    if np.isfinite(single):  # both sides of the float32 that the value is rounded to
        yield float(single)
        yield float(np.nextafter(single, np.float32(np.inf)))
        yield float(np.nextafter(single, np.float32(-np.inf)))


def _fits(feature: Feature, value: float) -> bool:
    return (
        math.isfinite(value)
        and (feature.type != "integer" or abs(value) <= 2**53)
        and (feature.min is None or value >= feature.min)
        and (feature.max is None or value <= feature.max)
        and (feature.exclusive_min is None or value > feature.exclusive_min)
        and (feature.exclusive_max is None or value < feature.exclusive_max)
    )


def _categories(feature: Feature) -> list[Any]:
    values: list[Any] = list(feature.categories or [])[:CATEGORIES_PER_FEATURE]
    if feature.type == "boolean":
        return [True, False]
    if feature.categories is not None and feature.unknown == "refuse":
        return values
    if feature.type == "string":
        least, most = feature.min_length or 0, feature.max_length
        length = max(1, least) if most is None else min(max(1, least), most)
        values.append("?" * length)
        if least == 0:
            values.append("")
    elif values:
        values.append(math.floor(max(values)) + 1)
        values = [value for value in values if _fits(feature, value)]
    return values


def _spread(values: NDArray[np.float64]) -> list[float]:
    if len(values) > SPLITS_PER_FEATURE:
        values = values[np.linspace(0, len(values) - 1, SPLITS_PER_FEATURE).astype(int)]
    return [float(value) for value in values]
