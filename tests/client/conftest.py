"""What the tests of the client share: time that does not pass, and a running service of each runtime."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from guichet import Client

from tests.support.stack import ROOT, Stack

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that a client made; none of them takes time, and the jitter is always its whole range."""
    made: list[float] = []

    async def sleep(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr("guichet.transport.exchange.random.random", lambda: 1.0)
    # of the client alone: threads that another test left behind sleep as well
    monkeypatch.setattr("guichet.client.time", SimpleNamespace(sleep=made.append))
    monkeypatch.setattr("guichet.aio.asyncio", _Asyncio(sleep))
    return made


class _Asyncio:
    """asyncio with another sleep, for one module only."""

    def __init__(self, sleep: Callable[[float], object]) -> None:
        self.sleep = sleep

    def __getattr__(self, name: str) -> object:
        return getattr(asyncio, name)


@pytest.fixture
def guichet(stack: Stack) -> Iterator[Client]:
    """A client of the running service."""
    with Client(stack.url) as client:
        yield client


def environment(url: str | None, **more: str) -> dict[str, str]:
    """Return the environment of the command; nothing of the caller's own settings leaks in."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "HOME", "LANG", "COV"))}
    return kept | ({} if url is None else {"GUICHET_URL": url}) | more


def run_command(
    *arguments: str | Path, url: str | None = None, stdin: str = "", cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run `guichet` as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "guichet", *map(str, arguments)],
        env=environment(url, **env),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd or ROOT,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def command(stack: Stack) -> Command:
    """The command `guichet`, pointed at the running service."""

    def run(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
        return run_command(*arguments, url=stack.url, **options)  # type: ignore[arg-type]

    return run


def wait_until(look: Callable[[], object], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, f"it did not come to it within {seconds} s"
        time.sleep(0.02)
