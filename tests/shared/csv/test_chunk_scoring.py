"""One chunk from its bytes to what is stored: every row once, in its place, scored or with its reason."""

import csv
import importlib
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.frames import records
from shared.cards.card import Card
from shared.cards.validator import RowValidator
from shared.csv.chunk_reader import ChunkReader
from shared.csv.chunk_scoring import fail_chunk, score_chunk
from shared.csv.format import CsvFormat
from shared.csv.output import output_header
from shared.encoding.compile import compile_encoding
from shared.jobs.transitions import Output
from shared.scoring.batch import score_rows
from shared.scoring.scorers import EncodedScorer, PipelineScorer, native
from shared.scoring.scores import Scores, response_reader

LABELS = {"binary": {"0": "no", "1": "yes"}, "multiclass": {"0": "a", "1": "b", "2": "c"}, "regression": {}}
FORM = CsvFormat(",", "utf-8", ".", ("id", "x", "note"), "id")


class Scorer:
    """Answers with `x` of each row; raises for the rows that it is told to."""

    kind = "test"

    def __init__(self, task: str, *, raises: dict[float, Exception] | None = None, short: bool = False) -> None:
        self.task = task
        self.raises = raises or {}
        self.short = short
        self.calls: list[str] = []

    def score(self, rows: list[dict[str, Any]]) -> Scores:
        self.calls.append("rows")
        return self.answer(np.array([row["x"] for row in rows], dtype=float))

    def score_columns(self, columns: Any) -> Scores:
        self.calls.append("columns")
        return self.answer(columns.floats("x"))

    def answer(self, values: Any) -> Scores:
        for value in values.tolist():
            if value in self.raises:
                raise self.raises[value]
        if self.short:
            values = values[:-1]
        values = np.where(values == 40, np.nan, values)
        values = np.where(values == 41, np.inf, values)
        if self.task == "regression":
            return Scores(values, None, None)
        if self.task == "labels only":
            return Scores((values >= 0.5).astype(float), None, None)
        if self.task == "multiclass":
            return Scores(np.full(len(values), 2.0), values, np.column_stack([values / 4, values / 4, values]))
        return Scores((values >= 0.5).astype(float), values, None)


@dataclass
class Model:
    card: Card
    scorer: Any


def model(task="binary", **options):
    kind = "binary" if task == "labels only" else task
    fields = {"name": "m", "version": 1, "task": kind, "sha256": "0" * 64, "labels": LABELS[kind]}
    features = [{"name": "x", "type": "number", "max": 100}]
    return Model(Card.model_validate({**fields, "features": features}), Scorer(task, **options))


def chunk_of(values):
    return "".join(f"r{place},{value},n\n" for place, value in enumerate(values)).encode()


def scored(chosen, values, *, first_row=0):
    reader = ChunkReader(chosen.card, RowValidator(chosen.card), FORM)
    return score_chunk(chosen, reader, chunk_of(values), first_row=first_row, row_count=len(values))


def back(data):
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


def test_chunk_is_scored_in_one_call():
    chosen = model()
    chunk = scored(chosen, [0.25, 0.75], first_row=10)
    assert chosen.scorer.calls == ["columns"]
    assert (chunk.row_count, chunk.failed_count, chunk.faults, chunk.errors) == (2, 0, {}, b"")
    assert (chunk.offsets, chunk.prediction, chunk.label) == ([0, 1], [0.0, 1.0], ["no", "yes"])
    assert (chunk.probability, chunk.probabilities) == ([0.25, 0.75], [None, None])
    assert (chunk.task, chunk.threshold) == ("binary", 0.5)
    assert chunk.features == ['{"x":0.25}', '{"x":0.75}']
    assert back(chunk.output) == [
        ["11", "r0", "n", "0", "no", "0.25", "0.5", ""],
        ["12", "r1", "n", "1", "yes", "0.75", "0.5", ""],
    ]


def test_bad_row_is_not_shown_to_the_model_and_the_others_keep_their_places():
    chunk = scored(model(), [0.25, "abc", 0.75, 200, 0.5])
    assert (chunk.row_count, chunk.failed_count) == (5, 2)
    assert chunk.offsets == [0, 2, 4]
    assert chunk.probability == [0.25, 0.75, 0.5]
    assert sorted(chunk.faults) == [1, 3]
    assert back(chunk.errors) == [
        ["2", "x", "type", "must be a finite number of at most 100", "abc"],
        ["4", "x", "range", "must be a finite number of at most 100", "200"],
    ]
    assert [line[-1] for line in back(chunk.output)] == [
        *("", "x must be a finite number of at most 100", "", "x must be a finite number of at most 100", "")
    ]
    assert json.loads(chunk.features[1]) == {"id": "r1", "x": "abc", "note": "n"}


