"""Limits that a child process sets for itself: memory, files, priority, and the life of its parent.

And the memory of the container that both share, within which its own has to fit.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # Linux, prctl(2)
_ENDLESS = 2**60  # bytes; Linux writes "no limit" as a number above


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


def container_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes that the container of this process may take, None without a limit: the lowest of its cgroups."""
    limits: list[int] = []
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None  # another system
    for group in groups:  # cgroups(7): "0::/path" of version 2, "4:memory:/path" of version 1
        _, controllers, path = group.split(":", 2)
        if controllers == "":
            top, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        place = top / path.strip("/")  # in a container, it may be a path of the host: then its own is at the top
        for folder in (place, *place.parents[: len(place.parts) - len(top.parts)]):
            with contextlib.suppress(OSError, ValueError):  # the top has no such file, and "max" is no limit
                limits.append(int((folder / name).read_text()))
    lowest = min(limits, default=_ENDLESS)
    return None if lowest >= _ENDLESS else lowest


def _bound(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))
