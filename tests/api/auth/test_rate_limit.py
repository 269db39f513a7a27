"""How much a caller may ask for, and whose request it is."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from redis import Redis
from starlette.requests import Request

from api.auth import buckets
from api.auth.buckets import MAX_DEBT
from api.auth.rate_limit import READS_PER_ROW, Quota, address_of
from api.auth.shared_buckets import SharedBuckets
from scripts.servers.redis import Redis as RedisServer
from shared.errors import TooManyRequests
from tests.support.databases import refusing_redis


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def rows_spent(quota: Quota, caller: str, times: int) -> int:
    """Return how many of so many submissions of one row were let through."""
    return _passed(lambda: quota.spend_row(caller), times)


def reads_spent(quota: Quota, caller: str, times: int) -> int:
    """Return how many of so many requests that read were let through."""
    return _passed(lambda: quota.spend_read(caller), times)


def _passed(spend: Callable[[], Coroutine[Any, Any, None]], times: int) -> int:
    async def spend_all() -> int:
        passed = 0
        for _ in range(times):
            with contextlib.suppress(TooManyRequests):
                await spend()
                passed += 1
        return passed

    return asyncio.run(spend_all())


def test_no_rate_is_no_limit():
    quota = Quota(0, 1)
    asyncio.run(quota.owe_rows("a", 1_000))
    assert rows_spent(quota, "a", 1_000) == reads_spent(quota, "a", 1_000) == 1_000


def test_burst_passes_at_once_and_then_as_many_as_the_rate_refills():
    clock = Clock()
    quota = Quota(60, 5, clock=clock)
    assert rows_spent(quota, "a", 20) == 5
    clock.now += 3
    assert rows_spent(quota, "a", 20) == 3
    clock.now += 3_600
    assert rows_spent(quota, "a", 20) == 5


def test_each_caller_has_a_bucket_of_its_own():
    quota = Quota(60, 5, clock=Clock())
    assert (rows_spent(quota, "a", 9), rows_spent(quota, "b", 9)) == (5, 5)


def test_refused_caller_is_told_when_to_come_back_and_is_served_then():
    clock = Clock()
    quota = Quota(6, 1, clock=clock)  # one in ten seconds
    assert rows_spent(quota, "a", 1) == 1
    for later, wait in ((0.0, 10), (4.5, 6), (4.5, 1)):
        clock.now += later
        with pytest.raises(TooManyRequests, match="6 rows a minute") as refused:
            asyncio.run(quota.spend_row("a"))
        assert refused.value.retry_after == wait
    clock.now += 1
    assert rows_spent(quota, "a", 1) == 1


def test_steady_caller_at_the_rate_is_never_refused():
    clock = Clock()
    quota = Quota(7, 1, clock=clock)
    for _ in range(100):
        assert rows_spent(quota, "a", 1) == 1
        clock.now += 60 / 7


def test_batch_is_let_through_whole_and_counts_by_its_rows():
    clock = Clock()
    quota = Quota(60, 5, clock=clock)
    assert rows_spent(quota, "a", 1) == 1
    asyncio.run(quota.owe_rows("a", 99))
    assert rows_spent(quota, "a", 1) == 0
    clock.now += 94.9  # of the 100 rows, five were there at the beginning
    assert rows_spent(quota, "a", 1) == 0
    clock.now += 1.2
    assert rows_spent(quota, "a", 2) == 1


def test_rows_of_a_file_are_owed_by_files_alone_and_cost_a_twentieth():
    clock = Clock()
    quota = Quota(60, 20, clock=clock)  # as on a Space
    asyncio.run(quota.spend_file("a"))
    asyncio.run(quota.owe_file_rows("a", 19_999))
    assert rows_spent(quota, "a", 20) == 20
    with pytest.raises(TooManyRequests, match="1200 rows of files a minute") as refused:
        asyncio.run(quota.spend_file("a"))
    assert refused.value.retry_after == 981  # (20,000 + 1 - 400) rows at 20 a second
    clock.now += 981
    asyncio.run(quota.spend_file("a"))
    asyncio.run(quota.owe_file_rows("a", 5_000_000))
    clock.now += MAX_DEBT + 1
    asyncio.run(quota.spend_file("a"))


def test_nobody_waits_longer_than_an_hour():
    clock = Clock()
    quota = Quota(60, 5, clock=clock)
    asyncio.run(quota.owe_rows("a", 1_000_000))
    clock.now += MAX_DEBT
    assert rows_spent(quota, "a", 1) == 0
    clock.now += 1.1
    assert rows_spent(quota, "a", 9) == 1


def test_guess_costs_as_much_as_many_reads():
    clock = Clock()
    quota = Quota(60, 2, clock=clock)
    for guesses in (1, 1, 0):
        assert reads_spent(quota, "a", 1) == guesses
        if guesses:
            asyncio.run(quota.owe_guess("a"))
    with pytest.raises(TooManyRequests, match="unknown ids count 20 times"):
        asyncio.run(quota.spend_read("a"))
    assert rows_spent(quota, "a", 2) == 2  # which reads do not touch
    assert reads_spent(quota, "b", 100) == 2 * READS_PER_ROW


def test_more_addresses_than_are_remembered_push_out_the_longest_silent_one(monkeypatch):
    monkeypatch.setattr(buckets, "MAX_CALLERS", 3)
    quota = Quota(60, 1, clock=Clock())
    for caller in ("a", "b", "c", "d"):
        assert rows_spent(quota, caller, 1) == 1
    assert rows_spent(quota, "b", 1) == 0
    assert rows_spent(quota, "a", 1) == 1


# ── all processes ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def redis(session_redis: RedisServer) -> Iterator[Redis]:
    client = Redis.from_url(session_redis.url)
    client.delete(*(f"guichet:quota:{kind}:{caller}" for kind in ("rows", "reads") for caller in "ab"))
    yield client
    client.close()


def test_processes_share_their_buckets_in_redis(redis: Redis) -> None:
    one, other = (Quota(0.1, 6, shared=SharedBuckets(redis)) for _ in range(2))
    assert rows_spent(one, "a", 4) + rows_spent(other, "a", 9) == 6
    with pytest.raises(TooManyRequests) as refused:
        asyncio.run(one.spend_row("a"))
    assert 590 <= refused.value.retry_after <= 600
    asyncio.run(one.owe_rows("b", 1_000_000))
    with pytest.raises(TooManyRequests) as refused:
        asyncio.run(other.spend_row("b"))
    assert MAX_DEBT <= refused.value.retry_after <= MAX_DEBT + 600
    assert 0 < redis.pttl("guichet:quota:rows:a") <= 3_600_000
    assert redis.ttl("guichet:quota:rows:b") <= 6 * 600 + MAX_DEBT + 1


def test_process_counts_alone_while_redis_is_away(caplog):
    away = refusing_redis()
    quota = Quota(60, 3, shared=SharedBuckets(away), clock=Clock())
    assert rows_spent(quota, "a", 9) == 3
    assert len(caplog.records) == 1  # it is not asked again for each request


# ── whose address ────────────────────────────────────────────────────────────────────────────────────────────────


def request_of(peer: str | None, *forwarded: str) -> Request:
    headers = [(b"x-forwarded-for", line.encode()) for line in forwarded]
    return Request({"type": "http", "client": None if peer is None else (peer, 1), "headers": headers})


@pytest.mark.parametrize(
    ("peer", "hops", "forwarded", "address"),
    [
        ("192.0.2.1", 0, [], "192.0.2.1"),
        ("192.0.2.1", 0, ["198.51.100.9"], "192.0.2.1"),  # nobody's word is taken
        ("10.0.0.1", 1, ["198.51.100.9"], "198.51.100.9"),
        ("10.0.0.1", 1, ["1.1.1.1, 2.2.2.2, 198.51.100.9"], "198.51.100.9"),  # the caller made up the others
        ("10.0.0.1", 1, ["1.1.1.1", "198.51.100.9"], "198.51.100.9"),
        ("10.0.0.1", 2, ["1.1.1.1, 198.51.100.9, 10.0.0.7"], "198.51.100.9"),
        ("10.0.0.1", 2, ["198.51.100.9"], "198.51.100.9"),
        ("10.0.0.1", 1, [], "10.0.0.1"),
        ("10.0.0.1", 1, [" , "], "10.0.0.1"),
        ("10.0.0.1", 1, ["no address"], "unknown"),
        (None, 0, [], "unknown"),
        ("2001:db8:1:2:3:4:5:6", 0, [], "2001:db8:1:2::"),  # one customer has them all
        ("2001:db8:1:2::1", 0, [], "2001:db8:1:2::"),
        ("::ffff:192.0.2.1", 0, [], "192.0.2.1"),
        ("10.0.0.1", 1, ["[2001:db8::1]"], "2001:db8::"),
        ("10.0.0.1", 1, ["[2001:db8::1]:4711"], "2001:db8::"),
        ("10.0.0.1", 1, ["198.51.100.9:4711"], "198.51.100.9"),
        ("10.0.0.1", 1, ["198.51.100.9:47:11"], "unknown"),
    ],
)
def test_address_is_what_the_outermost_proxy_of_ours_heard(peer, hops, forwarded, address):
    assert address_of(request_of(peer, *forwarded), proxy_hops=hops) == address
