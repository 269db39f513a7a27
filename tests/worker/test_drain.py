"""Draining a queue when something is wrong around it: the model, Redis, the database, another worker."""

import io
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from redis import Redis as Client
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError, ProgrammingError

import shared.database.prepared
import worker.drain
from scripts.servers.postgres import Postgres
from scripts.servers.redis import Redis
from shared.broker.app import DONE_CHANNEL, make_app, make_redis, wake_key
from shared.broker.wakeups import list_waiting, send_wakeup
from shared.cards.card import Card
from shared.config.settings import Settings
from shared.database.prepared import Statement
from shared.errors import ArtefactError
from shared.handlers.scores import SCORES
from shared.observability.tracing import Tracing
from shared.scoring.selection import Scores
from tests.support.collector import collecting
from tests.support.databases import empty, job_row, postgres_engine, queue, settings_of
from tests.support.log_lines import written
from worker.drain import drain
from worker.heartbeat import Heartbeat
from worker.runtime import Runtime

CARD = Card.model_validate(
    {
        "name": "m",
        "version": 1,
        "task": "binary",
        "sha256": "0" * 64,
        "labels": {"0": "Reste", "1": "Part"},
        "features": [{"name": "x", "type": "number"}],
    }
)


@dataclass
class Scorer:
    """A scorer that is told what to do before it answers."""

    kind: str = "pipeline"
    before: Any = None
    calls: list[int] = field(default_factory=list)

    def score(self, rows: list[dict[str, Any]]) -> Scores:
        self.calls.append(len(rows))
        if self.before is not None:
            self.before()
        return Scores(np.ones(len(rows)), np.full(len(rows), 0.75), None)


@dataclass
class ModelCache:
    """One model, or the error of loading it."""

    scorer: Scorer
    error: Exception | None = None

    def get(self, model_version_id: int) -> Any:
        if self.error is not None:
            raise self.error
        return SimpleNamespace(card=CARD, scorer=self.scorer)

    def names(self) -> list[str]:
        return ["m@1"]


@pytest.fixture(scope="module")
def database(session_postgres: Postgres) -> Iterator[Engine]:
    with postgres_engine(session_postgres, "drain") as engine:
        yield engine


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with Redis(tmp_path_factory.mktemp("drain")) as server:
        yield server


@pytest.fixture
def scorer() -> Scorer:
    return Scorer()


@pytest.fixture
def runtime(database: Engine, broker: Redis, scorer: Scorer) -> Iterator[Runtime]:
    empty(database)
    url = database.url.render_as_string(hide_password=False)
    with settings_of(RUNTIME="queue", DATABASE_URL=url, REDIS_URL=broker.url):
        settings = Settings(max_claim_jobs=4)
        heartbeat = Heartbeat(database, settings, name="here:1", lanes=["interactive"], loaded=list)
        client = make_redis()
        client.flushdb()
        runtime = Runtime(
            settings, "here:1", database, database, database, client, make_app(), ModelCache(scorer), heartbeat
        )  # type: ignore[arg-type]
        yield runtime
        runtime._disconnect()
        client.close()


def queued(engine: Engine, count: int, **changes: Any) -> list[str]:
    with engine.connect() as connection:
        return [queue(connection, **changes) for _ in range(count)]


def states(engine: Engine, ids: list[str]) -> set[str]:
    with engine.connect() as connection:
        return {job_row(connection, job_id)["state"] for job_id in ids}


