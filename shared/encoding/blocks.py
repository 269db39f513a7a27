"""The blocks that a compiled pipeline passes from step to step; each block describes itself.

A `FeatureBlock` is features as the row has them; an `EncodedBlock` is a float64 matrix that the rows become. Both
record the steps behind them, so that a compiled plan can be printed and its columns attributed to features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Estimator = Any  # a fitted estimator or transformer: scikit-learn has no types for them
FeatureOrigin = tuple[str, float, float]  # feature, scale, shift: encoded * scale + shift is the feature's value


class Unsupported(Exception):
    """No fast path represents this model; the message says which part and why."""


@dataclass(slots=True)
class RowValues:
    """The rows of one call: number features as an (n, p) matrix, looked-up features as one sequence each."""

    numbers: Matrix
    columns: Sequence[Sequence[Any]]


Fill = Callable[[RowValues, Matrix], None]  # writes a block into an (n, width) view


@dataclass(slots=True)
class InputPlan:
    """Which features are read as numbers and which are looked up, in the order of their first use."""

    types: dict[str, str]  # feature -> integer, number, boolean or string
    numbers: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)

    def number(self, name: str) -> int:
        """Return the column of this feature in `RowValues.numbers`."""
        return _position(self.numbers, name)

    def column(self, name: str) -> int:
        """Return the place of this feature in `RowValues.columns`."""
        return _position(self.columns, name)


@dataclass(frozen=True, slots=True)
class BlockStep:
    """One fitted step as the plan has it."""

    transformer: str  # the class
    becomes: str  # what the step makes of its input, in words
    width: int  # columns behind the step
    is_compiled: bool  # False: the step's own `transform` runs, on a plain array


@dataclass(slots=True)
class FeatureBlock:
    """Features that no step has turned into numbers yet, each with its replacement for a missing value."""

    plan: InputPlan
    names: list[str]
    fills: dict[str, Any] = field(default_factory=dict)
    steps: tuple[BlockStep, ...] = ()

    def replacing(self, step: Estimator, fills: dict[str, Any], *, becomes: str) -> "FeatureBlock":
        """Return the same features, a missing value of each replaced by this unless a step before replaces it."""
        made = BlockStep(type(step).__name__, becomes, len(self.names), is_compiled=True)
        return FeatureBlock(self.plan, self.names, fills | self.fills, (*self.steps, made))

    def then(
        self,
        step: Estimator,
        fill: Fill,
        features: Sequence[tuple[str, ...]],
        *,
        becomes: str,
    ) -> "EncodedBlock":
        """Return the block that a compiled step makes of these features, one tuple of features a column."""
        made = BlockStep(type(step).__name__, becomes, len(features), is_compiled=True)
        return EncodedBlock(fill, [None] * len(features), list(features), (*self.steps, made))


@dataclass(slots=True)
class EncodedBlock:
    """A part of the encoded matrix: how it is written, and where each of its columns comes from."""

    fill: Fill
    origins: list[FeatureOrigin | None]  # a column that is a scaled copy of one feature, else None
    features: list[tuple[str, ...]]  # the features that each column is computed from; none for a constant
    steps: tuple[BlockStep, ...] = ()
    parts: tuple["EncodedBlock", ...] = ()  # the blocks side by side that the steps continue from

    @property
    def width(self) -> int:
        """Return the number of columns."""
        return len(self.features)

    def then(
        self,
        step: Estimator,
        fill: Fill,
        *,
        becomes: str,
        origins: list[FeatureOrigin | None] | None = None,
        features: list[tuple[str, ...]] | None = None,
        is_compiled: bool = True,
    ) -> "EncodedBlock":
        """Return the block behind one more step; without `features`, each column keeps its own."""
        features = self.features if features is None else features
        origins = [None] * len(features) if origins is None else origins
        made = BlockStep(type(step).__name__, becomes, len(features), is_compiled)
        return EncodedBlock(fill, origins, features, (*self.steps, made), self.parts)


def concatenate(parts: Sequence[EncodedBlock]) -> EncodedBlock:
    """Return blocks side by side as one; raise Unsupported without any block."""
    if not parts:
        raise Unsupported("no column reaches the estimator")
    if len(parts) == 1:
        return parts[0]
    ends = np.cumsum([part.width for part in parts]).tolist()
    spans = [(part.fill, slice(end - part.width, end)) for part, end in zip(parts, ends, strict=True)]

    def fill(values: RowValues, out: Matrix) -> None:
        for write, span in spans:
            write(values, out[:, span])

    origins = [origin for part in parts for origin in part.origins]
    features = [names for part in parts for names in part.features]
    return EncodedBlock(fill, origins, features, parts=tuple(parts))


def _position(names: list[str], name: str) -> int:
    if name not in names:
        names.append(name)
    return names.index(name)
