"""The one walker over fitted pipelines: their steps, and the columns that each step takes and makes.

Wrappers (searches, calibration, bagging) are looked through where a function says so.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from shared.encoding.blocks import Estimator

Features = tuple[str, ...]  # of one column: the features that it is computed from

# Transformers whose every column is computed from the column in its place alone.
_COLUMN_BY_COLUMN = frozenset(
    {
        "Binarizer",
        "MaxAbsScaler",
        "MinMaxScaler",
        "PowerTransformer",
        "QuantileTransformer",
        "RobustScaler",
        "StandardScaler",
    }
)


def is_pipeline(estimator: Estimator) -> bool:
    """Return whether an estimator is a pipeline of scikit-learn or of imbalanced-learn."""
    return type(estimator).__name__ == "Pipeline" and hasattr(estimator, "steps")


def serving_steps(pipeline: Estimator) -> list[Estimator]:
    """Return the steps that rows pass in scoring: samplers resample only training data."""
    return [step for _, step in pipeline.steps if not hasattr(step, "fit_resample")]


def split(estimator: Estimator) -> tuple[list[Any], Any]:
    """Return the preprocessing steps and the final estimator, through searches and nested pipelines."""
    estimator = getattr(estimator, "best_estimator_", estimator)
    if not is_pipeline(estimator):
        return [], estimator
    parts = serving_steps(estimator)
    inner, final = split(parts[-1])
    return [*parts[:-1], *inner], final


def first_step(estimator: Estimator, *, through_wrappers: bool = False) -> Estimator:
    """Return the step that rows reach first, through searches and nested pipelines.

    `through_wrappers` looks into calibration and other estimators of one estimator as well.
    """
    for _ in range(20):  # nobody nests deeper
        inner = getattr(estimator, "best_estimator_", None)
        if inner is None and through_wrappers:
            fold = (getattr(estimator, "calibrated_classifiers_", None) or [None])[0]
            inner = getattr(fold, "estimator", None)
            if inner is None and not hasattr(estimator, "estimators_"):
                inner = getattr(estimator, "estimator_", None)
        if inner is None and is_pipeline(estimator):
            inner = serving_steps(estimator)[0]
        if inner is None or isinstance(inner, str):
            return estimator
        estimator = inner
    return estimator


def trained_names(estimator: Estimator) -> list[str] | None:
    """Return the names of the columns that an estimator was trained on, in order; None where it saw a bare array.

    LightGBM writes its names with `_` for a blank: see `as_written` (shared/encoding/trained_columns.py).
    """
    names = getattr(estimator, "feature_names_in_", None)
    if names is None and type(estimator).__module__.startswith("catboost."):
        names = estimator.feature_names_
        if [str(name) for name in names] == [str(place) for place in range(len(names))]:
            return None  # so CatBoost counts the columns of an array
    return None if names is None else [str(name) for name in names]


def column_entries(
    transformers: Iterable[tuple[str, Estimator, object]], names: Sequence[str]
) -> Iterator[tuple[str, Estimator, list[str]]]:
    """Yield the entries of a ColumnTransformer's `transformers_` with the names that each selects, none that drops.

    `names` are those of all columns that the ColumnTransformer takes: positions count also those that are dropped.
    """
    for label, part, where in transformers:
        if not (isinstance(part, str) and part == "drop"):
            yield label, part, selected_columns(where, names)


def takes_vector(transformers: Iterable[tuple[str, Estimator, object]]) -> bool:
    """Return whether an entry of a ColumnTransformer selects one column by its bare name, and so receives a vector."""
    return any(isinstance(where, str) for _, part, where in transformers if not isinstance(part, str))


def selected_columns(where: object, names: Sequence[str]) -> list[str]:
    """Return the names that an entry of a ColumnTransformer selects by name, position, mask or slice."""
    if isinstance(where, slice):
        if isinstance(where.start, str) or isinstance(where.stop, str):  # both ends are included, as in pandas
            low = None if where.start is None else names.index(where.start)
            high = None if where.stop is None else names.index(where.stop) + 1
            return list(names[low : high : where.step])
        return list(names[where])
    chosen = [where] if isinstance(where, str | int) else np.asarray(where).tolist()
    if chosen and all(isinstance(column, bool) for column in chosen):
        return [name for name, is_taken in zip(names, chosen, strict=True) if is_taken]
    return [column if isinstance(column, str) else names[column] for column in chosen]


def walk_steps(estimator: Estimator, names: Sequence[str] | None) -> Iterator[tuple[Estimator, list[str] | None]]:
    """Yield each fitted step that rows go through, with the names of the original columns that it takes, in order.

    That is None behind a step that makes other columns: an imputer alone leaves them what they were. `names` are those
    of the columns that the estimator takes. The final estimator of a pipeline is the last step.
    """
    estimator = getattr(estimator, "best_estimator_", estimator)
    if is_pipeline(estimator):
        for step in serving_steps(estimator):
            yield from walk_steps(step, names)
            if not isinstance(step, str) and not hasattr(step, "statistics_"):
                names = None
    elif hasattr(estimator, "transformers_"):
        columns = trained_names(estimator) or names
        for _, part, where in estimator.transformers_:
            if not isinstance(part, str):
                yield from walk_steps(part, None if columns is None else selected_columns(where, columns))
    elif not isinstance(estimator, str):
        yield estimator, None if names is None else list(names)


def objects_within(estimator: Estimator) -> Iterator[object]:
    """Yield the estimator and all that it holds, each once: in attributes, containers and arrays of objects."""
    seen: set[int] = set()
    waiting = [estimator]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        if isinstance(item, Mapping):
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)
        elif getattr(getattr(item, "dtype", None), "hasobject", False):
            waiting.extend(np.asarray(item).ravel().tolist())  # the trees of boosting
        elif type(item).__module__.startswith("sklearn.") or is_estimator(item):
            waiting.extend(getattr(item, "__dict__", {}).values())


def is_estimator(item: object) -> bool:
    """Return whether an object is an estimator or a transformer of any library, and not a class."""
    if isinstance(item, type):
        return False
    return hasattr(item, "get_params") or (
        hasattr(item, "fit") and (hasattr(item, "predict") or hasattr(item, "transform"))
    )


def output_features(step: Estimator, features: Sequence[Features], width: int) -> list[Features]:
    """Return for each of the `width` columns that a fitted step makes the features that it is computed from.

    `features` are those of each column that the step takes. A step that is not known may mix all of them, as a
    principal component does.
    """
    kind = type(step).__name__
    if kind in _COLUMN_BY_COLUMN:
        return list(features)
    if hasattr(step, "get_support"):  # a selector
        return [features[place] for place in step.get_support(indices=True)]
    counts = _COUNTS.get(kind)
    if counts is not None:
        origins = [names for names, count in zip(features, counts(step), strict=True) for _ in range(count)]
    elif kind == "SimpleImputer" and step.indicator_ is not None:
        origins = [*features, *(features[place] for place in step.indicator_.features_)]
    elif kind == "MissingIndicator":
        origins = [features[place] for place in step.features_]
    elif kind == "PolynomialFeatures":
        origins = [_union([features[place] for place in np.flatnonzero(powers).tolist()]) for powers in step.powers_]
    else:
        origins = []
    return origins if len(origins) == width else [_union(features)] * width


def one_hot_widths(step: Estimator) -> list[int]:
    """Return the number of output columns of a fitted OneHotEncoder for each input column."""
    widths = []
    infrequent = getattr(step, "infrequent_categories_", None) or [None] * len(step.categories_)
    dropped = step.drop_idx_ if step.drop_idx_ is not None else [None] * len(step.categories_)
    for values, rare, drop in zip(step.categories_, infrequent, dropped, strict=True):
        merged = 0 if rare is None else len(rare) - 1
        widths.append(len(values) - merged - (drop is not None))
    return widths


def _number_widths(step: Estimator) -> list[int]:
    """Return the output columns of OrdinalEncoder or TargetEncoder for each input: the latter has one per class."""
    classes = len(step.classes_) if getattr(step, "target_type_", "") == "multiclass" else 1
    return [classes] * len(step.categories_)


def _bin_widths(step: Estimator) -> list[int]:
    return [1] * len(step.n_bins_) if step.encode == "ordinal" else np.asarray(step.n_bins_).tolist()


def _spline_widths(step: Estimator) -> list[int]:
    return [step.n_features_out_ // step.n_features_in_] * step.n_features_in_


_COUNTS: dict[str, Callable[[Estimator], list[int]]] = {  # transformers that make so many columns of each
    "KBinsDiscretizer": _bin_widths,
    "OneHotEncoder": one_hot_widths,
    "OrdinalEncoder": _number_widths,
    "SplineTransformer": _spline_widths,
    "TargetEncoder": _number_widths,
}


def _union(features: Sequence[Features]) -> Features:
    return tuple(dict.fromkeys(name for names in features for name in names))
