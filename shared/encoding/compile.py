"""Rows to a float64 matrix: a fitted scikit-learn pipeline's preprocessing, without building a DataFrame."""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.cards.card import Card
from shared.encoding import encoders, transformers
from shared.encoding.blocks import (
    EncodedBlock,
    Estimator,
    FeatureBlock,
    FeatureOrigin,
    InputPlan,
    Matrix,
    RowValues,
    Unsupported,
    concatenate,
)
from shared.encoding.columns import Columns
from shared.encoding.pipelines import (
    column_entries,
    first_step,
    is_pipeline,
    serving_steps,
    split,
    takes_vector,
    trained_names,
)
from shared.encoding.trained_columns import as_written, dropped_columns
from shared.encoding.transformers import apply_own_transform, as_matrix, without_feature_names
from shared.errors import CardError

Row = Mapping[str, Any]
Getter = Callable[[Row], tuple[Any, ...]]
Step = Callable[[Any, FeatureBlock | EncodedBlock], FeatureBlock | EncodedBlock]

STEPS: dict[str, Step] = {
    "SimpleImputer": transformers.impute,
    "StandardScaler": transformers.standardise,
    "RobustScaler": transformers.scale_robustly,
    "MinMaxScaler": transformers.scale_to_range,
    "MaxAbsScaler": transformers.scale_to_maximum,
    "OneHotEncoder": encoders.one_hot,
    "OrdinalEncoder": encoders.ordinal_or_target,
    "TargetEncoder": encoders.ordinal_or_target,
}
ARRAY_MODULES = (  # modules whose other transformers take and give plain arrays
    "sklearn.preprocessing.",
    "sklearn.impute.",
    "sklearn.decomposition.",
    "sklearn.feature_selection.",
    "sklearn.kernel_approximation",
    "sklearn.random_projection",
)


@dataclass(frozen=True, slots=True)
class Encoding:
    """The compiled preprocessing of one model version."""

    block: EncodedBlock  # what the whole preprocessing becomes; it describes itself
    numbers: Getter  # a row's number features, in the order of `RowValues.numbers`
    columns: Getter | None  # a row's looked-up features; None when there are none
    number_names: tuple[str, ...]
    column_names: tuple[str, ...]
    sparse: bool  # the pipeline gives a sparse matrix here, in which XGBoost takes a zero for missing

    @property
    def origins(self) -> list[FeatureOrigin | None]:
        """Return for each encoded column the feature that it is a scaled copy of, or None."""
        return self.block.origins

    @property
    def features(self) -> list[tuple[str, ...]]:
        """Return for each encoded column, in order, the original features that it is computed from.

        Nearly always that is one; a principal component has several, and a constant column none. Columns of one
        feature (of its categories, say) may be summed to attribute a score to it; where a column has several
        features, no sum over columns does that.
        """
        return self.block.features

    def encode(self, rows: Sequence[Row]) -> Matrix:
        """Return the (n, width) matrix that the estimator sees; None becomes NaN or its replacement.

        Raises UnknownCategory, without the value, where an encoder of the pipeline refuses it.
        """
        count = len(rows)
        if count == 1:  # the interactive path: no intermediate lists
            numbers = np.array([self.numbers(rows[0])], dtype=np.float64)
        else:
            numbers = np.array(list(map(self.numbers, rows)), dtype=np.float64)
            numbers = numbers.reshape(count, len(self.number_names))
        columns: Sequence[Sequence[Any]] = ()
        if self.columns is not None:
            columns = list(zip(*map(self.columns, rows), strict=True)) or [()] * len(self.column_names)
        return self._fill(count, RowValues(numbers, columns))

    def encode_columns(self, columns: Columns) -> Matrix:
        """Return the same matrix as `encode` for the same rows, bit for bit."""
        numbers = np.empty((columns.count, len(self.number_names)))
        for place, name in enumerate(self.number_names):
            numbers[:, place] = columns.floats(name)
        return self._fill(columns.count, RowValues(numbers, [columns.objects(name) for name in self.column_names]))

    def _fill(self, count: int, sources: RowValues) -> Matrix:
        out = np.empty((count, self.block.width))
        self.block.fill(sources, out)
        return out


