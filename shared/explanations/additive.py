"""Exact explanations of models whose raw output is a sum: ensembles of trees, and linear models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.cards.card import Card
from shared.encoding.blocks import Estimator, Matrix, Unsupported
from shared.encoding.compile import Encoding, compile_encoding
from shared.explanations.attribution import Attribution, ExplainedModel, Method, Row, Scale, explained_column
from shared.explanations.tree_paths import TreePaths, read_trees
from shared.explanations.tree_values import (
    LeafTables,
    ReferenceMasks,
    interventional,
    path_dependent,
    path_dependent_base,
    reference_masks,
)
from shared.scoring.outputs import Output
from shared.scoring.scores import Scores, response_reader

TOLERANCE = 1e-6
TOLERANCE_OF_FLOAT32 = 1e-4  # XGBoost adds up in float32


class Sum(Protocol):
    """A model's raw outputs, and how features add up to them."""

    method: Method
    base: Matrix  # (K,)

    def read(self, features: Matrix) -> NDArray[Any]:
        """Return the numbers that n encoded rows need, by row; it may write into them."""
        ...

    def outputs(self, rows: NDArray[Any]) -> Matrix:
        """Return the raw outputs of n rows that were read, shape (n, K)."""
        ...

    def contributions(self, rows: NDArray[Any], output: int) -> Matrix:
        """Return what each feature adds to one output of n rows that were read, shape (n, F)."""
        ...


class TreeSum:
    """An ensemble of trees."""

    def __init__(self, paths: TreePaths, reference: Matrix | None, count: int) -> None:
        self.paths = paths
        self.count = count
        self.reference: ReferenceMasks | None = None
        self.tables: LeafTables | None = None  # made for the first row that is explained
        self.method: Method = "tree_path_dependent"
        if reference is None:
            self.base = path_dependent_base(paths)
        else:
            self.reference = reference_masks(paths, paths.input.prepare(reference))
            self.method = "tree_interventional"
            self.base = self.reference.base

    def read(self, features: Matrix) -> NDArray[Any]:
        """Return the leaf masks of n encoded rows, shape (n, L)."""
        return self.paths.masks(self.paths.input.prepare(features))

    def outputs(self, rows: NDArray[Any]) -> Matrix:
        """Return the raw outputs of n rows with these masks, shape (n, K)."""
        return self.paths.outputs(rows)

    def contributions(self, rows: NDArray[Any], output: int) -> Matrix:
        """Return what each feature adds to one output of n rows with these masks, shape (n, F)."""
        if self.reference is not None:
            if self.tables is None and LeafTables.fit(self.paths, self.reference):
                self.tables = LeafTables(self.paths, self.reference, self.count)
            if self.tables is not None:
                return self.tables.contributions(rows, output)
            return interventional(self.paths, self.reference, rows, output, self.count)
        return np.array([path_dependent(self.paths, mask, output, self.count) for mask in rows])


class LinearSum:
    """A linear model: each encoded column adds its weight times its distance from the reference mean."""

    method: Method = "linear"

    def __init__(self, estimator: Estimator, reference: Matrix, players: Sequence[int], count: int) -> None:
        coefficients, intercept = getattr(estimator, "coef_", None), getattr(estimator, "intercept_", None)
        if intercept is None or not isinstance(coefficients, np.ndarray):
            raise Unsupported(f"{type(estimator).__name__} is not a linear model")
        self.weights = np.atleast_2d(np.asarray(coefficients, dtype=np.float64)).T  # (width, K)
        self.intercept = np.ravel(np.asarray(intercept, dtype=np.float64))
        if self.weights.shape[0] != reference.shape[1]:
            raise Unsupported(f"{type(estimator).__name__} does not have one weight for each column")
        self.mean = reference.mean(axis=0)
        self.members = np.zeros((reference.shape[1], count))
        self.members[np.arange(reference.shape[1]), list(players)] = 1.0
        self.base = self.outputs(self.mean[None])[0]

    def read(self, features: Matrix) -> NDArray[Any]:
        """Return the n encoded rows themselves."""
        return features

    def outputs(self, rows: NDArray[Any]) -> Matrix:
        """Return the raw outputs of n encoded rows, shape (n, K)."""
        result: Matrix = rows @ self.weights + self.intercept
        return result

    def contributions(self, rows: NDArray[Any], output: int) -> Matrix:
        """Return what each feature adds to one output of n encoded rows, shape (n, F)."""
        result: Matrix = ((rows - self.mean) * self.weights[:, output]) @ self.members
        return result