def test_chunk_without_a_good_row_never_reaches_the_model():
    chosen = model(raises={})
    chunk = scored(chosen, ["a", "b"])
    assert (chunk.failed_count, chunk.offsets, len(back(chunk.output))) == (2, [], 2)
    assert chosen.scorer.calls == []


def test_probabilities_of_many_classes_are_json():
    chunk = scored(model("multiclass"), [0.5, 40, 0.25])
    assert [json.loads(text) for text in chunk.probabilities] == [[0.125, 0.125, 0.5], [0.0625, 0.0625, 0.25]]
    assert chunk.label == ["c", "c"]
    assert chunk.threshold is None
    assert [line[3:] for line in back(chunk.output)] == [
        ["2", "c", "0.5", "0.125", "0.125", "0.5", ""],
        ["", "", "", "", "", "", "the model returned a probability that is not a usable number for this row"],
        ["2", "c", "0.25", "0.0625", "0.0625", "0.25", ""],
    ]


def test_classifier_without_probabilities_has_none():
    chunk = scored(model("labels only"), [0.25, 0.75])
    assert (chunk.label, chunk.probability, chunk.probabilities) == (["no", "yes"], [None, None], [None, None])
    assert [line[3:] for line in back(chunk.output)] == [["0", "no", "", "", ""], ["1", "yes", "", "", ""]]


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("bad", [40, 41])
def test_number_that_cannot_be_stored_is_a_fault_of_its_row_alone(task, bad):
    chunk = scored(model(task), [0.5, bad, 0.75, "abc"])
    assert chunk.offsets == [0, 2]
    assert chunk.faults[1][0].code == "model_failed"
    assert list(chunk.faults) == [1, 3]
    assert [line[0] for line in back(chunk.errors)] == ["2", "4"]
    assert chunk.features[1] == f'{{"x":{float(bad)}}}'


def test_probability_outside_its_range_is_a_fault():
    assert list(scored(model(), [0.5, 1.5, -0.5]).faults) == [1, 2]


def test_row_on_which_the_model_raises_fails_alone():
    chosen = model(raises={7.0: ArithmeticError("no")})
    chunk = scored(chosen, [0.1, 7, 0.2, "abc", 0.3])
    assert chunk.offsets == [0, 2, 4]
    assert chunk.probability == [0.1, 0.2, 0.3]
    assert {offset: fault.code for offset, (fault,) in chunk.faults.items()} == {1: "model_failed", 3: "type"}
    assert back(chunk.errors)[0] == ["2", "", "model_failed", "the model raised ArithmeticError on this row", ""]
    assert chosen.scorer.calls[0] == "columns"


def test_row_that_the_model_refuses_fails_alone_as_the_callers():
    chunk = scored(model(raises={7.0: KeyError("no")}), [0.1, 7, 0.2])
    assert {offset: fault.code for offset, (fault,) in chunk.faults.items()} == {1: "refused_by_model"}
    assert back(chunk.errors)[0][:3] == ["2", "", "refused_by_model"]


def test_rows_that_are_scored_again_keep_the_probabilities_of_every_class():
    chunk = scored(model("multiclass", raises={7.0: KeyError("no")}), [0.5, 7, 0.25])
    assert [json.loads(text) for text in chunk.probabilities] == [[0.125, 0.125, 0.5], [0.0625, 0.0625, 0.25]]


def test_class_that_the_card_does_not_know_is_a_fault_of_its_row():
    class Odd(Scorer):
        def answer(self, values):
            return Scores(np.where(values == 9, 5.0, 0.0), np.full(len(values), 0.5), None)

    chosen = model()
    chosen.scorer = Odd("binary")
    chunk = scored(chosen, [1, 9, 2])
    assert chunk.offsets == [0, 2]
    assert chunk.faults[1][0].message == "the model raised IndexError on this row"


def test_model_that_answers_too_few_rows_fails_them_and_never_mixes_them_up():
    chunk = scored(model(short=True), [0.1, 0.2, 0.3])
    assert (chunk.offsets, chunk.failed_count) == ([], 3)


def test_memory_error_goes_up():
    with pytest.raises(MemoryError):
        scored(model(raises={7.0: MemoryError()}), [0.5, 7])


@pytest.mark.parametrize("wish", [KeyboardInterrupt, SystemExit])
def test_wish_to_end_the_process_goes_up(wish):
    with pytest.raises(wish):
        scored(model(raises={7.0: wish()}), [0.5, 7])


def test_other_number_of_rows_than_expected_is_an_error():
    chosen = model()
    reader = ChunkReader(chosen.card, RowValidator(chosen.card), FORM)
    with pytest.raises(ValueError, match="holds 2 records, not 3"):
        score_chunk(chosen, reader, chunk_of([1, 2]), first_row=0, row_count=3)
    with pytest.raises(ValueError, match="holds 2 records, not 3"):
        fail_chunk(reader, chosen.card, chunk_of([1, 2]), first_row=0, code="c", message="m", row_count=3)


