"""Connections that fall silent, and acknowledgements that are lost: noticed and replaced, without anybody's help."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx2
import pytest

from tests.faults.conftest import Service
from tests.faults.models import GOOD
from tests.faults.proxy import Line, Proxy, proxy_to

STATEMENT_SECONDS = 30.0
GOOD_ROW = {"mark": GOOD, "chance": 0.25}


def through(service: Service, *, postgres: Proxy | None = None, redis: Proxy | None = None) -> dict[str, str]:
    """Return the addresses of the servers on the other side of the proxies."""
    env = {}
    if postgres is not None:
        env["DATABASE_URL"] = f"postgresql+psycopg2://postgres@127.0.0.1:{postgres.port}/idle"
    if redis is not None:
        address = service.stack.env["REDIS_URL"]
        env["REDIS_URL"] = address.replace(address.rpartition(":")[2].partition("/")[0], str(redis.port))
    return env


def predict(service: Service, *, wait: float = 20) -> tuple[int, float]:
    """Ask for one prediction; return the status (0: no answer) and how long it took, in seconds."""
    began = time.monotonic()
    with httpx2.Client(base_url=service.stack.url, headers={"Prefer": f"wait={wait:g}"}, timeout=wait + 15) as client:
        status = 0
        with suppress(httpx2.TransportError):
            status = client.post("/models/trap/predict", json={"features": GOOD_ROW}).status_code
    return status, time.monotonic() - began


def until_it_predicts(service: Service, *, seconds: float) -> float:
    """Ask again and again until there is a prediction; return how long that took. Fails after so many seconds."""
    began = time.monotonic()
    answers: list[tuple[int, float]] = []
    while time.monotonic() - began < seconds:
        answers.append(predict(service, wait=1))
        if answers[-1][0] == 200:
            return time.monotonic() - began
        time.sleep(0.2)
    raise AssertionError(f"no prediction within {seconds} s: {answers}\n{service.states()}\n{service.stack.logs(15)}")


def until_it_is_as_quick_as(service: Service, before: float, *, seconds: float) -> None:
    """Ask until predictions take no longer than before. Fails after so many seconds."""
    began = time.monotonic()
    while (now := usual_seconds(service)) > max(2 * before, 0.5):
        assert time.monotonic() - began < seconds, (before, now)


def usual_seconds(service: Service) -> float:
    """Return the median of what three predictions take."""
    return sorted(predict(service)[1] for _ in range(3))[1]


@pytest.mark.long
def test_connections_to_the_database_that_fall_silent_are_replaced_in_every_process(quiet: Service) -> None:
    stack = quiet.stack
    with proxy_to(stack.postgres) as postgres:  # type: ignore[arg-type]
        env = through(quiet, postgres=postgres)
        stack.start_api(**env)
        stack.start_worker(**env)
        stack.wait_for_workers(1)
        assert predict(quiet)[0] == 200
        before = usual_seconds(quiet)
        assert postgres.fall_silent() > 2
        assert until_it_predicts(quiet, seconds=STATEMENT_SECONDS + 10) > 1  # it was noticed
        until_it_is_as_quick_as(quiet, before, seconds=20)
        quiet.wait_until_all_ended(seconds=20)
        assert quiet.rows("SELECT DISTINCT state FROM jobs") == [("succeeded",)]


@pytest.mark.long
def test_connections_to_redis_that_fall_silent_are_replaced_in_every_process(quiet: Service) -> None:
    stack = quiet.stack
    with proxy_to(stack.redis) as redis:  # type: ignore[arg-type]
        env = through(quiet, redis=redis)
        stack.start_api(**env)
        stack.start_worker(**env)
        stack.wait_for_workers(1)
        assert predict(quiet)[0] == 200
        before = usual_seconds(quiet)
        assert redis.fall_silent() > 2
        until_it_predicts(quiet, seconds=STATEMENT_SECONDS + 5)
        until_it_is_as_quick_as(quiet, before, seconds=15)
        quiet.wait_until_all_ended(seconds=20)
        assert quiet.rows("SELECT DISTINCT state, crash_count FROM jobs") == [("succeeded", 0)]


@pytest.mark.long
def test_waiting_calls_are_quick_again_after_the_subscription_was_lost_without_a_word(quiet: Service) -> None:
    stack = quiet.stack
    with proxy_to(stack.redis) as redis:  # type: ignore[arg-type]
        stack.start_api(**through(quiet, redis=redis), POLL_SECONDS="5")
        stack.start_worker()
        stack.wait_for_workers(1)
        predict(quiet)
        before = usual_seconds(quiet)
        assert before < 2  # and not the five seconds of polling
        assert redis.fall_silent() >= 1
        until_it_is_as_quick_as(quiet, before, seconds=15)


def on_acknowledgement(act: Callable[[Line], None]) -> tuple[Callable[[Line, bytes], None], threading.Event]:
    """Return what to do with requests so that the next acknowledgement is harmed, and whether it was."""
    done = threading.Event()

    def look(line: Line, data: bytes) -> None:
        if b"unacked_index" in data and b"ZREM" in data and not done.is_set():
            done.set()
            act(line)

    return look, done


def answer_late(line: Line) -> None:
    line.answers_from = time.monotonic() + 8  # longer than a worker waits for Redis


def close(line: Line) -> None:
    line.close()


@pytest.mark.long
@pytest.mark.parametrize("harm", [answer_late, close])
def test_worker_takes_messages_again_after_an_acknowledgement_was_lost(quiet: Service, harm: Any) -> None:
    stack = quiet.stack
    with proxy_to(stack.redis) as redis:  # type: ignore[arg-type]
        stack.start_api()
        stack.start_worker(**through(quiet, redis=redis))
        stack.wait_for_workers(1)
        assert predict(quiet)[0] == 200
        for _ in range(2):
            redis.on_request, done = on_acknowledgement(harm)
            predict(quiet, wait=1)
            assert done.wait(5)
            time.sleep(2)
            assert until_it_predicts(quiet, seconds=30) < 30
        assert quiet.rows("SELECT max(crash_count) FROM jobs")[0][0] == 0
