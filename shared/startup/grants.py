"""The privileges that the role of DATABASE_URL needs: read every row, write most, and change no table."""

from sqlalchemy import Connection, text

from shared.faults import few
from shared.tables import Table

_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
READ_ONLY = ("api_keys", "model_versions")  # made by the owner's commands (scripts/create_db.py)
APPEND_ONLY = (
    "audit_logs",
    "alias_events",
    "service_secrets",
)  # what was done stays written, a secret what it is
# A table that is lost is another fault than a right.
_DENIED = text(
    "SELECT r.name || ' on ' || t.name FROM unnest(:tables) WITH ORDINALITY AS t (name, place), "
    "unnest(:rights) WITH ORDINALITY AS r (name, place) "
    "WHERE to_regclass(t.name) IS NOT NULL AND NOT has_table_privilege(t.name, r.name) "
    "AND (r.name = 'SELECT' OR NOT t.name = ANY (:read_only)) "
    "AND (r.name IN ('SELECT', 'INSERT') OR NOT t.name = ANY (:append_only)) ORDER BY t.place, r.place"
)


def missing_grants(connection: Connection) -> str | None:
    """Return the role's missing rights, with advice; None if it has them all."""
    if connection.dialect.name == "sqlite":
        return None
    role = connection.execute(text("SELECT current_user")).scalar()
    if connection.execute(text("SHOW transaction_read_only")).scalar() == "on":
        return (
            f"{role} gets read-only transactions: set DATABASE_URL to the address of guichet_app, on a server that is "
            "no replica"
        )
    tables = [table.name for table in Table.metadata.sorted_tables]
    parameters = {
        "tables": tables,
        "rights": list(_RIGHTS),
        "read_only": list(READ_ONLY),
        "append_only": list(APPEND_ONLY),
    }
    denied = list(connection.execute(_DENIED, parameters).scalars())
    if not connection.execute(text("SELECT has_sequence_privilege('claim_tokens', 'USAGE')")).scalar():
        denied.append("USAGE on claim_tokens")
    if not denied:
        return None
    return (
        f"{role} lacks {few(denied)}: set DATABASE_URL to the address of guichet_app, or run "
        "`python -m scripts.create_db`, which grants them"
    )
