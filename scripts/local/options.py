"""The options of `make run` from the environment, and its exclusive resources: a folder and ports."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from scripts.checkout import ROOT, Failure
from scripts.servers.processes import wait_until
from scripts.servers.server import port_is_free

HOST = "127.0.0.1"  # the API lets in everyone who reaches it, and only this machine may
_PORTS = {"queue": 8000, "sync": 7860}
_LOCK_SECONDS = 20.0  # the children of a copy that was killed need a moment to end


@dataclass(frozen=True)
class Options:
    """The options of the environment."""

    runtime: Literal["queue", "sync"]
    port: int
    flower_port: int
    data_dir: Path

    @property
    def url(self) -> str:
        """Return the address of the API."""
        return f"http://{HOST}:{self.port}"

    @property
    def flower_url(self) -> str:
        """Return the address of Flower."""
        return f"http://{HOST}:{self.flower_port}"


def read_options(env: Mapping[str, str]) -> Options:
    """Read RUNTIME, PORT, FLOWER_PORT and DATA_DIR. Raises Failure for a value that cannot be."""
    runtime: Literal["queue", "sync"]
    match env.get("RUNTIME") or "queue":
        case "queue":
            runtime = "queue"
        case "sync":
            runtime = "sync"
        case other:
            raise Failure(f"RUNTIME is {other!r}: it must be queue or sync")
    port = _read_port(env, "PORT", _PORTS[runtime])
    flower_port = _read_port(env, "FLOWER_PORT", 5555)
    if runtime == "queue" and port == flower_port:
        raise Failure(f"PORT and FLOWER_PORT are both {port}: choose two different ports")
    folder = Path(env.get("DATA_DIR") or ".guichet").expanduser()
    return Options(runtime, port, flower_port, ROOT / folder)


def _read_port(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise Failure(f"{name} is {text!r}: it must be a number between 1 and 65535")
    return int(text)


def check_ports(options: Options) -> None:
    """Raise Failure if a port that we need is taken."""
    needed = {"PORT": options.port}
    if options.runtime == "queue":
        needed["FLOWER_PORT"] = options.flower_port
    busy = {name: port for name, port in needed.items() if not port_is_free(port)}
    if busy:
        names = " and ".join(f"{name} {port}" for name, port in busy.items())
        advice = " ".join(f"{name}={port + 1000 if port < 60000 else port - 1000}" for name, port in busy.items())
        raise Failure(f"{names} of {HOST} is in use by another program: choose another, e.g. make run {advice}")


@contextmanager
def locked(options: Options) -> Iterator[int]:
    """Hold the lock of the data folder and yield its file descriptor. Raises Failure if another copy holds it.

    Every child inherits the descriptor: as long as one of them lives, even if we were killed, the lock holds, and no
    second server can write to the same files.
    """
    try:
        options.data_dir.mkdir(parents=True, exist_ok=True)
        options.data_dir.chmod(0o700)  # one that an earlier release made may be open to everyone
        lock = os.open(options.data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Failure(
            f"cannot write to {options.data_dir} ({error.strerror}): set DATA_DIR to another folder"
        ) from None
    try:
        if not _take(lock):
            holder = os.pread(lock, 200, 0).decode("utf-8", "replace").strip()
            pid = holder.split(" ", 1)[0]
            orphans = pid.isdigit() and not psutil.pid_exists(int(pid))
            if not orphans or not wait_until(lambda: _take(lock), timeout=_LOCK_SECONDS, every=0.1):
                raise Failure(
                    f"another copy (process {holder}) uses {options.data_dir}:"
                    " stop it first, or choose another DATA_DIR, PORT and FLOWER_PORT"
                )
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()} at {options.url}\n".encode(), 0)
        yield lock
    finally:
        os.close(lock)


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
