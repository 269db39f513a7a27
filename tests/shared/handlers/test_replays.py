"""Deciding stored rows again chunk by chunk: exactly those of the window, each once, whatever dies."""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sqlalchemy import Engine, insert, select, text

from scripts.servers.postgres import Postgres
from shared.cards.card import Card
from shared.cards.features import Feature
from shared.comparison.storage import collect_replay
from shared.csv.format import CsvFormat
from shared.csv.packing import pack
from shared.handlers.replays import COLUMNS
from shared.handlers.table import CHUNK_HANDLERS
from shared.jobs.chunks import decisions
from shared.jobs.chunks import transitions as chunks
from shared.jobs.chunks.decisions import Decisions, Scope
from shared.jobs.chunks.storage import Stale, store
from shared.jobs.chunks.transitions import ChunkClaim, CsvUpload, PackedChunk
from shared.jobs.queries.files import list_chunks, read_chunk
from shared.jobs.queries.jobs import find_jobs
from shared.scoring.scorers import PipelineScorer
from shared.scoring.scores import response_reader
from shared.tables import ChunkState, Job, ModelInput, ModelOutput, Outcome, Replay
from tests.support.databases import either_engine, empty, submission

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
COUNT = 40
FORM = CsvFormat(",", "utf-8", ".", (), None)


