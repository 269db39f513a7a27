"""Tree ensembles in float64 through treelite's general inference library, which needs no compiler."""

import ctypes
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.encoding.blocks import Estimator, Matrix, Unsupported
from shared.scoring.scores import ResponseReader, Scores

SKLEARN = ("HistGradientBoosting", "GradientBoosting", "RandomForest", "ExtraTrees")  # then Classifier, Regressor
SMALLEST_SWITCH = 128  # rows; the proof scores fewer at a time, so that it exercises both sides of the switch


class TreeInput:
    """Turns an encoded matrix into the numbers that an ensemble's tests compare."""

    def __init__(self, estimator: Estimator, model: Any, *, sparse: bool) -> None:  # noqa: ANN401 - a treelite.Model
        library = type(estimator).__module__.partition(".")[0]
        # scikit-learn's own trees, except histogram boosting, compare float32 values with float64 thresholds.
        self.rounds = library == "sklearn" and not type(estimator).__name__.startswith("Hist")
        self.refuses_nan = not _allows_nan(estimator)
        self.zero_is_missing = sparse and library == "xgboost"
        self.dtype = np.dtype(model.input_type)

    def prepare(self, features: Matrix) -> NDArray[Any]:
        """Return the values for the trees, shape (n, width); raise ValueError for a row that the estimator refuses."""
        if self.zero_is_missing:
            zeros_as_missing(features)
        if self.refuses_nan and np.isnan(features).any():
            raise ValueError("the model takes no missing values")
        if self.rounds:
            single = features.astype(np.float32)
            if np.isinf(single).any():
                raise ValueError("a value is too large for the model's float32")
            return single.astype(np.float64)
        return features if self.dtype == features.dtype else features.astype(self.dtype)


class Trees:
    """A compiled ensemble: few rows go through treelite, many through the estimator if that is faster.

    For one row treelite is some 40 times faster than scikit-learn; for a thousand rows scikit-learn, which runs
    row by row within one tree, overtakes it. Both are exact, so the switch is a matter of time only.
    """

    def __init__(self, estimator: Estimator, reader: ResponseReader, *, sparse: bool) -> None:
        if reader.asks_twice:
            raise Unsupported("predict decides beside the probabilities, which trees do not give")
        method = reader.response_method
        if method == "decision_function" or (method == "predict" and reader.task != "regression"):
            raise Unsupported("treelite gives probabilities, and this classifier has none")
        self.estimator = estimator
        self.reader = reader
        self.model = import_trees(estimator)
        self.input = TreeInput(estimator, self.model, sparse=sparse)
        self.switch: int | None = None
        self._call = _predictor(self.model, self.input.dtype)

    def score(self, features: Matrix) -> Scores:
        """Return the scores of encoded rows, shape (n, width); ValueError where the estimator would refuse them."""
        if self.switch is not None and len(features) >= self.switch:
            return self.score_natively(features)
        raw = self._call(self.input.prepare(features))
        if raw.shape[1] == 1 and self.reader.task == "binary":
            return self.reader.decide_binary(raw[:, 0])
        return self.reader.decide(raw)

    def score_natively(self, features: Matrix) -> Scores:
        """Return the same scores by the estimator itself."""
        if self.input.zero_is_missing:
            zeros_as_missing(features)
        return self.reader.ask(self.estimator, features)

    def find_switch(self, sample: Matrix) -> None:
        """Measure both sides on encoded rows and set from how many rows on the estimator is the faster one."""
        rows = np.resize(sample, (2 * SMALLEST_SWITCH, sample.shape[1]))
        one = rows[:1].copy()
        self.switch = None
        base_native, base_trees = _best(self.score_natively, one), _best(self.score, one)
        slope_native = (_best(self.score_natively, rows) - base_native) / (len(rows) - 1)
        slope_trees = (_best(self.score, rows) - base_trees) / (len(rows) - 1)
        if slope_native < 0.9 * slope_trees:
            crossing = (base_native - base_trees) / (slope_trees - max(slope_native, 0.0))
            self.switch = max(SMALLEST_SWITCH, int(crossing) + 1)


