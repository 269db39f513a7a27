"""Metrics by their tables: nothing is lost, nothing is counted twice, and quantiles are those of the values."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, delete, func, insert, select, update
from uuid_utils import uuid7

from scripts.servers.postgres import Postgres
from shared.database.engine import reader
from shared.jobs import figures
from shared.jobs.erasure import erase
from shared.jobs.figures import files, queues, version_labels
from shared.observability import metrics
from shared.observability.metrics import (
    CLAIM_JOBS,
    HTTP_REQUESTS,
    HTTP_SECONDS,
    OTHER,
    SCORED_ROWS,
    Metrics,
    quantile,
    read,
)
from shared.tables import Job, MetricSample, ModelVersion
from tests.support.databases import either_engine


@pytest.fixture(scope="module", params=["postgresql", "sqlite"])
def database(
    request: pytest.FixtureRequest, session_postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    with either_engine(request.param, "metrics", session_postgres, tmp_path_factory.mktemp("metrics")) as engine:
        yield engine


@pytest.fixture
def engine(database: Engine) -> Engine:
    with database.begin() as connection:
        connection.execute(delete(MetricSample))
        connection.execute(delete(Job))
        connection.execute(delete(ModelVersion))
    return database


def flush(engine: Engine, *parts: Metrics) -> None:
    for part in parts:
        with engine.begin() as connection:
            part.flush(connection)


def stored(engine: Engine) -> dict[str, list[metrics.Series]]:
    with engine.connect() as connection:
        return read(connection)


def count_finished(engine: Engine) -> dict[tuple[str, str, str], int]:
    with reader(engine).connect() as connection:
        return figures.count_finished(connection, engine, version_labels(connection))


def test_what_several_processes_count_is_summed(engine: Engine) -> None:
    one, other = Metrics(), Metrics()
    one.count(SCORED_ROWS, ("credit@1", "bulk"), 10)
    other.count(SCORED_ROWS, ("credit@1", "bulk"), 5)
    other.observe(CLAIM_JOBS, 3, ("bulk",))
    one.observe(CLAIM_JOBS, 5_000, ("bulk",))
    flush(engine, one, other, one, other)  # a second time there is nothing to add
    (rows,) = stored(engine)["scored_rows"]
    assert (rows.labels, rows.count) == (("credit@1", "bulk"), 15)
    (claims,) = stored(engine)["claim_jobs"]
    assert (claims.count, claims.total) == (2, 5_003)
    assert dict(claims.buckets)["4.0"] == 1
    assert dict(claims.buckets)["4096.0"] == 1
    assert dict(claims.buckets)["+Inf"] == 2


def test_numbers_that_were_not_stored_wait_for_the_next_time(engine: Engine) -> None:
    part = Metrics()
    part.count(HTTP_REQUESTS, ("GET", "/jobs", "200"), 2)
    part.observe(HTTP_SECONDS, 0.3, ("GET", "/jobs"))
    part.observe(HTTP_SECONDS, 99.0, ("GET", "/jobs"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "add", lambda *_: (_ for _ in ()).throw(RuntimeError))
        with pytest.raises(RuntimeError):
            flush(engine, part)
    part.count(HTTP_REQUESTS, ("GET", "/jobs", "200"))
    flush(engine, part)
    assert [series.count for series in stored(engine)["http_requests"]] == [3]
    (seconds,) = stored(engine)["http_request_duration_seconds"]
    assert (seconds.count, seconds.total) == (2, pytest.approx(99.3))
    assert dict(seconds.buckets)["0.5"] == 1


def test_processes_that_store_at_the_same_time_neither_wait_for_ever_nor_lose_anything(engine: Engine) -> None:
    names = [f"model-{number}@1" for number in range(20)]

    def count(backwards: bool) -> None:
        part = Metrics()
        for _ in range(20):
            for name in reversed(names) if backwards else names:
                part.count(SCORED_ROWS, (name, "bulk"))
            flush(engine, part)

    threads = [threading.Thread(target=count, args=(number % 2 == 0,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {series.count for series in stored(engine)["scored_rows"]} == {80}
    assert len(stored(engine)["scored_rows"]) == 20


def test_more_series_than_are_kept_are_counted_together(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    monkeypatch.setattr(metrics, "MAX_SERIES", 3)
    part = Metrics()
    for number in range(10):
        part.count(SCORED_ROWS, (f"model-{number}@1", "bulk"))
    flush(engine, part)
    counts = {series.labels: series.count for series in stored(engine)["scored_rows"]}
    assert counts[OTHER, OTHER] == 7
    assert len(counts) == 4


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ((), 0.5, None),
        ((("1.0", 0), ("+Inf", 0)), 0.5, None),
        ((("1.0", 10), ("2.0", 10), ("+Inf", 10)), 0.5, 0.5),
        ((("1.0", 0), ("2.0", 10), ("+Inf", 10)), 0.5, 1.5),
        ((("1.0", 5), ("2.0", 10), ("+Inf", 10)), 1.0, 2.0),
        ((("1.0", 0), ("2.0", 0), ("+Inf", 4)), 0.99, 2.0),
    ],
)
def test_quantile_of_a_histogram(buckets: tuple[tuple[str, float], ...], share: float, expected: float | None) -> None:
    assert quantile(buckets, share) == expected


# ── jobs that have ended ─────────────────────────────────────────────────────────────────────────────────────────


def add_jobs(
    engine: Engine, count: int, *, seconds_ago: float, state: str = "succeeded", kind: str = "predict"
) -> None:
    with engine.begin() as connection:
        version = connection.scalar(select(ModelVersion.id).limit(1))
        if version is None:
            version = connection.scalar(
                insert(ModelVersion)
                .values(name="credit", version=1, sha256="0" * 64, uri="credit/1", card={}, scorer={})
                .returning(ModelVersion.id)
            )
        moment = figures.clock(connection, -seconds_ago)
        ended = state not in ("queued", "running")
        for _ in range(count):
            values: dict[str, Any] = {
                "id": str(uuid7()),
                "kind": kind,
                "lane": "interactive",
                "state": state,
                "model_version_id": version,
                "request_id": "r",
                "row_count": 1,
                "max_attempts": 3,
                "timeout_seconds": 30,
                "created_at": moment,
                "run_after": moment,
                "finished_at": moment if ended else None,
                "attempt": 1,
            }
            connection.execute(insert(Job).values(values))


def test_ended_jobs_are_counted_once_wherever_the_watermark_is(engine: Engine) -> None:
    add_jobs(engine, 3, seconds_ago=1_000)
    add_jobs(engine, 2, seconds_ago=500, state="failed")
    add_jobs(engine, 4, seconds_ago=5)
    add_jobs(engine, 6, seconds_ago=5, state="queued")
    key = ("credit@1", "predict", "succeeded")
    for _ in range(3):
        counts = count_finished(engine)
        assert (counts[key], counts["credit@1", "predict", "failed"]) == (7, 2)
    with engine.connect() as connection:
        kept = connection.scalar(select(func.sum(MetricSample.value)).where(MetricSample.name == "jobs_finished"))
    assert kept == 5  # those of the last minute are not counted for good: a transaction may still be open
    add_jobs(engine, 1, seconds_ago=0)
    assert count_finished(engine)[key] == 8
    with engine.begin() as connection:  # an old job is taken away, and stays counted
        connection.execute(delete(Job).where(Job.finished_at < figures.clock(connection, -900)))
    assert count_finished(engine)[key] == 8


def test_jobs_that_are_erased_or_queued_again_stay_counted(engine: Engine) -> None:
    """Prometheus takes a counter that falls for one that began anew, and adds all of it once more."""
    add_jobs(engine, 3, seconds_ago=1_000)
    add_jobs(engine, 4, seconds_ago=5)
    key = ("credit@1", "predict", "succeeded")
    assert count_finished(engine)[key] == 7
    with engine.begin() as connection:
        ids = [str(job_id) for job_id in connection.scalars(select(Job.id).order_by(Job.finished_at.desc()).limit(6))]
        erase(connection, ids[:3])
    assert count_finished(engine)[key] == 7
    with engine.begin() as connection:
        erase(connection, ids[3:])
    add_jobs(engine, 1, seconds_ago=0)
    assert count_finished(engine)[key] == 8


def test_watermark_moves_once_however_many_ask_at_the_same_time(engine: Engine) -> None:
    add_jobs(engine, 20, seconds_ago=300)
    count_finished(engine)
    with engine.begin() as connection:  # ten minutes later
        connection.execute(
            update(MetricSample).where(MetricSample.name == figures.WATERMARK).values(value=MetricSample.value - 600)
        )
        connection.execute(delete(MetricSample).where(MetricSample.name == "jobs_finished"))
    answers: list[dict[tuple[str, str, str], int]] = []
    threads = [threading.Thread(target=lambda: answers.append(count_finished(engine))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [answer["credit@1", "predict", "succeeded"] for answer in answers] == [20] * 6


def test_queues_tell_how_many_wait_and_how_long(engine: Engine) -> None:
    add_jobs(engine, 3, seconds_ago=100, state="queued")
    add_jobs(engine, 2, seconds_ago=10, state="queued")
    with engine.connect() as connection:
        labels = version_labels(connection)
        (queue,) = queues(connection, labels)
        assert files(connection, labels) == []
    assert (queue.model, queue.lane, queue.jobs) == ("credit@1", "interactive", 5)
    assert 100 <= queue.oldest_seconds < 130
