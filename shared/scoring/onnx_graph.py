"""The whole pipeline as one ONNX graph with at most two inputs: every number in one tensor, every text in another.

ONNX computes in float32. Linear models come out within 4e-7; trees take the other branch for values near a split,
and are then wrong by a lot. That is why nothing here is used unless the proof in shared/scoring/selection.py lets it
pass.
"""

import copy
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.cards.card import Card
from shared.encoding.blocks import Estimator, Unsupported
from shared.encoding.columns import Columns
from shared.encoding.compile import Row, getter, input_names
from shared.encoding.estimator_inputs import make_array_input
from shared.encoding.pipelines import column_entries, split, takes_vector, trained_names
from shared.encoding.transformers import without_feature_names
from shared.encoding.whole_inputs import takes_dicts, takes_texts
from shared.scoring.scorers import PipelineScorer
from shared.scoring.scores import ResponseReader, Scores


class OnnxScorer:
    """Scores rows with ONNX Runtime on one thread."""

    kind = "onnx"

    def __init__(self, card: Card, estimator: Estimator, reader: ResponseReader) -> None:
        if reader.task != "regression" and reader.response_method != "predict_proba":
            raise Unsupported("the ONNX path gives probabilities, and this classifier has none")
        if takes_texts(estimator) or takes_dicts(estimator):
            raise Unsupported("no sample of free text proves that ONNX cuts all of it into the same words")
        if reader.asks_twice:
            raise Unsupported("predict decides beside the probabilities, which the graph does not give")
        types = {feature.name: feature.type for feature in card.features}
        names = input_names(card, estimator)
        numbers = [name for name in names if types[name] != "string"]
        texts = [name for name in names if types[name] == "string"]
        graph = _convert(_by_position(estimator, names, numbers + texts), len(numbers), len(texts), reader)
        self.reader = reader
        self.card, self.estimator = card, estimator
        self.arrays = make_array_input(card, estimator)
        self.final = without_feature_names(split(estimator)[1])  # for close calls
        self.number_names, self.text_names = numbers, texts
        self.numbers = getter(numbers) if numbers else None
        self.texts = getter(texts) if texts else None
        self.session = _session(graph)
        self.output = [self.session.get_outputs()[0 if reader.task == "regression" else 1].name]

    def score(self, rows: Sequence[Row]) -> Scores:
        """Return the scores of canonical rows; a missing number is NaN and a missing text is empty."""
        if not rows:
            return self.reader.empty()
        inputs: dict[str, Any] = {}
        if self.numbers is not None:
            inputs["numbers"] = _single(np.array([self.numbers(row) for row in rows], dtype=np.float64))
            if inputs["numbers"] is None:
                return self._by_pipeline(rows)
        if self.texts is not None:
            inputs["texts"] = np.array([[text or "" for text in self.texts(row)] for row in rows], dtype=object)
        return self._decide(inputs, lambda: rows)

    def score_columns(self, columns: Columns) -> Scores:
        """Return the same scores for the same rows, from the same two tensors."""
        if not columns.count:
            return self.reader.empty()
        inputs: dict[str, Any] = {}
        if self.number_names:
            inputs["numbers"] = _single(np.column_stack([columns.floats(name) for name in self.number_names]))
            if inputs["numbers"] is None:
                return self._by_pipeline(columns.rows())
        if self.text_names:
            texts = [[text or "" for text in columns.objects(name)] for name in self.text_names]
            inputs["texts"] = np.array(texts, dtype=object).T.copy()
        return self._decide(inputs, columns.rows)

    def _decide(self, inputs: dict[str, Any], rows: Callable[[], Sequence[Row]]) -> Scores:
        scores = self.reader.decide(self.session.run(self.output, inputs)[0])
        if scores.close is None:
            return scores
        return self.reader.decide_close_rows(scores, self.final, self.arrays(rows()))

    def _by_pipeline(self, rows: Sequence[Row]) -> Scores:
        # What float32 does not hold, the pipeline may take, or refuse: ONNX would score an infinity.
        return PipelineScorer(self.card, self.estimator, self.reader).score(rows)


def _single(numbers: NDArray[np.float64]) -> NDArray[np.float32] | None:
    """Return numbers as float32; None where one of them is too large for it."""
    with np.errstate(over="ignore"):
        single = numbers.astype(np.float32)
    return None if np.isinf(single).any() else single


def _by_position(estimator: Estimator, names: list[str], order: list[str]) -> Estimator:
    """Return a copy of a pipeline whose columns are selected by their position in `order`."""
    estimator = getattr(estimator, "best_estimator_", estimator)
    kind = type(estimator).__name__
    if kind == "Pipeline":
        clone = copy.copy(estimator)
        (label, first), *rest = estimator.steps
        clone.steps = [(label, _by_position(first, names, order)), *rest]
        return clone
    if kind != "ColumnTransformer":
        if names != order:
            raise Unsupported(f"{kind} takes text and numbers mixed, which two tensors cannot hold in order")
        return without_feature_names(estimator)
    clone = without_feature_names(estimator)
    columns = trained_names(estimator) or names  # positions count also the columns that are dropped
    if takes_vector(estimator.transformers_):
        raise Unsupported("a transformer takes one column as a vector")
    clone.transformers_ = [
        (label, part, [order.index(name) for name in chosen])
        for label, part, chosen in column_entries(estimator.transformers_, columns)
    ]
    return clone


def _convert(estimator: Estimator, numbers: int, texts: int, reader: ResponseReader) -> bytes:
    try:
        import skl2onnx
        from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    except ImportError:
        raise Unsupported("skl2onnx is not installed") from None
    inputs: list[tuple[str, Any]] = []
    if numbers:
        inputs.append(("numbers", FloatTensorType([None, numbers])))
    if texts:
        inputs.append(("texts", StringTensorType([None, texts])))
    options = {} if reader.task == "regression" else {id(estimator): {"zipmap": False}}
    try:
        with warnings.catch_warnings(), _whole_numbers():
            warnings.simplefilter("ignore")  # the converter's deprecations are not our caller's business
            graph = skl2onnx.convert_sklearn(estimator, initial_types=inputs, options=options)
    except Exception as error:  # converters raise anything; the reason is reported
        words = " ".join(str(error).split())[:200]  # the converter's messages run over many lines
        raise Unsupported(f"skl2onnx cannot convert it: {type(error).__name__}: {words}") from error
    return bytes(graph.SerializeToString())


@contextmanager
def _whole_numbers() -> Iterator[None]:
    # skl2onnx 1.20 marks the leaves of histogram boosting with False, which protobuf 7 refuses as an
    # integer; every conversion of such a model would fail. Only while converting, give it 0 and 1.
    from skl2onnx.common import tree_ensemble

    original = tree_ensemble.add_node

    def add_node(*values: Any, **named: Any) -> None:  # noqa: ANN401 - passed on as they are
        tracks = "nodes_missing_value_tracks_true"
        original(*values, **named | {tracks: int(named.get(tracks, 0))})

    tree_ensemble.add_node = add_node
    try:
        yield
    finally:
        tree_ensemble.add_node = original


def _session(graph: bytes) -> Any:  # noqa: ANN401 - an onnxruntime.InferenceSession, imported only here
    # Read at the import: otherwise Linux builds since 1.29 keep a device id and send usage data to their maker.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError:
        raise Unsupported("onnxruntime is not installed") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
