"""A deadline for every statement, enforced on the client's side of the network.

PostgreSQL's own `statement_timeout` ends a statement that takes too long, and says so; where the network has fallen
silent (a proxy, NAT, a host that was lost without a word), nobody hears it, and the driver, which is C code, waits for
ever. So each connection notes until when it waits, and one thread of the process shuts the socket of a connection that
waits for longer: the driver then sees the end of the connection, as it does when the server closes it. Idle connections
to the same server that were not answered for a while are as silent, and are shut with it: each would wait as long in
its turn. A pool replaces what was shut in it before it lends it (`replace_shut`).
"""

import math
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import psycopg2
from psycopg2 import extensions
from sqlalchemy.exc import DisconnectionError

from shared.background import Background

Result = TypeVar("Result")

STATEMENT_SECONDS = 30.0  # that PostgreSQL gives a statement
DEADLINE_SECONDS = STATEMENT_SECONDS + 3  # that we wait for its answer
LOOK_SECONDS = 0.5


class Cursor(extensions.cursor):  # type: ignore[misc]  # the driver has no types
    """A cursor whose statements have a deadline."""

    connection: "Connection"

    def execute(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - the driver's signature
        """Execute a statement; raises psycopg2.OperationalError when no answer comes."""
        owner = self.connection
        owner.waits_until = time.monotonic() + owner.patience
        try:
            super().execute(*arguments, **options)
            owner.answered_at = time.monotonic()
        finally:
            owner.waits_until = math.inf

    def executemany(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - the driver's signature
        """Execute a statement once for each of many parameters."""
        self.connection.wait(lambda: super(Cursor, self).executemany(*arguments, **options))

    def copy_expert(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - the driver's signature
        """Send or receive by COPY."""
        self.connection.wait(lambda: super(Cursor, self).copy_expert(*arguments, **options))


class Connection(extensions.connection):  # type: ignore[misc]
    """A connection that is shut when an answer takes longer than `patience` seconds.

    Somebody's longer patience ends with the transaction.
    """

    patience = DEADLINE_SECONDS
    waits_until = math.inf
    answered_at = 0.0
    shut = False

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - the driver's signature
        super().__init__(*arguments, **options)
        self.answered_at = time.monotonic()
        self.server = (self.info.host, self.info.port)
        self.cursor_factory = Cursor
        _watch.keep(self)

    def wait(self, call: Callable[[], Result]) -> Result:
        """Run something that waits for the server."""
        self.waits_until = time.monotonic() + self.patience
        try:
            result = call()
            self.answered_at = time.monotonic()
            return result
        finally:
            self.waits_until = math.inf

    def commit(self) -> None:
        """Commit; raises psycopg2.OperationalError when no answer comes: then it may have happened or not."""
        self.wait(super().commit)
        self.__dict__.pop("patience", None)

    def rollback(self) -> None:
        """Roll back."""
        self.wait(super().rollback)
        self.__dict__.pop("patience", None)


class _Watch:
    """A thread that looks at every connection of the process, started with the first one, and anew after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._pid = 0
        self._thread = Background(self._run, name="deadlines")

    def keep(self, connection: Connection) -> None:
        """Watch this connection from now on, until it is released."""
        with self._lock:
            self._connections.add(connection)
            if self._pid == os.getpid():
                return
            self._thread.start()
            self._pid = os.getpid()

    def forget(self) -> None:
        """Forget what belongs to the parent of a process that has just been forked."""
        self.__init__()  # type: ignore[misc]  # the lock too: another thread may have held it

    def _run(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            self._look()

    def _look(self) -> None:
        with self._lock:
            connections = list(self._connections)
        now = time.monotonic()
        silent = {connection.server for connection in connections if now > connection.waits_until}
        ending = []
        for connection in connections if silent else ():
            # What is idle, and was answered just after the late one was asked, is silent as well.
            idle = connection.waits_until == math.inf and now - connection.answered_at > connection.patience / 2
            if now > connection.waits_until or (idle and connection.server in silent):
                ending.append(connection)
        for connection in ending:  # chosen first: whoever waited for the late one asks the next at once
            _shut(connection)


def replace_shut(connection: Connection, *_of_the_pool: object) -> None:
    """Let a pool of SQLAlchemy, on its event "checkout", connect anew in place of a connection that was shut in it."""
    if connection.shut:
        raise DisconnectionError


def _shut(connection: Connection) -> None:
    """End the connection below the driver, which waits in another thread and notices it."""
    connection.shut = True
    with suppress(psycopg2.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


_watch = _Watch()
os.register_at_fork(after_in_child=_watch.forget)
