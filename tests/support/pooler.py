"""A small connection pooler that does as PgBouncer: it refuses `options`, and gives sessions or transactions."""

import itertools
import socket
import struct
import threading
from contextlib import suppress

SSL, GSS = 80877103, 80877104
REFUSAL = b"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: options\0\0"


def read_exactly(peer: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = peer.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def read_message(peer: socket.socket) -> tuple[bytes, bytes]:
    """Return the type of a message of PostgreSQL's protocol, and the whole of it."""
    head = read_exactly(peer, 5)
    return head[:1], head + read_exactly(peer, struct.unpack("!I", head[1:])[0] - 4)


def message(kind: bytes, payload: bytes) -> bytes:
    return kind + struct.pack("!I", len(payload) + 4) + payload


class Server:
    """One session of PostgreSQL."""

    def __init__(self, path: str, startup: bytes) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.socket.sendall(struct.pack("!I", len(startup) + 4) + startup)
        self.lock = threading.Lock()
        self.parameters = b""
        while True:
            kind, whole = read_message(self.socket)
            assert kind != b"E", whole
            if kind == b"S":
                self.parameters += whole
            if kind == b"Z":
                return

    def ask(self, whole: bytes, client: socket.socket) -> bytes:
        """Pass a query on, and its answer back; return the state of the session after it."""
        self.socket.sendall(whole)
        while True:
            kind, answer = read_message(self.socket)
            client.sendall(answer)
            if kind == b"Z":
                return answer[-1:]


class Pooler:
    """Listens on a port of 127.0.0.1; with `pool_mode="transaction"` all clients share one session of PostgreSQL."""

    def __init__(self, path: str, *, pool_mode: str) -> None:
        self._path = path
        self._is_by_session = pool_mode == "session"
        self._shared: dict[bytes, Server] = {}
        self._pids = itertools.count(1_000_000_000)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> "Pooler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for server in self._shared.values():
            server.socket.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(EOFError, OSError):
            while True:
                startup = read_exactly(client, struct.unpack("!I", read_exactly(client, 4))[0] - 4)
                if struct.unpack("!I", startup[:4])[0] not in (SSL, GSS):
                    break
                client.sendall(b"N")
            if b"\0options\0" in startup:
                client.sendall(message(b"E", REFUSAL))
                return
            if self._is_by_session:
                server = Server(self._path, startup)
            else:
                if startup not in self._shared:
                    self._shared[startup] = Server(self._path, startup)
                server = self._shared[startup]
            pid = struct.pack("!II", next(self._pids), 7)
            client.sendall(message(b"R", b"\0\0\0\0") + server.parameters + message(b"K", pid) + message(b"Z", b"I"))
            try:
                self._converse(client, server)
            finally:
                if self._is_by_session:
                    server.socket.close()

    def _converse(self, client: socket.socket, server: Server) -> None:
        state = b"I"
        while True:
            kind, whole = read_message(client)
            if kind == b"X":
                return
            if state == b"I" and not self._is_by_session:
                server.lock.acquire()
            state = server.ask(whole, client)
            if state == b"I" and not self._is_by_session:
                server.lock.release()
