"""A network between a process and its server that a test can break: it falls silent, or loses single answers."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from scripts.servers.postgres import Postgres
from scripts.servers.redis import Redis


class Line:
    """One connection through the proxy."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near, self.far = near, far
        self.silent = False
        self.answers_from = 0.0  # no answer passes before this moment

    def close(self) -> None:
        for end in (self.near, self.far):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Proxy:
    """Listens on a port of 127.0.0.1 and passes everything on to a server, until it is told otherwise."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._lines: list[Line] = []
        self._refuses = False
        self.on_request: Callable[[Line, bytes], None] = lambda _line, _data: None
        threading.Thread(target=self._accept, daemon=True).start()

    def fall_silent(self, *, for_good: bool = False) -> int:
        """Swallow what passes on the present connections, which stay open; `for_good`: on new ones as well.

        Returns how many connections fell silent.
        """
        self._refuses = for_good
        for line in self._lines:
            line.silent = True
        return len(self._lines)

    def recover(self) -> None:
        """Let new connections pass again."""
        self._refuses = False

    def close(self) -> None:
        self._listener.close()
        for line in self._lines:
            line.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            line = Line(near, self._connect())
            line.silent = self._refuses
            self._lines.append(line)
            threading.Thread(target=self._pass, args=(line, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(line, False), daemon=True).start()

    def _pass(self, line: Line, is_request: bool) -> None:
        source, target = (line.near, line.far) if is_request else (line.far, line.near)
        try:
            while data := source.recv(65_536):
                if is_request:
                    self.on_request(line, data)
                elif (wait := line.answers_from - time.monotonic()) > 0:
                    time.sleep(wait)
                if not line.silent:
                    target.sendall(data)
        except OSError:
            pass  # either end was closed
        if not line.silent:  # a connection that fell silent says nothing of its end either
            line.close()
            with suppress(ValueError):
                self._lines.remove(line)


@contextmanager
def proxy_to(server: Postgres | Redis) -> Iterator[Proxy]:
    """Yield a proxy to a server of ours."""

    def connect() -> socket.socket:
        if isinstance(server, Redis):
            return socket.create_connection(("127.0.0.1", server.port))
        line = socket.socket(socket.AF_UNIX)
        line.connect(str(next(server.socket_dir.glob(".s.PGSQL.*[0-9]"))))
        return line

    proxy = Proxy(connect)
    try:
        yield proxy
    finally:
        proxy.close()
