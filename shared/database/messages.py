"""Database errors as sentences on which an operator can act."""

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from shared.database.revision import UPGRADE

_NOT_ALLOWED = ("42501", "25006")  # SQLSTATE: insufficient privilege, read-only transaction
_NO_TABLE = "42P01"


def first_line(error: SQLAlchemyError) -> str:
    """Return the first line of a database's message."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0].removeprefix("connection to server ").strip() if lines else type(error).__name__


def explain_database_error(error: SQLAlchemyError) -> str:
    """Return the error of a command on the database, with advice."""
    reason, code = first_line(error), getattr(getattr(error, "orig", None), "pgcode", None)
    if code in _NOT_ALLOWED:
        return (
            f"the role of DATABASE_URL may not do this ({reason}): rows are written as guichet_app; keys, models, "
            "views and tables are made as guichet_owner (docs/operations.md)."
        )
    if code == _NO_TABLE or reason.startswith("no such table"):
        return f"the tables are not there ({reason}): {UPGRADE} first."
    if isinstance(error, IntegrityError):
        return f"somebody else stored the same ({reason}): run it again."
    return f"the database cannot be used ({reason}): check DATABASE_URL."