def zeros_as_missing(features: Matrix) -> Matrix:
    """Write NaN for zero in place: XGBoost reads zeros of the pipeline's sparse matrix as missing."""
    features[features == 0.0] = np.nan
    return features


def import_trees(estimator: Estimator) -> Any:  # noqa: ANN401 - a treelite.Model, imported only here
    """Return the treelite model of an ensemble; raise Unsupported for anything else."""
    kind, library = type(estimator).__name__, type(estimator).__module__.partition(".")[0]
    is_supported = library == "sklearn" and kind.removesuffix("Classifier").removesuffix("Regressor") in SKLEARN
    if not is_supported and library not in ("xgboost", "lightgbm"):
        raise Unsupported(f"{kind} is not an ensemble of trees that treelite reads")
    try:
        import treelite
        import treelite.sklearn
    except ImportError:
        raise Unsupported("treelite is not installed") from None
    try:
        if library == "xgboost":
            booster = estimator.get_booster()
            best = getattr(estimator, "best_iteration", None) if estimator.early_stopping_rounds else None
            return treelite.frontend.from_xgboost(booster if best is None else booster[: best + 1])
        if library == "lightgbm":
            return treelite.frontend.from_lightgbm(estimator.booster_)
        return treelite.sklearn.import_model(estimator)
    except (treelite.TreeliteError, NotImplementedError, AssertionError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Unsupported(f"treelite cannot read this {kind}: {first[:200]}") from error


def thresholds(estimator: Estimator) -> dict[int, NDArray[np.float64]]:
    """Return for each encoded column the split values of all trees, sorted; empty for models without trees."""
    try:
        model = import_trees(estimator)
    except Unsupported:
        return {}
    columns, values = [], []
    for i in range(model.num_tree):
        tree = model.get_tree_accessor(i)
        inner = (tree.get_field("cleft") >= 0) & (tree.get_field("node_type") == 1)  # 1: a numerical test
        columns.append(tree.get_field("split_index")[inner])
        values.append(tree.get_field("threshold")[inner].astype(np.float64))
    column, value = np.concatenate(columns), np.concatenate(values)
    return {int(j): np.unique(value[column == j]) for j in np.unique(column)}


def _predictor(model: Any, dtype: np.dtype[Any]) -> Callable[[NDArray[Any]], NDArray[Any]]:  # noqa: ANN401
    # treelite.gtil.predict parses its configuration and asks for the shape on every call, which doubles the time
    # of one row. We call the same public C function (treelite/c_api.h) with both prepared.
    from treelite import gtil
    from treelite.core import _LIB, _check_call
    from treelite.gtil.gtil import GTILConfig

    config = GTILConfig(nthread=1, predict_type="default")
    predict = _LIB["TreeliteGTILPredict"]  # by item: a function object of our own, whose types we may set
    pointer = ctypes.c_void_p
    predict.argtypes = [pointer, pointer, ctypes.c_char_p, ctypes.c_uint64, pointer, pointer]
    predict.restype = ctypes.c_int
    sample = gtil.predict(model, np.zeros((1, model.num_feature), dtype=dtype), nthread=1)
    width = int(np.prod(sample.shape[1:]))
    output, kind, columns = sample.dtype, model.input_type.encode(), model.num_feature

    def call(features: NDArray[Any]) -> NDArray[Any]:
        if features.shape[1] != columns:  # the C side would read beyond the array
            raise ValueError(f"the trees take {columns} columns, not {features.shape[1]}")
        features = np.ascontiguousarray(features)
        out = np.zeros((len(features), width), dtype=output)
        _check_call(predict(model.handle, features.ctypes.data, kind, len(features), out.ctypes.data, config.handle))
        return out

    return call


def _allows_nan(estimator: Estimator) -> bool:
    from sklearn.utils import get_tags

    return bool(get_tags(estimator).input_tags.allow_nan)


def _best(function: Callable[[Matrix], Scores], features: Matrix) -> float:
    times = []
    for _ in range(4):
        began = time.perf_counter()
        function(features)
        times.append(time.perf_counter() - began)
    return min(times)
