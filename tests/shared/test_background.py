"""Threads beside the requests: they survive what they meet, are watched, and hold nobody up."""

import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from api import health
from api.health import ModelState
from api.runtimes.acceptance import Acceptance
from api.runtimes.queue.backlog import Backlog
from api.runtimes.queue.completions import Completions
from api.runtimes.runtime import Condition
from scripts.servers.processes import wait_until
from shared import background
from shared.background import Background, ended

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(background, "PAUSE_SECONDS", 0.01)
    yield
    background._started.clear()


def test_thread_begins_again_after_what_nobody_foresaw(caplog: pytest.LogCaptureFixture) -> None:
    rounds: list[int] = []

    def run() -> None:
        rounds.append(len(rounds))
        if len(rounds) < 3:
            raise ValueError("an entry that cannot be written")

    thread = Background(run, name="writer")
    thread.start()
    assert wait_until(lambda: not thread.is_alive(), timeout=30)
    assert rounds == [0, 1, 2]
    assert caplog.messages == ["the thread writer failed; it begins again"] * 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_thread_that_ended_though_nobody_stopped_it_is_told_by_name_and_time() -> None:
    threads = [Background(sys.exit, name="writer"), Background(lambda: None, name="returns")]
    for thread in threads:
        thread.start()
    assert wait_until(lambda: len(ended()) == 2, timeout=30)
    assert re.fullmatch(r"The thread writer has ended at 20\d\d-.* UTC: restart it\.", ended()["writer"])
    threads[0].stop()
    assert list(ended()) == ["returns"]


def test_stop_waits_for_so_long_and_no_longer() -> None:
    go = threading.Event()

    def wait() -> None:
        go.wait()

    hung = Background(wait, name="hung")
    hung.stop()  # not started yet
    hung.start()
    began = time.monotonic()
    hung.stop(0.1)
    assert time.monotonic() - began < 2
    assert ended() == {}
    go.set()


def test_thread_that_pauses_or_waits_for_something_else_ends_when_it_is_told_to() -> None:
    is_asked = threading.Event()

    def pause() -> None:
        pausing.wait(60)

    def wait() -> None:
        is_asked.wait(60)

    pausing, waiting = Background(pause, name="pausing"), Background(wait, name="waiting", wake=is_asked.set)
    for thread in (pausing, waiting):
        thread.start()
        assert not thread.is_stopping
        thread.stop(30)
        assert thread.is_stopping
        assert not thread.is_alive()


def test_every_thread_of_the_service_is_watched() -> None:
    """Another kind of thread has to be bounded by something else: say here by what."""
    own = {
        "shared/background.py": "it is the one",
        "api/runtimes/sync/runtime.py": "runs one call, whose error is raised where its result is waited for",
        "api/runtimes/sync/csv_thread.py": "scores the files that there are, and is started again for the next ones",
        "worker/main.py": "ends a beat that nobody needs",
        "shared/observability/tracing.py": "sends the last spans while a process ends, and is waited for two seconds",
    }
    classes = {
        str(path.relative_to(ROOT))
        for folder in ("api", "worker", "shared")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"\bThread\(", re.sub(r"\w+Thread\(", "", path.read_text()))
    }
    assert classes == own.keys()


class Strange:
    """A database and a Redis that fail as nothing ever did."""

    def __getattr__(self, name: str) -> object:
        raise ZeroDivisionError(name)


@pytest.mark.parametrize("make", [lambda it: Backlog(it, it, max_queued=1), lambda it: Acceptance(it, every=0.01)])
def test_thread_lives_whatever_its_servers_do(make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.runtimes.queue.backlog.SAMPLE_SECONDS", 0.01)
    service = make(Strange())
    service.start()
    time.sleep(0.1)
    assert service._thread.is_alive()
    assert ended() == {}
    service.stop()
    assert not service._thread.is_alive()


def test_thread_that_wakes_who_waits_lives_through_a_message_of_another_kind() -> None:
    is_asked = threading.Event()

    class Redis:
        def pubsub(self, **_: object) -> object:
            messages = iter([{"type": "message", "data": None}])
            return SimpleNamespace(
                subscribed=True,
                subscribe=lambda _: None,
                ping=lambda: None,
                close=lambda: None,
                get_message=lambda timeout: next(messages, None) or is_asked.set(),
            )

    waiting = Completions(Strange(), Redis(), poll_seconds=0.05)  # type: ignore[arg-type]
    waiting._loop = SimpleNamespace()  # type: ignore[assignment]
    waiting._thread.start()
    assert is_asked.wait(5)
    assert wait_until(lambda: waiting._thread.is_alive() and ended() == {}, timeout=30)
    waiting.stop()


@pytest.mark.parametrize(("name", "is_blocking"), [("catalog", True), ("acceptance", True), ("refusals", False)])
def test_health_names_a_thread_that_has_ended(name: str, is_blocking: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "ended", lambda: {name: f"The thread {name} has ended."})
    monkeypatch.setattr(health, "model_state", lambda _, **__: ModelState(True, [], []))
    services = SimpleNamespace(
        catalog=SimpleNamespace(
            is_connected=True,
            snapshot=SimpleNamespace(by_name={"m": 1}, by_id={}, suspended={}, shadows={}),
            find=lambda *_: None,
            default_model=lambda: None,
        ),
        acceptance=SimpleNamespace(fault=lambda: None),
        runtime=SimpleNamespace(trouble=lambda: None, examine=lambda **_: Condition()),
        settings=SimpleNamespace(runtime="sync", default_model=None),
    )
    body = health.describe(services, in_full=True)  # type: ignore[arg-type]
    assert f"The thread {name} has ended." in body["reasons"]
    assert body["status"] == ("down" if is_blocking else "degraded")
    assert bool(health.blocking(services, in_full=True)) is is_blocking  # type: ignore[arg-type]
