"""A Redis of our own: a real redis-server as a child process, with its data in a folder of ours."""

import secrets
import socket
from contextlib import suppress
from pathlib import Path

from scripts.servers.processes import Child
from scripts.servers.programs import redis_program
from scripts.servers.server import Server, ServerError, port_is_free, private_folder

# Below the range from which kernels take the ports of outgoing connections: in that range a client that retries while
# Redis is down may be given Redis's own port, and connect to itself.
_PORTS = range(20_000, 32_000)


class Redis(Server):
    """A Redis in `<data_dir>/redis` on a free port of 127.0.0.1, with a password, that evicts nothing."""

    name = "redis"

    def __init__(self, data_dir: Path, *, keep_open: tuple[int, ...] = ()) -> None:
        super().__init__(data_dir, keep_open=keep_open)
        self.password = secrets.token_urlsafe(24)
        self.port = 0  # chosen at the first start and kept from then on

    @property
    def url(self) -> str:
        """Return the redis:// URL of database 0."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def launch(self) -> None:
        """Start it without waiting until it answers."""
        program = redis_program()
        private_folder(self.folder)
        self.port = self.port or _free_port()
        settings = {
            "bind": "127.0.0.1",
            "port": self.port,
            "requirepass": self.password,
            "dir": "./",
            "appendonly": "yes",
            "save": '""',  # the append-only file is enough
            "maxmemory-policy": "noeviction",  # a queue must refuse rather than forget
            "daemonize": "no",
        }
        config = self.folder / "redis.conf"  # a file, because everyone can read a command line
        config.unlink(missing_ok=True)
        config.touch(mode=0o600)
        config.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        command = [program, config.name]
        self.child = Child(self.name, command, log=self.log, cwd=self.folder, keep_open=self.keep_open)
        self.child.start()

    def answers(self) -> bool:
        """Send PING; it says LOADING while it reads its file."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(f"AUTH {self.password}\r\nPING\r\nQUIT\r\n".encode())
            with connection.makefile("rb") as answers:
                return b"+PONG\r\n" in answers.readlines()
        return False


def _free_port() -> int:
    for _ in range(200):
        port = secrets.choice(_PORTS)
        if port_is_free(port):
            return port
    raise ServerError("found no free port for Redis on 127.0.0.1")
