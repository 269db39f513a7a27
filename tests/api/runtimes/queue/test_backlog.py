"""How long queues are and how fast they drain."""

from collections.abc import Iterator

import pytest
from fakeredis import FakeRedis
from redis import Redis
from sqlalchemy import Engine

import api.runtimes.queue.backlog
from api.runtimes.queue.backlog import Backlog
from scripts.servers.postgres import Postgres
from scripts.servers.processes import wait_until
from shared.broker.app import drained_key
from shared.jobs import transitions as jobs
from tests.support.databases import empty, end, postgres_engine, queue, refusing_redis, submission, take


@pytest.fixture(scope="module")
def database(session_postgres: Postgres) -> Iterator[Engine]:
    with postgres_engine(session_postgres, "backlog") as engine:
        yield engine


@pytest.fixture
def redis() -> Iterator[Redis]:
    with FakeRedis() as client:
        yield client


class Clock:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(api.runtimes.queue.backlog, "time", clock)
    return clock


@pytest.fixture
def backlog(database: Engine, redis: Redis, clock: Clock) -> Backlog:
    empty(database)
    return Backlog(database, redis, max_queued=10)


def add_jobs(database: Engine, count: int, **changes) -> None:
    with database.connect() as connection:
        jobs.submit(connection, [submission(**changes) for _ in range(count)])


def drain(database: Engine, redis: Redis, count: int) -> None:
    """End jobs as a worker does."""
    with database.connect() as connection:
        done = end(connection, take(connection, max_jobs=count))
    assert len(done) == count
    redis.incrby(drained_key("interactive", 1), count)


def test_nothing_is_known_before_the_first_sample(backlog):
    assert backlog.queued("interactive", 1) == 0
    assert not backlog.is_full("interactive", 1)
    assert backlog.place("interactive", 1, position=1).eta_seconds is None
    assert backlog.place("interactive", 1, position=1).retry_after == 1


def test_queues_are_counted_apart(backlog, database):
    add_jobs(database, 3)
    add_jobs(database, 2, lane="bulk")
    add_jobs(database, 1, model_version_id=2)
    backlog._sample()
    assert [backlog.queued("interactive", 1), backlog.queued("bulk", 1), backlog.queued("interactive", 2)] == [3, 2, 1]


def test_queue_that_was_emptied_counts_nothing_again(backlog, database, clock):
    add_jobs(database, 3)
    backlog._sample()
    empty(database)
    clock.now += 1
    backlog._sample()
    assert backlog.queued("interactive", 1) == 0


def test_queue_is_full_at_its_limit_and_others_are_not(backlog, database, clock):
    add_jobs(database, 9)
    backlog._sample()
    assert not backlog.is_full("interactive", 1)
    add_jobs(database, 30)
    clock.now += 1
    backlog._sample()
    assert backlog.is_full("interactive", 1)
    assert backlog.queued("interactive", 1) == 10  # counting stops there
    assert not backlog.is_full("bulk", 1)


def test_rate_is_what_workers_drained_while_there_was_a_backlog(backlog, database, redis, clock):
    add_jobs(database, 8)
    backlog._sample()
    drain(database, redis, 4)
    clock.now += 2
    backlog._sample()
    assert backlog.place("interactive", 1, position=6).eta_seconds == 3.0  # two a second
    assert backlog.place("interactive", 1, position=6).retry_after == 3
    assert backlog.place("interactive", 1, position=1).retry_after == 1
    assert backlog.place("interactive", 1, position=100_000).retry_after == 60


def test_rate_follows_slowly(backlog, database, redis, clock):
    add_jobs(database, 9)
    backlog._sample()
    for drained in (1, 6):
        drain(database, redis, drained)
        clock.now += 1
        backlog._sample()
    assert backlog.place("interactive", 1, position=2).eta_seconds == 1.0  # 1 + 0.2 * (6 - 1) = 2 a second


def test_idle_time_tells_nothing_of_the_rate(backlog, database, redis, clock):
    add_jobs(database, 4)
    backlog._sample()
    drain(database, redis, 4)
    clock.now += 1
    backlog._sample()
    assert backlog.place("interactive", 1, position=1).eta_seconds is None


def test_counter_that_was_lost_with_redis_is_no_negative_rate(backlog, database, redis, clock):
    redis.set(drained_key("interactive", 1), 1_000_000)
    add_jobs(database, 8)
    backlog._sample()
    redis.flushall()
    clock.now += 1
    backlog._sample()
    assert backlog.place("interactive", 1, position=1).eta_seconds is None
    drain(database, redis, 2)
    clock.now += 1
    backlog._sample()
    assert backlog.place("interactive", 1, position=4).eta_seconds == 2.0


def test_workers_that_stand_still_give_no_promise(backlog, database, redis, clock):
    add_jobs(database, 8)
    for _ in range(3):
        clock.now += 1
        backlog._sample()
    assert backlog.place("interactive", 1, position=1).eta_seconds is None


def test_queue_is_seen_full_also_while_redis_is_down(database, clock):
    """The limit protects the database: it must not depend on Redis."""
    empty(database)
    with refusing_redis() as refusing:
        backlog = Backlog(database, refusing, max_queued=3)
        for lane in ("interactive", "bulk"):
            add_jobs(database, 5, lane=lane)
        with pytest.raises(Exception, match="refused"):
            backlog._sample()
        assert backlog.is_full("interactive", 1)
        assert backlog.is_full("bulk", 1)


def test_thread_samples_by_itself_and_survives_what_fails(database, redis, monkeypatch):
    empty(database)
    monkeypatch.setattr(api.runtimes.queue.backlog, "SAMPLE_SECONDS", 0.02)
    backlog = Backlog(database, redis, max_queued=10)
    calls = []
    good = backlog._sample

    def sample() -> None:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionResetError
        good()

    monkeypatch.setattr(backlog, "_sample", sample)
    with database.connect() as connection:
        queue(connection)
    backlog.start()
    try:
        assert wait_until(lambda: backlog.queued("interactive", 1) == 1, timeout=30)
    finally:
        backlog.stop()
