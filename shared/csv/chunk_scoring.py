"""One chunk of a CSV file, from its bytes to the stored rows, scores and output lines."""

import logging
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from shared.cards.card import Card
from shared.csv.chunk_reader import ChunkReader, row_error
from shared.csv.format import CsvFormat
from shared.csv.output import ChunkScores, error_records, output_records
from shared.encoding.columns import Columns
from shared.faults import Fault
from shared.scoring.batch import ScoredModel, no_number, score_rows, usable
from shared.scoring.outputs import Output
from shared.scoring.scores import Scores

log = logging.getLogger(__name__)


@dataclass(slots=True)
class ScoredChunk:
    """The results of a chunk. Offsets are places in the chunk."""

    row_count: int
    failed_count: int
    features: list[str]  # of every row, JSON text: canonical, or the cells as they were sent where the row is bad
    faults: dict[int, list[Fault]]  # by offset: why a row has no output
    offsets: list[int]  # of the rows that were scored; by scored row:
    prediction: list[float]
    label: list[str | None]
    probability: list[float | None]
    probabilities: list[str | None]  # JSON text
    task: str
    threshold: float | None
    output: bytes  # records of output.csv for every row of the chunk, in order
    errors: bytes  # records of errors.csv


def score_chunk(
    model: ScoredModel, reader: ChunkReader, data: bytes, *, first_row: int, row_count: int | None = None
) -> ScoredChunk:
    """Read, validate, score and write one chunk, whose first row has this index in the file.

    What the model raises becomes a fault of the rows that cause it (code `model_failed`); MemoryError goes up.
    Raises ValueError where the bytes are not UTF-8, or hold another number of records than `row_count`.
    """
    chunk = reader.read(data, first_row=first_row, row_count=row_count)
    answers, refused = _ask(model, chunk.columns, chunk.good)
    faults, errors = chunk.faults, chunk.errors
    if refused:
        faults = dict(sorted((faults | {offset: [fault] for offset, fault in refused.items()}).items()))
        errors = errors + [row_error(first_row + offset, fault, {}) for offset, fault in refused.items()]
        errors.sort(key=lambda error: error.row_no)
    return _scored(
        model.card,
        reader.format,
        answers=answers,
        features=chunk.features,
        kept=chunk.kept,
        faults=faults,
        errors=error_records(errors, reader.format),
        first_row=first_row,
    )


def fail_chunk(
    reader: ChunkReader,
    card: Card,
    data: bytes,
    *,
    first_row: int,
    code: str,
    message: str,
    row_count: int | None = None,
) -> ScoredChunk:
    """Return a chunk in which every row has this one fault: the worker died on it, or ran out of time.

    Its features are stored as they were sent, without reading them again: they may have killed the worker.
    """
    features, kept = reader.read_unvalidated(data, row_count=row_count)
    fault = Fault("", code, message)
    errors = [row_error(first_row + offset, fault, {}) for offset in range(len(features))]
    return _scored(
        card,
        reader.format,
        answers=ChunkScores([], [], [], [], None),
        features=features,
        kept=kept,
        faults={offset: [fault] for offset in range(len(features))},
        errors=error_records(errors, reader.format),
        first_row=first_row,
    )


def _scored(
    card: Card,
    form: CsvFormat,
    *,
    answers: ChunkScores,
    features: list[str],
    kept: list[list[str]],
    faults: dict[int, list[Fault]],
    errors: bytes,
    first_row: int,
) -> ScoredChunk:
    count = len(features)
    output = output_records(card, form, kept, answers, faults, first_row=first_row, row_count=count)
    rows = [] if answers.probabilities is None else answers.probabilities.tolist()
    return ScoredChunk(
        row_count=count,
        failed_count=len(faults),
        features=features,
        faults=faults,
        offsets=answers.offsets,
        prediction=answers.prediction,
        label=answers.label,
        probability=answers.probability,
        probabilities=[orjson.dumps(row_probabilities).decode() for row_probabilities in rows]
        or [None] * len(answers.offsets),
        task=card.task,
        threshold=None if answers.probability[:1] == [None] else card.threshold,
        output=output,
        errors=errors,
    )


def _ask(model: ScoredModel, columns: Columns, offsets: NDArray[np.intp]) -> tuple[ChunkScores, dict[int, Fault]]:
    """Score the good rows, which have these offsets; return the answers, and the faults of the other rows by offset."""
    if not columns.count:
        return ChunkScores([], [], [], [], None), {}
    card = model.card
    try:
        scores = model.scorer.score_columns(columns)
        fine = usable(card, scores)
        if not len(scores.prediction) == len(fine) == columns.count:
            raise ValueError(f"the model returned {len(scores.prediction)} predictions for {columns.count} rows")
        answers = _answers(card, scores, fine, offsets)
        return answers, {} if fine.all() else dict.fromkeys(offsets[~fine].tolist(), no_number(card))
    except (MemoryError, SystemExit, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it is, only the rows that cause it shall fail
        name, version, kind = card.name, card.version, type(error).__name__
        log.warning("%s@%s raised %s on a chunk; its rows are scored again to find out which", name, version, kind)
    return _by_rows(score_rows(model, columns.rows()), offsets.tolist())


def _answers(card: Card, scores: Scores, fine: NDArray[np.bool_], offsets: NDArray[np.intp]) -> ChunkScores:
    prediction: list[float] = scores.prediction[fine].tolist()
    count = len(prediction)
    labels: list[str] = list(card.labels.values())
    return ChunkScores(
        offsets[fine].tolist(),
        prediction,
        [None] * count if card.task == "regression" else [labels[int(value)] for value in prediction],
        [None] * count if scores.probability is None else scores.probability[fine].tolist(),
        None if scores.probabilities is None else scores.probabilities[fine],
    )


def _by_rows(results: list[Output | Fault], offsets: list[int]) -> tuple[ChunkScores, dict[int, Fault]]:
    scored = [(offset, result) for offset, result in zip(offsets, results, strict=True) if isinstance(result, Output)]
    every = [output.probabilities for _, output in scored if output.probabilities is not None]
    answers = ChunkScores(
        [offset for offset, _ in scored],
        [output.prediction for _, output in scored],
        [output.label for _, output in scored],
        [output.probability for _, output in scored],
        np.array(every) if every else None,
    )
    return answers, {
        offset: result for offset, result in zip(offsets, results, strict=True) if isinstance(result, Fault)
    }
