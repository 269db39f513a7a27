"""Scorers of canonical rows: the pipeline itself, and a compiled encoding before a faster estimator."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from shared.cards.card import Card
from shared.encoding.blocks import Estimator, Matrix, Unsupported
from shared.encoding.columns import Columns
from shared.encoding.compile import Encoding, Row
from shared.encoding.estimator_inputs import make_frame_input
from shared.scoring.scores import ResponseReader, Scores
from shared.scoring.trees import zeros_as_missing

Kind = Literal["onnx", "treelite", "numpy", "pipeline"]


class Scorer(Protocol):
    """Anything that scores canonical rows: card order is not needed, every feature is, None is null."""

    kind: str

    def score(self, rows: Sequence[Mapping[str, Any]]) -> Scores:
        """Return the scores of these rows in their order."""
        ...

    def score_columns(self, columns: Columns) -> Scores:
        """Return the same scores as `score` for the same rows, bit for bit."""
        ...


class PipelineScorer:
    """The estimator as it was trained, behind a DataFrame: slow for one row, and right by definition."""

    kind = "pipeline"

    def __init__(self, card: Card, estimator: Estimator, reader: ResponseReader) -> None:
        self.estimator = estimator
        self.reader = reader
        self.frame = make_frame_input(card, estimator)

    def score(self, rows: Sequence[Row]) -> Scores:
        """Return the scores of these rows; whatever the pipeline raises passes through."""
        return self.reader.read(self.estimator, self.frame(rows)) if rows else self.reader.empty()

    def score_columns(self, columns: Columns) -> Scores:
        """Return the same scores for the same rows, which the DataFrame is made of."""
        return self.score(columns.rows())


class EncodedScorer:
    """An own encoding into float64, then a model that takes arrays; `final` settles its close calls."""

    def __init__(
        self,
        kind: Kind,
        encoding: Encoding,
        model: Callable[[Matrix], Scores],
        reader: ResponseReader,
        final: Estimator,
    ) -> None:
        self.kind: str = kind
        self.encode = encoding.encode
        self.encode_columns = encoding.encode_columns
        self.model = model
        self.reader = reader
        self.final = final

    def score(self, rows: Sequence[Row]) -> Scores:
        """Return the scores of these rows; ValueError where the pipeline would refuse one of them."""
        return self._score(self.encode(rows)) if rows else self.reader.empty()

    def score_columns(self, columns: Columns) -> Scores:
        """Return the same scores for the same rows, encoded column by column."""
        return self._score(self.encode_columns(columns)) if columns.count else self.reader.empty()

    def _score(self, features: Matrix) -> Scores:
        scores = self.model(features)
        return scores if scores.close is None else self.reader.decide_close_rows(scores, self.final, features)


def native(estimator: Estimator, reader: ResponseReader, *, sparse: bool) -> Callable[[Matrix], Scores]:
    """Return the estimator's own method on the encoded array, on one thread."""
    if sparse and type(estimator).__module__.startswith("xgboost."):
        return lambda features: reader.ask(estimator, zeros_as_missing(features))
    return lambda features: reader.ask(estimator, features)


def linear(estimator: Estimator, reader: ResponseReader) -> Callable[[Matrix], Scores]:
    """Return a linear model as one product and scikit-learn's own link; raise Unsupported for other models."""
    if reader.asks_twice:
        raise Unsupported("predict decides beside the probabilities, which a product does not give")
    coefficients = getattr(estimator, "coef_", None)
    intercept = getattr(estimator, "intercept_", None)
    if intercept is None or not isinstance(coefficients, np.ndarray) or coefficients.dtype != np.float64:
        raise Unsupported(f"{type(estimator).__name__} is not a linear model")
    # By row: a product of matrices rounds the sum of a row by how many rows are beside it, and then nobody could show
    # that a past score comes out again.
    weights = np.ascontiguousarray(np.atleast_2d(coefficients))
    single = len(weights) == 1
    if single:
        weights = weights[0].copy()
        intercept = float(np.ravel(intercept)[0])

    def decide(features: Matrix) -> Matrix:
        rows = np.ascontiguousarray(features)
        decision: Matrix = np.vecdot(rows if single else rows[:, None, :], weights) + intercept
        if not np.isfinite(decision).all():
            raise ValueError("the model takes no missing values")
        return decision

    if reader.task == "regression" or reader.response_method == "decision_function":
        return lambda features: reader.decide(decide(features))
    if reader.response_method != "predict_proba":
        raise Unsupported(f"{type(estimator).__name__} gives neither probabilities nor decisions")
    from scipy.special import expit

    if single:
        return lambda features: reader.decide_binary(expit(decide(features)))
    from sklearn.utils.extmath import softmax

    return lambda features: reader.decide(softmax(decide(features), copy=False))
