"""error_logs by its writer: no entry ends it, no flood fills the table, old entries go, stopping never blocks."""

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, delete, insert, select, update

from api.logs import error_log
from api.logs.error_log import ErrorLogWriter
from scripts.servers.postgres import Postgres
from shared.database.clock import clock
from shared.faults import Fault
from shared.observability.metrics import LOST_LOG_ENTRIES, Metrics, sample_key
from shared.tables import ErrorLog
from tests.support.databases import either_engine


def entry(**changed: Any) -> dict[str, Any]:
    return {
        "request_id": "r",
        "method": "GET",
        "path": "/nowhere",
        "status": 404,
        "code": "not_found",
        "detail": "There is nothing at this path.",
        "faults": None,
        "job_id": None,
        "owner": None,
    } | changed


@pytest.fixture(scope="module", params=["postgresql", "sqlite"])
def database(
    request: pytest.FixtureRequest, session_postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    with either_engine(request.param, "error_logs", session_postgres, tmp_path_factory.mktemp("error_logs")) as engine:
        yield engine


@pytest.fixture
def engine(database: Engine) -> Engine:
    with database.begin() as connection:
        connection.execute(delete(ErrorLog))
    return database


@pytest.fixture
def writer(engine: Engine) -> Iterator[ErrorLogWriter]:
    one = ErrorLogWriter(engine, days=30, rows=1_000, is_open=False)
    one.start()
    yield one
    one.stop()
    assert not one.is_alive


def stored(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(ErrorLog.__table__).order_by(ErrorLog.id)))


@pytest.mark.parametrize(
    "bad",
    [
        entry(path="/a\x00b\ud800"),
        entry(detail="The parameter `\x00`: is unknown."),
        entry(faults=[Fault("/query/\x00", "unknown", "is \x00\udfff no parameter")]),
        entry(method="\x00" * 50),
        entry(path="/" + "a" * 1_000_000, detail="b" * 1_000_000, faults=[Fault("c" * 9_999, "x", "d" * 9_999)] * 100),
    ],
    ids=["path", "detail", "faults", "method", "large"],
)
def test_text_that_no_database_stores_is_stored_without_it(engine, writer, bad):
    writer.add(bad)
    writer.add(entry(path="/after"))
    writer.stop()
    first, second = stored(engine)
    assert second.path == "/after"
    assert len(first.path) <= 200
    assert len(str(first)) < 100 * 700 + 3_000
    assert "\x00" not in str(tuple(first))


def test_entry_that_cannot_be_written_costs_no_other(engine, writer, caplog):
    caplog.set_level(logging.ERROR)
    for place in range(5):
        bad = {2: {"job_id": object()}, 3: {"code": object()}}.get(place, {})
        writer.add(entry(path=f"/{place}", **bad))
    writer.stop()
    assert [row.path for row in stored(engine)] == ["/0", "/1", "/4"]
    assert caplog.text.count("a refusal was not stored") == 2


def test_entries_that_are_lost_are_counted_in_the_metrics(engine, monkeypatch):
    monkeypatch.setattr(error_log, "MAX_WAITING", 3)
    metrics = Metrics()
    writer = ErrorLogWriter(engine, days=30, rows=1_000, is_open=True, metrics=metrics)
    for place in range(10):
        writer.add(entry(path=f"/{place}", **({"job_id": object()} if place == 1 else {})))
    writer.start()
    writer.stop()
    assert [row.path for row in stored(engine)] == ["/0", "/2"]
    assert metrics.take() == {sample_key(LOST_LOG_ENTRIES, ("error_logs",)): 8}


def test_flood_of_unknown_callers_is_counted(engine, writer):
    for place in range(5_000):
        writer.add(entry(path=f"/{place}" + "x" * 10_000, status=401 + place % 2 * 3, code=f"code{place % 2}"))
    writer.add(entry(owner="k1", path="/mine"))
    writer.stop()
    rows = stored(engine)
    assert len(rows) == error_log.PER_MINUTE_UNKNOWN + 3
    assert sum(row.times for row in rows) == 5_001
    assert [row.times for row in rows if row.path == error_log.MANY_PATHS] == [2_450, 2_450]
    assert [row.owner for row in rows if row.path == "/mine"] == ["k1"]


def test_kinds_that_a_caller_makes_up_are_bounded(engine, writer):
    for place in range(20_000):
        writer.add(entry(method=f"M{place}"))
    writer.stop()
    rows = stored(engine)
    assert len(rows) <= error_log.PER_MINUTE_UNKNOWN + error_log.MAX_KINDS + 1
    assert sum(row.times for row in rows) == 20_000


def test_old_entries_and_those_beyond_the_limit_are_deleted(engine):
    with engine.begin() as connection:
        connection.execute(insert(ErrorLog), [entry(path=f"/{i}") for i in range(1_500)])
        is_old = ErrorLog.path.in_([f"/{i}" for i in range(1_400, 1_410)])
        connection.execute(update(ErrorLog).where(is_old).values(created_at=clock(connection, -31 * 86_400)))
    writer = ErrorLogWriter(engine, days=30, rows=1_000, is_open=True)
    writer.start()
    writer.add(entry(path="/newest"))
    deadline = time.monotonic() + 20
    while len(stored(engine)) > 990 and time.monotonic() < deadline:
        time.sleep(0.05)
    writer.stop()
    expected = {f"/{i}" for i in range(501, 1_500) if not 1_400 <= i < 1_410} | {"/newest"}
    assert {row.path for row in stored(engine)} == expected


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # it waits for five seconds
def test_stopping_never_blocks_even_where_the_thread_is_stuck_and_the_queue_full(engine, monkeypatch):
    writer = ErrorLogWriter(engine, days=30, rows=1_000, is_open=True)
    stuck, release = threading.Event(), threading.Event()

    def hang(_entries: list[dict[str, Any]]) -> None:
        stuck.set()
        release.wait(30)

    monkeypatch.setattr(writer, "_store", hang)
    writer.start()
    writer.add(entry())
    assert stuck.wait(10)
    for _ in range(error_log.MAX_WAITING + 10):
        writer.add(entry())
    began = time.monotonic()
    writer.stop()
    assert time.monotonic() - began < 7
    release.set()
