"""Starts the parts of the service together, restarts those that die, and stops them in order."""

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from scripts.checkout import Failure
from scripts.local.console import Console, Follower
from scripts.local.guard import Guard
from scripts.servers.processes import Child
from scripts.servers.server import Server, ServerError

_TICK = 0.05  # seconds between two looks at the children
_DEATHS = 5  # so many ...
_DEATHS_WITHIN = 60.0  # ... in so many seconds, and something is wrong that no restart mends
_FIRST_DELAY = 0.5  # seconds before the first restart; twice as many before each further one
_ORPHAN_PATIENCE = 8.0  # seconds to end for the parts of a supervisor that was killed
_HURRY = 2.0  # seconds for everyone after a second request to stop ...
_SECOND_REQUEST = 1.0  # ... which comes this long after the first: `timeout` and make send SIGTERM twice at once


class Stopped(Exception):
    """A signal asked the supervisor to stop."""


class Program(Server):
    """A part of the service: a command, and a check whether it is ready."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        data_dir: Path,
        env: dict[str, str],
        answers: Callable[[], bool],
        patience: float = 10.0,
        keep_open: tuple[int, ...] = (),
        orphan_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        super().__init__(data_dir, keep_open=keep_open)
        self.name = name
        self.log = self.data_dir / "logs" / f"{name}.log"
        self.patience = patience
        self._answers = answers
        self.child = Child(name, command, log=self.log, env=env, keep_open=keep_open, orphan_signal=orphan_signal)

    def launch(self) -> None:
        """Start it without waiting until it is ready."""
        if self.child is not None:
            self.child.start()

    def answers(self) -> bool:
        """Ask the question."""
        return self._answers()


class Supervisor:
    """The running parts, in the order of their start."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.guard: Guard | None = None
        self.parts: list[Server] = []
        self._deaths: dict[str, deque[float]] = {}
        self._restart_at: dict[str, float] = {}
        self._guarded: dict[str, int] = {}  # process group that the guard ends if we die
        self._requests: list[float] = []  # when somebody asked us to stop

    @contextmanager
    def obeying_signals(self) -> Iterator[None]:
        """Take Ctrl-C, SIGTERM and a closed terminal as requests to stop, noticed at the next `wait`."""

        def note(_number: int, _frame: FrameType | None) -> None:
            self._requests.append(time.monotonic())

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def launch(self, *parts: Server) -> None:
        """Start some parts without waiting for them."""
        for part in parts:
            self.parts.append(part)
            self._launch(part)

    def _launch(self, part: Server) -> None:
        part.launch()
        if self.guard is not None and part.pid is not None:
            self._guarded[part.name] = part.pid
            self.guard.watch(part.pid, part.end_signal, min(part.patience, _ORPHAN_PATIENCE))

    def _kill(self, part: Server) -> None:
        """End it and whatever it left behind."""
        part.kill()
        if self.guard is not None and part.name in self._guarded:
            self.guard.forget(self._guarded.pop(part.name))

    def wait_ready(self, *parts: Server, timeout: float = 60.0) -> None:
        """Wait until all of these parts are ready. Raises Failure if one ends or takes too long."""
        waiting = list(parts)
        started = time.monotonic()
        while waiting:
            for part in [part for part in waiting if part.ready()]:
                waiting.remove(part)
                self.console.say(f"  {part.name:<11} ready after {time.monotonic() - started:.1f} s")
            if time.monotonic() - started > timeout:
                names = ", ".join(part.name for part in waiting)
                lines = [line for part in waiting for line in self._last_lines(part, 10)]
                raise Failure("\n  ".join([f"not ready after {timeout:.0f} s: {names}", *lines]))
            self.pause()

    def run(self, program: Program, *, timeout: float) -> None:
        """Run a command to its end. Raises Failure with its output if it fails."""
        self.launch(program)
        child = program.child
        assert child is not None  # a Program always has one
        started = time.monotonic()
        while child.alive and time.monotonic() - started < timeout:
            self.pause()
        self._kill(program)
        self.parts.remove(program)
        if child.exit_code != 0:
            ending = _ending(child.exit_code)
            raise Failure("\n  ".join([f"{program.name} {ending} ({program.log}):", *self._last_lines(program)]))

    def _last_lines(self, part: Server, count: int = 20) -> list[str]:
        """Return the last lines of a part's log, for a person."""
        lines = [] if part.child is None else part.child.last_lines(count)
        return [shown for line in lines for shown in self.console.readable(line)]

    def pause(self, seconds: float = _TICK) -> None:
        """Let a moment pass. Raises Stopped if a signal asked to stop meanwhile."""
        if not self._requests and not self.console.closed:
            time.sleep(seconds)
        if self._requests or self.console.closed:
            raise Stopped

    def follow(self) -> None:
        """Show the logs and restart what dies, until somebody asks us to stop or a part dies again and again."""
        follower = Follower(self.console, {part.name: part.log for part in self.parts})
        while True:
            follower.show()
            for part in self.parts:
                if part.name in self._restart_at:
                    if time.monotonic() >= self._restart_at[part.name]:
                        self._restart(part)
                elif not part.alive:
                    follower.show()
                    self._bury(part, _ending(part.child.exit_code if part.child else None))
            self.pause(0.1)

    def _bury(self, part: Server, ending: str) -> None:
        """Report that a part died, and choose the time of its next start. Raises Failure if it died too often."""
        now = time.monotonic()
        deaths = self._deaths.setdefault(part.name, deque(maxlen=_DEATHS))
        deaths.append(now)
        lines = self._last_lines(part)
        self.console.say("\n  ".join([f"guichet: {part.name} {ending}; its last lines ({part.log}):", *lines]))
        self._kill(part)
        if len(deaths) == _DEATHS and now - deaths[0] < _DEATHS_WITHIN:
            raise Failure(f"{part.name} died {_DEATHS} times within {_DEATHS_WITHIN:.0f} s; see {part.log}")
        recent = sum(now - death < _DEATHS_WITHIN for death in deaths)
        delay = _FIRST_DELAY * 2 ** (recent - 1)
        self._restart_at[part.name] = now + delay
        self.console.say(f"guichet: {part.name} starts again in {delay:g} s")

    def _restart(self, part: Server) -> None:
        del self._restart_at[part.name]
        try:
            self._launch(part)
        except (OSError, ServerError) as error:
            self._bury(part, f"did not start: {error}")

    def stop(self, stages: Sequence[Sequence[str]]) -> None:
        """End all parts, stage after stage; a second Ctrl-C shortens the waiting."""
        remaining = list(self.parts)
        order = [[part for part in remaining if part.name in names] for names in stages]
        named = [part for stage in order for part in stage]
        for stage in [[part for part in remaining if part not in named], *order]:
            for part in stage:
                part.ask()
            started = time.monotonic()
            while any(
                part.alive and time.monotonic() - started < (_HURRY if self._impatient() else part.patience)
                for part in stage
            ):
                time.sleep(_TICK)
            for part in stage:
                if part.alive:
                    self.console.say(f"guichet: {part.name} did not end in time and is killed")
                self._kill(part)
        self.parts.clear()

    def _impatient(self) -> bool:
        return len(self._requests) > 1 and self._requests[-1] - self._requests[0] > _SECOND_REQUEST


def _ending(exit_code: int | None) -> str:
    """Say how a process ended."""
    if exit_code is None:
        return "did not end in time"
    if exit_code < 0:
        return f"was ended by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"
