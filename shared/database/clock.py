"""The time of the database, which every process uses."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Connection, func, literal

from shared.database.types import UtcDateTime


def clock(connection: Connection, plus_seconds: float = 0.0) -> ColumnElement[datetime]:
    """Return the database's time; on SQLite, which one process has to itself, that process's."""
    plus = timedelta(seconds=plus_seconds)
    if connection.dialect.name == "sqlite":
        return literal(datetime.now(UTC) + plus, UtcDateTime())
    return func.now() + plus
