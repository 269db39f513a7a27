"""Rows in, outputs out: the guilty rows fail, and no other."""

from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from shared.cards.card import Card
from shared.faults import Fault
from shared.scoring.batch import score_rows
from shared.scoring.outputs import Output
from shared.scoring.scores import Scores


def card(task: str, labels: dict[str, str] | None = None) -> Card:
    return Card.model_validate(
        {
            "name": "m",
            "version": 1,
            "task": task,
            "sha256": "0" * 64,
            "labels": labels or {},
            "features": [{"name": "x", "type": "number"}],
        }
    )


class Scorer:
    """Answers with `x` of each row; raises when a row says so. Counts its calls."""

    kind = "test"

    def __init__(self, task: str) -> None:
        self.task = task
        self.calls: list[int] = []

    def score(self, rows: list[dict[str, Any]]) -> Scores:
        self.calls.append(len(rows))
        for row in rows:
            if isinstance(row["x"], BaseException):
                raise row["x"]
        values = np.array([row["x"] for row in rows], dtype=float)
        if self.task == "regression":
            return Scores(values, None, None)
        if self.task == "labels only":
            return Scores((values >= 0.5).astype(float), None, None)
        if self.task == "multiclass":
            return Scores(np.full(len(rows), 2.0), values, np.column_stack([values / 4, values / 4, values]))
        return Scores((values >= 0.5).astype(float), values, None)


@dataclass
class Model:
    card: Card
    scorer: Any


def model(task: str = "binary") -> Model:
    labels = {"binary": {"0": "Reste", "1": "Part"}, "multiclass": {"a": "A", "b": "B", "c": "C"}}
    if task == "labels only":
        return Model(card("binary", labels["binary"]), Scorer(task))
    return Model(card(task, labels.get(task)), Scorer(task))


def score(chosen: Model, values: list[Any]) -> list[Output | Fault]:
    return score_rows(chosen, [{"x": value} for value in values])


def test_no_rows_ask_nothing_of_the_model():
    chosen = model()
    assert score(chosen, []) == []
    assert chosen.scorer.calls == []


def test_all_rows_are_scored_in_one_call_in_their_order():
    chosen = model()
    assert score(chosen, [0.25, 0.75]) == [
        Output("binary", 0.0, "Reste", 0.25, None, 0.5),
        Output("binary", 1.0, "Part", 0.75, None, 0.5),
    ]
    assert chosen.scorer.calls == [2]


def test_multiclass_rows_carry_every_probability():
    assert score(model("multiclass"), [0.5]) == [Output("multiclass", 2.0, "C", 0.5, [0.125, 0.125, 0.5])]


def test_regression_rows_carry_the_number_alone():
    assert score(model("regression"), [-3.5]) == [Output("regression", -3.5)]


def test_model_without_probabilities_gives_labels_alone():
    assert score(model("labels only"), [0.25, 0.75]) == [
        Output("binary", 0.0, "Reste"),
        Output("binary", 1.0, "Part"),
    ]


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_exactly_the_guilty_rows_of_a_batch_fail(guilty):
    chosen = model()
    results = score(chosen, [ValueError("bad") if bad else index / 100 for index, bad in enumerate(guilty)])
    for index, (bad, result) in enumerate(zip(guilty, results, strict=True)):
        if bad:
            assert isinstance(result, Fault)
            assert result.code == "refused_by_model"
        else:
            assert isinstance(result, Output)
            assert result.probability == index / 100


def test_one_guilty_row_among_many_costs_few_calls():
    chosen = model()
    results = score(chosen, [0.5] * 700 + [ValueError("bad")] + [0.5] * 323)
    assert [isinstance(result, Fault) for result in results].index(True) == 700
    assert len(chosen.scorer.calls) <= 2 * 10 + 1  # halving 1,024 rows


def test_fault_names_the_error_and_repeats_nothing_of_the_row():
    (fault,) = score(model(), [ValueError("could not convert 'secret' to float")])
    hint = "give values like those that it was trained with"
    assert fault == Fault("", "refused_by_model", f"is refused by the model (ValueError): {hint}")


def test_null_on_which_the_model_raises_is_named():
    (fault,) = score_rows(Model(card("binary"), Refusing("binary")), [{"x": None}])
    assert fault == Fault("/x", "refused_by_model", "is refused by the model (TypeError): it has x null")


class Refusing(Scorer):
    def score(self, rows):
        raise TypeError("float() argument must be a string or a real number, not 'NoneType'")


@pytest.mark.parametrize("error", [ArithmeticError(), RuntimeError(), OSError()])
def test_error_that_no_value_explains_is_the_models(error):
    (fault,) = score(model(), [error])
    assert fault == Fault("", "model_failed", f"the model raised {type(error).__name__} on this row")


@pytest.mark.parametrize("count", [1, 5])
def test_memory_error_is_not_the_rows_fault_and_goes_up(count):
    with pytest.raises(MemoryError):
        score(model(), [0.5] * (count - 1) + [MemoryError()])


@pytest.mark.parametrize("wish", [KeyboardInterrupt, SystemExit])
def test_wish_to_end_the_process_is_not_taken_for_a_bad_row(wish):
    class Interrupted(Scorer):
        def score(self, rows):
            raise wish

    with pytest.raises(wish):
        score(Model(card("binary"), Interrupted("binary")), [0.5])


class Panic(BaseException):
    """As a library in Rust raises it: no `Exception`."""


def test_panic_of_a_library_is_a_fault_of_its_row_alone():
    first, bad, last = score(model(), [0.25, Panic("in Rust"), 0.75])
    assert isinstance(first, Output)
    assert bad == Fault("", "model_failed", "the model raised Panic on this row")
    assert isinstance(last, Output)


BAD_NUMBERS = [float("nan"), float("inf"), float("-inf")]


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("value", BAD_NUMBERS)
def test_number_that_cannot_be_stored_is_a_fault_of_its_row_alone(task, value):
    first, bad, last = score(model(task), [0.5, value, 0.75])
    assert isinstance(first, Output)
    assert isinstance(last, Output)
    assert isinstance(bad, Fault)
    assert bad.code == "model_failed"


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("value", [-0.0001, 1.0001])
def test_probability_outside_its_range_is_a_fault(task, value):
    good, bad = score(model(task), [0.5, value])
    assert isinstance(good, Output)
    assert isinstance(bad, Fault)


def test_model_that_answers_too_few_rows_fails_its_rows_and_never_mixes_them_up():
    class Short(Scorer):
        def score(self, rows):
            return super().score(rows[: len(rows) - 1] if len(rows) > 1 else rows)

    chosen = model()
    chosen.scorer = Short("binary")
    results = score(chosen, [0.1, 0.2, 0.3])
    assert len(results) == 3
    for result, value in zip(results, [0.1, 0.2, 0.3], strict=True):
        assert isinstance(result, Fault) or result.probability == value
