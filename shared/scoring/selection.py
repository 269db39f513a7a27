"""The fastest exact way to score a model.

`choose` builds every path that can represent the model, proves each against the pipeline itself on the reference
sample and on edge rows made from it, measures those, and takes the fastest exact one. One whose answers are rounded to
float32 must be much faster than those that keep every digit: else chance would choose the last digits on a busy
machine. `build` makes a chosen path again when a worker starts, and proves it again. A path that fails its proof is
never used, however fast it is.

    onnx      the whole pipeline as one float32 graph (shared/scoring/onnx_graph.py)
    treelite  own encoding, then float64 trees (shared/scoring/trees.py)
    numpy     own encoding, then a dot product, or the estimator on the array (shared/scoring/scorers.py)
    pipeline  a DataFrame through the pipeline: always possible, always right
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

from shared.cards.card import Card
from shared.encoding.blocks import Estimator, Unsupported
from shared.encoding.compile import Encoding, compile_encoding
from shared.encoding.estimator_inputs import make_array_input
from shared.encoding.pipelines import split
from shared.encoding.transformers import without_feature_names
from shared.errors import ArtefactError, GuichetError
from shared.scoring.boundary_rows import boundary_rows
from shared.scoring.onnx_graph import OnnxScorer
from shared.scoring.original import Original, decided
from shared.scoring.parity import (
    SMALL_BATCH,
    Parity,
    Truth,
    compare,
    find_truth,
    prove,
    refuses_all,
    score_with_refusals,
)
from shared.scoring.scorers import EncodedScorer, Kind, PipelineScorer, Scorer, linear, native
from shared.scoring.scores import ResponseReader, Scores, response_reader
from shared.scoring.trees import Trees, thresholds

__all__ = ["Choice", "Scorer", "Scores", "build", "choose"]

KINDS: tuple[Kind, ...] = get_args(Kind)
CANDIDATES: tuple[Kind, ...] = ("numpy", "treelite", "onnx")  # the lighter on memory first
REQUIRED_SPEEDUP = 0.85  # a heavier path must take less than this part of the time to be preferred
ROUNDED_SPEEDUP = 1.5  # a path whose answers are rounded must be so many times as fast as the fastest other one
ROUNDED = 1e-12  # float64 sums in another order differ by less; float32 answers by 1e-8 and more
MEASURE_SECONDS = 0.15  # spent on one measurement of one path
PROOF = 4  # times as much is spent on asking the original for single rows, and for a few
BATCH = 1000  # rows

Row = dict[str, Any]


@dataclass(slots=True)
class Choice:
    """The chosen scorer, and a JSON report with the parity and the speed of every scorer."""

    scorer: Scorer
    report: dict[str, Any]
    card: Card  # with what decides


@dataclass(slots=True)
class _Model:
    """One model version while its paths are built."""

    card: Card
    estimator: Estimator
    reader: ResponseReader
    reference: list[Row]
    encoding: Encoding | None  # None when a step has no equivalent on arrays
    final: Estimator  # takes what the encoding gives
    obstacle: str  # why there is no encoding


def choose(card: Card, estimator: Estimator, reference: list[Row]) -> Choice:
    """Return the fastest exact scorer for a fitted estimator, with a report on every candidate.

    `reference` holds canonical rows, as RowValidator returns them. Speed is the geometric mean of the time of one
    row alone and of one row in a batch of 1,000, since workers see both: the processor time of all threads, which a
    busy machine does not change much. Raises CardError when the card and the estimator disagree, ArtefactError when
    the estimator cannot score the reference sample.
    """
    reference = reference or [card.example()]
    card = decided(card, estimator, lambda reader: _after_scoring(Original(card, estimator, reader), reference))
    model = _prepare(card, estimator, reference)
    rows = _rows(model)
    truth = _baseline(model, Original(card, estimator, model.reader), rows, seconds=PROOF * MEASURE_SECONDS)
    pipeline = PipelineScorer(card, estimator, model.reader)
    repeated = compare(truth.answers, score_with_refusals(pipeline.score, rows, task=card.task), swaying=truth.swaying)
    if not repeated.exact:
        advice = (
            "its predict does not follow from its probabilities: leave decided_by and a threshold of 0.5 out"
            if repeated.decisions_differ
            else "its answers must be the same at every call"
        )
        raise ArtefactError(
            f"{card.name}@{card.version} is not scored as its estimator answers ({repeated.reason}): {advice}."
        )
    exact: list[tuple[Scorer, dict[str, Any]]] = []
    candidates: list[dict[str, Any]] = []
    for kind in CANDIDATES:
        scorer, verdict, reason = _try_kind(model, kind, rows, truth)
        entry = _entry(kind, verdict, reason)
        candidates.append(entry)
        if scorer is not None:
            entry |= _measure(scorer, model.reference)
            if entry["exact"]:
                exact.append((scorer, entry))
    itself = _entry("pipeline", repeated, "the pipeline itself")
    itself |= _measure(pipeline, model.reference)
    candidates.append(itself)
    best = _best([*exact, (pipeline, itself)])
    names = ("kind", "max_abs_diff", "decisions_differ", "rows_checked", "one_row_us", "rows_per_s")
    report = {name: best[1][name] for name in names}
    answer = "predict_proba" if model.reader.gives_probabilities else model.reader.response_method  # what a score holds
    report |= {"answer": answer, "candidates": candidates}
    return Choice(best[0], report, card)


def build(card: Card, estimator: Estimator, kind: str, reference: list[Row]) -> Scorer:
    """Return the scorer of a kind that was chosen before, proved again on the reference sample and its edges.

    Here the truth is each fitted step's own `transform` on arrays and the estimator itself, without pandas, so that
    a worker stays small. Raises ArtefactError when the path cannot be built or is not exact any more.
    """
    who = f"{card.name}@{card.version}"
    advice = "run `python -m shared.registry verify` on it with the libraries that are installed here"
    model = _prepare(card, estimator, reference)
    if kind == "pipeline":
        original = Original(card, estimator, model.reader)
        _check_scores(model, original)
        return PipelineScorer(card, estimator, model.reader)
    candidate = next((candidate for candidate in CANDIDATES if candidate == kind), None)
    if candidate is None:
        raise ArtefactError(f"{who}: '{kind}' is no way to score a model; {advice}.")
    rows = _rows(model)
    scorer, verdict, reason = _try_kind(model, candidate, rows, _baseline(model, _by_parts(model), rows, seconds=None))
    if scorer is None or verdict is None or not verdict.exact:
        raise ArtefactError(f"{who} cannot be scored by {kind} any more ({reason}); {advice}.")
    return scorer


def decide(card: Card, estimator: Estimator, reference: list[Row]) -> Card:
    """Return the card of a version that was registered before cards said what decides, with that."""
    if card.task == "regression" or card.decided_by is not None:
        return card
    rows = reference or [card.example()]
    return decided(
        card, estimator, lambda reader: _after_scoring(_by_parts(_prepare(card, estimator, rows, reader)), rows)
    )


def _prepare(card: Card, estimator: Estimator, reference: list[Row], reader: ResponseReader | None = None) -> _Model:
    reader = reader or response_reader(card, estimator)
    reference = reference or [card.example()]
    try:
        encoding, final = compile_encoding(card, estimator)
    except Unsupported as obstacle:
        return _Model(card, estimator, reader, reference, None, split(estimator)[1], str(obstacle))
    if "n_jobs" in vars(final):
        final.n_jobs = 1  # a copy of ours; starting threads costs more than a batch
    return _Model(card, estimator, reader, reference, encoding, final, "")


def _after_scoring(original: Original, rows: list[Row]) -> Original:
    """Return the original after scoring these rows; rows that it refuses do not matter here."""
    if not refuses_all(original.score, rows, task=original.reader.task):
        score_with_refusals(original.score, rows, task=original.reader.task)
    return original


def _rows(model: _Model) -> list[Row]:
    origins = [] if model.encoding is None else model.encoding.origins
    splits = {} if model.encoding is None else thresholds(model.final)
    return model.reference + boundary_rows(model.card, model.reference, origins, splits)


def _check_scores(model: _Model, original: Original) -> None:
    try:
        original.score(model.reference[:1])
    except GuichetError:
        raise
    except Exception as error:  # then it is the card or the estimator, and not one odd row
        if refuses_all(original.score, model.reference, task=model.card.task):
            raise ArtefactError(
                f"{model.card.name}@{model.card.version} refuses its own reference rows "
                f"({type(error).__name__}); check that they have the columns and the types that it was trained with."
            ) from error


def _baseline(model: _Model, original: Original, rows: list[Row], *, seconds: float | None) -> Truth:
    _check_scores(model, original)
    return find_truth(original.score, rows, card=model.card, seconds=seconds)


def _by_parts(model: _Model) -> Original:
    """Return the estimator behind each fitted step's own `transform` on arrays, which needs no pandas."""
    arrays = make_array_input(model.card, model.estimator)
    original = Original(model.card, without_feature_names(split(model.estimator)[1]), model.reader, arrays)
    if score_with_refusals(original.score, model.reference[:1], task=model.card.task).refused.any():
        return Original(model.card, model.estimator, model.reader)  # a step insists on a DataFrame
    return original


