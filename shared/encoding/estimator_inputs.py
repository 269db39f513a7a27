"""Rows in the form that the estimator was trained on: a DataFrame, or the same columns as plain arrays.

The DataFrame is what every fast path is proved against. The arrays send each column through the fitted steps one
by one; a worker proves its path against them at start, so that it needs no pandas unless it scores by the pipeline.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.cards.card import Card
from shared.cards.features import Category, Feature
from shared.encoding.blocks import Estimator, Unsupported
from shared.encoding.compile import Row, fitted_names, input_names
from shared.encoding.encoders import UnknownCategory
from shared.encoding.native_categories import NativeCategories, native_categories
from shared.encoding.pipelines import (
    column_entries,
    first_step,
    is_pipeline,
    serving_steps,
    split,
    takes_vector,
    trained_names,
    walk_steps,
)
from shared.encoding.transformers import to_float64, without_feature_names
from shared.encoding.whole_inputs import form_of, takes_dicts, takes_texts


def make_frame_input(card: Card, estimator: Estimator) -> Callable[[Sequence[Row]], Any]:
    """Return a function from rows to the estimator's input, as it was trained on it.

    That is a DataFrame, an array, a Series of texts or a list of dicts. Raises CardError or ArtefactError where it is
    not known how its columns were made.
    """
    names = input_names(card, estimator)
    features = {feature.name: feature for feature in card.features}
    if fitted_names(estimator) is None and hasattr(first_step(estimator), "n_features_in_"):
        return lambda rows: as_float64(object_block(rows, names, set()), [features[name] for name in names])

    import pandas as pd

    keep_none = _columns_with(estimator, lambda category: category is None)
    keep_bool = _columns_with(estimator, lambda category: isinstance(category, bool))
    native = native_categories(estimator, names, known_categories(card))
    columns: dict[str, Callable[[list[Any]], Any]] = {}
    for name in names:
        if name in native:
            columns[name] = _category_column(name, native[name])
        elif name in keep_bool and name not in keep_none and may_be_null(card, features[name]):
            columns[name] = _objects  # as pandas reads True, False and blanks
        else:
            columns[name] = partial(pd.Series, dtype=_dtype(card, features[name], keep_none))

    def frame(rows: Sequence[Row]) -> Any:  # noqa: ANN401 - a DataFrame, and pandas must not be imported for its type
        return pd.DataFrame({name: column([row[name] for row in rows]) for name, column in columns.items()})

    form = form_of(card, estimator, frame)
    if form == "dicts":
        return lambda rows: frame(rows).to_dict("records")
    return frame if form == "table" else lambda rows: frame(rows)[names[0]]


def make_array_input(card: Card, estimator: Estimator) -> Callable[[Sequence[Row]], Any]:
    """Return a function from rows to the final estimator's input, by each fitted step's own `transform` on arrays."""
    names = input_names(card, estimator)
    features = {feature.name: feature for feature in card.features}
    steps, _ = split(estimator)
    if takes_texts(estimator) or takes_dicts(estimator):
        whole = make_frame_input(card, estimator)
        return lambda rows: reduce(lambda block, step: step.transform(block), steps, whole(rows))
    keep_none = _columns_with(estimator, lambda category: category is None)

    def arrays(rows: Sequence[Row]) -> Any:  # noqa: ANN401 - dense or sparse, as the steps leave it
        block: Any = object_block(rows, names, keep_none)
        at: list[Feature] | None = [features[name] for name in names]
        for step in steps:
            block, at = _transform(step, block, at)
        return block if at is None else as_float64(block, at)

    return arrays


def may_be_null(card: Card, feature: Feature) -> bool:
    """Return whether a canonical row may hold None for this feature."""
    return feature.nullable or not feature.required or card.missing == "null"


def object_block(rows: Sequence[Row], names: list[str], keep_none: set[str]) -> NDArray[np.object_]:
    """Return the (n, p) object array of these features, with NaN for None except in the columns to keep it in."""
    block = np.empty((len(rows), len(names)), dtype=object)
    for j, name in enumerate(names):
        absent = None if name in keep_none else np.nan
        block[:, j] = [absent if row[name] is None else row[name] for row in rows]
    return block


def as_float64(block: NDArray[Any], features: list[Feature]) -> NDArray[Any]:
    """Return a block as float64 if none of its features is text, else unchanged."""
    return block if any(feature.type == "string" for feature in features) else block.astype(np.float64)


def _transform(step: Estimator, block: Any, features: list[Feature] | None) -> tuple[Any, list[Feature] | None]:  # noqa: ANN401
    kind = type(step).__name__
    if step is None or step == "passthrough":
        return block, features
    if is_pipeline(step):
        for part in serving_steps(step):
            block, features = _transform(part, block, features)
        return block, features
    if kind == "ColumnTransformer" and features is not None:
        places = {feature.name: j for j, feature in enumerate(features)}
        columns = trained_names(step) or list(places)  # positions count also the columns that are dropped
        if takes_vector(step.transformers_):
            raise Unsupported("a transformer takes one column as a vector")
        parts = []
        for _, part, names in column_entries(step.transformers_, columns):
            index = [places[name] for name in names]
            if not index:
                continue
            kept: list[Feature] | None = [features[j] for j in index]
            out, kept = _transform(part, block[:, index], kept)
            parts.append(to_float64(out if kept is None else as_float64(out, kept)))
        joined = np.hstack(parts)
        if step.sparse_output_:
            from scipy.sparse import csr_matrix

            return csr_matrix(joined), None
        return joined, None
    holds_objects = any(np.asarray(columns).dtype == object for columns in getattr(step, "categories_", ()))
    matrix = block if features is None or holds_objects else as_float64(block, features)
    keeps = kind == "SimpleImputer" and not step.add_indicator
    return without_feature_names(step).transform(matrix), features if keeps else None


def _dtype(card: Card, feature: Feature, keep_none: set[str]) -> str:
    if feature.type == "string":
        return "object" if feature.name in keep_none else "str"
    if feature.type == "number" or may_be_null(card, feature):
        return "float64"
    return "int64" if feature.type == "integer" else "bool"


def _columns_with(estimator: Estimator, is_wanted: Callable[[object], bool]) -> set[str]:
    """Return the columns whose encoder was trained with such a value in an object column.

    It tells None from NaN, and True from 1.0, so it must be given the same.
    """
    columns: set[str] = set()
    for step, _ in walk_steps(estimator, None):
        for name, values in zip(getattr(step, "feature_names_in_", []), getattr(step, "categories_", []), strict=False):
            if np.asarray(values).dtype == object and any(map(is_wanted, values)):
                columns.add(str(name))
    return columns


def known_categories(card: Card) -> dict[str, list[Category]]:
    """Return the categories that a card tells, and of text without any its example."""
    return {
        feature.name: feature.categories or ([feature.example] if isinstance(feature.example, str) else [])
        for feature in card.features
    }


def _category_column(name: str, native: NativeCategories) -> Callable[[list[Any]], Any]:
    """Return a function from values to a category column with the whole list, whatever the values are."""
    import pandas as pd

    kind = pd.CategoricalDtype(pd.Index(native.categories))
    codes = {value: code for code, value in enumerate(native.categories)} | {None: -1}

    def column(values: list[Any]) -> Any:  # noqa: ANN401 - a Series
        places = [codes.get(value, -2) for value in values]
        if native.strict and -2 in places:
            raise UnknownCategory(f"{name} has a category that the model was not trained with")
        return pd.Series(pd.Categorical.from_codes([max(place, -1) for place in places], dtype=kind))

    return column


def _objects(values: list[Any]) -> Any:  # noqa: ANN401 - a Series
    import pandas as pd

    return pd.Series([np.nan if value is None else value for value in values], dtype="object")
