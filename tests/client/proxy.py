"""A bad line to a service: a proxy that cuts connections after so many bytes."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

NEVER = 1 << 60


class BadLine:
    """Listens on a port of its own; `cuts` are the bytes of the answer that each connection in turn lets through."""

    def __init__(self, port: int) -> None:
        self.cuts: list[int] = []
        self.count = 0
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            self.count += 1
            limit = self.cuts.pop(0) if self.cuts else NEVER
            far = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=self._pass, args=(near, far, NEVER), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, limit), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, limit: int) -> None:
        with suppress(OSError):
            while data := source.recv(min(65536, limit)):
                target.sendall(data)
                limit -= len(data)
                if limit <= 0:
                    break
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        if limit != NEVER:
            source.close()
            target.close()


@contextmanager
def bad_line(port: int) -> Iterator[BadLine]:
    line = BadLine(port)
    try:
        yield line
    finally:
        line.close()