def _try_kind(model: _Model, kind: Kind, rows: list[Row], truth: Truth) -> tuple[Scorer | None, Parity | None, str]:
    """Return the first exact scorer of a kind, or the last that was tried; its verdict; and why it was refused."""
    scorer: Scorer | None = None
    verdict: Parity | None = None
    reason = "nothing of this kind applies"
    for make in _builders(model, kind):
        try:
            scorer = make()
            verdict = prove(scorer.score, scorer.score_columns, rows, truth, model.card)
        except Unsupported as error:
            reason = reason if verdict is not None else str(error)
            continue
        except Exception as error:  # noqa: BLE001 - a path that breaks is reported, and the next one is tried
            reason = f"it raises {type(error).__name__}"  # and not in which words: they may repeat a row
            scorer, verdict = None, None
            continue
        reason = verdict.reason
        if verdict.exact:
            break
    return scorer, verdict, reason


def _builders(model: _Model, kind: Kind) -> Iterator[Callable[[], Scorer]]:
    reader = model.reader
    if kind == "onnx":
        yield lambda: OnnxScorer(model.card, model.estimator, reader)
        return
    encoding = model.encoding
    if encoding is None:

        def refuse() -> Scorer:
            raise Unsupported(model.obstacle)

        yield refuse
    elif kind == "treelite":

        def trees() -> Scorer:
            compiled = Trees(model.final, reader, sparse=encoding.sparse)
            compiled.find_switch(encoding.encode(model.reference[:SMALL_BATCH]))
            return EncodedScorer("treelite", encoding, compiled.score, reader, model.final)

        yield trees
    elif kind == "numpy":
        final = model.final
        yield lambda: EncodedScorer("numpy", encoding, linear(final, reader), reader, final)
        yield lambda: EncodedScorer("numpy", encoding, native(final, reader, sparse=encoding.sparse), reader, final)