@pytest.fixture(scope="module", params=["postgresql", "sqlite"])
def database(
    request: pytest.FixtureRequest, session_postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("replayed")
    with either_engine(request.param, "replayed", session_postgres, folder) as engine:
        yield engine


@pytest.fixture(scope="module")
def model() -> Any:
    """Version 2, which answers a + 1 where version 1 answered a; it takes no a above 38."""
    rows = np.arange(20.0)[:, None]
    estimator = LinearRegression().fit(rows, rows[:, 0] + 1.0)
    card = Card(
        name="m", version=2, sha256="e" * 64, task="regression", features=[Feature(name="a", type="number", max=38)]
    )
    scorer = PipelineScorer(card, estimator, response_reader(card, estimator))
    return SimpleNamespace(
        card=card, estimator=estimator, scorer=scorer, reference=[{"a": float(value)} for value in range(20)]
    )


@pytest.fixture
def engine(database: Engine, model: Any) -> Engine:
    """A database with 40 decisions of version 1, one a minute from noon on, stored with ids that are not in order."""
    empty(database)
    with database.begin() as connection:
        card = model.card.model_dump_json()
        connection.execute(text("UPDATE model_versions SET card = :card"), {"card": card})
        job = submission(rows=0)
        past = {"run_after": NOON, "created_at": NOON, "finished_at": NOON, "state": "succeeded"}
        connection.execute(insert(Job).values({**job.columns(), "row_count": COUNT, **past}))
        numbers = {"job_id": job.id, "created_at": NOON}
        ids = connection.scalars(
            insert(ModelInput).returning(ModelInput.id, sort_by_parameter_order=True),
            [
                {**numbers, "row_index": place, "features": {"a": float(place)}, "faults": None}
                for place in range(COUNT)
            ],
        ).all()
        order = np.random.default_rng(1).permutation(COUNT).tolist()
        connection.execute(
            insert(ModelOutput),
            [
                {
                    "input_id": ids[place],
                    "model_version_id": 1,
                    "task": "regression",
                    "prediction": float(place),
                    "created_at": NOON + timedelta(minutes=place),
                }
                for place in order
            ],
        )
    return database


def scope_of(first: int, last: int, **features: Any) -> Scope:
    return Scope([1], NOON + timedelta(minutes=first), NOON + timedelta(minutes=last), features)


@pytest.mark.parametrize(("first", "last"), [(0, COUNT), (5, 30), (7, 8), (COUNT, 2 * COUNT), (-60 * 48, -1)])
def test_runs_hold_exactly_the_decisions_of_the_window(engine, first, last):
    scope = scope_of(first, last)
    with engine.begin() as connection:
        runs = decisions.plan(connection, scope, rows=7)
        held = [
            row
            for run in runs
            for row in connection.scalars(
                select(ModelOutput.prediction)
                .where(ModelOutput.id.between(run.first_id, run.last_id), scope.condition(connection))
                .order_by(ModelOutput.id)
            )
        ]
        expected = [place for place in range(COUNT) if first <= place < last]
        assert sorted(held) == expected
        assert [run.count for run in runs[:-1]] == [7] * (len(runs) - 1)
        assert sum(run.count for run in runs) == len(expected)
        assert decisions.count_by_version(connection, scope) == ({1: len(expected)} if expected else {})


def test_filter_compares_values_as_json_does(engine):
    with engine.begin() as connection:
        assert sum(decisions.count_by_version(connection, scope_of(0, COUNT, a=[3, 7.0, 99])).values()) == 2
        assert decisions.count_by_version(connection, scope_of(0, COUNT, a=["3"])) == {}
        assert decisions.count_by_version(connection, scope_of(0, COUNT, a=[None])) == {}


def submit(engine: Engine, *, fits: bool = True, rows: int = 15) -> str:
    job = submission(rows=0, kind="replay", lane="bulk", model_version_id=2)
    with engine.begin() as connection:
        runs = decisions.plan(connection, scope_of(0, COUNT), rows=rows)
        places = np.cumsum([0, *(run.count for run in runs)]).tolist()
        packed = [PackedChunk(place, run.count, pack(run.dump())) for place, run in zip(places, runs, strict=False)]
        assert chunks.submit(connection, job, CsvUpload(FORM, COUNT, 0), packed) is not None
        replay = {
            "job_id": job.id,
            "starts_at": NOON,
            "ends_at": NOON + timedelta(minutes=COUNT),
            "filter": {},
            "versions": [{"id": 1, "version": 1, "fits": fits}],
            "cost_fp": 1.0,
            "cost_fn": 1.0,
        }
        connection.execute(insert(Replay).values(replay))
    return job.id


def take(engine: Engine) -> ChunkClaim | None:
    with engine.begin() as connection:
        return chunks.claim(connection, model_version_id=2, worker="here:1", lease_seconds=15)


def work(engine: Engine, model: Any, claim: ChunkClaim) -> str | None:
    handler = CHUNK_HANDLERS[claim.kind]
    done, state = handler.compute(model, claim)
    return store(engine, claim, done, write=handler.write, state=state)


def work_all(engine: Engine, model: Any) -> None:
    while (claim := take(engine)) is not None:
        work(engine, model, claim)


def report(engine: Engine, model: Any, job_id: str) -> dict[str, Any]:
    with engine.begin() as connection:
        return collect_replay(connection, job_id).report(model.card)


def test_every_decision_is_compared_once_and_what_is_known_now_is_judged(engine, model):
    job_id = submit(engine)
    work_all(engine, model)
    body = report(engine, model, job_id)
    assert (body["pairs"], body["versions"]) == (COUNT, [{"version": 1, "rows": COUNT}])
    assert body["score_shift"]["value"] == pytest.approx(1.0)
    assert body["outcomes"] is None
    with engine.begin() as connection:
        lines = "".join(
            read_chunk(connection, job_id, each.first_row, "output").decode()
            for each in list_chunks(connection, job_id)
        )
        rows = list(csv.DictReader(io.StringIO(lines), COLUMNS))
        assert sorted(float(row["score_before"]) for row in rows) == list(range(COUNT))
        assert {row["decided_by"] for row in rows} == {"1"}
        inputs = connection.scalars(select(ModelInput.id).order_by(ModelInput.row_index)).all()
        connection.execute(
            insert(Outcome),
            [
                {
                    "input_id": inputs[place],
                    "revision": 1,
                    "actual": place + 1.0,
                    "request_id": "r",
                    "recorded_at": NOON,
                }
                for place in range(0, COUNT, 4)
            ],
        )
    body = report(engine, model, job_id)["outcomes"]
    assert (body["rows"], body["mae"]["before"]) == (10, 1.0)
    assert body["mae"]["after"] == pytest.approx(0.0, abs=1e-9)


def test_chunk_whose_worker_died_is_counted_once(engine, model):
    job_id = submit(engine)
    dead = take(engine)
    done, state = CHUNK_HANDLERS["replay"].compute(model, dead)
    with engine.begin() as connection:
        connection.execute(text("UPDATE job_chunks SET lease_expires_at = '2020-01-01' WHERE state = 'running'"))
        chunks.recover(connection)
        connection.execute(text("UPDATE job_chunks SET run_after = '2020-01-01'"))
    work_all(engine, model)
    with pytest.raises(Stale):
        store(engine, dead, done, write=CHUNK_HANDLERS["replay"].write, state=state)
    assert report(engine, model, job_id)["pairs"] == COUNT


def test_chunk_that_takes_workers_down_is_cut_until_the_guilty_row_stands_alone(engine, model):
    job_id = submit(engine, rows=40)
    claim = take(engine)
    parts = CHUNK_HANDLERS["replay"].split(claim)
    assert [part.row_count for part in parts] == [3] * 13 + [1]
    assert [part.first_row for part in parts] == list(range(0, 40, 3))
    with engine.begin() as connection:
        assert chunks.split(connection, claim, parts)
    while (part := take(engine)) is not None:
        if part.row_count == 1:
            with engine.begin() as connection:
                connection.execute(text("UPDATE job_chunks SET crash_count = 3 WHERE state = 'running'"))
            guilty = ChunkClaim(**{name: getattr(part, name) for name in part.__slots__} | {"crash_count": 3})
            assert CHUNK_HANDLERS["replay"].compute(model, guilty)[1] == ChunkState.FAILED
            work(engine, model, guilty)
        else:
            work(engine, model, part)
    with engine.begin() as connection:
        job = find_jobs(connection, [job_id])[job_id]
    assert (job.state, job.failed_count) == ("succeeded", 1)
    assert report(engine, model, job_id)["pairs"] == 39


def test_row_that_does_not_fit_the_card_is_refused_and_said(engine, model):
    job_id = submit(engine, fits=False)
    work_all(engine, model)
    body = report(engine, model, job_id)
    assert (body["pairs"], body["refused"]) == (39, 1)
    with engine.begin() as connection:
        errors = "".join(
            read_chunk(connection, job_id, each.first_row, "errors").decode()
            for each in list_chunks(connection, job_id)
        )
    assert ",a," in errors
    assert "38" in errors


def test_rows_that_were_erased_meanwhile_are_left_out_and_said(engine, model):
    job_id = submit(engine)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM model_inputs WHERE row_index < 10"))
    work_all(engine, model)
    with engine.begin() as connection:
        job = find_jobs(connection, [job_id])[job_id]
    assert (job.state, job.failed_count) == ("succeeded", 10)
    assert report(engine, model, job_id)["pairs"] == COUNT - 10


def test_ids_of_a_run_survive_their_chunk():
    assert Decisions(3, 99, 5).dump() == b"[3,99]"