def outputs(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM model_outputs")) or 0)


def request_ids(engine: Engine, ids: list[str]) -> list[str]:
    """Return the request ids of jobs, in the order of the jobs, each once."""
    with engine.connect() as connection:
        by_id = dict(tuple(row) for row in connection.execute(text("SELECT id::text, request_id FROM jobs")))
    return list(dict.fromkeys(by_id[each] for each in ids))


def test_everything_that_is_queued_is_scored_and_announced(runtime, database, broker, scorer):
    ids = queued(database, 10)
    listener = Client.from_url(broker.url).pubsub(ignore_subscribe_messages=True)
    listener.subscribe(DONE_CHANNEL)
    listener.get_message(timeout=1)
    outcome = drain(runtime, "interactive", 1)
    assert outcome.startswith("m@1: 10 jobs, ")
    assert states(database, ids) == {"succeeded"}
    announced = ""
    while (message := listener.get_message(timeout=0.5)) is not None:
        announced += message["data"].decode()
    assert all(job_id in announced for job_id in ids)
    listener.close()


def test_lines_name_the_lane_the_model_and_the_job_or_jobs_that_they_are_about(runtime, database, scorer):
    log = logging.getLogger("worker.drain.test")

    def fields(entry: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in entry.items() if key in ("lane", "model", "job_id", "job_ids", "message")}

    scorer.before = lambda: log.warning("scoring")
    for count in (1, 2):
        ids = queued(database, count)
        with written("worker.drain") as entries:
            drain(runtime, "interactive", 1)
        about, done = entries
        everywhere = {"lane": "interactive", "model": "m@1"}
        assert fields(about) == everywhere | {"message": "scoring"} | (
            {"job_id": ids[0]} if count == 1 else {"job_ids": ",".join(ids)}
        )
        assert fields(done) == everywhere | {"message": f"m@1: {count} jobs, {done['duration_ms']} ms"}
        sent = request_ids(database, ids)
        assert about.get("request_id" if count == 1 else "request_ids") == ",".join(sent)
        assert "request_id" not in done  # it is about all of them


def test_spans_of_a_job_go_on_from_its_requests_trace(runtime, database, scorer, monkeypatch):
    parents = [f"00-{number:032x}-{number:016x}-01" for number in (17, 18)]
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        runtime.tracing = Tracing("guichet-worker")
        ids = [queued(database, 1, traceparent=parent)[0] for parent in [*parents, None, parents[0][:-2] + "00"]]
        drain(runtime, "interactive", 1)
        runtime.tracing.stop()
        runtime.tracing = None
        assert states(database, ids) == {"succeeded"}
        for number, job_id in zip((17, 18), ids, strict=False):
            spans = collector.of_trace(f"{number:032x}", 3)
            assert spans.keys() == {"queue", "score", "store"}
            for span in spans.values():
                assert (span["parent"], span["service"]) == (f"{number:016x}", "guichet-worker")
                assert span["attributes"]["guichet.job_id"] == job_id
                assert span["attributes"]["guichet.jobs_in_claim"] == 4
                assert span["attributes"]["guichet.is_stored"] is True
            assert spans["queue"]["start"] <= spans["queue"]["end"] <= spans["store"]["end"]
        assert len(collector.spans) == 6


def test_full_claim_wakes_another_worker(runtime, database):
    queued(database, 10)
    drain(runtime, "interactive", 1)
    assert runtime.redis.llen("interactive") == 1


def test_jobs_that_take_long_wake_another_worker(runtime, database, scorer):
    """Else one worker collects the rows of a slow model in ever larger claims, and the others idle."""
    runtime.settings = Settings(max_claim_jobs=512)
    queued(database, 3)
    drain(runtime, "interactive", 1)
    queued(database, 3)
    drain(runtime, "interactive", 1)
    assert runtime.redis.llen("interactive") == 0  # quick rows are left to one worker
    scorer.before = lambda: time.sleep(0.02 * scorer.calls[-1])
    queued(database, 1)
    drain(runtime, "interactive", 1)
    assert runtime.redis.llen("interactive") == 0  # nor is a single job work for two
    queued(database, 3)
    drain(runtime, "interactive", 1)
    assert runtime.redis.llen("interactive") == 1


def test_wakeup_that_waits_already_is_not_sent_again(runtime, database):
    """Whatever holds the key or lets it go: one message for each lane and version."""
    for version in (1, 2, 1, 2, 1):
        runtime.redis.delete(wake_key("interactive", version))
        send_wakeup(runtime.redis, runtime.app, lane="interactive", model_version_id=version)
        send_wakeup(runtime.redis, runtime.app, lane="interactive", model_version_id=version, again=True)
    assert runtime.redis.llen("interactive") == 2
    assert list_waiting(runtime.redis, "interactive") == {1, 2}
    runtime.redis.lpush("interactive", b"not one of ours")
    assert list_waiting(runtime.redis, "interactive") == {1, 2}


def test_time_is_shared_with_the_versions_that_wait_in_the_lane(runtime, database, scorer, monkeypatch):
    monkeypatch.setattr(worker.drain, "RENEW_SECONDS", 0.05)
    runtime.settings = Settings(max_claim_jobs=1, drain_seconds=2)
    queued(database, 40)
    scorer.before = lambda: time.sleep(0.1)
    send_wakeup(runtime.redis, runtime.app, lane="interactive", model_version_id=2)
    began = time.monotonic()
    drain(runtime, "interactive", 1)
    assert 0.9 < time.monotonic() - began < 1.6  # half of its time
    assert list_waiting(runtime.redis, "interactive") == {1, 2}  # behind the other one
    assert runtime.redis.llen("interactive") == 2


def test_slow_model_is_claimed_in_pieces_that_leave_time_for_others(runtime, database, scorer):
    runtime.settings = Settings(max_claim_jobs=512, drain_seconds=2)
    scorer.before = lambda: time.sleep(0.05 * len(scorer.calls[-1:]) * scorer.calls[-1])
    queued(database, 60)
    drain(runtime, "interactive", 1)
    assert scorer.calls[0] == SCORES.first_rows
    assert all(1 <= count <= 6 for count in scorer.calls[1:-1])  # a quarter of a second of 20 rows a second


def test_key_is_free_when_nothing_is_left(runtime, database):
    queued(database, 2)
    runtime.redis.set(wake_key("interactive", 1), b"1")
    drain(runtime, "interactive", 1)
    assert runtime.redis.get(wake_key("interactive", 1)) is None


def test_job_that_comes_while_another_is_scored_is_seen_by_the_same_task(runtime, database, scorer):
    queued(database, 1)
    late: list[str] = []

    def submit_late() -> None:
        scorer.before = None
        late.extend(queued(database, 1))

    scorer.before = submit_late
    drain(runtime, "interactive", 1)
    assert states(database, late) == {"succeeded"}


def test_model_that_cannot_be_loaded_leaves_its_jobs_queued(runtime, database):
    ids = queued(database, 3)
    runtime.models.error = ArtefactError("the file was altered")  # type: ignore[attr-defined]
    assert "the file was altered" in drain(runtime, "interactive", 1)
    with database.connect() as connection:
        assert {(job_row(connection, job_id)["state"], job_row(connection, job_id)["attempt"]) for job_id in ids} == {
            ("queued", 0)
        }


def test_worker_without_memory_gives_its_jobs_back_with_a_delay(runtime, database, scorer):
    ids = queued(database, 2)

    def exhaust() -> None:
        raise MemoryError

    scorer.before = exhaust
    drain(runtime, "interactive", 1)
    assert states(database, ids) <= {"queued", "failed"}
    assert outputs(database) == 0


def test_results_are_stored_although_redis_is_gone(runtime, database, broker):
    ids = queued(database, 6)
    broker.kill()
    try:
        drain(runtime, "interactive", 1)
    finally:
        broker.start()
    assert states(database, ids) == {"succeeded"}
    assert outputs(database) == 6


def test_connection_that_the_server_closes_is_replaced(runtime, database, scorer):
    ids = queued(database, 1)

    def cut() -> None:
        scorer.before = None
        with database.connect() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    scorer.before = cut
    drain(runtime, "interactive", 1)
    assert states(database, ids) == {"succeeded"}
    assert outputs(database) == 1


def test_claim_whose_answer_was_lost_is_given_back_and_burns_no_attempt(runtime, database, monkeypatch):
    ids = queued(database, 3)
    claim = worker.drain.jobs.claim

    def claim_and_lose_it(connection: Connection, **options: Any) -> list[Any]:
        monkeypatch.setattr(worker.drain.jobs, "claim", claim)
        assert len(claim(connection, **options)) == 3
        connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
        raise AssertionError("the connection is gone")

    monkeypatch.setattr(worker.drain.jobs, "claim", claim_and_lose_it)
    drain(runtime, "interactive", 1)
    with database.connect() as connection:
        rows = [job_row(connection, job_id) for job_id in ids]
    assert [(row["state"], row["attempt"], row["crash_count"]) for row in rows] == [("succeeded", 1, 0)] * 3


def test_results_wait_for_what_passes_and_for_nothing_else(runtime, database):
    """A lock, told by SQLAlchemy or, in COPY, by the driver itself; and a mistake."""
    tried = []

    def locked(connection: Connection) -> None:
        tried.append(connection)
        if len(tried) == 1:
            connection.exec_driver_sql("SET statement_timeout = '50ms'")
        if len(tried) < 3:
            connection.exec_driver_sql("SELECT pg_sleep(1)")
        if len(tried) < 4:
            driver: Any = connection.connection.driver_connection
            with driver.cursor() as cursor:
                cursor.copy_expert("COPY (SELECT pg_sleep(1)) TO STDOUT", io.BytesIO())
        connection.exec_driver_sql("SET statement_timeout = 0")

    runtime.retry_while_away(lambda: runtime.execute(locked))
    assert len(tried) == 4
    with pytest.raises(ProgrammingError):
        runtime.retry_while_away(lambda: runtime.execute(lambda c: c.exec_driver_sql("SELECT * FROM nowhere")))


def test_worker_goes_on_after_the_server_closed_two_connections_in_a_row(runtime, database):
    def cut(connection: Connection) -> None:
        connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(OperationalError):
        runtime.execute(cut)
    assert runtime.execute(lambda connection: connection.exec_driver_sql("SELECT 1").scalar()) == 1


def test_statement_that_could_not_be_prepared_again_is_prepared_the_next_time(database, monkeypatch):
    statement = Statement("count_jobs_of", ("int",), "SELECT count(*) FROM jobs WHERE model_version_id = $1")
    with database.connect() as connection, database.connect() as other:
        statement.run(connection, 1)
        monkeypatch.setattr(shared.database.prepared, "PLAN_SECONDS", 0.0)
        connection.exec_driver_sql("SET lock_timeout = '50ms'")
        other.exec_driver_sql("BEGIN; LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(OperationalError):
            statement.run(connection, 1)
        other.exec_driver_sql("ROLLBACK")
        connection.exec_driver_sql("SET lock_timeout = 0")
        assert statement.run(connection, 1).scalar() is not None


def test_claim_that_was_taken_back_meanwhile_stores_nothing(runtime, database, scorer):
    ids = queued(database, 1)

    def lose() -> None:
        scorer.before = None
        with database.connect() as connection:
            connection.exec_driver_sql(
                "UPDATE jobs SET state = 'queued', claim_token = NULL, run_after = now() + interval '1 hour'"
            )

    scorer.before = lose
    drain(runtime, "interactive", 1)
    assert states(database, ids) == {"queued"}
    assert outputs(database) == 0


def test_jobs_that_took_a_worker_down_are_claimed_alone_when_no_others_are_left(runtime, database, scorer):
    ids = queued(database, 3)
    with database.connect() as connection:
        connection.exec_driver_sql("UPDATE jobs SET crash_count = 1 WHERE id IN (%s, %s)", tuple(ids[:2]))
    drain(runtime, "interactive", 1)
    assert scorer.calls == [1, 1, 1]
    assert states(database, ids) == {"succeeded"}