def compile_encoding(card: Card, estimator: Estimator) -> tuple[Encoding, Estimator]:
    """Return the encoding of a fitted pipeline and the bare estimator behind it, which takes the encoded matrix.

    Raises Unsupported when a step has no equivalent on arrays.
    """
    preprocessing, final = split(estimator)
    plan = InputPlan({feature.name: feature.type for feature in card.features})
    block: FeatureBlock | EncodedBlock = FeatureBlock(plan, _all_names(card, estimator))
    sparse = False
    for step in preprocessing:
        block = compile_step(step, block)
        sparse = bool(getattr(step, "sparse_output_", False))
    preprocessor = getattr(final, "_preprocessor", None)
    if preprocessor is not None and type(final).__name__.startswith("HistGradientBoosting"):
        # Histogram boosting with native categories encodes them itself; the copy takes them encoded.
        numeric = {"numerical": "passthrough"}
        entries = [(name, numeric.get(name, part), where) for name, part, where in preprocessor.transformers_]
        block = _column_transformer(entries, block)
        final = without_feature_names(final)
        final._preprocessor = None
    return Encoding(
        as_matrix(block),
        getter(plan.numbers),
        getter(plan.columns) if plan.columns else None,
        tuple(plan.numbers),
        tuple(plan.columns),
        sparse,
    ), without_feature_names(final)


def feature_origins(card: Card, estimator: Estimator) -> list[tuple[str, ...]]:
    """Return for each column that the bare estimator of a fitted pipeline sees the card's features behind it.

    The columns are those of `compile_encoding(card, estimator)[0].encode(rows)`, (n, width), in that order, so the
    list has `width` entries; `Encoding.features` is the same list of an encoding that is compiled already, and says
    how to sum by it. Raises Unsupported when a step has no equivalent on arrays, CardError when the estimator was
    trained with a feature that the card does not describe.
    """
    return compile_encoding(card, estimator)[0].features


def input_names(card: Card, estimator: Estimator) -> list[str]:
    """Return the features in the order of the estimator's training.

    An estimator that was trained on an array has no names: it takes the card's order. Raises CardError.
    """
    described = [feature.name for feature in card.features]
    names = fitted_names(estimator)
    if names is None:
        count = getattr(first_step(estimator), "n_features_in_", len(described))
        if count != len(described):
            raise CardError(
                f"{card.name}@{card.version}: the estimator takes {count} features, but model.json has "
                f"{len(described)}; describe in model.json exactly those that it was trained with."
            )
        return described
    names = as_written(estimator, names, described)
    dropped = dropped_columns(estimator)
    absent = [name for name in names if name not in described and name not in dropped]
    if absent:
        raise CardError(
            f"{card.name}@{card.version}: the estimator was trained with {', '.join(absent[:5])}, "
            "which model.json does not describe; add it to the features."
        )
    return [name for name in names if name in described]


def _all_names(card: Card, estimator: Estimator) -> list[str]:
    """Return the columns as `input_names` does, also those that the model drops: positions count them too."""
    names = fitted_names(estimator)
    used = input_names(card, estimator)
    return used if names is None else as_written(estimator, names, used)


def fitted_names(estimator: Estimator) -> list[str] | None:
    """Return the column names of the training DataFrame, or None when it was an array."""
    return trained_names(first_step(estimator))


def getter(names: list[str]) -> Getter:
    """Return a function from a row to the tuple of these values, as fast as Python has it."""
    if not names:
        return lambda row: ()
    if len(names) == 1:
        only = names[0]
        return lambda row: (row[only],)
    return operator.itemgetter(*names)


def compile_step(step: Estimator, block: FeatureBlock | EncodedBlock) -> FeatureBlock | EncodedBlock:
    """Compile one fitted step behind what came before; raise Unsupported when that cannot be done."""
    kind, module = type(step).__name__, type(step).__module__ + "."
    if step is None or step == "passthrough" or (kind == "FunctionTransformer" and step.func is None):
        return block
    if is_pipeline(step):
        for part in serving_steps(step):
            block = compile_step(part, block)
        return block
    if module.startswith("sklearn."):
        if getattr(step, "transformer_weights", None):
            raise Unsupported(f"the {kind} weighs its parts")
        if kind == "ColumnTransformer":
            return _column_transformer(step.transformers_, block)
        if kind == "FeatureUnion":
            return concatenate(
                [as_matrix(compile_step(part, block)) for _, part in step.transformer_list if part != "drop"]
            )
        if kind in STEPS:
            return STEPS[kind](step, block)
        if module.startswith(ARRAY_MODULES) and kind != "FunctionTransformer":
            return apply_own_transform(step, block)
    raise Unsupported(f"no array equivalent is known for the step {kind}")


def _column_transformer(entries: Iterable[tuple[str, Any, Any]], block: FeatureBlock | EncodedBlock) -> EncodedBlock:
    if isinstance(block, EncodedBlock):
        raise Unsupported("a ColumnTransformer comes after another step")
    parts = []
    entries = list(entries)
    if takes_vector(entries):
        raise Unsupported("a transformer takes one column as a vector")
    for _, part, names in column_entries(entries, block.names):
        if names:
            parts.append(as_matrix(compile_step(part, FeatureBlock(block.plan, names, block.fills, block.steps))))
    return concatenate(parts)
