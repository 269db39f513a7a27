"""Detection of a connection pooler (such as PgBouncer), and of modes that the service cannot use.

Statements are prepared and settings made once on each connection, which has to stay with one server process: a pooler
must give whole sessions, not transactions.
"""

from sqlalchemy import Connection, Engine

from shared.database.engine import is_sqlite

_LOOKS = 3  # how often the same session is asked where it is: one pooler goes round its servers, another does not


def pooler_problem(engine: Engine) -> str | None:
    """Return the reason why the service cannot work behind the pooler of this database; None if it can."""
    if is_sqlite(engine):
        return None
    engine = engine.execution_options(isolation_level="AUTOCOMMIT")  # each statement is a transaction of its own
    with engine.connect() as first:
        if not _is_pooled(first):
            return None
        with engine.connect() as second:
            if not _shares_servers(first, second):
                return None
    return (
        "a connection pooler gives this role single transactions, and prepared statements need whole sessions: set "
        "pool_mode = session for its database (PgBouncer), or give the address of PostgreSQL itself in DATABASE_URL"
    )


def _is_pooled(connection: Connection) -> bool:
    """Return whether another process answers than the one that the connection was told of: a pooler makes that up."""
    driver = connection.connection.driver_connection
    assert driver is not None
    backend_pid: int = driver.info.backend_pid
    return _server_of(connection) != backend_pid


def _shares_servers(first: Connection, second: Connection) -> bool:
    """Return whether two open sessions are served by the same process, or one of them by several."""
    seen = {_server_of(first) for _ in range(_LOOKS)}
    second.exec_driver_sql("BEGIN")
    try:
        if _server_of(second) in seen:
            return True
        seen.add(_server_of(first))  # while the other one holds its server
    finally:
        second.exec_driver_sql("ROLLBACK")
    return len(seen) > 1


def _server_of(connection: Connection) -> int:
    """Return the id of the server process that answers a statement."""
    backend_pid: int = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    return backend_pid
