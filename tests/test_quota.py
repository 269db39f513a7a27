"""How often a caller may submit, and whose request it is."""

import pytest
from starlette.requests import Request

from api import quota
from api.quota import Quota, address_of
from shared.errors import TooManyRequests


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def spent(some: Quota, caller: str, times: int) -> int:
    """Return how many of so many submissions were let through."""
    passed = 0
    for _ in range(times):
        try:
            some.spend(caller)
        except TooManyRequests:
            continue
        passed += 1
    return passed


def test_no_rate_is_no_limit():
    assert spent(Quota(0, 1), "a", 1_000) == 1_000


def test_burst_passes_at_once_and_then_as_many_as_the_rate_refills():
    clock = Clock()
    some = Quota(60, 5, clock=clock)
    assert spent(some, "a", 20) == 5
    clock.now += 3
    assert spent(some, "a", 20) == 3
    clock.now += 3_600
    assert spent(some, "a", 20) == 5


def test_each_caller_has_a_bucket_of_its_own():
    some = Quota(60, 5, clock=Clock())
    assert (spent(some, "a", 9), spent(some, "b", 9)) == (5, 5)


def test_refused_caller_is_told_when_to_come_back_and_is_served_then():
    clock = Clock()
    some = Quota(6, 1, clock=clock)  # one in ten seconds
    some.spend("a")
    for later, wait in ((0.0, 10), (4.5, 6), (4.5, 1)):
        clock.now += later
        with pytest.raises(TooManyRequests, match="6 submissions a minute") as refused:
            some.spend("a")
        assert refused.value.retry_after == wait
    clock.now += 1
    some.spend("a")


def test_steady_caller_at_the_rate_is_never_refused():
    clock = Clock()
    some = Quota(7, 1, clock=clock)
    for _ in range(1_000):
        some.spend("a")
        clock.now += 60 / 7


def test_more_addresses_than_are_remembered_push_out_the_longest_silent_one(monkeypatch):
    monkeypatch.setattr(quota, "MAX_CALLERS", 3)
    some = Quota(60, 1, clock=Clock())
    for caller in ("a", "b", "c", "d"):
        some.spend(caller)
    assert spent(some, "b", 1) == 0
    assert spent(some, "a", 1) == 1


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
