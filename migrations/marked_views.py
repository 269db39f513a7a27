"""Drops the views that Guichet made for models, as a migration needs it: with nothing of the service's own code.

A migration stays as it was written, while the service's files move; so what it needs is here.
"""

import re

import sqlalchemy as sa
from alembic.util import CommandError

_MARK = re.compile(r"guichet view: (inputs|predictions|reference) of [a-z][a-z0-9_-]* \([0-9a-f]{12}\)")
_DEPENDED_ON = "2BP01"  # SQLSTATE: another object is made of it
_VIEWS = {
    "postgresql": sa.text(
        "SELECT c.relname, obj_description(c.oid, 'pg_class') FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = current_schema() AND c.relkind = 'v'"
    ),
    "sqlite": sa.text("SELECT name, sql FROM sqlite_master WHERE type = 'view'"),
}


def drop_marked_views(connection: sa.Connection) -> None:
    """Drop every view that carries Guichet's mark; raise CommandError where other views are made of one."""
    dialect = connection.dialect.name
    for name, text in connection.execute(_VIEWS[dialect]).all():
        quoted = '"' + name.replace('"', '""') + '"'
        # On SQLite the mark follows the name: a name may be like a mark itself.
        begin = "" if dialect == "postgresql" else f"CREATE VIEW {quoted} AS /* "
        if not (text or "").startswith(begin) or not _MARK.match((text or "").removeprefix(begin)):
            continue
        try:  # without parameters no driver takes a % in a name for one
            connection.exec_driver_sql(f"DROP VIEW {quoted}", execution_options={"no_parameters": True})
        except sa.exc.DBAPIError as error:
            if getattr(error.orig, "pgcode", None) != _DEPENDED_ON:
                raise
            raise CommandError(
                f"The view {name!r} cannot be dropped, because views that Guichet did not make are made of it: drop "
                "those first, and make them again afterwards."
            ) from error
