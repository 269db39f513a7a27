"""The thread that sends wake-ups: none is lost for good, and a dead Redis costs nobody anything."""

import time
from collections.abc import Callable, Iterator

import pytest
from fakeredis import FakeRedis, FakeServer
from kombu.exceptions import OperationalError
from redis import ConnectionError as RedisConnectionError
from redis import Redis

import api.runtimes.queue.wakeup_sender
from api.runtimes.queue.wakeup_sender import FAILURES, Notifier
from scripts.servers.processes import wait_until
from tests.support.databases import refusing_redis
from tests.support.wakeups import MESSAGE, Broker

TITLES = {1: "churn@1"}  # by model version id


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def redis(server: FakeServer) -> Iterator[Redis]:
    with FakeRedis(server=server) as client:
        yield client


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def notifier(redis: Redis, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notifier]:
    monkeypatch.setattr(api.runtimes.queue.wakeup_sender, "OPEN_SECONDS", 0.3)
    notifier = Notifier(redis, broker, TITLES.get)  # type: ignore[arg-type]
    notifier.start()
    yield notifier
    notifier.stop()


def soon(what: Callable[[], bool]) -> bool:
    return wait_until(what, timeout=30, every=0.01)


def test_noted_work_is_sent_at_once(notifier, broker):
    notifier.notify("interactive", 1)
    assert soon(lambda: broker.sent == [MESSAGE])


def test_wakeup_has_the_title_of_its_model_version_or_none(notifier, broker):
    notifier.notify("interactive", 1)
    notifier.notify("interactive", 2)  # a version that this process has not read yet
    assert soon(lambda: len(broker.titles) == 2)
    assert dict(zip((args[1] for _, args, _ in broker.sent), broker.titles, strict=True)) == {1: "churn@1", 2: None}


def test_work_that_is_noted_often_wakes_once(notifier, broker):
    for _ in range(500):
        notifier.notify("interactive", 1)
    notifier.notify("bulk", 1)
    assert soon(lambda: len(broker.sent) == 2)
    time.sleep(0.05)
    assert sorted(queue for _, _, queue in broker.sent) == ["bulk", "interactive"]


def test_redis_that_works_is_reported_well(notifier):
    assert notifier.is_broker_up() is True


def test_breaker_opens_after_three_failures_and_asks_no_more_for_a_while(notifier, broker):
    broker.error = OperationalError("refused")
    notifier.notify("interactive", 1)
    assert soon(lambda: broker.tried == FAILURES)
    time.sleep(0.1)
    notifier.notify("bulk", 1)
    time.sleep(0.1)
    assert broker.tried == FAILURES
    assert notifier.is_broker_up() is False


def test_what_could_not_be_sent_is_sent_when_redis_is_back(notifier, broker):
    broker.error = OperationalError("refused")
    notifier.notify("interactive", 1)
    notifier.notify("bulk", 2)
    assert soon(lambda: broker.tried >= FAILURES)
    broker.error = None
    assert soon(lambda: len(broker.sent) == 2)
    assert {args for _, args, _ in broker.sent} == {("interactive", 1), ("bulk", 2)}
    assert soon(notifier.is_broker_up)


@pytest.mark.parametrize(
    "error", [RedisConnectionError("gone"), OperationalError("gone"), ConnectionResetError("gone"), TimeoutError()]
)
def test_any_way_in_which_redis_fails_is_survived(notifier, broker, error):
    broker.error = error
    notifier.notify("interactive", 1)
    assert soon(lambda: broker.tried >= FAILURES)
    broker.error = None
    assert soon(lambda: broker.sent == [MESSAGE])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_error_that_nobody_foresaw_does_not_end_the_thread(notifier, broker):
    """A thread that ends would leave every later job to recovery, in silence."""
    broker.error = RuntimeError("a mistake in a library")
    notifier.notify("interactive", 1)
    assert soon(lambda: broker.tried >= 1)
    broker.error = None
    assert soon(lambda: broker.sent == [MESSAGE])


def test_stop_sends_what_is_noted(redis, broker):
    notifier = Notifier(redis, broker, TITLES.get)
    for version in range(20):
        notifier.notify("interactive", version)
    notifier.start()
    notifier.stop()
    assert len(broker.sent) == 20


def test_stop_does_not_wait_for_a_dead_redis(redis, broker):
    broker.error = OperationalError("refused")
    notifier = Notifier(redis, broker, TITLES.get)
    notifier.start()
    notifier.notify("interactive", 1)
    assert soon(lambda: broker.tried == FAILURES)  # the breaker is open for five seconds now
    began = time.monotonic()
    notifier.stop()
    assert time.monotonic() - began < 1


def test_refusing_redis_is_noticed_quickly_and_noting_work_costs_nothing(broker):
    with refusing_redis() as refusing:
        notifier = Notifier(refusing, broker, TITLES.get)
        notifier.start()
        began = time.monotonic()
        assert notifier.is_broker_up() is False
        assert time.monotonic() - began < 1
        began = time.monotonic()
        for version in range(1000):
            notifier.notify("interactive", version)
        assert time.monotonic() - began < 0.5
        notifier.stop()
    assert broker.sent == []
