"""Explaining every row of a file chunk by chunk: each row once, whatever dies, with its own columns and its error."""

import csv
import io
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sqlalchemy import Engine, select, text

from scripts.servers.postgres import Postgres
from shared.cards.card import Card
from shared.cards.features import Feature
from shared.csv.format import CsvFormat
from shared.csv.packing import pack
from shared.explanations.storage import list_explanations
from shared.handlers.table import CHUNK_HANDLERS
from shared.jobs.chunks import transitions as chunks
from shared.jobs.chunks.storage import Stale, store
from shared.jobs.chunks.transitions import ChunkClaim, CsvUpload, PackedChunk
from shared.jobs.erasure import erase, lock_copies
from shared.jobs.queries.files import list_chunks, read_chunk
from shared.jobs.queries.jobs import find_jobs
from shared.scoring.scorers import PipelineScorer
from shared.scoring.scores import response_reader
from shared.tables import ChunkState, StoredExplanation
from tests.support.databases import either_engine, empty, submission

# The delimiter and the decimal mark are the file's; `value` is a column of ours, and a feature of this model.
FORM = CsvFormat(";", "utf-8", ",", ("id", "a", "value", "note"), "id")
COLUMNS = [
    "row_no",
    "id",
    "note",
    "label",
    "method",
    "scale",
    "base_value",
    "a",
    "contribution_value",
    "value",
    "standard_error",
    "top",
    "error",
]


