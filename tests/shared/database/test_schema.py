"""The schema that people read is the one that the migrations build."""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest
from alembic import command
from sqlalchemy import Connection, Engine, text

from scripts.generate import schema
from shared.database.engine import make_engine
from shared.tables import Table
from tests.conftest import create_database
from tests.support.databases import alembic_config, migrate, settings_for, settings_of

# What a migration can make besides tables, columns, indexes and comments, which Alembic compares itself.
OTHER = {
    "triggers": "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
    "functions": "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1",
    "sequences": "SELECT seqrelid::regclass::text, seqtypid::regtype::text, seqstart, seqcache, seqmax FROM pg_sequence"
    " ORDER BY 1",
    "storage": "SELECT attrelid::regclass::text, attname, attstorage FROM pg_attribute WHERE attnum > 0"
    " AND attrelid::regclass::text IN (SELECT tablename FROM pg_tables WHERE schemaname = 'public') ORDER BY 1, 2",
    "checks": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2",
    "options": "SELECT relname, reloptions FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    " AND relkind = 'r' ORDER BY 1",
    "views": "SELECT relname, pg_get_viewdef(oid, true), obj_description(oid) FROM pg_class WHERE relkind = 'v'"
    " AND relnamespace = 'public'::regnamespace ORDER BY 1",
    "revision": "SELECT version_num FROM alembic_version",
}


@pytest.fixture(scope="module")
def migrated(session_postgres) -> Iterator[Engine]:
    url = create_database(session_postgres, "schema_migrated")
    migrate(url)
    engine = make_engine(url)
    yield engine
    engine.dispose()


def test_files_of_the_schema_are_current(migrated):
    with migrated.connect() as connection:
        assert schema.SQL_FILE.read_text() == schema.render_sql(connection), "run `make schema`"
    assert schema.PAGE_FILE.read_text() == schema.render_page(), "run `make schema`"
    assert schema.DIAGRAM_FILE.read_text() == schema.render_diagram(), "run `make schema`"


def plain(connection: Connection, question: str) -> list[str]:
    """Return the rows as text, without the casts and brackets that PostgreSQL adds when it shows an expression."""
    rows = connection.execute(text(question)).all()
    return [re.sub(r"::(character varying|\w+)(\[\])?|[() ]", "", str(tuple(row))) for row in rows]


def test_database_made_with_the_sql_is_the_one_that_the_migrations_build(migrated, session_postgres):
    url = create_database(session_postgres, "schema_from_sql")
    engine = make_engine(url)
    raw = engine.raw_connection()
    raw.cursor().execute(schema.SQL_FILE.read_text())
    raw.commit()
    raw.close()
    with settings_of(**settings_for(url)):
        command.check(alembic_config())
    with engine.connect() as made, migrated.connect() as built:
        for what, question in OTHER.items():
            assert plain(made, question) == plain(built, question), what
    engine.dispose()


def test_diagram_holds_every_table_and_every_foreign_key():
    diagram = ElementTree.fromstring(schema.DIAGRAM_FILE.read_text())
    tables = Table.metadata.sorted_tables
    names = [text.text for text in diagram.iterfind(".//{*}text[@font-weight='bold']")]
    assert sorted(map(str, names)) == sorted(table.name for table in tables)
    assert sorted(str(title.text) for title in diagram.iterfind(".//{*}title")) == sorted(
        f"{table.name}.{key.column_keys[0]} → {key.referred_table.name}"
        for table in tables
        for key in table.foreign_key_constraints
    )


def test_every_column_is_explained():
    page = schema.PAGE_FILE.read_text()
    for table in Table.metadata.sorted_tables:
        section = page.split(f"\n## {table.name}\n")[1].split("\n## ")[0]
        for column in table.columns:
            assert f"| `{column.name}`" in section, f"{table.name}.{column.name}"
            assert str(column.comment) in section
