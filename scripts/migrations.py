"""Alembic as a command, on a given database."""

import os
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


def alembic(*arguments: str, url: str) -> None:
    """Run Alembic on a database. Raises CalledProcessError when it fails; Alembic has printed the reason."""
    env = os.environ | {
        "RUNTIME": "sync" if url.startswith("sqlite") else "queue",
        "DATABASE_URL": url,
        "REDIS_URL": "",
        "ENVIRONMENT": "dev",
    }
    subprocess.run([sys.executable, "-m", "alembic", *arguments], env=env, cwd=_ROOT, check=True)
