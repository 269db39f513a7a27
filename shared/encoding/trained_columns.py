"""The names of an estimator's columns: the ones that it uses, and their spelling in its library."""

from collections.abc import Sequence

from shared.encoding.blocks import Estimator
from shared.encoding.pipelines import column_entries, first_step, is_pipeline, trained_names


def dropped_columns(estimator: Estimator) -> set[str]:
    """Return the columns that a ColumnTransformer at the start drops, such as an id; their values change no score."""
    first = first_step(estimator)
    if type(first).__name__ != "ColumnTransformer" or not hasattr(first, "transformers_"):
        return set()
    names = trained_names(first)
    if names is None:
        return set()
    used = {name for _, _, columns in column_entries(first.transformers_, names) for name in columns}
    return set(names) - used


def used_names(estimator: Estimator) -> list[str] | None:
    """Return the names of the columns that reach the estimator, in order; None if it was trained on a bare array."""
    names = trained_names(estimator)
    if names is None and is_pipeline(estimator):
        names = trained_names(first_step(estimator))
    if names is None:
        return None
    dropped = dropped_columns(estimator)
    return [name for name in names if name not in dropped]


def as_written(estimator: Estimator, trained: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Return the trained names as these columns have them: LightGBM writes `_` for each blank of a name."""
    if all(name in columns for name in trained) or not _has_lightgbm(first_step(estimator)):
        return list(trained)
    written: dict[str, list[str]] = {}
    for column in columns:
        written.setdefault(column.replace(" ", "_"), []).append(column)
    return [name if name in columns or len(written.get(name, [])) != 1 else written[name][0] for name in trained]


def _has_lightgbm(estimator: Estimator) -> bool:
    inner = getattr(estimator, "estimators_", None)  # of a vote, which takes its names from the first
    estimators = [estimator, *(inner if isinstance(inner, list) else [])]
    return any(type(one).__module__.startswith("lightgbm.") for one in estimators)