# --- given up ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_chunk_that_is_given_up_has_the_fault_in_every_row(task):
    chosen = model(task)
    reader = ChunkReader(chosen.card, RowValidator(chosen.card), FORM)
    data = b"r0,0.5,=n\nr1,abc\nr2,1,b,c\x00\n"
    chunk = fail_chunk(reader, chosen.card, data, first_row=5, code="worker_lost", message="the worker died on it")
    assert (chunk.row_count, chunk.failed_count, chunk.offsets, chunk.probabilities) == (3, 3, [], [])
    assert {fault.code for faults in chunk.faults.values() for fault in faults} == {"worker_lost"}
    assert [json.loads(text) for text in chunk.features] == [
        {"id": "r0", "x": "0.5", "note": "=n"},
        {"id": "r1", "x": "abc"},
        {"id": "r2", "x": "1", "note": "b", "": ["c\ufffd"]},
    ]
    lines = back(chunk.output)
    assert [line[:3] for line in lines] == [["6", "r0", "'=n"], ["7", "r1", ""], ["8", "r2", "b"]]
    assert {len(line) for line in lines} == {len(back(output_header(chosen.card, FORM))[0])}
    assert {line[-1] for line in lines} == {"the worker died on it"}
    assert back(chunk.errors)[0] == ["6", "", "worker_lost", "the worker died on it", ""]
    assert chosen.scorer.calls == []


# --- the same as row by row ----------------------------------------------------------------------------------------

CELLS = st.sampled_from(["0.25", "0.75", "1", "7", "8", "40", "41", "abc", "", "-3", "200", "0.5,0.5", "=1"])


@given(st.sampled_from(["binary", "multiclass", "regression", "labels only"]), st.lists(CELLS, min_size=1, max_size=12))
def test_outputs_and_faults_are_those_of_scoring_row_by_row(task, cells):
    chosen = model(task, raises={7.0: ValueError("seven"), 8.0: KeyError("eight")})
    chunk = scored(chosen, cells)
    places = dict(zip(chunk.offsets, range(len(chunk.offsets)), strict=True))
    assert sorted([*chunk.offsets, *chunk.faults]) == list(range(len(cells)))
    for offset, features in enumerate(chunk.features):
        if offset in places or chunk.faults[offset][0].code in ("model_failed", "refused_by_model"):
            (expected,) = score_rows(chosen, [orjson.loads(features)])
            if not isinstance(expected, Output):
                assert chunk.faults[offset] == [expected]
                continue
            place = places[offset]
            assert chunk.prediction[place] == expected.prediction
            assert chunk.label[place] == expected.label
            assert chunk.probability[place] == expected.probability
            assert json.loads(chunk.probabilities[place] or "null") == expected.probabilities
    assert [int(line[0]) for line in back(chunk.output)] == list(range(1, len(cells) + 1))
    assert [bool(line[-1]) for line in back(chunk.output)] == [offset in chunk.faults for offset in range(len(cells))]


@pytest.mark.parametrize(("name", "decimal"), [("attrition", ","), ("credit", "."), ("energy", ",")])
def test_file_of_an_example_model_is_scored_as_its_rows_are(name, decimal, example_package):
    package = example_package(name)
    card = package.card
    reader = response_reader(card, package.estimator)
    encoding, final = compile_encoding(card, package.estimator)
    scorer = EncodedScorer("numpy", encoding, native(final, reader, sparse=encoding.sparse), reader, final)
    names = [feature.name for feature in card.features]
    data = importlib.import_module(f"examples.{name}.data").generate(500, seed=11)[names]
    rows, faults = RowValidator(card).validate_many(records(data))
    assert not any(faults)

    form = CsvFormat(";", "utf-8", decimal, ("row_id", *names), "row_id")
    out = io.StringIO()
    writer = csv.writer(out, delimiter=";", lineterminator="\r\n")
    for place, row in enumerate(rows):
        cells = [repr(value).replace(".", decimal) if isinstance(value, float) else value for value in row.values()]
        writer.writerow([place, *cells])
    chunk_reader = ChunkReader(card, RowValidator(card), form)
    chunk = score_chunk(Model(card, scorer), chunk_reader, out.getvalue().encode(), first_row=0, row_count=500)
    assert chunk.failed_count == 0
    assert [orjson.loads(text) for text in chunk.features] == list(rows)
    truth = PipelineScorer(card, package.estimator, reader).score(rows)
    np.testing.assert_allclose(chunk.prediction, truth.prediction, rtol=1e-12)
    expected = scorer.score(rows)
    assert chunk.prediction == expected.prediction.tolist()
    lines = list(csv.DictReader(io.StringIO((output_header(card, form) + chunk.output).decode()), delimiter=";"))
    assert [line["row_id"] for line in lines] == [str(place) for place in range(500)]
    column, values = ("prediction", chunk.prediction) if name == "energy" else ("probability", chunk.probability)
    assert [float(line[column].replace(decimal, ".")) for line in lines] == values