@pytest.fixture(scope="module", params=["postgresql", "sqlite"])
def database(
    request: pytest.FixtureRequest, session_postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("explained")
    with either_engine(request.param, "explained", session_postgres, folder) as engine:
        yield engine


@pytest.fixture
def engine(database: Engine) -> Engine:
    empty(database)
    return database


@pytest.fixture(scope="module")
def model() -> Any:
    rows = np.random.default_rng(0).normal(size=(40, 2))
    estimator = LinearRegression().fit(rows, rows @ [2.0, -1.0] + 3.0)
    features = [Feature(name="a", type="number"), Feature(name="value", type="number")]
    card = Card(name="m", version=1, sha256="e" * 64, task="regression", features=features)
    scorer = PipelineScorer(card, estimator, response_reader(card, estimator))
    reference = [{"a": float(a), "value": float(b)} for a, b in rows]
    return SimpleNamespace(card=card, estimator=estimator, scorer=scorer, reference=reference)


def work(engine: Engine, model: Any, claim: ChunkClaim) -> str | None:
    handler = CHUNK_HANDLERS[claim.kind]
    done, state = handler.compute(model, claim)
    return store(engine, claim, done, write=handler.write, state=state)


def take(engine: Engine) -> ChunkClaim:
    with engine.begin() as connection:
        claim = chunks.claim(connection, model_version_id=1, worker="here:1", lease_seconds=15)
    assert claim is not None
    return claim


def put(engine: Engine, kind: str, packed: list[PackedChunk], **changes: Any) -> str:
    job = submission(rows=0, kind=kind, lane="bulk")
    with engine.begin() as connection:
        assert chunks.submit(connection, job, CsvUpload(FORM, 5, 100, "rows.csv", **changes), packed) is not None
    return job.id


@pytest.fixture
def source(engine: Engine, model: Any) -> str:
    """A scored file of two chunks, whose third row has no score."""
    first, second = "r1;1,5;2;=1+1\nr2;0;0;\nr3;bad;1;x\n", 'r4;-1;0,25;"a;b"\nr5;3;1;\n'
    job_id = put(engine, "csv", [PackedChunk(0, 3, pack(first.encode())), PackedChunk(3, 2, pack(second.encode()))])
    assert work(engine, model, take(engine)) is None
    assert work(engine, model, take(engine)) == "succeeded"
    return job_id


@pytest.fixture
def bulk(engine: Engine, source: str) -> str:
    return put(
        engine,
        "explain_batch",
        [PackedChunk(0, 2, b""), PackedChunk(2, 1, b""), PackedChunk(3, 2, b"")],
        source_job_id=source,
    )


def let_lease_run_out(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE job_chunks SET lease_expires_at = '2020-01-01' WHERE state = 'running'"))
        chunks.recover(connection)
        connection.execute(text("UPDATE job_chunks SET run_after = '2020-01-01'"))


def read(engine: Engine, job_id: str, part: Any = "output") -> list[list[str]]:
    with engine.connect() as connection:
        places = [chunk.first_row for chunk in list_chunks(connection, job_id)]
        lines = b"".join(read_chunk(connection, job_id, place, part) for place in places).decode()
    return list(csv.reader(io.StringIO(lines), delimiter=";"))


def test_every_row_has_a_line_with_its_own_columns_and_what_each_feature_adds(engine, model, source, bulk):
    assert [work(engine, model, take(engine)) for _ in range(3)] == [None, None, "succeeded"]
    lines = [dict(zip(COLUMNS, line, strict=True)) for line in read(engine, bulk)]
    assert [line["row_no"] for line in lines] == ["1", "2", "3", "4", "5"]
    assert [line["id"] for line in lines] == ["r1", "r2", "r3", "r4", "r5"]
    assert [line["note"] for line in lines] == ["'=1+1", "", "x", "a;b", ""]  # no formula
    for line, (a, value) in zip(lines, [(1.5, 2), (0, 0), (None, 1), (-1, 0.25), (3, 1)], strict=True):
        if a is None:
            assert line["a"] == line["value"] == line["method"] == ""
            assert line["error"].startswith("a must be")
            continue
        numbers = {name: float(line[name].replace(",", ".")) for name in ("base_value", "a", "contribution_value")}
        assert sum(numbers.values()) == pytest.approx(2 * a - value + 3, abs=1e-9)
        assert float(line["value"].replace(",", ".")) == pytest.approx(2 * a - value + 3, abs=1e-9)
        assert (line["method"], line["scale"], line["standard_error"], line["error"]) == ("linear", "target", "", "")
        assert line["top"].endswith(".")
    assert [line[:3] for line in read(engine, bulk, "errors")] == [["3", "a", "type"]]
    with engine.connect() as connection:
        job = find_jobs(connection, [bulk])[bulk]
        assert (job.state, job.row_count, job.failed_count) == ("succeeded", 5, 1)
        stored = list_explanations(connection, source, 1, first_row=1, count=4)
    assert [index for index, _ in stored] == [1, 3, 4]
    assert stored[1][1].value == pytest.approx(2 * -1 - 0.25 + 3, abs=1e-9)


def test_chunk_of_a_dead_worker_is_taken_up_again_and_stored_once(engine, model, bulk):
    lost = take(engine)
    let_lease_run_out(engine)
    again = take(engine)
    assert (again.first_row, again.attempt) == (lost.first_row, 2)
    assert work(engine, model, again) is None
    with pytest.raises(Stale):
        work(engine, model, lost)
    assert [work(engine, model, take(engine)) for _ in range(2)] == [None, "succeeded"]
    assert [line[0] for line in read(engine, bulk)] == ["1", "2", "3", "4", "5"]
    with engine.connect() as connection:
        assert len(connection.execute(select(StoredExplanation.input_id)).all()) == 4


def test_row_that_takes_workers_down_is_cut_out_and_the_others_are_explained(engine, model, bulk):
    for _ in range(2):
        assert take(engine).first_row == 0
        let_lease_run_out(engine)
    suspect = take(engine)
    assert suspect.should_split
    with engine.begin() as connection:
        assert chunks.split(connection, suspect, CHUNK_HANDLERS[suspect.kind].split(suspect))
    for _ in range(2):  # the first row alone takes two more down
        held = take(engine)
        assert (held.first_row, held.row_count) == (0, 1)
        let_lease_run_out(engine)
    ends = [work(engine, model, take(engine)) for _ in range(4)]
    assert ends == [None, None, None, "succeeded"]
    assert [line[-1] == "" for line in read(engine, bulk)] == [False, True, False, True, True]
    assert read(engine, bulk, "errors")[0][2] == "worker_lost"


def test_canceled_job_keeps_what_is_explained_and_takes_up_the_rest(engine, model, bulk):
    assert work(engine, model, take(engine)) is None
    with engine.begin() as connection:
        assert chunks.cancel(connection, bulk) == "canceled"
    assert len(read(engine, bulk)) == 2
    with engine.begin() as connection:
        assert chunks.reopen(connection, bulk)
    assert [work(engine, model, take(engine)) for _ in range(2)] == [None, "succeeded"]
    assert len(read(engine, bulk)) == 5


def test_rows_whose_job_was_erased_have_an_error_and_the_job_fails(engine, model, source, bulk):
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": source})
    assert [work(engine, model, take(engine)) for _ in range(3)] == [None, None, "failed"]
    with engine.connect() as connection:
        job = find_jobs(connection, [bulk])[bulk]
    assert job.error is not None
    assert job.error["code"] == "no_row_explained"
    assert {line[2] for line in read(engine, bulk, "errors")} == {"not_scored"}
    assert {chunk.state for chunk in _chunks(engine, bulk)} == {ChunkState.DONE}


def test_erasing_a_scored_job_leaves_nothing_of_it_and_of_its_explanations(engine, model, source, bulk):
    while chunks_left(engine):
        work(engine, model, take(engine))
    tables = ("jobs", "csv_files", "job_chunks", "model_inputs", "model_outputs", "explanations")
    with engine.begin() as connection:
        assert all(connection.scalar(text(f"SELECT count(*) FROM {table}")) for table in tables)
        copies = lock_copies(connection, source)
        assert {copy.id for copy in copies} == {source, bulk}
        erase(connection, [copy.id for copy in copies])
        assert [connection.scalar(text(f"SELECT count(*) FROM {table}")) for table in tables] == [0] * len(tables)


def chunks_left(engine: Engine) -> int:
    with engine.connect() as connection:
        count: int = connection.scalar(text("SELECT count(*) FROM job_chunks WHERE state = 'queued'"))
    return count


def _chunks(engine: Engine, job_id: str) -> list[Any]:
    with engine.connect() as connection:
        return list_chunks(connection, job_id)
