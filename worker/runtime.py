"""The resources of one worker process: its connections, its loaded models, its heartbeat."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

import psycopg2
from celery import Celery
from redis import Redis
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from shared.config.settings import Settings
from shared.database.engine import run_again
from shared.observability.tracing import Tracing
from shared.registry.loaded_models import ModelCache
from shared.registry.watcher import ModelWatcher
from worker.heartbeat import Heartbeat
from worker.parent import Parent

if TYPE_CHECKING:
    from shared.monitoring.counting import Counting
    from shared.rescoring.self_audit import SelfAudit

log = logging.getLogger(__name__)

Result = TypeVar("Result")

PATIENCE_SECONDS = 900.0  # for results that cannot be stored; whatever lasts longer is no matter of time
_READ_ONLY = "25006"  # SQLSTATE, as on a server that has just become a standby


class Stoppable(Protocol):
    """A thread of this process that is stopped with it."""

    def stop(self) -> None:
        """Stop after the present task."""


@dataclass(slots=True)
class Runtime:
    """The state of one worker process."""

    settings: Settings
    name: str  # host:pid, as it stands in jobs.leased_by
    engine: Engine  # every statement a transaction of its own
    claim_engine: Engine  # the same, and COMMIT does not wait for the disk
    bulk_engine: Engine  # for the transactions that store chunks of CSV files; connects when it is used
    redis: Redis
    app: Celery  # sends wake-ups to other workers
    models: ModelCache
    heartbeat: Heartbeat
    arrivals: ModelWatcher | None = None
    timer: Stoppable | None = None
    parent: Parent | None = None
    shadow: Stoppable | None = None
    counting: "Counting | None" = None
    self_audit: "SelfAudit | None" = None
    tracing: Tracing | None = None  # where TRACING=otlp
    paces: dict[tuple[int, str], float] = field(
        default_factory=dict
    )  # rows/s of the last claim, by version and handler
    suspects_checked_at: dict[tuple[str, int], float] = field(default_factory=dict)  # monotonic, by lane and version
    _connections: dict[bool, Connection] = field(default_factory=dict)  # by whether they are durable

    def execute(self, statement: Callable[[Connection], Result], *, durable: bool = True) -> Result:
        """Run one statement on this process's connection, with a new one if the server closed the old one.

        Each statement is a transaction of its own, and each is fenced or conditional: to run it twice is safe. What
        is not `durable` may be forgotten by a PostgreSQL that crashes within the next fifth of a second: a claim
        that is forgotten is a queued job, and what is stored later never survives without it.
        """
        return run_again(lambda: self.try_once(statement, durable=durable))

    def retry_while_away(self, store: Callable[[], Result]) -> Result:
        """Store results; while the database is away, locked or read-only, try again: the leases hold meanwhile.

        Raises DBAPIError for what no waiting mends, and for what does not pass within a quarter of an hour.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return store()
            except (DBAPIError, psycopg2.Error) as error:
                if not _passes(error) or time.monotonic() > deadline:
                    raise
                log.warning("results could not be stored (%s); it is tried until they are", error)
                time.sleep(0.5)

    def try_once(self, statement: Callable[[Connection], Result], *, durable: bool = True) -> Result:
        """Run one statement on this process's connection; where the connection breaks, it may have been committed."""
        try:
            return statement(self._connected(durable=durable))
        except DBAPIError as error:
            if error.connection_invalidated:
                self._disconnect()  # also after the second try: a broken connection would refuse every later one
            raise

    def _connected(self, *, durable: bool) -> Connection:
        if durable not in self._connections:
            self._connections[durable] = (self.engine if durable else self.claim_engine).connect()
        return self._connections[durable]

    def _disconnect(self) -> None:
        while self._connections:
            _, connection = self._connections.popitem()
            connection.invalidate()
            connection.close()

    def close(self) -> None:
        """Stop the threads and give the connections back."""
        if self.parent is not None:
            self.parent.stop()
        if self.timer is not None:
            self.timer.stop()
        if self.shadow is not None:
            self.shadow.stop()
        self.heartbeat.stop()
        if self.arrivals is not None:
            self.arrivals.stop()
        for connection in self._connections.values():
            connection.close()
        for engine in (self.bulk_engine, self.claim_engine, self.engine):
            engine.dispose()
        self.redis.close()
        if self.tracing is not None:
            self.tracing.stop()


def _passes(error: DBAPIError | psycopg2.Error) -> bool:
    """Return whether a failed statement may succeed later: the database is away, locked or read-only."""
    # COPY goes past SQLAlchemy: its errors are the driver's, and a connection that is lost in it shows when it ends.
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    cause = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(cause, psycopg2.OperationalError) or getattr(cause, "pgcode", None) == _READ_ONLY
