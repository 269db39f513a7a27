"""Alembic's entry: runs the migrations on the database of the settings, on both dialects.

All of them in one transaction: a migration that fails halfway leaves the database as it was.
"""

import sys

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from migrations.rendering import render_type
from shared.config.settings import get_settings
from shared.database.engine import get_engine, take_time
from shared.database.messages import first_line
from shared.database.revision import newest_revision, stored_revision
from shared.startup.checks import CannotStart, check_database
from shared.tables import Table

_LOCK = 7_236_001  # any number: whoever migrates this database holds it
_LOCK_TIMEOUT = "30s"  # whoever waits for a table's lock lets nobody else pass


def run() -> None:
    """Run the migrations that the command line asks for; raise CannotStart with a sentence when one fails."""
    check_database(get_settings(), migrated=False)
    try:
        with get_engine().connect() as connection:
            context.configure(
                connection=connection,
                target_metadata=Table.metadata,
                render_as_batch=connection.dialect.name == "sqlite",
                compare_server_default=False,
                render_item=render_type,
                transactional_ddl=True,  # SQLite's is, too: shared/database/engine.py begins its transactions itself
            )
            with context.begin_transaction():
                _prepare(connection)
                if not _is_done_by_a_newer_release(connection):
                    context.run_migrations()
    except SQLAlchemyError as error:
        raise CannotStart(
            f"a migration failed, and nothing was changed ({type(error).__name__}: {first_line(error)}): "
            "the database is as before; mend the cause and run it again"
        ) from error


def _is_done_by_a_newer_release(connection: Connection) -> bool:
    """Tell whether the newest tables are asked for, and there are newer ones: what a release rolled back to finds."""
    stored, newest = stored_revision(connection), newest_revision()
    if stored is None or newest is None or stored <= newest:
        return False
    if context.get_context().opts.get("destination_rev") != "head":
        return False  # to go to a number is another wish: alembic says that it does not know the way
    sys.stderr.write(
        f"guichet: the tables are at migration {stored}, and this release's are at {newest}: they stay as they are\n"
    )
    return True


def _prepare(connection: Connection) -> None:
    """Let one process migrate at a time, for as long as it takes."""
    if connection.dialect.name == "postgresql":
        take_time(connection)
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
        # `alembic -x role=guichet_owner upgrade head`: what is made belongs to this role.
        if (role := context.get_x_argument(as_dictionary=True).get("role")) is not None:
            connection.execute(text("SELECT set_config('role', :role, true)"), {"role": role})


run()
