"""A PostgreSQL that has run every migration, for commands that look at the result."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.options import ROOT
from scripts.servers import Postgres


@contextmanager
def migrated_postgres(folder: Path) -> Iterator[str]:
    """Yield the URL of a new database below the folder; it ends with the block."""
    with Postgres(folder) as postgres:
        alembic("upgrade", "head", url=postgres.url)
        yield postgres.url


def alembic(*arguments: str, url: str) -> None:
    """Run Alembic on a database. Raises CalledProcessError when it fails; it has said why."""
    env = os.environ | {
        "RUNTIME": "sync" if url.startswith("sqlite") else "queue",
        "DATABASE_URL": url,
        "REDIS_URL": "",
        "ENVIRONMENT": "dev",
    }
    subprocess.run([sys.executable, "-m", "alembic", *arguments], env=env, cwd=ROOT, check=True)
