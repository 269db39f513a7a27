"""A card for a model without one: inferred from the fitted pipeline and its reference rows.

What cannot be known is not invented: no ranges, no rules, no descriptions.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import ValidationError

from shared.cards.card import Card
from shared.cards.examples import MADE_UP, with_examples
from shared.cards.features import MISSING_WORDS, Category, Feature, FeatureType
from shared.cards.numbers import NULLS, POINT, NumberForm
from shared.csv.uploads.columns import ExpectedColumns
from shared.encoding.native_categories import native_categories
from shared.encoding.pipelines import walk_steps
from shared.encoding.trained_columns import as_written, dropped_columns
from shared.encoding.whole_inputs import takes_dicts, takes_texts
from shared.errors import CardError
from shared.packages.agreement import check_task, class_names, feature_names, task_of
from shared.packages.artefacts.libraries import library_versions
from shared.packages.sample import check_target, value_of
from shared.validation_errors import first_faults

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EncoderCategories:
    """The categories of one column, according to a fitted encoder."""

    categories: list[Category]  # without null
    nullable: bool  # null was one of the categories
    unknown: str  # accept or refuse


def infer_card(
    estimator: object,
    rows: Sequence[Mapping[str, Any]],
    *,
    name: str,
    version: int,
    sha256: str,
    target: str | None = None,
    threshold: float | None = None,
    labels: Mapping[str, str] | None = None,
    task: str | None = None,
    probability: str | None = None,
    decided_by: str | None = None,
    numbers: NumberForm = POINT,
) -> Card:
    """Return the card of a fitted estimator, learnt from it and from rows like those it was trained on.

    Types come from the encoders and the rows, categories from the encoders and labels from `classes_`; examples are
    made up (shared/cards/examples.py); `target` is the column of the rows that is no feature. Raises CardError where
    the rows lack a feature or the target, or where the model is of no known kind or not for the task. `numbers` is how
    the rows write them as text.
    """
    if target is not None:
        check_target(target, rows)
    names = _features_of(estimator, rows, target)
    encodings = dict(_encodings(estimator, names))
    supposed = _add_native(encodings, estimator, {key: [row.get(key) for row in rows] for key in names}, numbers)
    classes = class_names(estimator)
    if task is not None:
        check_task(task, estimator)
    typed: dict[str, Sequence[object]] = {}
    if len(names) > 1 and feature_names(estimator) is None and not takes_dicts(estimator):
        supposed.append("The model knows no names of columns: they are taken in the order of the reference rows.")
    features = []
    for key in names:
        feature, typed[key] = _feature(
            key, [row.get(key) for row in rows], encodings.get(key), numbers, text=takes_texts(estimator)
        )
        features.append(feature)
    try:
        card = Card(
            name=name,
            version=version,
            sha256=sha256,
            task=task or task_of(estimator),
            labels=dict(labels) if labels else {value: value for value in classes or ()},
            threshold=threshold,
            probability=probability,
            decided_by=decided_by,
            features=features,
            target=target,
            extra="ignore" if dropped_columns(estimator) else "refuse",  # callers send what it was trained beside
            libraries=library_versions(estimator),
            notes=" ".join([f"This card was inferred from the artefact and its reference rows; {MADE_UP}.", *supposed]),
        )
    except ValidationError as error:
        raise CardError(f"No valid card can be made for {name!r}: {first_faults(error)}.") from error
    return with_examples(card, [dict(zip(typed, values, strict=True)) for values in zip(*typed.values(), strict=True)])


def _features_of(estimator: object, rows: Sequence[Mapping[str, Any]], target: str | None) -> list[str]:
    columns = [column for column in rows[0] if column != target]
    names = feature_names(estimator)
    if names is None and takes_texts(estimator) and len(columns) != 1:
        raise CardError(
            f"The model takes one column of texts, and the reference rows have {len(columns)} "
            f"({', '.join(columns[:10])}): give rows with that column alone, and name the target with --target."
        )
    if names is None:
        count = getattr(estimator, "n_features_in_", None)
        if count is not None and count != len(columns):
            raise CardError(
                f"The model was trained on {count} unnamed columns and the reference rows have {len(columns)}. Where a "
                "preprocessor made them of these, it is missing: name its file with --preprocessor. Otherwise give "
                "rows with exactly those columns, in that order, and name the target column with --target."
            )
        return columns
    names = as_written(estimator, names, columns)
    absent = [name for name in names if name not in columns]
    if absent:
        is_none_here = not set(names) & set(columns)
        made = " Where a preprocessor made these columns, name its file with --preprocessor." if is_none_here else ""
        raise CardError(
            f"The reference rows lack {len(absent)} of the model's {len(names)} features "
            f"({', '.join(absent[:5])}): give rows with every column that it was trained on.{made}"
        )
    return names


def expected_columns(estimator: object) -> ExpectedColumns:
    """Return the columns of a fitted estimator: their names, and their types where an encoder records them."""
    names = feature_names(estimator) or []
    encodings = dict(_encodings(estimator, names)) if names else {}
    return ExpectedColumns(
        {
            name: "string"
            if takes_texts(estimator)
            else _category_type(encodings[name].categories)
            if name in encodings
            else None
            for name in names
        },
        {
            name: [text for text in encoding.categories if isinstance(text, str)]
            for name, encoding in encodings.items()
            if encoding.unknown == "accept" and _category_type(encoding.categories) == "string"
        },
        others=None,
    )


def _feature(
    name: str, values: Sequence[object], encoding: EncoderCategories | None, numbers: NumberForm, *, text: bool
) -> tuple[Feature, list[object]]:
    """Return a feature, and its values converted to its type."""
    if encoding and set(encoding.categories) <= {0, 1} and narrowest_type(values, numbers) == "boolean":
        # The encoder was given True and False in a column that may hold nulls: scikit-learn made floats of them.
        encoding = replace(encoding, categories=[bool(value) for value in encoding.categories])
    kind = "string" if text else _category_type(encoding.categories) if encoding else narrowest_type(values, numbers)
    typed = [value_of(value, kind, numbers) for value in values]
    if kind == "string" and encoding:
        words = MISSING_WORDS.difference(map(str, encoding.categories))
        typed = [None if isinstance(value, str) and value in words else value for value in typed]
    present = [value for value in typed if value is not None]
    feature = Feature(
        name=name,
        type=kind,
        nullable=len(present) < len(typed) or (encoding is not None and encoding.nullable),
        categories=encoding.categories if encoding else None,
        unknown="refuse" if encoding and encoding.unknown == "refuse" else "accept",
    )
    return feature, typed


def narrowest_type(values: Sequence[object], numbers: NumberForm) -> FeatureType:
    """Return the narrowest type that holds every value of a column; text is read as a spreadsheet would."""
    present = [value for value in values if not _is_null(value)]
    if present and all(isinstance(value, bool) or _word(value) in {"true", "false"} for value in present):
        return "boolean"
    if not present:
        return "number"  # nothing but blanks: an imputer can take only numbers here
    read = [value_of(value, "number", numbers) for value in present]
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in read):
        return "string"
    return "integer" if all(_is_integer(value, numbers) for value in present) else "number"


def _is_integer(value: object, numbers: NumberForm) -> bool:
    if isinstance(value, str):
        return isinstance(value_of(value, "integer", numbers), int) and not set(value) & {numbers.decimal, "e", "E"}
    return isinstance(value, int)


def _is_null(value: object) -> bool:
    return (
        value is None
        or (isinstance(value, str) and value.strip() in NULLS)
        or (isinstance(value, float) and math.isnan(value))
    )


def _word(value: object) -> str | None:
    return value.strip().lower() if isinstance(value, str) else None


def _category_type(categories: Sequence[Category]) -> FeatureType:
    if all(isinstance(value, bool) for value in categories):
        return "boolean"
    if any(isinstance(value, bool | str) for value in categories):
        return "string"
    return "integer" if all(isinstance(value, int) for value in categories) else "number"


def _encodings(estimator: object, names: Sequence[str]) -> Iterator[tuple[str, EncoderCategories]]:
    """Yield what each encoder that sees original columns knows about them."""
    for step, columns in walk_steps(estimator, names):
        categories = getattr(step, "categories_", ())
        if columns is not None and len(categories) == len(columns):
            unknown = "refuse" if getattr(step, "handle_unknown", "error") == "error" else "accept"
            for name, values in zip(columns, categories, strict=True):
                yield from _encoding(name, values, unknown)


def _add_native(
    encodings: dict[str, EncoderCategories],
    estimator: object,
    columns: Mapping[str, Sequence[object]],
    numbers: NumberForm,
) -> list[str]:
    """Add the categories that gradient boosting learnt itself; return a sentence about each list that is supposed."""
    seen = {name: _distinct(values, numbers) for name, values in columns.items() if name not in encodings}
    supposed = []
    for name, native in native_categories(estimator, list(seen), seen).items():
        encodings.update(_encoding(name, native.categories, "refuse" if native.strict else "accept"))
        if not native.recorded:
            supposed.append(
                f"XGBoost before 3.1 saved the model without the categories of {name}: they are taken from the "
                "reference rows, sorted. If one of its categories occurs in none of them, its scores are wrong."
            )
            log.warning(
                "%s To be sure, have it write its scores beside some rows, and name their column with --scores.",
                supposed[-1],
            )
    return supposed


def _distinct(values: Sequence[object], numbers: NumberForm) -> list[Category]:
    """Return the categories among these cells as pandas would find and sort them."""
    kind = narrowest_type(values, numbers)
    typed = (value_of(value, kind, numbers) for value in values if not _is_null(value))
    distinct = {value for value in typed if isinstance(value, str | int | float)}
    return sorted(distinct - MISSING_WORDS if kind == "string" else distinct)


def _encoding(name: str, categories: Sequence[object], unknown: str) -> Iterator[tuple[str, EncoderCategories]]:
    plain = [value.item() if isinstance(value, np.generic) else value for value in categories]
    listed: list[Category] = [value for value in plain if isinstance(value, str | int | float) and value == value]
    nulls = sum(value is None or value != value for value in plain)  # NaN alone differs from itself
    if not listed or len(listed) + nulls < len(plain):
        return  # a kind of object that JSON does not have: the rows tell the type
    if all(isinstance(value, float) and value.is_integer() for value in listed):
        listed = [int(value) for value in listed]  # blanks make pandas hold integer codes as floats
    yield name, EncoderCategories(listed, nullable=nulls > 0, unknown=unknown)
