"""A fitted pipeline: which columns each of its steps takes and makes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Fitted = Any  # a fitted estimator or transformer: scikit-learn has no types for them
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


def output_features(step: Fitted, features: Sequence[Features], width: int) -> list[Features]:
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
        found = [names for names, count in zip(features, counts(step), strict=True) for _ in range(count)]
    elif kind == "SimpleImputer" and step.indicator_ is not None:
        found = [*features, *(features[place] for place in step.indicator_.features_)]
    elif kind == "MissingIndicator":
        found = [features[place] for place in step.features_]
    elif kind == "PolynomialFeatures":
        found = [_union([features[place] for place in np.flatnonzero(powers).tolist()]) for powers in step.powers_]
    else:
        found = []
    return found if len(found) == width else [_union(features)] * width


def one_hot_widths(step: Fitted) -> list[int]:
    """Return how many columns a fitted OneHotEncoder makes of each column that it takes."""
    widths = []
    infrequent = getattr(step, "infrequent_categories_", None) or [None] * len(step.categories_)
    dropped = step.drop_idx_ if step.drop_idx_ is not None else [None] * len(step.categories_)
    for values, rare, drop in zip(step.categories_, infrequent, dropped, strict=True):
        merged = 0 if rare is None else len(rare) - 1
        widths.append(len(values) - merged - (drop is not None))
    return widths


def _number_widths(step: Fitted) -> list[int]:
    """Return how many numbers OrdinalEncoder or TargetEncoder makes of each column: the latter one for each class."""
    classes = len(step.classes_) if getattr(step, "target_type_", "") == "multiclass" else 1
    return [classes] * len(step.categories_)


def _bin_widths(step: Fitted) -> list[int]:
    return [1] * len(step.n_bins_) if step.encode == "ordinal" else np.asarray(step.n_bins_).tolist()


def _spline_widths(step: Fitted) -> list[int]:
    return [step.n_features_out_ // step.n_features_in_] * step.n_features_in_


_COUNTS: dict[str, Callable[[Fitted], list[int]]] = {  # transformers that make so many columns of each
    "KBinsDiscretizer": _bin_widths,
    "OneHotEncoder": one_hot_widths,
    "OrdinalEncoder": _number_widths,
    "SplineTransformer": _spline_widths,
    "TargetEncoder": _number_widths,
}


def _union(features: Sequence[Features]) -> Features:
    return tuple(dict.fromkeys(name for names in features for name in names))
