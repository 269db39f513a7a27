"""Reference rows beside their answers: the expected scores of the training, and the metrics of true answers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shared.cards.card import Card
from shared.cards.numbers import POINT, NumberForm
from shared.errors import ArtefactError, CardError
from shared.faults import Fault
from shared.monitoring.metric_order import in_order
from shared.monitoring.outcomes import Judged, TruthReader
from shared.monitoring.quality import quality_of
from shared.packages.package import Package, version_advice
from shared.packages.sample import ReferenceRows, check_target, sample, value_of
from shared.scoring.outputs import Output
from shared.scoring.parity import TOLERANCE, Predictions, score_with_refusals
from shared.scoring.scorers import PipelineScorer
from shared.scoring.scores import response_reader


@dataclass(frozen=True, slots=True)
class ExpectedScores:
    """The scores that came with a model's reference rows, in their order."""

    column: str
    values: list[Any]
    rows: list[dict[str, Any]]  # that they are the scores of, also those that break a client's rules
    lines: list[int]  # of the rows, in their file
    numbers: NumberForm = POINT  # how they are written, where they are text
    unit: str = "line"  # what `lines` counts


def read_expected_scores(file_rows: ReferenceRows | None, column: str, rows: list[dict[str, Any]]) -> ExpectedScores:
    """Return the expected scores of `rows`, a sample of these rows; raise CardError without such a column."""
    if file_rows is None:
        raise CardError("Scores to compare with are a column of the reference rows: name their file with --reference.")
    check_target(column, file_rows.rows, use="to hold the scores")
    values = [row.get(column) for row in sample(file_rows.rows)]
    return ExpectedScores(column, values, rows, sample(file_rows.lines), file_rows.numbers, file_rows.unit)


def without_refused(expected: ExpectedScores, places: Sequence[int]) -> ExpectedScores:
    """Return the scores without those of the rows at these places, which the model refuses here.

    Raises ArtefactError where one of these rows has a score: then the model took it where it was trained.
    """
    scored = [str(expected.lines[place]) for place in places if expected.values[place] not in (None, "")]
    if scored:
        raise ArtefactError(
            f"The model refuses reference rows that have a score in the column {expected.column[:70]!r} "
            f"({expected.unit}s {', '.join(scored[:10])}): it is not the model that gave them, or its libraries differ."
        )
    left_out = set(places)
    kept = [place for place in range(len(expected.values)) if place not in left_out]
    return replace(
        expected, values=[expected.values[place] for place in kept], lines=[expected.lines[place] for place in kept]
    )


def compare_scores(card: Card, estimator: object, scores: ExpectedScores) -> dict[str, Any]:
    """Return the number of compared scores and their largest difference; ArtefactError above 1e-6.

    The score of a regressor is its number, that of a binary model the probability of its second class, that of any
    other classifier the class that it predicts, or its label.
    """
    answers, has_probabilities = _answers(card, estimator, scores.rows)
    if card.task == "regression" or (card.task == "binary" and has_probabilities):
        expected = _numbers(scores)
        differences = np.abs(answers.values[:, 0] - expected) / np.maximum(1.0, np.abs(expected))
    else:
        differences = np.array(_wrong_classes(card, answers, scores.values), dtype=np.float64)
    largest = float(differences.max())
    if not largest <= TOLERANCE:
        wrong = int((~(differences <= TOLERANCE)).sum())
        raise ArtefactError(
            f"The model does not give here the scores of the column {scores.column[:70]!r}: {wrong} of "
            f"{len(differences)} rows differ, by up to {largest:.2g}. "
            + (version_advice(card.libraries) or "Check that they are this model's, on these rows.")
        )
    return {"column": scores.column, "rows": len(differences), "max_abs_diff": largest}


def check_probabilities(card: Card, package: Package) -> None:
    """Raise ArtefactError if a classifier's probabilities are outside 0 to 1.

    For example, a forest of scikit-learn 1.3 holds counts of rows where a later one expects shares.
    """
    answers, has_probabilities = _answers(card, package.estimator, package.reference)
    if has_probabilities and ((answers.values < -TOLERANCE) | (answers.values > 1 + TOLERANCE)).any():
        raise ArtefactError(
            "The model gives probabilities outside 0 to 1 for its own reference rows: here it does not compute "
            "what it computed in training."
        )


def _answers(card: Card, estimator: object, rows: list[dict[str, Any]]) -> tuple[Predictions, bool]:
    """Return the pipeline's answers to these rows, and whether they are probabilities."""
    reader = response_reader(card, estimator)
    pipeline = PipelineScorer(card, estimator, reader)
    answers = score_with_refusals(pipeline.score, rows, task=card.task)
    return answers, reader.gives_probabilities


def _numbers(expected: ExpectedScores) -> Any:  # noqa: ANN401 - an array of floats
    values = [value_of(value, "number", expected.numbers) for value in expected.values]
    for line, value in zip(expected.lines, values, strict=True):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise CardError(
                f"The column {expected.column[:70]!r} holds no number in {expected.unit} {line}: give the score of "
                "every row, as a number with a decimal point."
            )
    return np.asarray(values, dtype=np.float64)


def _wrong_classes(card: Card, answers: Predictions, values: Sequence[Any]) -> list[bool]:
    names = list(card.labels.items())  # (class, label), in the order of the model's classes
    triples = zip(answers.prediction, answers.refused, values, strict=True)
    return [bool(refused) or str(value) not in names[int(index)] for index, refused, value in triples]


def with_reference_metrics(card: Card, package: Package, outputs: list[Output | Fault], target: str) -> Card:
    """Return the card with the metrics of its model on the reference rows (n, with their n outputs).

    Rows without a score, or without an answer that the model could give, are left out; the metric `rows` is the number
    of the others. The card says `metrics_of: reference`: a model looks better on such rows than it is. A card that has
    metrics keeps them.
    """
    file_rows = package.file_rows
    if card.metrics or file_rows is None or package.lines is None:
        return card
    rows: dict[int, dict[str, Any]] = dict(zip(file_rows.lines, file_rows.rows, strict=True))
    reader = TruthReader(card, file_rows.numbers)
    judged = Judged([], [], [], [])
    for line, output in zip(package.lines, outputs, strict=True):
        answer = reader.read(rows[line].get(target))
        if isinstance(answer, Fault) or isinstance(output, Fault):
            continue
        judged.actual.append(answer[0])
        judged.prediction.append(output.prediction)
        judged.probability.append(output.probability)
        judged.probabilities.append(output.probabilities)
    if not judged.actual:
        return card
    estimates, _ = quality_of(card, judged)
    metrics = in_order({name: each.value for name, each in estimates.items() if each.value is not None})
    return card.model_copy(update={"metrics": metrics | {"rows": float(len(judged.actual))}, "metrics_of": "reference"})