def _entry(kind: Kind, verdict: Parity | None, reason: str) -> dict[str, Any]:
    finite = verdict is not None and math.isfinite(verdict.max_abs_diff)
    return {
        "kind": kind,
        "exact": verdict is not None and verdict.exact,
        "max_abs_diff": verdict.max_abs_diff if verdict is not None and finite else None,
        "decisions_differ": None if verdict is None else verdict.decisions_differ,
        "rows_checked": 0 if verdict is None else verdict.rows_checked,
        "one_row_us": None,
        "rows_per_s": None,
        "reason": reason or "exact",
    }


def _measure(scorer: Scorer, reference: list[Row]) -> dict[str, float]:
    batch = [reference[i % len(reference)] for i in range(BATCH)]
    try:
        one = _times(lambda i: scorer.score([batch[i % BATCH]]), least=5)
        batch_seconds = _times(lambda _: scorer.score(batch), least=2)
    except Exception:  # noqa: BLE001 - a reference row that the model refuses; then nothing can be timed
        return {}
    return {"one_row_us": round(statistics.median(one) * 1e6, 1), "rows_per_s": round(BATCH / min(batch_seconds))}


def _times(call: Callable[[int], object], *, least: int) -> list[float]:
    """Return the seconds of processor time that calls take: on a busy machine, chance would choose by the clock."""
    call(0)
    times: list[float] = []
    end = time.perf_counter() + MEASURE_SECONDS
    while len(times) < least or (time.perf_counter() < end and len(times) < 500):
        began = time.process_time()
        call(len(times))
        times.append(time.process_time() - began)
    return times


def _best(paths: list[tuple[Scorer, dict[str, Any]]]) -> tuple[Scorer, dict[str, Any]]:
    """Return the path that serves, among exact ones with their measured speeds; the pipeline itself is one of them."""
    precise = [path for path in paths if not _is_rounded(path[1])]
    best, *others = precise
    for path in others:
        if _cost(path[1]) < REQUIRED_SPEEDUP * _cost(best[1]):
            best = path
    limit = min(_cost(entry) for _, entry in precise) / ROUNDED_SPEEDUP
    for path in paths:
        if _is_rounded(path[1]) and _cost(path[1]) < limit:
            best, limit = path, _cost(path[1]) * REQUIRED_SPEEDUP
    return best


def _is_rounded(entry: dict[str, Any]) -> bool:
    return bool(entry["max_abs_diff"] > ROUNDED)


def _cost(entry: dict[str, Any]) -> float:
    if not entry["one_row_us"] or not entry["rows_per_s"]:
        return math.inf
    return math.sqrt(entry["one_row_us"] * 1e6 / entry["rows_per_s"])
