"""The heartbeat of a worker process: leases hold while it scores, and what is stuck is ended."""

import signal
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, text

import worker.heartbeat
from scripts.servers.postgres import Postgres
from scripts.servers.processes import wait_until
from shared.config.settings import Settings
from tests.support.databases import empty, job_row, postgres_engine, queue, take
from worker.heartbeat import Heartbeat


@pytest.fixture(scope="module")
def database(session_postgres: Postgres) -> Iterator[Engine]:
    with postgres_engine(session_postgres, "heartbeat") as engine:
        yield engine


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The signals that the process would have sent to itself."""
    sent: list[int] = []

    class Os:
        getpid = staticmethod(lambda: 1)

        @staticmethod
        def kill(pid: int, number: int) -> None:
            sent.append(number)

    monkeypatch.setattr(worker.heartbeat, "os", Os)
    return sent


class Loaded:
    """The loaded models, which may be looked at in a bad moment."""

    error: Exception | None = None

    def __call__(self) -> list[str]:
        if self.error is not None:
            raise self.error
        return ["m@1"]


@pytest.fixture
def loaded() -> Loaded:
    return Loaded()


@pytest.fixture
def heartbeat(database: Engine, kills: list[int], loaded: Callable[[], list[str]]) -> Iterator[Heartbeat]:
    empty(database)
    with database.connect() as connection:
        connection.exec_driver_sql("DELETE FROM workers")
    settings = Settings(runtime="sync", lease_seconds=15, heartbeat_seconds=0.1)
    heartbeat = Heartbeat(database, settings, name="here:1", lanes=["bulk", "maintenance"], loaded=loaded)
    yield heartbeat
    heartbeat.stop()


def soon(what: Callable[[], bool]) -> bool:
    return wait_until(what, timeout=30, every=0.02)


def test_worker_shows_that_it_lives_with_its_lanes_and_models(heartbeat, database):
    heartbeat.start()

    def seen() -> list:
        with database.connect() as connection:
            return list(connection.execute(text("SELECT id, lanes, models, seen_at FROM workers")))

    assert soon(lambda: len(seen()) == 1)
    (first,) = seen()
    assert tuple(first)[:3] == ("here:1", "bulk,maintenance", ["m@1"])
    assert soon(lambda: seen()[0].seen_at > first.seen_at)


def test_leases_are_renewed_while_claims_are_held_and_no_longer(heartbeat, database):
    with database.connect() as connection:
        job_id = queue(connection)
        claims = take(connection, lease_seconds=1.0)
        before = job_row(connection, job_id)["lease_expires_at"]
        with heartbeat.hold(claims):
            heartbeat.start()
            assert soon(lambda: job_row(connection, job_id)["lease_expires_at"] > before)
        time.sleep(0.5)
        after = job_row(connection, job_id)["lease_expires_at"]
        time.sleep(0.5)
        assert job_row(connection, job_id)["lease_expires_at"] == after


def test_job_that_runs_alone_past_its_timeout_fails_and_its_process_ends(heartbeat, database, kills):
    with database.connect() as connection:
        job_id = queue(connection, timeout_seconds=0.1)
        with heartbeat.hold(take(connection)):
            heartbeat.start()
            assert soon(lambda: bool(kills))
        row = job_row(connection, job_id)
    assert (row["state"], row["error"]["code"]) == ("failed", "timeout")
    assert kills[0] == signal.SIGKILL


def test_jobs_that_are_stuck_together_are_given_back_as_suspects(heartbeat, database, kills):
    with database.connect() as connection:
        stuck = [queue(connection, timeout_seconds=30.0), queue(connection, timeout_seconds=0.1)]
        with heartbeat.hold(take(connection)):
            heartbeat.start()
            assert soon(lambda: bool(kills))
        rows = [job_row(connection, job_id) for job_id in stuck]
    assert [(row["state"], row["crash_count"], row["attempt"]) for row in rows] == [("queued", 1, 0)] * 2


def test_claim_within_its_timeout_is_left_alone(heartbeat, database, kills):
    with database.connect() as connection:
        queue(connection, timeout_seconds=30.0)
        with heartbeat.hold(take(connection)):
            heartbeat.start()
            time.sleep(0.5)
    assert kills == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_error_that_nobody_foresaw_does_not_stop_the_heartbeat(heartbeat, database, kills, loaded):
    """A dict of models that changes while it is read, say: without a heartbeat, nothing ends a model that loops."""
    loaded.error = RuntimeError("dictionary changed size during iteration")
    heartbeat.start()
    time.sleep(0.5)
    loaded.error = None
    with database.connect() as connection:
        queue(connection, timeout_seconds=0.1)
        with heartbeat.hold(take(connection)):
            assert soon(lambda: bool(kills))


def test_alarm_is_set_for_the_first_deadline_and_taken_back_when_all_is_scored(database):
    """The kernel's own: it goes off when native code keeps the heartbeat from running."""
    set_to: list[float] = []
    settings = Settings(runtime="sync")
    heartbeat = Heartbeat(database, settings, name="here:1", lanes=[], loaded=list, alarm=set_to.append)
    with database.connect() as connection:
        empty(database)
        queue(connection, timeout_seconds=30.0)
        long = take(connection)
        queue(connection, timeout_seconds=5.0)
        short = take(connection)
    with heartbeat.hold(long) as one:
        assert 30.5 < set_to[-1] <= 31
        with heartbeat.hold(short):
            assert 5.5 < set_to[-1] <= 6
        assert 30 < set_to[-1] <= 31
        heartbeat.unlimit(one)
        assert set_to[-1] == 0
        assert heartbeat.is_holding()
    assert set_to[-1] == 0
    assert not heartbeat.is_holding()
