"""Wake-ups: one is pending at a time, and one that waits in its lane is not sent again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from fakeredis import FakeRedis
from kombu.exceptions import OperationalError
from redis import Redis

from scripts.servers.redis import Redis as RedisServer
from shared.broker.app import make_app, make_redis, wake_key
from shared.broker.wakeups import PENDING_SECONDS, list_waiting, send_wakeup
from tests.support.databases import settings_of
from tests.support.wakeups import MESSAGE, Broker


@pytest.fixture
def redis() -> Iterator[Redis]:
    with FakeRedis() as client:
        yield client


@pytest.fixture
def broker() -> Broker:
    return Broker()


def test_wakeup_says_only_which_lane_and_version_has_work(redis, broker):
    assert send_wakeup(redis, broker, lane="interactive", model_version_id=1)
    assert broker.sent == [MESSAGE]


def test_second_wakeup_is_not_sent_while_one_is_pending(redis, broker):
    assert [send_wakeup(redis, broker, lane="interactive", model_version_id=1) for _ in range(3)] == [
        True,
        False,
        False,
    ]
    assert send_wakeup(redis, broker, lane="bulk", model_version_id=1)
    assert send_wakeup(redis, broker, lane="interactive", model_version_id=2)
    assert len(broker.sent) == 3


def test_wakeup_is_sent_again_once_its_key_is_taken(redis, broker):
    send_wakeup(redis, broker, lane="interactive", model_version_id=1)
    redis.delete(wake_key("interactive", 1))
    assert send_wakeup(redis, broker, lane="interactive", model_version_id=1)


def test_pending_wakeup_that_was_lost_holds_the_next_one_back_for_seconds_only(redis, broker):
    send_wakeup(redis, broker, lane="interactive", model_version_id=1)
    assert 0 < redis.pttl(wake_key("interactive", 1)) <= PENDING_SECONDS * 1000


def test_wakeup_that_could_not_be_sent_leaves_nothing_pending(redis, broker):
    broker.error = OperationalError("refused")
    with pytest.raises(OperationalError):
        send_wakeup(redis, broker, lane="interactive", model_version_id=1)
    assert not redis.exists(wake_key("interactive", 1))


# ── messages as Celery writes them into a real Redis ─────────────────────────────────────────────────────────────


@pytest.fixture
def real(tmp_path: Path) -> Iterator[tuple[Redis, Celery]]:
    """A Redis of its own: the workers of other tests would take the messages."""
    with RedisServer(tmp_path / "redis") as server:
        address = "postgresql://nobody@127.0.0.1:1/none"
        with settings_of(RUNTIME="queue", DATABASE_URL=address, REDIS_URL=server.url):
            yield make_redis(), make_app(publisher=True)


def test_waiting_messages_name_their_versions_and_foreign_ones_name_none(real):
    redis, app = real
    assert list_waiting(redis, "bulk") == set()
    for version in (7, 8):
        assert send_wakeup(redis, app, lane="bulk", model_version_id=version)
    assert send_wakeup(redis, app, lane="interactive", model_version_id=9)
    for message in (b"", b"no JSON", b"[]", b'{"body": "*"}', b'{"body": "W10="}', b'{"body": 1}'):
        redis.lpush("bulk", message)
    assert list_waiting(redis, "bulk") == {7, 8}
    assert list_waiting(redis, "interactive") == {9}


def test_message_that_waits_longer_than_its_key_lives_is_not_sent_twice(real):
    redis, app = real
    assert send_wakeup(redis, app, lane="bulk", model_version_id=7)
    redis.delete(wake_key("bulk", 7))  # as after PENDING_SECONDS
    assert not send_wakeup(redis, app, lane="bulk", model_version_id=7)
    assert not send_wakeup(redis, app, lane="bulk", model_version_id=7, again=True)
    assert redis.llen("bulk") == 1
