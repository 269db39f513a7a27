"""Profiles: the bins of a model version's reference, and the counting of rows into them.

A number falls into a bin of the reference's deciles (ties merged), or below, above or missing; anything else into the
bin of its category, or unseen or missing. A profile never changes while its counters live.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from shared.cards.card import Card
from shared.cards.features import Feature

BINS = 10  # quantile bins of a number
MAX_CATEGORIES = 50  # bins of a feature without numbers; what is rarer shares one
MAX_KEPT = 1_001  # of the reference's scores and surprises: so many say where a row stands to a thousandth
SCORE, DECISION = "score", "decision"

Kind = Literal["number", "category"]
Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Bins:
    """The bins of one feature, in this order: missing, then of numbers below, bins, above; else categories, unseen."""

    name: str
    kind: Kind
    low: float | None = None  # the reference's least number; None: it has no numbers
    uppers: list[float] = field(default_factory=list)  # upper ends of the bins, ascending; each end lies in its bin
    categories: list[Any] = field(default_factory=list)
    is_open: bool = False  # the last bin also holds rare categories of the reference
    reference: list[int] = field(default_factory=list)  # rows of the reference by bin

    @property
    def width(self) -> int:
        """Number of bins, missing and the outer ones included."""
        return 3 + len(self.uppers) if self.kind == "number" else 2 + len(self.categories)

    @property
    def labels(self) -> list[str]:
        """Return a name for each bin, as people read it."""
        if self.kind == "category":
            return ["missing", *(str(value) for value in self.categories), "other" if self.is_open else "unseen"]
        if self.low is None:
            return ["missing", "below", "above"]
        lows = [self.low, *self.uppers]
        inner = [
            f"{low:.6g}" if low == high else f"{'[' if place == 0 else '('}{low:.6g}, {high:.6g}]"
            for place, (low, high) in enumerate(zip(lows, self.uppers, strict=False))
        ]
        return ["missing", f"< {self.low:.6g}", *inner, f"> {self.uppers[-1]:.6g}"]

    def unseen(self, counts: Sequence[int]) -> int:
        """Return the number of values outside the reference's range or categories."""
        if self.kind == "number":
            return counts[1] + counts[-1]
        return 0 if self.is_open else counts[-1]

    def count(self, values: Sequence[Value]) -> list[int]:
        """Count n values by bin."""
        if self.kind == "number":
            return self._count_numbers(np.array(values, dtype=np.float64))
        last = self.width - 1
        places = self._places()
        counts = [0] * self.width
        for value, count in Counter(map(_key, values)).items():
            counts[places.get(value, last)] += count
        return counts

    def finder(self) -> Callable[[Value], int]:
        """Return the function from a value to the place of its bin; it is made once for many values."""
        last = self.width - 1
        if self.kind == "category":
            places = self._places()
            return lambda value: places.get(_key(value), last)
        low, uppers = self.low, self.uppers

        def find(value: Any) -> int:  # noqa: ANN401 - numbers, booleans, or None
            if value is None or value != value:
                return 0
            if low is None:
                return last
            return 1 if value < low else bisect_left(uppers, value) + 2

        return find

    def _places(self) -> dict[Hashable, int]:
        places: dict[Hashable, int] = {_key(value): place for place, value in enumerate(self.categories, 1)}
        places[None] = 0
        return places

    def _count_numbers(self, values: NDArray[np.float64]) -> list[int]:
        is_missing = np.isnan(values)
        numbers = values[~is_missing]
        if self.low is None:  # a reference without numbers: every number is out of its range
            return [int(is_missing.sum()), 0, len(numbers)]
        places = np.searchsorted(np.array(self.uppers), numbers, side="left") + 2
        places[numbers < self.low] = 1
        counts = np.bincount(places, minlength=self.width)
        counts[0] = is_missing.sum()
        bin_counts: list[int] = counts.tolist()
        return bin_counts


@dataclass(frozen=True, slots=True)
class Profile:
    """The bins of a version: those of its features, then of its score and its decision where they are known."""

    features: list[Bins]
    outputs: list[Bins]
    rows: int  # of the reference
    surprises: list[float] = field(default_factory=list)  # of the reference's rows, ascending, MAX_KEPT at most
    scores: list[float] = field(default_factory=list)  # of the reference's rows where known, in the same way

    @property
    def all(self) -> list[Bins]:
        """Every set of bins, in the order of the counters."""
        return [*self.features, *self.outputs]

    def split(self, counts: Sequence[int]) -> Iterator[tuple[Bins, list[int]]]:
        """Yield the counts of each set of bins out of the counters of a period."""
        place = 0
        for bins in self.all:
            yield bins, list(counts[place : place + bins.width])
            place += bins.width

    def count(self, rows: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, Any]]) -> list[int]:
        """Count n rows (feature name to value) with their n scores (`score` and `decision`) into the counters."""
        counts: list[int] = []
        for bins in self.features:
            counts += bins.count([row.get(bins.name) for row in rows])
        for bins in self.outputs:
            counts += bins.count([score[bins.name] for score in scores])
        return counts

    def dump(self) -> dict[str, Any]:
        """Return the profile as JSON has it."""
        return asdict(self)

    @classmethod
    def load(cls, stored: Mapping[str, Any]) -> "Profile":
        """Return the profile that `dump` gave."""
        features, outputs = ([Bins(**bins) for bins in stored[part]] for part in ("features", "outputs"))
        return cls(features, outputs, stored["rows"], stored.get("surprises", []), stored.get("scores", []))


