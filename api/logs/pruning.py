"""Deleting old log entries: in pieces, so that no lock is held for long."""

from collections.abc import Callable

from sqlalchemy import Engine, delete, func, select

from shared.database.clock import clock
from shared.tables import ErrorLog, RequestLog

PRUNE_SECONDS = 3_600.0
_AT_ONCE = 10_000


def prune(
    engine: Engine,
    table: type[ErrorLog] | type[RequestLog],
    *,
    days: float,
    rows: int,
    is_stopping: Callable[[], bool],
) -> None:
    """Delete entries that are older than `days`, or beyond the newest `rows`, unless it has to stop."""
    count = _AT_ONCE
    while count == _AT_ONCE and not is_stopping():
        with engine.begin() as connection:
            newest = select(func.max(table.id)).scalar_subquery()
            is_old = table.created_at < clock(connection, -86_400 * days)
            ids = select(table.id).where(is_old | (table.id <= newest - rows)).limit(_AT_ONCE)
            count = connection.execute(delete(table).where(table.id.in_(ids))).rowcount
