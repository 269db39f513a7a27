"""The columns that an estimator was trained on: their names, which of them it uses, what a library calls them."""

from collections.abc import Sequence
from typing import Any

Fitted = Any  # a fitted estimator or transformer: scikit-learn has no types for them


def is_pipeline(estimator: Fitted) -> bool:
    """Tell whether an estimator is a pipeline of scikit-learn or of imbalanced-learn."""
    return type(estimator).__name__ == "Pipeline" and hasattr(estimator, "steps")


def serving_steps(pipeline: Fitted) -> list[Fitted]:
    """Return the steps through which rows go that are scored: samplers resample only what a model is trained on."""
    return [step for _, step in pipeline.steps if not hasattr(step, "fit_resample")]


def first_step(estimator: Fitted) -> Fitted:
    """Return the step that rows reach first, through searches and nested pipelines."""
    estimator = getattr(estimator, "best_estimator_", estimator)
    return first_step(serving_steps(estimator)[0]) if is_pipeline(estimator) else estimator


def trained_names(estimator: Fitted) -> list[str] | None:
    """Return the names of the columns that an estimator was trained on, in order; None where it saw a bare array.

    LightGBM writes its names with `_` for a blank: see `as_written`.
    """
    names = getattr(estimator, "feature_names_in_", None)
    if names is None and type(estimator).__module__.startswith("catboost."):
        names = estimator.feature_names_
        if [str(name) for name in names] == [str(place) for place in range(len(names))]:
            return None  # so CatBoost counts the columns of an array
    return None if names is None else [str(name) for name in names]


def dropped_columns(estimator: Fitted) -> set[str]:
    """Return the columns that a ColumnTransformer at the start drops: an id, say, whose values change no score."""
    first = first_step(estimator)
    if type(first).__name__ != "ColumnTransformer" or not hasattr(first, "transformers_"):
        return set()
    names = trained_names(first)
    if names is None:
        return set()
    used: set[str] = set()
    for _, part, where in first.transformers_:
        if not (isinstance(part, str) and part == "drop"):
            used.update(_selected(where, names))
    return set(names) - used


def used_names(estimator: Fitted) -> list[str] | None:
    """Return the names of the columns whose values reach the estimator, in order; None where it saw a bare array."""
    names = trained_names(estimator)
    if names is None and is_pipeline(estimator):
        names = trained_names(first_step(estimator))
    if names is None:
        return None
    dropped = dropped_columns(estimator)
    return [name for name in names if name not in dropped]


def as_written(estimator: Fitted, trained: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Return the trained names as these columns have them: LightGBM writes `_` for each blank of a name."""
    if all(name in columns for name in trained) or not _has_lightgbm(first_step(estimator)):
        return list(trained)
    written: dict[str, list[str]] = {}
    for column in columns:
        written.setdefault(column.replace(" ", "_"), []).append(column)
    return [name if name in columns or len(written.get(name, [])) != 1 else written[name][0] for name in trained]


def _has_lightgbm(estimator: Fitted) -> bool:
    inner = getattr(estimator, "estimators_", None)  # of a vote, which takes its names from the first
    some = [estimator, *(inner if isinstance(inner, list) else [])]
    return any(type(one).__module__.startswith("lightgbm.") for one in some)


def _selected(where: object, names: list[str]) -> list[str]:
    """Return the names that an entry of a fitted ColumnTransformer selects: by name, position, slice or mask."""
    if isinstance(where, str):
        return [where]
    if isinstance(where, slice):
        start, stop = where.start, where.stop
        low = names.index(start) if isinstance(start, str) else start
        high = names.index(stop) + 1 if isinstance(stop, str) else stop
        return names[low : high : where.step]
    if isinstance(where, int):
        return [names[where]]
    values = [value.item() if hasattr(value, "item") else value for value in where]  # type: ignore[attr-defined]
    if values and all(isinstance(value, bool) for value in values):
        return [name for name, taken in zip(names, values, strict=True) if taken]
    return [value if isinstance(value, str) else names[value] for value in values]
