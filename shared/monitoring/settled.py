"""The output id below which no further output can appear: the limit for watermarks.

Ids are given when a row is written and rows appear when their transaction commits: a row may appear behind a higher id.
"""

import time
from collections.abc import Sequence

from sqlalchemy import Connection, Engine, func, select, text

from shared.database.engine import reader
from shared.tables import ModelOutput

PATIENCE_SECONDS = 1.0  # for the transactions that are writing outputs at this moment
_PAUSE_SECONDS = 0.01

# Whoever writes outputs holds this lock from before the first id is taken until its transaction ends (PostgreSQL
# manual, 13.3.1); CREATE INDEX CONCURRENTLY waits for writers in the same way.
_WRITERS = text(
    "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND relation = 'model_outputs'::regclass"
)


def settled_id(engine: Engine) -> int | None:
    """Return the highest id below which no further output can appear; None while a writer takes too long.

    On SQLite that is the last one: there is one writer at a time.
    """
    with reader(engine).connect() as connection:
        last = connection.scalar(select(func.max(ModelOutput.id))) or 0
        if connection.dialect.name == "sqlite":
            return last
        # Read after `last`: whoever holds a lower id and has not committed by now is among them.
        writers = _writers(connection)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while writers & _writers(connection):
            if time.monotonic() > deadline:
                return None
            time.sleep(_PAUSE_SECONDS)
        return last


def _writers(connection: Connection) -> frozenset[str]:
    writers: Sequence[str] = connection.scalars(_WRITERS).all()
    return frozenset(writers)
