"""Pages of request_logs, error_logs and audit_logs, newest first, by filters."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from shared.tables import AuditLog, ErrorLog, RequestLog

Log = type[RequestLog] | type[ErrorLog] | type[AuditLog]


def page(
    connection: Connection,
    table: Log,
    *,
    filters: Mapping[str, Any],
    since: datetime | None,
    until: datetime | None,
    before: int | None,
    limit: int,
) -> tuple[list[dict[str, Any]], int | None]:
    """Return at most `limit` entries older than the one numbered `before`, and where the next page begins (or None).

    `filters` are values of columns, of which None filters nothing; `since` is inclusive, `until` exclusive.
    """
    query = select(table.__table__).order_by(table.id.desc()).limit(limit + 1)
    for name, value in filters.items():
        if value is not None:
            query = query.where(getattr(table, name) == value)
    if before is not None:
        query = query.where(table.id < before)
    if since is not None:
        query = query.where(table.created_at >= since)
    if until is not None:
        query = query.where(table.created_at < until)
    entries = [dict(row) for row in connection.execute(query).mappings()]
    return entries[:limit], entries[limit - 1]["id"] if len(entries) > limit else None
