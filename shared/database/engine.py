"""The database: one engine per process, sessions, and the differences between PostgreSQL and SQLite."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import orjson
from psycopg2.extras import register_default_json, register_default_jsonb
from sqlalchemy import Connection as SqlConnection
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from shared.config.settings import get_settings
from shared.database.deadlines import STATEMENT_SECONDS, Connection, replace_shut

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# psycopg2 decodes json columns with the standard library otherwise, about five times slower.
register_default_json(globally=True, loads=orjson.loads)
register_default_jsonb(globally=True, loads=orjson.loads)


def dumps(value: object) -> str:
    """Return `value` as JSON text for storage."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode()


# The statements of the hot path find every row by an index, whatever the statistics say: a plan that was made while the
# tables were small must not scan them, or keep a copy of them, when they have grown.
_POINTWISE = (
    "enable_seqscan = off",
    "enable_hashjoin = off",
    "enable_mergejoin = off",
    "enable_material = off",
    "plan_cache_mode = force_generic_plan",
)


def make_engine(url: str, *, pool_size: int = 8, autocommit: bool = False, durable: bool = True) -> Engine:
    """Return an engine for PostgreSQL or SQLite with the connection settings that durability needs.

    With `autocommit`, every statement on PostgreSQL is a transaction of its own, and is planned to look rows up one by
    one: for the hot path. Without `durable`, COMMIT on PostgreSQL does not wait for the disk: for claims, which a crash
    may forget.
    """
    if url.startswith("sqlite"):
        path = url.removeprefix("sqlite:///")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(url, json_serializer=dumps, json_deserializer=orjson.loads, hide_parameters=True)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediate)
        return engine
    parameters = ["timezone = 'utc'", f"statement_timeout = {STATEMENT_SECONDS * 1000:.0f}"]
    if not durable:
        parameters.append("synchronous_commit = off")
    engine = create_engine(
        url,
        json_serializer=dumps,
        json_deserializer=orjson.loads,
        hide_parameters=True,  # what failed is logged, never the rows that it failed with
        pool_size=pool_size,
        max_overflow=4,
        pool_pre_ping=False,
        pool_timeout=5,
        isolation_level="AUTOCOMMIT" if autocommit else "READ COMMITTED",
        connect_args={
            "connect_timeout": 5,
            # The kernel notices a host that was lost; a proxy that is silent answers it, and only a deadline ends that.
            "connection_factory": Connection,
            "tcp_user_timeout": 10_000,  # milliseconds until what was sent has to be acknowledged
            "keepalives_idle": 10,  # seconds
            "keepalives_interval": 5,
            "keepalives_count": 2,
        },
    )
    event.listen(engine, "checkout", replace_shut)
    event.listen(engine, "connect", _setter([*parameters, *_POINTWISE] if autocommit else parameters))
    return engine


def _setter(parameters: Iterable[str]) -> Callable[[Any, ConnectionPoolEntry], None]:
    """Return a listener that makes these settings on each new connection, in one statement.

    Not as its startup parameter `options`: PgBouncer refuses that, or ignores what it says.
    """
    statement = ";".join(f"SET {parameter}" for parameter in parameters)

    def make_settings(connection: Any, _entry: ConnectionPoolEntry) -> None:  # noqa: ANN401 - a psycopg2 connection
        was = connection.autocommit
        connection.autocommit = True  # a rollback would take the settings back
        with connection.cursor() as cursor:
            cursor.execute(statement)
        connection.autocommit = was

    return make_settings


def take_time(connection: SqlConnection) -> None:
    """Remove the deadline from the statements of this transaction, which is an operator's and not a request's."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        driver: Any = connection.connection.driver_connection
        driver.patience = math.inf


def _prepare_sqlite(connection: Any, _entry: ConnectionPoolEntry) -> None:  # noqa: ANN401 - any DB-API connection
    # WAL lets readers go on beside the writer; FULL makes every COMMIT durable.
    connection.isolation_level = None  # the driver begins no transaction of its own
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "busy_timeout=5000",
        "foreign_keys=ON",
        "temp_store=MEMORY",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: Any) -> None:  # noqa: ANN401 - a SQLAlchemy or DB-API connection
    # A transaction that reads first and writes later can fail with "database is locked" at once, whatever the
    # busy timeout: every writer takes the lock when it begins. Readers say so with the execution option.
    mode = "DEFERRED" if connection.get_execution_options().get("read_only") else "IMMEDIATE"
    connection.exec_driver_sql(f"BEGIN {mode}")


@lru_cache(maxsize=1)
def get_engine() -> Engine:
    """Return the engine of this process."""
    return make_engine(get_settings().database)


@contextmanager
def session_scope(engine: Engine | None = None, *, read_only: bool = False) -> Iterator[Session]:
    """Yield a session; commit once at the end, roll back on any exception."""
    engine = engine or get_engine()
    if read_only:
        engine = engine.execution_options(read_only=True)
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


def run_again(transaction: Callable[[], Result]) -> Result:
    """Run a transaction, once more if the server had closed the connection, e.g. because it restarted.

    The first try may have been committed all the same: only what does no harm twice is run like this.
    """
    try:
        return transaction()
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        log.warning("the database closed the connection; trying once more on a new one")
        return transaction()


def reader(engine: Engine) -> Engine:
    """Return the engine for reading: it takes no write lock on SQLite."""
    return engine.execution_options(read_only=True) if is_sqlite(engine) else engine


def is_sqlite(engine: Engine) -> bool:
    """Tell which dialect the engine speaks."""
    return engine.dialect.name == "sqlite"
