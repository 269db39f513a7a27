"""Counts of pairs, chunk by chunk: the tallies of parts add up to that of all rows, in bounded memory."""

import heapq
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from shared.cards.card import Task
from shared.comparison.pairs import Pairs
from shared.comparison.segments import Counts, add_counts
from shared.comparison.statistics import Moments
from shared.csv.packing import pack, unpack

LARGEST = 10  # disagreements that are kept
STEPS = (0.01, 0.05, 0.1)  # of a probability: how many rows moved by more


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A row with two scores that differ strongly."""

    apart: float  # absolute
    input_id: int
    before: float
    after: float
    decided_before: int | None
    decided_after: int | None


@dataclass(slots=True)
class Tally:
    """Sums over some pairs of one task."""

    task: Task
    rows: int = 0
    refused: int = 0  # rows that the other version does not take: they are in nothing else
    transitions: dict[tuple[int, int], int] = field(default_factory=dict)  # rows by class before and after
    shift: Moments = field(default_factory=Moments)  # of the second score less the first
    absolute: Moments = field(default_factory=Moments)
    before: Moments = field(default_factory=Moments)
    after: Moments = field(default_factory=Moments)
    most: float = 0.0  # the largest absolute difference
    moved: list[int] = field(default_factory=lambda: [0] * len(STEPS))
    segments: Counts = field(default_factory=dict)  # flips up and down; changes and 0; sums of shift and its square
    largest: list[Disagreement] = field(default_factory=list)

    @classmethod
    def of(cls, task: Task, pairs: Pairs, *, refused: int = 0) -> Self:
        """Return the tally of some pairs, without segments."""
        tally = cls(task, len(pairs), refused)
        if task != "regression" and len(pairs):
            classes = np.stack([pairs.decided_before, pairs.decided_after])
            kinds, counts = np.unique(classes, axis=1, return_counts=True)
            places = zip(kinds[0].tolist(), kinds[1].tolist(), strict=True)
            tally.transitions = dict(zip(places, counts.tolist(), strict=True))
        has_scores = ~(np.isnan(pairs.before) | np.isnan(pairs.after))
        scored = pairs if has_scores.all() else pairs.at(has_scores)
        shift = scored.after - scored.before
        apart = np.abs(shift)
        tally.shift, tally.absolute = Moments.of(shift), Moments.of(apart)
        tally.before, tally.after = Moments.of(scored.before), Moments.of(scored.after)
        tally.most = float(apart.max()) if len(apart) else 0.0
        tally.moved = [int(np.count_nonzero(apart > step)) for step in STEPS]
        tally.largest = _largest(scored, apart)
        return tally

    def add(self, other: "Tally") -> None:
        """Add the tally of other pairs."""
        self.rows += other.rows
        self.refused += other.refused
        for change, count in other.transitions.items():
            self.transitions[change] = self.transitions.get(change, 0) + count
        self.shift.add(other.shift)
        self.absolute.add(other.absolute)
        self.before.add(other.before)
        self.after.add(other.after)
        self.most = max(self.most, other.most)
        self.moved = [mine + theirs for mine, theirs in zip(self.moved, other.moved, strict=True)]
        add_counts(self.segments, other.segments)
        self.largest = heapq.nsmallest(LARGEST, [*self.largest, *other.largest], key=_rank)

    def dump(self) -> bytes:
        """Return the stored form of the tally: JSON, compressed by zstd."""
        stored = {
            "task": self.task,
            "rows": self.rows,
            "refused": self.refused,
            "transitions": [[*change, count] for change, count in self.transitions.items()],
            "moments": [
                [each.count, each.mean, each.squares] for each in (self.shift, self.absolute, self.before, self.after)
            ],
            "most": self.most,
            "moved": self.moved,
            "segments": self.segments,
            "largest": self.largest,
        }
        return pack(orjson.dumps(stored))

    @classmethod
    def load(cls, packed: bytes) -> Self:
        """Return the tally that `dump` gave."""
        stored: dict[str, Any] = orjson.loads(unpack(packed))
        shift, absolute, before, after = (Moments(*each) for each in stored["moments"])
        return cls(
            stored["task"],
            stored["rows"],
            stored["refused"],
            {(before, after): count for before, after, count in stored["transitions"]},
            shift,
            absolute,
            before,
            after,
            stored["most"],
            stored["moved"],
            stored["segments"],
            [Disagreement(**each) for each in stored["largest"]],
        )

    @property
    def agreed(self) -> int:
        """Rows that both decide alike."""
        return sum(count for (before, after), count in self.transitions.items() if before == after)


def changes(task: Task, pairs: Pairs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the two numbers of each pair that are summed by segment: flips up and down, or changes, or the shift."""
    if task == "binary":
        step = pairs.decided_after.astype(np.float64) - pairs.decided_before
        return np.maximum(step, 0.0), np.maximum(-step, 0.0)
    if task == "multiclass":
        changed = (pairs.decided_after != pairs.decided_before).astype(np.float64)
        return changed, np.zeros(len(pairs))
    shift = pairs.after - pairs.before
    return shift, np.square(shift)


def _largest(pairs: Pairs, apart: NDArray[np.float64]) -> list[Disagreement]:
    # Of equal distances the lowest ids: the same ten, however the rows are cut into parts.
    order = np.lexsort((pairs.input_ids, -apart))[:LARGEST]
    order = order[apart[order] > 0]
    largest = pairs.at(order)
    columns = (apart[order], largest.input_ids, largest.before, largest.after)
    decided = [
        [None] * len(order) if not len(each) else each.tolist()
        for each in (largest.decided_before, largest.decided_after)
    ]
    return [Disagreement(*row) for row in zip(*(each.tolist() for each in columns), *decided, strict=True)]


def _rank(disagreement: Disagreement) -> tuple[float, int]:
    return -disagreement.apart, disagreement.input_id
