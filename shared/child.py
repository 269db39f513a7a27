"""Limits that a child process sets for itself: memory, files, priority, and the life of its parent."""

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # Linux, prctl(2)


def limit_this_process(*, memory_bytes: int, niceness: int, file_bytes: int | None = None) -> None:
    """Limit the memory, the largest file and the priority of this process, and let it leave no core dump.

    The memory is that of its own data, not of the address space: numeric libraries reserve far more than they use.
    """
    os.nice(niceness)
    _bound(resource.RLIMIT_CORE, 0)
    _bound(resource.RLIMIT_DATA, memory_bytes)
    if file_bytes is not None:
        _bound(resource.RLIMIT_FSIZE, file_bytes)


def end_with_parent(parent: int | None = None) -> None:
    """Let the system end this process with the one that started it; with its process id, also if it has ended already.

    Only Linux can do this: elsewhere, a closed pipe has to end the process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def end_first() -> None:
    """Let Linux end this process before all others if memory is short."""
    with contextlib.suppress(OSError):  # another system, or a container that forbids it
        Path("/proc/self/oom_score_adj").write_text("1000")


def _bound(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))
