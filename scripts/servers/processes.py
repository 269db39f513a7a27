"""A child process to start, watch and stop, which does not outlive its parent."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

LOG_LIMIT = 20 * 1024 * 1024  # bytes; a longer log moves to NAME.log.1
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Child:
    """One process in a session of its own, whose output goes to a log file.

    A session of its own keeps Ctrl-C of the terminal away from it: only `stop` decides when it ends. On Linux the
    kernel sends it `orphan_signal` when the thread that started it ends, SIGKILL included; so start
    children from the main thread.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: int | None = None,
        group: int | None = None,
        keep_open: Sequence[int] = (),
        orphan_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self.env = env
        self.cwd = cwd
        self.user = user
        self.group = group
        self.keep_open = tuple(keep_open)
        self.orphan_signal = orphan_signal
        self.log_start = 0  # where in the log this run began
        self._process: subprocess.Popen[bytes] | None = None
        self._buried = True  # nothing of it can be left: its id may belong to somebody else by now

    @property
    def pid(self) -> int | None:
        """Return the process id, or None before the first start and after the end was seen."""
        return self._process.pid if self._process is not None and self.alive else None

    @property
    def alive(self) -> bool:
        """Return whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Return its exit code (negative: the signal that ended it), or None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start it; its output is appended to the log. Raises OSError if the program cannot be executed."""
        if self.alive:
            raise RuntimeError(f"{self.name} already runs")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        rotate(self.log)
        with self.log.open("ab") as out:
            self.log_start = out.tell()
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=None if self.env is None else dict(self.env),
                cwd=self.cwd,
                user=self.user,
                group=self.group,
                extra_groups=None if self.user is None else [],
                pass_fds=self.keep_open,
                start_new_session=True,
                # after setuid, which would clear the setting; the hook makes two system calls and nothing else
                preexec_fn=_ends_with_parent(self.orphan_signal),
            )
            self._buried = False

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process itself, if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for its end; return whether it ended."""
        if self._process is None:
            return True
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        return not self.alive

    def kill(self) -> None:
        """SIGKILL it and everything that it started, and wait until they are gone."""
        if self._process is None or self._buried:
            return
        family = self.family()
        self.send(signal.SIGKILL)
        # a child that outlived its parent is no longer in the family, but still in the group
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        self._process.wait(10)
        wait_until(lambda: not any(map(runs, family)), timeout=10)
        self._buried = True

    def family(self) -> list[psutil.Process]:
        """Return the running processes below it (not itself)."""
        if not self.alive or self._process is None:
            return []
        try:
            return list(psutil.Process(self._process.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return []

    def pause(self) -> None:
        """SIGSTOP it and everything below it, as a machine that hangs."""
        self.send(signal.SIGSTOP)
        for member in self.family():
            with suppress(psutil.NoSuchProcess):
                member.suspend()

    def resume(self) -> None:
        """SIGCONT what `pause` stopped."""
        for member in self.family():
            with suppress(psutil.NoSuchProcess):
                member.resume()
        self.send(signal.SIGCONT)

    def last_lines(self, count: int = 20) -> list[str]:
        """Return the last lines that this run wrote to the log."""
        if not self.log.exists():
            return []
        with self.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(min(self.log_start, size), size - 64 * 1024))
            return log.read().decode("utf-8", "replace").splitlines()[-count:]


def runs(process: psutil.Process) -> bool:
    """Return whether a process still runs; a zombie does not, it only waits for its parent to notice."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_until(ready: Callable[[], bool], *, timeout: float, every: float = 0.02) -> bool:
    """Ask again every `every` seconds, for at most `timeout` seconds; return whether it became true."""
    deadline = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def rotate(log: Path) -> None:
    """Move a log that has grown past the limit aside, by copying: its writer keeps the file open."""
    if not log.exists() or log.stat().st_size <= LOG_LIMIT:
        return
    log.with_name(log.name + ".1").write_bytes(log.read_bytes())
    os.truncate(log, 0)


def _ends_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """Return a hook for the new process that asks Linux to signal it when its parent ends."""
    if _libc is None:
        return None
    prctl, parent = _libc.prctl, os.getpid()

    def hook() -> None:
        prctl(_PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:  # it ended before we asked
            os._exit(1)

    return hook
