"""Preprocessing steps without DataFrames: each fitted scikit-learn step becomes the same float64 arithmetic on arrays.

Two things flow from step to step while a pipeline is compiled: `Raw`, features as the row has them, and `Node`,
a float64 matrix that the rows become. Encoders of categories are in shared/encoding/encoders.py.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Fitted = Any  # a fitted estimator or transformer: scikit-learn has no types for them
Origin = tuple[str, float, float]  # feature, scale, shift: encoded * scale + shift is the feature's value


class Unsupported(Exception):
    """No fast path represents this model; the message says which part and why."""


@dataclass(slots=True)
class Sources:
    """The rows of one call: number features as an (n, p) matrix, looked-up features as one sequence each."""

    numbers: Matrix
    columns: Sequence[Sequence[Any]]


@dataclass(slots=True)
class Plan:
    """Which features are read as numbers and which are looked up, in the order of their first use."""

    types: dict[str, str]  # feature -> integer, number, boolean or string
    numbers: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)

    def number(self, name: str) -> int:
        """Return the column of this feature in `Sources.numbers`."""
        return _position(self.numbers, name)

    def column(self, name: str) -> int:
        """Return the place of this feature in `Sources.columns`."""
        return _position(self.columns, name)


@dataclass(slots=True)
class Raw:
    """Features that no step has turned into numbers yet, with what a missing value of each is replaced by."""

    plan: Plan
    names: list[str]
    fills: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Node:
    """A part of the encoded matrix: its width, how it is written into an (n, width) view, where columns come from."""

    width: int
    fill: Callable[[Sources, Matrix], None]
    origins: list[Origin | None]


def nameless(estimator: Fitted) -> Fitted:
    """Return a shallow copy that takes arrays without warning that the feature names are gone."""
    clone = copy.copy(estimator)
    for name in ("feature_names_in_", "_sklearn_output_config"):
        vars(clone).pop(name, None)
    return clone


def materialise(state: Raw | Node) -> Node:
    """Turn features into a float64 matrix; raise Unsupported when one of them is text."""
    if isinstance(state, Node):
        return state
    for name in state.names:
        if state.plan.types[name] == "string":
            raise Unsupported(f"{name} is text, and no encoder that we know reads it")
    index = [state.plan.number(name) for name in state.names]
    pick = _selection(index)
    fills = np.array([state.fills.get(name, np.nan) for name in state.names], dtype=np.float64)

    def fill(sources: Sources, out: Matrix) -> None:
        out[:] = sources.numbers[:, pick]

    node = Node(len(index), fill, [(name, 1.0, 0.0) for name in state.names])
    return node if np.isnan(fills).all() else _filled(node, fills)


def impute(step: Fitted, state: Raw | Node) -> Raw | Node:
    """SimpleImputer: remember the replacement of each feature, or write it where a matrix has NaN."""
    if not (isinstance(step.missing_values, float) and np.isnan(step.missing_values)):
        raise Unsupported("SimpleImputer replaces something else than NaN")
    if any(is_missing(value) for value in step.statistics_):
        raise Unsupported("SimpleImputer drops or keeps a feature that was always missing")
    if step.add_indicator:
        return by_itself(step, state)
    if isinstance(state, Node):
        return _filled(state, np.asarray(step.statistics_, dtype=np.float64))
    values = np.asarray(step.statistics_).tolist()
    return Raw(state.plan, state.names, dict(zip(state.names, values, strict=True)) | state.fills)


def standardise(step: Fitted, state: Raw | Node) -> Node:
    """StandardScaler: x - mean, then / scale, as scikit-learn does it."""
    return _affine(state, minus=step.mean_ if step.with_mean else None, over=step.scale_)


def scale_robustly(step: Fitted, state: Raw | Node) -> Node:
    """RobustScaler: x - center, then / scale."""
    return _affine(
        state,
        minus=step.center_ if step.with_centering else None,
        over=step.scale_ if step.with_scaling else None,
    )


def scale_to_maximum(step: Fitted, state: Raw | Node) -> Node:
    """MaxAbsScaler: x / scale."""
    if getattr(step, "clip", False):
        return by_itself(step, state)
    return _affine(state, minus=None, over=step.scale_)


def scale_to_range(step: Fitted, state: Raw | Node) -> Node:
    """MinMaxScaler: x * scale, then + min, then clipped if it was asked for."""
    node = materialise(state)
    scale, low = step.scale_, step.min_
    clip = step.feature_range if step.clip else None
    inner = node.fill

    def fill(sources: Sources, out: Matrix) -> None:
        inner(sources, out)
        out *= scale
        out += low
        if clip is not None:
            np.clip(out, clip[0], clip[1], out=out)

    origins = [
        origin and (origin[0], origin[1] / a, origin[2] - origin[1] * b / a)
        for origin, a, b in zip(node.origins, scale.tolist(), low.tolist(), strict=True)
    ]
    return Node(node.width, fill, origins)


def by_itself(step: Fitted, state: Raw | Node) -> Node:
    """Any step that takes a float64 array: let it transform ours, which saves the DataFrame only."""
    node = materialise(state)
    clone = nameless(step)
    width = int(dense(clone.transform(np.zeros((1, node.width)))).shape[1])
    inner, inner_width = node.fill, node.width

    def fill(sources: Sources, out: Matrix) -> None:
        before = np.empty((len(out), inner_width))
        inner(sources, before)
        out[:] = dense(clone.transform(before))

    return Node(width, fill, [None] * width)


def dense(values: Fitted) -> Matrix:
    """Return a float64 array of what a transformer gave: an array, a sparse matrix or a DataFrame."""
    array = values.toarray() if hasattr(values, "toarray") else values
    return np.asarray(array, dtype=np.float64)


def _affine(state: Raw | Node, *, minus: Matrix | None, over: Matrix | None) -> Node:
    node = materialise(state)
    inner = node.fill

    def fill(sources: Sources, out: Matrix) -> None:
        inner(sources, out)
        if minus is not None:
            np.subtract(out, minus, out=out)
        if over is not None:
            np.divide(out, over, out=out)

    shifts = np.zeros(node.width) if minus is None else minus
    scales = np.ones(node.width) if over is None else over
    origins = [
        origin and (origin[0], origin[1] * scale, origin[1] * shift + origin[2])
        for origin, scale, shift in zip(node.origins, scales.tolist(), shifts.tolist(), strict=True)
    ]
    return Node(node.width, fill, origins)


def _filled(node: Node, fills: Matrix) -> Node:
    inner = node.fill

    def fill(sources: Sources, out: Matrix) -> None:
        inner(sources, out)
        np.copyto(out, fills, where=np.isnan(out))

    return Node(node.width, fill, node.origins)


def _selection(index: list[int]) -> slice | NDArray[np.intp]:
    if index and index == list(range(index[0], index[0] + len(index))):
        return slice(index[0], index[0] + len(index))
    return np.array(index, dtype=np.intp)


def _position(names: list[str], name: str) -> int:
    if name not in names:
        names.append(name)
    return names.index(name)


def is_missing(value: object) -> bool:
    """Tell whether scikit-learn takes this value for missing."""
    return value is None or (isinstance(value, float) and np.isnan(value))
