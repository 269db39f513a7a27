"""A PostgreSQL with every migration applied, for commands that read the result."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.migrations import alembic
from scripts.servers.postgres import Postgres


@contextmanager
def migrated_postgres(folder: Path) -> Iterator[str]:
    """Yield the URL of a new database below the folder; it ends with the block."""
    with Postgres(folder) as postgres:
        alembic("upgrade", "head", url=postgres.url)
        yield postgres.url
