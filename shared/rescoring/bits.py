"""Whether a row gets the same score again, bit for bit.

A library may round a sum otherwise when it is asked for many rows at once: OpenBLAS has a kernel for one row, one for
four and one for what is left over. The service scores a row in whatever company it waits, so a row has a few scores,
which differ in the last bits and are all its own: alone, beside the rows of its job, among so many copies of itself.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from shared.faults import Fault
from shared.registry.loading import LoadedModel, by_pipeline
from shared.scoring.batch import score_rows
from shared.scoring.outputs import Output
from shared.scoring.trees import Trees

ALONE = "alone"
COPIES = (2, 3, 4, 5, 8, 9, 16)  # of a row beside each other: every kernel of the usual libraries, and what it leaves

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Again:
    """What a row gets when it is scored again."""

    score: Output | Fault  # the one that is the stored one, or else that of the row alone
    is_equal: bool
    company: str  # in which it is the stored one: alone, beside the rows of its job, ...; else empty


def score_again(model: LoadedModel, rows: Sequence[Row], stored: Sequence[Output]) -> list[Again]:
    """Score canonical rows (n dicts), which are of one job, again and compare each with its stored score."""
    equals: dict[int, Again] = {}
    alone: dict[int, Output | Fault] = {}
    for company, score in _companies(model):
        left = [place for place in range(len(rows)) if place not in equals]
        if not left:
            break
        answers = score([rows[place] for place in left])
        for place, scores in zip(left, answers, strict=True):
            if company == ALONE:
                alone[place] = scores[0]
            same = [one for one in scores if isinstance(one, Output) and are_equal(one, stored[place])]
            if same:
                equals[place] = Again(same[0], is_equal=True, company=company)
    return [equals.get(place) or Again(alone[place], is_equal=False, company="") for place in range(len(rows))]


def are_equal(one: Output, other: Output) -> bool:
    """Return whether two scores are the same in every bit."""
    return bits(one) == bits(other)


def distance(one: Output, other: Output) -> float:
    """Return by how much two scores differ: the largest distance of their numbers."""
    pairs = [(one.prediction, other.prediction), (one.probability, other.probability)]
    pairs += zip(one.probabilities or (), other.probabilities or (), strict=False)
    return max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)


def bits(score: Output) -> tuple[object, ...]:
    """Return all parts of a score, every number in hexadecimal."""
    numbers = (score.prediction, score.probability, *(score.probabilities or ()), score.threshold)
    return (score.task, score.label, *(None if number is None else float(number).hex() for number in numbers))


Scored = list[list[Output | Fault]]  # by row: the scores that it gets in a company


def _companies(model: LoadedModel) -> Iterator[tuple[str, Callable[[list[Row]], Scored]]]:
    """Yield the ways in which the service may have scored a row, the likeliest first."""
    yield "beside the rows of its job", lambda rows: [[one] for one in score_rows(model, rows)]
    yield ALONE, lambda rows: [score_rows(model, [row]) for row in rows]
    trees = getattr(getattr(model.scorer, "model", None), "__self__", None)
    if isinstance(trees, Trees):  # each process measures from how many rows on it asks the estimator instead
        yield "by the compiled trees", lambda rows: _switched(model, trees, rows, at=None)
        yield "by the estimator itself", lambda rows: _switched(model, trees, rows, at=0)
    pipeline = by_pipeline(model)
    if pipeline is not model:  # while the version was suspended
        yield "by its pipeline, beside the rows of its job", lambda rows: [[one] for one in score_rows(pipeline, rows)]
        yield "by its pipeline, alone", lambda rows: [score_rows(pipeline, [row]) for row in rows]
    for count in COPIES:
        yield f"among {count} rows", partial(_among, model, count)


def _among(model: LoadedModel, count: int, rows: list[Row]) -> Scored:
    """Score each row beside copies of itself."""
    return [score_rows(model, [row] * count) for row in rows]


def _switched(model: LoadedModel, trees: Trees, rows: list[Row], *, at: int | None) -> Scored:
    """Score rows with trees, and with the estimator from this number of rows on; None: never."""
    before, trees.switch = trees.switch, at
    try:
        return [[one] for one in score_rows(model, rows)]
    finally:
        trees.switch = before