@dataclass(frozen=True, slots=True)
class AdditiveExplainer:
    """Explains the rows of a model version exactly."""

    card: Card
    encoding: Encoding
    final: Estimator
    sum: Sum
    scale: Scale
    tolerance: float

    @property
    def method(self) -> Method:
        """How the contributions are computed."""
        return self.sum.method

    def attribute(self, rows: Sequence[Row], outputs: Sequence[Output]) -> Attribution:
        """Return the contributions of n canonical rows to their scores."""
        features = self.encoding.encode(rows)
        read = self.sum.read(features)
        raw = self.sum.outputs(read)
        column = explained_column(self.card.task, outputs, raw.shape[1])
        contributions = np.empty((len(rows), len(self.card.features)))
        for output in np.unique(column):
            selected = column == output
            contributions[selected] = self.sum.contributions(read[selected], int(output))[:, : contributions.shape[1]]
        value = raw[np.arange(len(rows)), column]
        return Attribution(self.sum.base[column], value, self._served(features, outputs, value, column), contributions)

    def _served(
        self, features: Matrix, outputs: Sequence[Output], value: NDArray[np.float64], column: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """Return the served values on the scale, (n,): from the score, or, if that is coarse, the estimator."""
        served = _by_score(self.scale, outputs)
        apart = ~(np.abs(served - value) <= self.tolerance * np.maximum(1.0, np.abs(value)))
        if apart.any():  # a single row of boosted trees costs the estimator more than its explanation does
            own = _as_served(self.final, features[apart], self.scale)
            at = column[apart] if own.shape[1] == len(self.sum.base) else np.full(len(own), -1)
            served[apart] = own[np.arange(len(own)), at]
        return served


def additive(model: ExplainedModel, reference: Sequence[Row] | None) -> AdditiveExplainer:
    """Return an exact explainer whose outputs are the served ones; `reference` is None without reference rows.

    Raises Unsupported for a model that is neither trees nor linear, and for columns of unknown origin.
    """
    encoding, final = compile_encoding(model.card, model.estimator)
    if "n_jobs" in vars(final):
        final.n_jobs = 1  # a copy of ours; starting threads costs more than a row
    places = {feature.name: place for place, feature in enumerate(model.card.features)}
    if any(len(names) > 1 for names in encoding.features):
        raise Unsupported("a step mixes several features into one column")
    # A column of no feature is constant: it takes a place of its own, to which nothing is ever attributed.
    players = [places[names[0]] if names else len(places) for names in encoding.features]
    encoded = None if reference is None else encoding.encode(reference)
    checked = encoding.encode(list(reference or model.reference))
    makers: list[Callable[[], Sum]] = [
        lambda: TreeSum(read_trees(final, players, sparse=encoding.sparse), _copy(encoded), len(places) + 1)
    ]
    if encoded is not None:
        makers.append(lambda: LinearSum(final, encoded, players, len(places) + 1))
    tolerance = TOLERANCE_OF_FLOAT32 if type(final).__module__.startswith("xgboost.") else TOLERANCE
    reasons = []
    for make in makers:
        try:
            terms = make()
            raw = terms.outputs(terms.read(checked.copy()))
            scale = _find_scale(model, raw, list(reference or model.reference))
            _check_own(_as_served(final, checked.copy(), scale), raw, tolerance)
        except Unsupported as reason:
            reasons.append(str(reason))
            continue
        return AdditiveExplainer(model.card, encoding, final, terms, scale, tolerance)
    raise Unsupported("; ".join(reasons))


def _check_own(served: Matrix, raw: Matrix, tolerance: float) -> None:
    """Raise Unsupported where what the estimator gives on the scale is not the sum, which would fail on every row."""
    if served.shape[1] != raw.shape[1]:
        served, raw = served[:, -1:], raw[:, -1:]
    if not np.all(np.abs(served - raw) <= tolerance * np.maximum(1.0, np.abs(served))):
        raise Unsupported("what the estimator gives on this scale is not the sum")


def _copy(features: Matrix | None) -> Matrix | None:
    return None if features is None else features.copy()  # preparing writes into it


def _find_scale(model: ExplainedModel, raw: Matrix, rows: Sequence[Row]) -> Scale:
    """Return the link from raw outputs (n, K) to the served scores of these rows; raise Unsupported without one."""
    scores = model.scorer.score(rows)
    reader = response_reader(model.card, model.estimator)
    if model.card.task != "regression" and not reader.gives_probabilities:
        if reader.response_method != "decision_function":
            raise Unsupported("its classes come without probabilities and without a decision function")
        return "margin"
    for scale, link in _links(model.card.task, raw.shape[1]):
        with np.errstate(over="ignore"):
            linked = link(raw)
        served = _served(scores)
        if linked.shape == served.shape and np.all(np.abs(linked - served) <= 1e-6 * np.maximum(1.0, np.abs(served))):
            return scale
    raise Unsupported("what is served does not follow from the sum by a link that is known")


def _served(scores: Scores) -> Matrix:
    if scores.probabilities is not None:
        return scores.probabilities
    return (scores.prediction if scores.probability is None else scores.probability)[:, None]


def _links(task: str, width: int) -> list[tuple[Scale, Callable[[Matrix], Matrix]]]:
    from scipy.special import expit, softmax

    if task == "regression":
        return [("target", lambda raw: raw), ("log_target", np.exp)]
    if task == "binary":
        return [("probability", lambda raw: raw[:, -1:])] if width == 2 else [("log_odds", expit)]
    return [("margin", lambda raw: softmax(raw, axis=1)), ("probability", lambda raw: raw)]


def _by_score(scale: Scale, outputs: Sequence[Output]) -> NDArray[np.float64]:
    """Return the scores on the scale, shape (n,); NaN where a score is too coarse."""
    from scipy.special import logit

    if scale in ("target", "log_target"):
        served = np.array([output.prediction for output in outputs])
    elif scale == "margin":
        served = np.full(len(outputs), np.nan)
    else:
        served = np.array([np.nan if output.probability is None else output.probability for output in outputs])
    with np.errstate(divide="ignore", invalid="ignore"):
        if scale == "log_target":
            served = np.log(served)
        return np.asarray(logit(served) if scale == "log_odds" else served, dtype=np.float64)


def _as_served(final: Estimator, features: Matrix, scale: Scale) -> Matrix:
    """Return the estimator's own outputs on this scale, shape (n, K)."""
    library = type(final).__module__.partition(".")[0]
    answer: Any
    if library == "lightgbm":  # by its Booster: the wrapper warns of names that an array does not have
        is_raw = scale != "target"
        answer = final.booster_.predict(features, raw_score=is_raw, num_threads=1) * _steepness(final, scale)
    elif scale == "probability":
        answer = final.predict_proba(features)
    elif scale == "target":
        answer = final.predict(features)
    elif library == "xgboost":
        answer = final.predict(features, output_margin=True)
    elif scale == "log_target":
        answer = np.log(final.predict(features))
    else:
        answer = final.decision_function(features)
    served: Matrix = np.asarray(answer, dtype=np.float64).reshape(len(features), -1)
    return served


def _steepness(booster: Estimator, scale: Scale) -> float:
    """Return what LightGBM multiplies a raw score by to make it log-odds (its parameter `sigmoid`)."""
    return float(booster.get_params().get("sigmoid", 1.0)) if scale == "log_odds" else 1.0
