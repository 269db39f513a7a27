"""The features of a training as a DataFrame, with the types in which the service hands rows to a model."""

from typing import Any

import pandas as pd

from shared.cards.features import Feature
from shared.training.table import Column, Table


def feature_of(column: Column) -> Feature:
    """Return the description of a column for the card; its texts are its categories, and others are taken, too."""
    return Feature(
        name=column.name, type=column.kind, nullable=column.has_missing, categories=column.categories, unknown="accept"
    )


def frame_of(table: Table) -> pd.DataFrame:
    """Return the features of n rows, as `make_frame_input` of shared/encoding makes them for scoring."""
    return pd.DataFrame({column.name: _series(column) for column in table.columns})


def _series(column: Column) -> Any:  # noqa: ANN401 - a Series
    if column.kind == "string":
        return pd.Series(column.values, dtype="str")
    if column.kind == "number" or column.has_missing:
        return pd.Series([None if value is None else float(value) for value in column.values], dtype="float64")
    return pd.Series(column.values, dtype="int64" if column.kind == "integer" else "bool")