class Surprise:
    """How unusual rows are among those of a reference: the sum of -ln(share of the reference in the value's bin).

    That is the histogram-based outlier score (Goldstein and Dengel, 2012), over the bins that drift is counted in. 0.5
    is added to each bin, as for PSI, so that a value that the reference has not is finitely unusual.
    """

    def __init__(self, features: Sequence[Bins]) -> None:
        self._parts = []
        for bins in features:
            total = sum(bins.reference) + 0.5 * bins.width
            weights = [-math.log((count + 0.5) / total) for count in bins.reference or [0] * bins.width]
            self._parts.append((bins.name, bins.finder(), weights))

    def places(self, row: Mapping[str, Any]) -> list[int]:
        """Return the place of each feature's bin, in the order of the features, for a row in canonical form."""
        return [find(row.get(name)) for name, find, _ in self._parts]

    def of(self, places: Sequence[int]) -> float:
        """Return the surprise of a row in these bins, in nats: 0 is a row with only one possible value per feature."""
        return math.fsum(weights[place] for place, (_, _, weights) in zip(places, self._parts, strict=True))


def score_values(card: Card, *, prediction: float, label: str | None, probability: float | None) -> dict[str, Value]:
    """Return the counted values of one output: its score, and its decision (None for a regression)."""
    is_number = card.task == "regression"
    return {SCORE: prediction if is_number else probability, DECISION: None if is_number else label}


def make_profile(card: Card, rows: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, Any]] | None) -> Profile:
    """Return the profile of a reference: n canonical rows and, where they are known, their n scores.

    Without scores a probability has ten equal bins and the decisions are those of the card; their reference counts stay
    empty, so that windows can be compared with each other only.
    """
    features = [feature_bins(feature, [row.get(feature.name) for row in rows]) for feature in card.row_features]
    surprise = Surprise(features)
    surprises = [surprise.of(surprise.places(row)) for row in rows]
    scored = [value for score in scores or () if (value := score[SCORE]) is not None]
    return Profile(features, _output_bins(card, scores), len(rows), _thinned(surprises), _thinned(scored))


def _thinned(values: Sequence[float]) -> list[float]:
    """Return values in order, of many those at MAX_KEPT even steps, the least and the greatest among them."""
    ordered = sorted(values)
    if len(ordered) <= MAX_KEPT:
        return ordered
    return [ordered[round(place * (len(ordered) - 1) / (MAX_KEPT - 1))] for place in range(MAX_KEPT)]


def _output_bins(card: Card, scores: Sequence[Mapping[str, Any]] | None) -> list[Bins]:
    outputs = []
    if scores:
        outputs.append(number_bins(SCORE, [score[SCORE] for score in scores]))
    elif card.task != "regression":
        outputs.append(Bins(SCORE, "number", 0.0, [place / BINS for place in range(1, BINS + 1)]))
    if card.task != "regression":
        decided = [score[DECISION] for score in scores] if scores else None
        bins = Bins(DECISION, "category", categories=list(card.labels.values()))
        outputs.append(_with_reference(bins, decided))
    return outputs


def feature_bins(feature: Feature, values: Sequence[Value]) -> Bins:
    """Return the bins of a feature by the n values that a reference has of it (None: missing)."""
    if feature.type in ("integer", "number") and feature.categories is None:
        return number_bins(feature.name, values)
    categories: list[Any] = [False, True] if feature.type == "boolean" else list(feature.categories or ())
    seen = Counter(_key(value) for value in values if value is not None)
    originals = {_key(value): value for value in values}
    listed = {_key(value) for value in categories}
    categories += [originals[key] for key, _ in seen.most_common() if key not in listed]
    is_open = len(categories) > MAX_CATEGORIES
    if is_open:
        categories = sorted(categories, key=lambda value: -seen[_key(value)])[:MAX_CATEGORIES]
    return _with_reference(Bins(feature.name, "category", categories=categories, is_open=is_open), values)


def number_bins(name: str, values: Sequence[Value]) -> Bins:
    """Return the quantile bins of these numbers (None: missing), with ties merged."""
    numbers = np.array(values, dtype=np.float64)
    finite = np.sort(numbers[np.isfinite(numbers)])
    if not len(finite):
        return _with_reference(Bins(name, "number"), values)
    places = -(-len(finite) * np.arange(1, BINS + 1) // BINS) - 1  # the inverse of the distribution function
    return _with_reference(Bins(name, "number", float(finite[0]), np.unique(finite[places]).tolist()), values)


def _with_reference(bins: Bins, values: Sequence[Value] | None) -> Bins:
    return bins if values is None else Bins(**{**asdict(bins), "reference": bins.count(values)})


def _key(value: Value) -> Hashable:
    """Return the identity of a category: 1 and 1.0 are one, true is neither, NaN is missing."""
    if isinstance(value, bool):
        return ("boolean", value)
    return None if isinstance(value, float) and math.isnan(value) else value
