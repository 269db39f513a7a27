"""The common part of PostgreSQL and Redis as child processes: a folder, a log, start, stop, kill."""

import os
import signal
import socket
import stat
from pathlib import Path
from typing import Self

from scripts.servers.processes import Child, wait_until


class ServerError(Exception):
    """A server cannot be started; the message has the reason and the remedy."""


class Server:
    """One server with its data in `<data_dir>/<name>` and its output in `<data_dir>/logs/<name>.log`."""

    name = "server"
    end_signal = signal.SIGTERM  # asks it to end cleanly
    patience = 10.0  # seconds that it gets for that

    def __init__(self, data_dir: Path, *, keep_open: tuple[int, ...] = ()) -> None:
        self.data_dir = data_dir.absolute()
        self.folder = self.data_dir / self.name
        self.log = self.data_dir / "logs" / f"{self.name}.log"
        self.keep_open = keep_open  # file descriptors that the server inherits (a lock on the folder)
        self.child: Child | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """Return the process id of the running server."""
        return None if self.child is None else self.child.pid

    @property
    def url(self) -> str:
        """Return the address for clients; the same after every restart of this object."""
        raise NotImplementedError

    def start(self, *, timeout: float = 30.0) -> None:
        """Start it and return when it answers. Raises ServerError if it ends or does not answer in time."""
        self.launch()
        if not wait_until(self.ready, timeout=timeout):
            self.kill()
            raise ServerError(f"{self.name} did not answer within {timeout:.0f} s; see {self.log}")

    def launch(self) -> None:
        """Start it without waiting until it answers."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Return whether it answers. Raises ServerError if it has ended."""
        if not self.alive:
            lines = [] if self.child is None else self.child.last_lines()
            raise ServerError("\n  ".join([f"{self.name} ended while it was starting ({self.log}):", *lines]))
        return self.answers()

    def answers(self) -> bool:
        """Ask it for a sign of life."""
        raise NotImplementedError

    @property
    def alive(self) -> bool:
        """Return whether its process runs."""
        return self.child is not None and self.child.alive

    def ask(self) -> None:
        """Ask it to end cleanly, without waiting until it has."""
        if self.child is not None:
            self.child.send(signal.SIGCONT)  # a paused process would never see the request
            self.child.send(self.end_signal)

    def stop(self) -> None:
        """Ask it to end cleanly; kill it if it takes longer than its patience."""
        self.ask()
        if self.child is not None:
            self.child.wait(self.patience)
        self.kill()

    def kill(self) -> None:
        """SIGKILL all of its processes, as a crash would."""
        if self.child is not None:
            self.child.kill()

    def pause(self) -> None:
        """SIGSTOP all of its processes: connections stay open and nothing answers."""
        if self.child is not None:
            self.child.pause()

    def resume(self) -> None:
        """Let it go on after `pause`."""
        if self.child is not None:
            self.child.resume()


def private_folder(folder: Path, owner: tuple[int, int] | None = None) -> None:
    """Make a folder that only its owner may enter. Raises ServerError if somebody else made it first."""
    uid, gid = owner or (os.geteuid(), os.getegid())
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (uid, os.geteuid()):
            raise ServerError(f"{folder} belongs to somebody else: remove it") from None
        folder.chmod(0o700)
    os.chown(folder, uid, gid)


def port_is_free(port: int) -> bool:
    """Return whether nothing listens on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: old connections are no owners
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
