"""Preprocessing steps without DataFrames: each fitted scikit-learn step becomes the same float64 arithmetic on arrays.

Encoders of categories are in shared/encoding/encoders.py.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.encoding.blocks import EncodedBlock, Estimator, FeatureBlock, Matrix, RowValues, Unsupported
from shared.encoding.pipelines import output_features

SHOWN_VALUES = 5  # replacements of missing values that a plan lists


def without_feature_names(estimator: Estimator) -> Estimator:
    """Return a shallow copy that takes arrays without warning that the feature names are gone."""
    clone = copy.copy(estimator)
    for name in ("feature_names_in_", "_sklearn_output_config"):
        vars(clone).pop(name, None)
    return clone


def as_matrix(block: FeatureBlock | EncodedBlock) -> EncodedBlock:
    """Turn features into a float64 matrix; raise Unsupported when one of them is text."""
    if isinstance(block, EncodedBlock):
        return block
    for name in block.names:
        if block.plan.types[name] == "string":
            raise Unsupported(f"{name} is text, and no encoder that we know reads it")
    index = [block.plan.number(name) for name in block.names]
    pick = _selection(index)
    fills = np.array([block.fills.get(name, np.nan) for name in block.names], dtype=np.float64)
    is_filled = not np.isnan(fills).all()

    def fill(values: RowValues, out: Matrix) -> None:
        out[:] = values.numbers[:, pick]
        if is_filled:
            np.copyto(out, fills, where=np.isnan(out))

    origins = [(name, 1.0, 0.0) for name in block.names]
    return EncodedBlock(fill, list(origins), [(name,) for name in block.names], block.steps)


def impute(step: Estimator, block: FeatureBlock | EncodedBlock) -> FeatureBlock | EncodedBlock:
    """SimpleImputer: remember the replacement of each feature, or write it where a matrix has NaN."""
    if not (isinstance(step.missing_values, float) and np.isnan(step.missing_values)):
        raise Unsupported("SimpleImputer replaces something else than NaN")
    if any(is_missing(value) for value in step.statistics_):
        raise Unsupported("SimpleImputer drops or keeps a feature that was always missing")
    if step.add_indicator:
        return apply_own_transform(step, block)
    values = np.asarray(step.statistics_).tolist()
    becomes = f"a missing value becomes {_listed(values)} ({step.strategy})"
    if isinstance(block, FeatureBlock):
        return block.replacing(step, dict(zip(block.names, values, strict=True)), becomes=becomes)
    fills = np.asarray(step.statistics_, dtype=np.float64)
    inner = block.fill

    def fill(rows: RowValues, out: Matrix) -> None:
        inner(rows, out)
        np.copyto(out, fills, where=np.isnan(out))

    return block.then(step, fill, origins=block.origins, becomes=becomes)


def standardise(step: Estimator, block: FeatureBlock | EncodedBlock) -> EncodedBlock:
    """StandardScaler: x - mean, then / scale, as scikit-learn does it."""
    return _affine(step, block, minus=step.mean_ if step.with_mean else None, over=step.scale_, words="mean")


def scale_robustly(step: Estimator, block: FeatureBlock | EncodedBlock) -> EncodedBlock:
    """RobustScaler: x - center, then / scale."""
    return _affine(
        step,
        block,
        minus=step.center_ if step.with_centering else None,
        over=step.scale_ if step.with_scaling else None,
        words="median",
    )


def scale_to_maximum(step: Estimator, block: FeatureBlock | EncodedBlock) -> EncodedBlock:
    """MaxAbsScaler: x / scale."""
    if getattr(step, "clip", False):
        return apply_own_transform(step, block)
    return _affine(step, block, minus=None, over=step.scale_, words="")


def scale_to_range(step: Estimator, block: FeatureBlock | EncodedBlock) -> EncodedBlock:
    """MinMaxScaler: x * scale, then + min, then clipped if the scaler clips."""
    before = as_matrix(block)
    scale, low = step.scale_, step.min_
    clip = step.feature_range if step.clip else None
    inner = before.fill

    def fill(rows: RowValues, out: Matrix) -> None:
        inner(rows, out)
        out *= scale
        out += low
        if clip is not None:
            np.clip(out, clip[0], clip[1], out=out)

    origins = [
        origin and (origin[0], origin[1] / a, origin[2] - origin[1] * b / a)
        for origin, a, b in zip(before.origins, scale.tolist(), low.tolist(), strict=True)
    ]
    clipped = "" if clip is None else f", clipped to {clip[0]:g} to {clip[1]:g}"
    return before.then(step, fill, origins=origins, becomes=f"x times scale plus minimum{clipped}")


def apply_own_transform(step: Estimator, block: FeatureBlock | EncodedBlock) -> EncodedBlock:
    """Any step that takes a float64 array: let it transform ours, which saves the DataFrame only."""
    before = as_matrix(block)
    clone = without_feature_names(step)
    width = int(to_float64(clone.transform(np.zeros((1, before.width)))).shape[1])
    inner, inner_width = before.fill, before.width

    def fill(rows: RowValues, out: Matrix) -> None:
        array = np.empty((len(out), inner_width))
        inner(rows, array)
        out[:] = to_float64(clone.transform(array))

    features = output_features(step, before.features, width)
    return before.then(step, fill, features=features, becomes="its own transform", is_compiled=False)


def to_float64(values: Any) -> Matrix:  # noqa: ANN401 - an array of any type, sparse too
    """Return a transformer's output as a float64 array: an array, a sparse matrix or a DataFrame."""
    array = values.toarray() if hasattr(values, "toarray") else values
    return np.asarray(array, dtype=np.float64)


def _affine(
    step: Estimator, block: FeatureBlock | EncodedBlock, *, minus: Matrix | None, over: Matrix | None, words: str
) -> EncodedBlock:
    before = as_matrix(block)
    inner = before.fill

    def fill(rows: RowValues, out: Matrix) -> None:
        inner(rows, out)
        if minus is not None:
            np.subtract(out, minus, out=out)
        if over is not None:
            np.divide(out, over, out=out)

    shifts = np.zeros(before.width) if minus is None else minus
    scales = np.ones(before.width) if over is None else over
    origins = [
        origin and (origin[0], origin[1] * scale, origin[1] * shift + origin[2])
        for origin, scale, shift in zip(before.origins, scales.tolist(), shifts.tolist(), strict=True)
    ]
    formula = "x" if minus is None else f"x minus {words}"
    return before.then(step, fill, origins=origins, becomes=formula if over is None else f"{formula}, divided by scale")


def _selection(index: list[int]) -> slice | NDArray[np.intp]:
    if index and index == list(range(index[0], index[0] + len(index))):
        return slice(index[0], index[0] + len(index))
    return np.array(index, dtype=np.intp)


def _listed(values: Sequence[Any]) -> str:
    """Return the first of these numbers or texts, and the number of the others."""
    shown = ", ".join(f"{value:.6g}" if isinstance(value, float) else str(value) for value in values[:SHOWN_VALUES])
    return shown if len(values) <= SHOWN_VALUES else f"{shown}, and {len(values) - SHOWN_VALUES} more"


def is_missing(value: object) -> bool:
    """Return whether scikit-learn treats this value as missing."""
    return value is None or (isinstance(value, float) and np.isnan(value))
