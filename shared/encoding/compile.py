"""Rows to a float64 matrix: a fitted scikit-learn pipeline's preprocessing, without building a DataFrame."""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.cards.card import Card
from shared.encoding import encoders, transformers
from shared.encoding.columns import Columns
from shared.encoding.trained_columns import (
    as_written,
    dropped_columns,
    first_step,
    is_pipeline,
    serving_steps,
    trained_names,
)
from shared.encoding.transformers import (
    Fitted,
    Matrix,
    Node,
    Origin,
    Plan,
    Raw,
    Sources,
    Unsupported,
    materialise,
    nameless,
)
from shared.errors import CardError

Row = Mapping[str, Any]
Getter = Callable[[Row], tuple[Any, ...]]
Step = Callable[[Any, Raw | Node], Raw | Node]

STEPS: dict[str, Step] = {
    "SimpleImputer": transformers.impute,
    "StandardScaler": transformers.standardise,
    "RobustScaler": transformers.scale_robustly,
    "MinMaxScaler": transformers.scale_to_range,
    "MaxAbsScaler": transformers.scale_to_maximum,
    "OneHotEncoder": encoders.one_hot,
    "OrdinalEncoder": encoders.one_number,
    "TargetEncoder": encoders.one_number,
}
BY_ITSELF = (  # modules whose other transformers take and give plain arrays
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

    node: Node
    numbers: Getter  # a row's number features, in the order of `Sources.numbers`
    columns: Getter | None  # a row's looked-up features; None when there are none
    number_names: tuple[str, ...]
    column_names: tuple[str, ...]
    sparse: bool  # the pipeline gives a sparse matrix here, in which XGBoost takes a zero for missing

    @property
    def origins(self) -> list[Origin | None]:
        """Return for each encoded column the feature that it is a scaled copy of, or None."""
        return self.node.origins

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
        return self._fill(count, Sources(numbers, columns))

    def encode_columns(self, columns: Columns) -> Matrix:
        """Return what `encode` returns for the same rows, bit for bit."""
        numbers = np.empty((columns.count, len(self.number_names)))
        for place, name in enumerate(self.number_names):
            numbers[:, place] = columns.floats(name)
        return self._fill(columns.count, Sources(numbers, [columns.objects(name) for name in self.column_names]))

    def _fill(self, count: int, sources: Sources) -> Matrix:
        out = np.empty((count, self.node.width))
        self.node.fill(sources, out)
        return out


def compile_encoding(card: Card, estimator: Fitted) -> tuple[Encoding, Fitted]:
    """Return the encoding of a fitted pipeline and the bare estimator behind it, which takes the encoded matrix.

    Raises Unsupported when a step has no equivalent on arrays.
    """
    preprocessing, final = split(estimator)
    plan = Plan({feature.name: feature.type for feature in card.features})
    state: Raw | Node = Raw(plan, _all_names(card, estimator))
    sparse = False
    for step in preprocessing:
        state = follow(step, state)
        sparse = bool(getattr(step, "sparse_output_", False))
    preprocessor = getattr(final, "_preprocessor", None)
    if preprocessor is not None and type(final).__name__.startswith("HistGradientBoosting"):
        # Histogram boosting with native categories encodes them itself; the copy takes them encoded.
        numeric = {"numerical": "passthrough"}
        entries = [(name, numeric.get(name, part), where) for name, part, where in preprocessor.transformers_]
        state = _side_by_side(entries, state)
        final = nameless(final)
        final._preprocessor = None
    node = materialise(state)
    return Encoding(
        node,
        getter(plan.numbers),
        getter(plan.columns) if plan.columns else None,
        tuple(plan.numbers),
        tuple(plan.columns),
        sparse,
    ), nameless(final)


def split(estimator: Fitted) -> tuple[list[Any], Any]:
    """Return the preprocessing steps and the final estimator, through searches and nested pipelines."""
    estimator = getattr(estimator, "best_estimator_", estimator)
    if not is_pipeline(estimator):
        return [], estimator
    parts = serving_steps(estimator)
    inner, final = split(parts[-1])
    return [*parts[:-1], *inner], final


def input_names(card: Card, estimator: Fitted) -> list[str]:
    """Return the features in the order in which the estimator was trained with them.

    An estimator that was trained on an array has no names: it takes the card's order. Raises CardError.
    """
    known = [feature.name for feature in card.features]
    names = fitted_names(estimator)
    if names is None:
        count = getattr(first_step(estimator), "n_features_in_", len(known))
        if count != len(known):
            raise CardError(
                f"{card.name}@{card.version}: the estimator takes {count} features, but model.json has {len(known)}; "
                "describe in model.json exactly those that it was trained with."
            )
        return known
    names = as_written(estimator, names, known)
    dropped = dropped_columns(estimator)
    absent = [name for name in names if name not in known and name not in dropped]
    if absent:
        raise CardError(
            f"{card.name}@{card.version}: the estimator was trained with {', '.join(absent[:5])}, "
            "which model.json does not describe; add it to the features."
        )
    return [name for name in names if name in known]


def _all_names(card: Card, estimator: Fitted) -> list[str]:
    """Return the columns as `input_names` does, also those that the model drops: positions count them too."""
    names = fitted_names(estimator)
    used = input_names(card, estimator)
    return used if names is None else as_written(estimator, names, used)


def fitted_names(estimator: Fitted) -> list[str] | None:
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


def follow(step: Fitted, state: Raw | Node) -> Raw | Node:
    """Compile one fitted step behind what came before; raise Unsupported when that cannot be done."""
    kind, module = type(step).__name__, type(step).__module__ + "."
    if step is None or step == "passthrough" or (kind == "FunctionTransformer" and step.func is None):
        return state
    if is_pipeline(step):
        for part in serving_steps(step):
            state = follow(part, state)
        return state
    if module.startswith("sklearn."):
        if getattr(step, "transformer_weights", None):
            raise Unsupported(f"the {kind} weighs its parts")
        if kind == "ColumnTransformer":
            return _side_by_side(step.transformers_, state)
        if kind == "FeatureUnion":
            return _stack([materialise(follow(part, state)) for _, part in step.transformer_list if part != "drop"])
        if kind in STEPS:
            return STEPS[kind](step, state)
        if module.startswith(BY_ITSELF) and kind != "FunctionTransformer":
            return transformers.by_itself(step, state)
    raise Unsupported(f"no array equivalent is known for the step {kind}")


def _side_by_side(entries: Iterable[tuple[str, Any, Any]], state: Raw | Node) -> Node:
    if isinstance(state, Node):
        raise Unsupported("a ColumnTransformer comes after another step")
    parts = []
    for _, part, where in entries:
        if isinstance(part, str) and part == "drop":
            continue
        names = chosen(where, state.names)
        if names:
            parts.append(materialise(follow(part, Raw(state.plan, names, state.fills))))
    return _stack(parts)


def _stack(parts: list[Node]) -> Node:
    if not parts:
        raise Unsupported("no column reaches the estimator")
    if len(parts) == 1:
        return parts[0]
    ends = np.cumsum([part.width for part in parts]).tolist()
    spans = [(part.fill, slice(end - part.width, end)) for part, end in zip(parts, ends, strict=True)]

    def fill(sources: Sources, out: Matrix) -> None:
        for write, span in spans:
            write(sources, out[:, span])

    return Node(ends[-1], fill, [origin for part in parts for origin in part.origins])


def chosen(where: object, names: list[str]) -> list[str]:
    """Return the features that a ColumnTransformer entry selects by name, position, mask or slice."""
    if isinstance(where, str):
        raise Unsupported("a transformer takes one column as a vector")
    if isinstance(where, slice):
        if isinstance(where.start, str) or isinstance(where.stop, str):  # both ends are included, as in pandas
            low = None if where.start is None else names.index(where.start)
            high = None if where.stop is None else names.index(where.stop) + 1
            return names[low : high : where.step]
        return names[where]
    wanted = np.asarray(where)
    if wanted.size == 0:
        return []
    if wanted.dtype.kind in "OUT":
        return [str(name) for name in wanted]
    return [names[i] for i in np.atleast_1d(np.arange(len(names))[wanted])]
