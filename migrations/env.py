"""Alembic's entry: runs the migrations on the database of the settings, on both dialects."""

from alembic import context

from shared.db import get_engine
from shared.tables import Table


def run() -> None:
    """Run the migrations that the command line asks for, all in one transaction."""
    with get_engine().connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=Table.metadata,
            render_as_batch=connection.dialect.name == "sqlite",
            compare_server_default=False,
        )
        with context.begin_transaction():
            context.run_migrations()


run()
