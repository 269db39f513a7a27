"""Segments: the bins of each feature, in which changes are counted apart."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.cards.card import Card
from shared.encoding.columns import Column, Columns
from shared.monitoring.drift.profiles import Bins, feature_bins

# By feature and segment: the rows, and two sums over them (what of, says the tally).
Counts = dict[str, dict[str, list[float]]]


class Segments:
    """The segments of one version: the deciles of numbers, and the categories of everything else."""

    def __init__(self, bins: Sequence[Bins]) -> None:
        self._bins = bins
        self._labels = [each.labels for each in bins]

    @classmethod
    def of(cls, card: Card, reference: Sequence[Mapping[str, Any]]) -> "Segments":
        """Return the segments of a version by the n rows of its reference."""
        return cls([feature_bins(each, [row.get(each.name) for row in reference]) for each in card.row_features])

    def count(self, columns: Columns, one: NDArray[np.float64], other: NDArray[np.float64]) -> Counts:
        """Return, by feature and segment, the rows and the sums of `one` and `other` (n,) over n rows."""
        counts: Counts = {}
        for bins, labels in zip(self._bins, self._labels, strict=True):
            places = _places(bins, columns.columns[bins.name])
            width = bins.width
            rows = np.bincount(places, minlength=width)
            sums = [np.bincount(places, weights=weights, minlength=width) for weights in (one, other)]
            of_feature = counts.setdefault(bins.name, {})
            for place in np.flatnonzero(rows).tolist():
                counted = [float(rows[place]), float(sums[0][place]), float(sums[1][place])]
                # Two narrow ranges of large numbers may read the same.
                of_feature[labels[place]] = _added(of_feature.get(labels[place]), counted)
        return counts


def _places(bins: Bins, column: Column) -> NDArray[np.intp]:
    """Return the place of each row's bin: each distinct value is looked up once."""
    find = bins.finder()
    values = column.distinct.tolist()
    if bins.kind == "category" and column.kind != "string":
        make = {"integer": int, "number": float, "boolean": bool}[column.kind]
        values = [None if value != value else make(value) for value in values]
    places: NDArray[np.intp] = np.array([find(value) for value in values], dtype=np.intp)[column.codes]
    return places


def add_counts(total: Counts, more: Counts) -> None:
    """Add the counts of other rows."""
    for feature, segments in more.items():
        of_feature = total.setdefault(feature, {})
        for label, sums in segments.items():
            of_feature[label] = _added(of_feature.get(label), sums)


def _added(before: list[float] | None, more: list[float]) -> list[float]:
    return more if before is None else [one + other for one, other in zip(before, more, strict=True)]


def flattened(counts: Counts) -> list[tuple[str, str, Sequence[float]]]:
    """Return every (feature, segment, sums)."""
    return [(feature, label, sums) for feature, segments in counts.items() for label, sums in segments.items()]
