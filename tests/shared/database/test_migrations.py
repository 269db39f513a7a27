"""The migrations build exactly the tables of the code, on both dialects, and can be taken back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine, inspect

from migrations.rendering import render_type
from scripts.servers.postgres import Postgres
from shared.database.engine import make_engine
from shared.database.revision import stored_revision
from shared.tables import Job, JobKind, JobState, Table
from tests.conftest import create_database
from tests.support.databases import alembic_config, migrate, settings_for, settings_of

DIALECTS = ["postgresql", "sqlite"]


def test_migration_written_from_the_tables_names_nothing_of_the_service():
    engine = make_engine("sqlite://")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        changes = produce_migrations(context, Table.metadata).upgrade_ops
        assert changes is not None
        text = render_python_code(changes, render_item=render_type, migration_context=context)
    engine.dispose()
    assert "op.create_table('jobs'" in text
    assert "sa.Column('created_at', sa.DateTime(timezone=True)" in text
    assert "shared." not in text


def new_database(dialect: str, name: str, postgres: Postgres, folder: Path) -> str:
    return create_database(postgres, name) if dialect == "postgresql" else f"sqlite:///{folder / name}.db"


@pytest.fixture(scope="module", params=DIALECTS)
def migrated(
    request: pytest.FixtureRequest, session_postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """A database that has run every migration."""
    url = new_database(request.param, "migrations", session_postgres, tmp_path_factory.mktemp("migrations"))
    migrate(url)
    engine = make_engine(url)
    yield engine
    engine.dispose()


def test_migrations_build_exactly_the_tables_of_the_code(migrated):
    """Alembic compares columns, types, indexes, constraints and comments, and finds nothing to do."""
    url = migrated.url.render_as_string(hide_password=False)
    with settings_of(**settings_for(url)):
        command.check(alembic_config())


def test_every_table_of_the_code_is_there_and_no_other(migrated):
    assert set(inspect(migrated).get_table_names()) == {*Table.metadata.tables, "alembic_version"}


def test_every_column_is_there_with_its_nullability(migrated):
    inspector = inspect(migrated)
    for table in Table.metadata.sorted_tables:
        stored = {column["name"]: column["nullable"] for column in inspector.get_columns(table.name)}
        assert stored == {column.name: column.nullable for column in table.columns}, table.name


def test_every_index_is_there(migrated):
    inspector = inspect(migrated)
    for table in Table.metadata.sorted_tables:
        stored = {index["name"]: index["column_names"] for index in inspector.get_indexes(table.name)}
        for index in table.indexes:
            assert stored[index.name] == [column.name for column in index.columns]


def test_every_table_and_column_of_the_code_has_a_comment():
    for table in Table.metadata.sorted_tables:
        assert table.comment, table.name
        silent = [column.name for column in table.columns if not column.comment]
        assert silent == [], table.name


@pytest.mark.parametrize("migrated", ["postgresql"], indirect=True)
def test_every_comment_stands_in_the_database(migrated):
    """Whoever opens the database with psql reads what each thing means."""
    inspector = inspect(migrated)
    for table in Table.metadata.sorted_tables:
        assert inspector.get_table_comment(table.name)["text"] == table.comment
        stored = {column["name"]: column["comment"] for column in inspector.get_columns(table.name)}
        assert stored == {column.name: column.comment for column in table.columns}, table.name


@pytest.mark.parametrize("migrated", ["postgresql"], indirect=True)
def test_guard_and_fence_stand_in_the_database(migrated):
    with migrated.connect() as connection:
        triggers = connection.exec_driver_sql(
            "SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled = 'O'"
        ).all()
    assert triggers == [("jobs", "jobs_guard")]
    assert "claim_tokens" in inspect(migrated).get_sequence_names()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_migrations_can_be_taken_back_and_run_again(dialect, session_postgres, tmp_path):
    url = new_database(dialect, "migrations_back", session_postgres, tmp_path)
    engine = make_engine(url)

    def everything() -> dict[str, object]:
        inspector = inspect(engine)
        return {
            "tables": sorted(inspector.get_table_names()),
            "indexes": sorted(str(i["name"]) for t in inspector.get_table_names() for i in inspector.get_indexes(t)),
            "sequences": sorted(inspector.get_sequence_names()) if dialect == "postgresql" else [],
        }

    def functions() -> list[str]:
        if dialect == "sqlite":
            return []
        with engine.connect() as connection:
            query = "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
            return list(connection.exec_driver_sql(query).scalars())

    try:
        with settings_of(**settings_for(url)):
            config = alembic_config()
            command.upgrade(config, "head")
            first, first_functions = everything(), functions()
            command.downgrade(config, "base")
            assert everything() == {"tables": ["alembic_version"], "indexes": [], "sequences": []}
            assert functions() == []
            command.upgrade(config, "head")
            assert (everything(), functions()) == (first, first_functions)
            command.check(config)
    finally:
        engine.dispose()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_tables_of_a_newer_release_stay_as_they_are(dialect, session_postgres, tmp_path, capsys):
    """Who rolls a release back starts the former one, whose start migrates, on the tables of the newer."""
    url = new_database(dialect, "migrations_newer", session_postgres, tmp_path)
    migrate(url)
    engine = make_engine(url)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9998'")
        migrate(url)
        assert "the tables are at migration 9998" in capsys.readouterr().err
        with engine.connect() as connection:
            assert stored_revision(connection) == "9998"
        with settings_of(**settings_for(url)), pytest.raises(CommandError, match="Can't locate revision"):
            command.downgrade(alembic_config(), "0001")
    finally:
        engine.dispose()


def test_migrations_are_one_line_with_numbers_in_order():
    scripts = ScriptDirectory.from_config(alembic_config())
    assert len(scripts.get_heads()) == 1
    revisions = [script.revision for script in reversed(list(scripts.walk_revisions()))]
    assert revisions == [f"{number:04d}" for number in range(1, len(revisions) + 1)]
    for script in scripts.walk_revisions():
        assert Path(script.path).name.startswith(f"{script.revision}_")
        assert script.doc


def test_states_and_kinds_of_the_code_are_those_that_the_column_takes():
    check = next(c for c in Job.__table__.constraints if c.name == "ck_jobs_state_known")
    for state in JobState:
        assert f"'{state.value}'" in str(check.sqltext)
        assert len(state.value) <= Job.__table__.c.state.type.length
    for kind in JobKind:
        assert len(kind.value) <= Job.__table__.c.kind.type.length
