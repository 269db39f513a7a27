"""Ends a hung process in a container, so that its restart policy starts it again: Docker restarts only ended ones.

The health check counts. Only what was well before is ended, so that a long start is not cut short, and a database that
is away is no reason: the process that waits for it is well.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

KILL_AFTER = 4  # further checks that find it still hanging, having been asked to end


def end_after(arguments: Sequence[str]) -> int | None:
    """Return the number behind `--end-after`: after so many checks in a row that fail, the process is ended."""
    return int(arguments[arguments.index("--end-after") + 1]) if "--end-after" in arguments else None


def note(
    is_well: bool,
    limit: int | None,
    *,
    folder: Path | None = None,
    processes: Path = Path("/proc"),
    kill: Callable[[int, int], None] = os.kill,
) -> None:
    """Count a check; end the container's process where it is the `limit`-th in a row that found it hanging."""
    if limit is None:
        return
    file = (folder or Path(tempfile.gettempdir())) / "guichet-hanging"
    if is_well:
        file.write_text("0")
        return
    if not file.exists():
        return  # it was never well: it may be starting
    count = int(file.read_text() or 0) + 1
    file.write_text(str(count))
    if count < limit:
        return
    is_last = count >= limit + KILL_AFTER
    if is_last:
        file.unlink()  # where the folder outlives the process, the next one begins anew
    for process in _first_processes(processes):
        message = f"process {process} has hung for {count} checks: it is {'killed' if is_last else 'asked to end'}\n"
        sys.stdout.write(message)  # where the engine keeps what health checks say
        kill(process, signal.SIGKILL if is_last else signal.SIGTERM)


def _first_processes(processes: Path) -> list[int]:
    """Return the container's first process, or the children of an init, which only waits for them."""
    children = []
    for stat in processes.glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])  # proc(5): state, ppid
        except (OSError, ValueError, IndexError):
            continue  # it has just ended
        if parent == 1:
            children.append(int(stat.parent.name))
    init = processes / "1" / "comm"
    is_init = init.exists() and init.read_text().strip() in ("docker-init", "tini", "catatonit")
    return sorted(children) if is_init else [1]
