"""Revisions: the last migration of a database, and the last one of this release."""

import re
from pathlib import Path

from sqlalchemy import Connection, inspect, text

_VERSIONS = Path(__file__).resolve().parents[2] / "migrations" / "versions"
UPGRADE = "run `python -m alembic upgrade head`"


def newest_revision() -> str | None:
    """Return the number of the last migration of this release; None where its migrations are not installed."""
    numbers = [match[0] for file in _VERSIONS.glob("*.py") if (match := re.match(r"\d{4}(?=_)", file.name))]
    return max(numbers, default=None)


def stored_revision(connection: Connection) -> str | None:
    """Return the number of the last migration that ran on a database; None where none ever did."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    number = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if number is None else str(number)


def revision_problem(stored: str | None) -> str | None:
    """Return the problem of a database at this revision; a newer one has none: releases overlap in an upgrade."""
    newest = newest_revision()
    if stored is None:
        return f"the database has no tables yet: {UPGRADE} first"
    if newest is not None and stored < newest:
        return f"the tables are at migration {stored}, and this release needs {newest}: {UPGRADE} first"
    return None
