"""A small process that ends the parts of a killed `make run`.

The kernel tells a child that its parent has ended, but not its grandchildren, and a Celery worker that is asked to
leave at once may hang, or leave its pool behind. So this process waits for the other end of a pipe to close, which no
way of dying can prevent, and then ends every group of processes that it was told of.

It needs the standard library only, and runs without site-packages: it must start fast and stay small.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable


class Guard:
    """The supervisor's side: it names the processes to end, and dismisses the guard after a regular stop."""

    def __init__(self, *, keep_open: tuple[int, ...] = ()) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=keep_open,
        )

    def watch(self, pid: int, number: signal.Signals, patience: float) -> None:
        """End this process group if we die: with this signal, and after `patience` seconds with SIGKILL."""
        self._tell(f"+ {pid} {int(number)} {patience}")

    def forget(self, pid: int) -> None:
        """This process group has ended; its number may belong to another one soon."""
        self._tell(f"- {pid}")

    def dismiss(self) -> None:
        """End the guard, and the parts that it still watches."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        # If somebody killed the guard, the parts still get the signal of the kernel.
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(f"{line}\n".encode())
                self._process.stdin.flush()


def watched_at_end(lines: Iterable[str]) -> dict[int, tuple[int, float]]:
    """Read the supervisor's messages until their end; return signal and patience by process group."""
    watched: dict[int, tuple[int, float]] = {}
    for line in lines:
        match line.split():
            case ["+", pid, number, patience]:
                watched[int(pid)] = int(number), float(patience)
            case ["-", pid]:
                watched.pop(int(pid), None)
            case _:
                break  # half a line: the supervisor died while it wrote
    return watched


def end(watched: dict[int, tuple[int, float]]) -> None:
    """Ask every group to end, then kill those that do not."""
    for group, (number, _) in watched.items():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(group, signal.SIGCONT)
            os.kill(group, number)  # its leader, which tells the others
    began = time.monotonic()
    while watched:
        for group, (_, patience) in list(watched.items()):
            late = time.monotonic() - began > patience
            try:
                os.killpg(group, signal.SIGKILL if late else 0)
            except (ProcessLookupError, PermissionError):
                late = True  # gone
            if late:
                del watched[group]
        time.sleep(0.05)


if __name__ == "__main__":
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(name, signal.SIG_IGN)
    end(watched_at_end(sys.stdin))
