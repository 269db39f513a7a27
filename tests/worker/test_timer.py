"""The clock of a worker process: one of many does each thing at a time, and none of them is the only one."""

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis import ConnectionError as RedisConnectionError
from sqlalchemy import Engine, text

import worker.timer
from scripts.servers.postgres import Postgres
from scripts.servers.processes import wait_until
from shared.config.settings import Settings
from shared.database.engine import make_engine
from shared.observability.timed_tasks import RECOVER, is_recovery_late, note_done, recovery_age
from tests.support.databases import empty, job_row, postgres_engine, queue, take
from worker.maintenance.recovery import recover
from worker.runtime import Runtime
from worker.schedule import Timed, schedule
from worker.timer import Timer

SETTINGS = Settings(runtime="sync", recover_seconds=0.2, heartbeat_seconds=0.5)


class NoRedis:
    """A Redis that is gone."""

    def __getattr__(self, name: str) -> Any:
        raise RedisConnectionError("gone")


@pytest.fixture(scope="module")
def database(session_postgres: Postgres) -> Iterator[Engine]:
    with postgres_engine(session_postgres, "timer") as engine:
        yield engine


@pytest.fixture(scope="module")
def transactions(database: Engine) -> Iterator[Engine]:
    engine = make_engine(database.url.render_as_string(hide_password=False))
    yield engine
    engine.dispose()


@pytest.fixture
def runtime(database: Engine, transactions: Engine) -> Runtime:
    empty(database)
    with database.connect() as connection:
        connection.exec_driver_sql("DELETE FROM timed_tasks")
    settings = SimpleNamespace(
        engine=database, bulk_engine=transactions, settings=SETTINGS, redis=NoRedis(), app=None, name="here:1"
    )
    return cast("Runtime", settings)


def lost_job(engine: Engine) -> str:
    """Return a running job whose lease ran out a second ago."""
    with engine.connect() as connection:
        job_id = queue(connection)
        take(connection)
        connection.exec_driver_sql("UPDATE jobs SET lease_expires_at = now() - interval '1 second'")
    return job_id


def state_of(engine: Engine, job_id: str) -> str:
    with engine.connect() as connection:
        return str(job_row(connection, job_id)["state"])


def test_jobs_of_the_dead_are_taken_back_while_redis_is_gone(runtime, database):
    job_id = lost_job(database)
    timer = Timer(runtime, schedule(SETTINGS))
    timer.start()
    assert wait_until(lambda: state_of(database, job_id) == "queued", timeout=30)
    timer.stop()
    age = recovery_age(database)
    assert age is not None
    assert 0 <= age < 3


def test_one_of_many_processes_recovers_at_a_time_and_the_next_goes_on_when_it_dies(runtime, database, transactions):
    task = schedule(SETTINGS)[0]
    dying = transactions.connect()
    dying.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": task.lock})
    assert Timer(runtime, [task]).do(task) == "another process does it"
    dying.invalidate()  # as the kernel closes the connection of a process that was killed
    dying.close()
    job_id = lost_job(database)
    assert wait_until(lambda: Timer(runtime, [task]).do(task) != "another process does it", timeout=30)
    assert state_of(database, job_id) == "queued"
    assert Timer(runtime, [task]).do(task) == "another process has just done it"


def test_time_that_lies_ahead_because_a_clock_was_set_back_holds_nobody_up(runtime, database):
    with database.connect() as connection:
        note_done(connection, RECOVER)
        connection.exec_driver_sql("UPDATE timed_tasks SET done_at = now() + interval '1 day'")
    job_id = lost_job(database)
    task = schedule(SETTINGS)[0]
    Timer(runtime, [task]).do(task)
    assert state_of(database, job_id) == "queued"


def test_living_holders_get_the_time_to_renew_their_leases_after_the_database_was_silent(
    runtime, database, monkeypatch
):
    """Whoever is first when the database answers again must not take the claims of all who live."""
    job_id = lost_job(database)
    monkeypatch.setattr(worker.timer, "SLOW_SECONDS", -1.0)
    task = schedule(SETTINGS)[0]
    timer = Timer(runtime, [task])
    timer.do(task)
    assert state_of(database, job_id) == "running"
    monkeypatch.setattr(worker.timer, "SLOW_SECONDS", 10.0)

    def taken_back() -> bool:
        timer.do(task)
        return state_of(database, job_id) == "queued"

    began = time.monotonic()
    assert wait_until(taken_back, timeout=30, every=0.05)
    assert time.monotonic() - began > SETTINGS.heartbeat_seconds


def test_task_that_fails_is_tried_again(runtime):
    tried: list[float] = []

    def fail(_runtime: Runtime, _spare: bool) -> str:
        tried.append(time.monotonic())
        raise RuntimeError("a mistake")

    timer = Timer(runtime, [Timed("broken", 1, 0.05, fail)])
    timer.start()
    assert wait_until(lambda: len(tried) >= 3, timeout=30)
    timer.stop()


def test_recovery_says_what_it_did(runtime, database):
    lost_job(database)
    assert recover(runtime) == "1 taken back, 0 expired, 1 queues with ready jobs"


@pytest.mark.parametrize(("age", "late"), [(None, True), (0.1, False), (4.9, False), (17.0, True)])
def test_recovery_is_late_after_three_rounds_without_it(age, late):
    assert is_recovery_late(Settings(runtime="sync", recover_seconds=5), age) is late
