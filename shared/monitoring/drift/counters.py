"""Writing the counters of scored rows: those of an hour, and of its day."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from shared.tables import FeatureCount, Table


def add_counts(connection: Connection, version: int, hour: datetime, rows: int, counts: Sequence[int]) -> None:
    """Add to the counters of an hour and of its day, or take away by negative ones; the caller holds the watermark."""
    table = FeatureCount
    for span, start in (("hour", hour), ("day", hour.replace(hour=0))):
        place = (table.model_version_id == version, table.span == span, table.starts_at == start)
        stored = connection.execute(select(table.row_count, table.counts).where(*place)).one_or_none()
        if stored is not None:
            rows_now, counts_now = stored.row_count + rows, (np.array(stored.counts) + counts).tolist()
        else:
            rows_now, counts_now = rows, list(counts)
        if rows_now == 0:
            connection.execute(delete(table).where(*place))
            continue
        new = insert_into(connection, table).values(
            model_version_id=version, span=span, starts_at=start, row_count=rows_now, counts=counts_now
        )
        connection.execute(
            new.on_conflict_do_update(
                index_elements=[table.model_version_id, table.span, table.starts_at],
                set_={"row_count": new.excluded.row_count, "counts": new.excluded.counts},
            )
        )


def insert_into(connection: Connection, table: type[Table]) -> Any:  # noqa: ANN401 - of either dialect
    """Return an INSERT of this dialect, which may say what to do about a row that is there."""
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)
