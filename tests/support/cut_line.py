"""A bad line to PostgreSQL: a proxy that lets a statement through and loses its answer, or falls silent."""

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class CutLine:
    """Passes everything on until it is told otherwise; each kind of harm holds until it is taken back."""

    def __init__(self, place: Path) -> None:
        self.loses_answer_to: bytes | None = None  # the next statement with these bytes is carried out and not answered
        self.refuses = False  # new connections are closed at once
        self.is_silent = False  # nothing is passed on, and no connection is closed
        self.lost = 0  # answers so far
        self.then_refuses = False  # after an answer was lost
        self._place = place
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
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
            if self.refuses:
                near.close()
                continue
            far = socket.socket(socket.AF_UNIX)
            far.connect(str(self._place))
            threading.Thread(target=self._pass, args=(near, far), daemon=True).start()

    def _pass(self, near: socket.socket, far: socket.socket) -> None:
        doomed = False
        with near, far, suppress(OSError):
            while True:
                ready, _, _ = select.select([near, far], [], [], 0.1)
                if self.is_silent:
                    threading.Event().wait(0.05)
                    continue
                for source in ready:
                    data = source.recv(1 << 20)
                    if not data:
                        return
                    if source is near:
                        marker = self.loses_answer_to
                        if marker is not None and marker in data:
                            self.loses_answer_to, doomed = None, True
                        far.sendall(data)
                    elif doomed:  # it was carried out: this is the answer
                        self.lost += 1
                        self.refuses = self.then_refuses
                        return
                    else:
                        near.sendall(data)


@contextmanager
def cut_line(place: Path) -> Iterator[CutLine]:
    """Yield a line to the socket of a PostgreSQL of this machine."""
    line = CutLine(place)
    try:
        yield line
    finally:
        line.close()
