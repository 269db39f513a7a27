"""`make schema`: write docs/schema.sql, schema.md and schema.svg from the tables; a test holds them current.

Tables, indexes and comments come from shared/tables/. What stands in migrations only (sequences, functions, triggers,
storage, views) is read from a database that has run them all.
"""

import sys
import tempfile
from pathlib import Path

from sqlalchemy import Column, Connection, UniqueConstraint, text
from sqlalchemy import Table as SqlTable
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable, DDLElement, SetColumnComment, SetTableComment

from scripts.checkout import ROOT
from scripts.generate.diagram import draw
from scripts.generate.migrated import migrated_postgres
from scripts.servers.server import ServerError
from shared.database.engine import make_engine
from shared.database.revision import newest_revision
from shared.tables import Table

SQL_FILE = ROOT / "docs" / "schema.sql"
PAGE_FILE = ROOT / "docs" / "schema.md"
DIAGRAM_FILE = ROOT / "docs" / "schema.svg"
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]

_SQL_BEFORE = """-- The schema of Guichet on PostgreSQL, for reading and for tools that want SQL.
-- `make schema` writes this file from shared/tables/ and the migrations; a test holds it current, and equal to them.
-- A database made with it goes on with `python -m alembic upgrade head`, as one that was migrated.
"""
_PAGE_BEFORE = """# Schema

`make schema` writes this page from `shared/tables/`. As SQL: [schema.sql](schema.sql). Ready queries:
[queries.sql](queries.sql); rows to try them on: [samples](samples/README.md).

[![Tables and their foreign keys](schema.svg)](schema.svg)

The diagram shows keys only: an arrow leads from a foreign key to its table, and is dashed where the key may be null.
The columns follow below. SQLite has the same tables, with text for `uuid`, `jsonb` and `timestamp with time zone`
(UTC).

"""
_SEQUENCES = """
SELECT c.relname, s.seqcache, obj_description(c.oid) FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid
WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype IN ('a', 'i')) ORDER BY 1
"""
_FUNCTIONS = """
SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace ORDER BY p.proname
"""
_TRIGGERS = """
SELECT pg_get_triggerdef(t.oid, true) FROM pg_trigger t WHERE NOT t.tgisinternal ORDER BY t.tgrelid::regclass::text, 1
"""
_STORAGE = """
SELECT a.attrelid::regclass::text, a.attname, CASE a.attstorage WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN'
WHEN 'p' THEN 'PLAIN' ELSE 'EXTENDED' END FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_type t ON t.oid = a.atttypid WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
AND a.attnum > 0 AND NOT a.attisdropped AND a.attstorage <> t.typstorage ORDER BY 1, a.attnum
"""
_VIEWS = """
SELECT c.relname, pg_get_viewdef(c.oid, true), obj_description(c.oid) FROM pg_class c
WHERE c.relkind = 'v' AND c.relnamespace = 'public'::regnamespace ORDER BY 1
"""


def render_sql(connection: Connection) -> str:
    """Return schema.sql; the connection leads to a PostgreSQL that has run every migration."""
    blocks = [_SQL_BEFORE]
    for name, cache, comment in connection.execute(text(_SEQUENCES)):
        blocks.append(f"CREATE SEQUENCE {name} AS bigint CACHE {cache};\n" + _comment(f"SEQUENCE {name}", comment))
    for table in Table.metadata.sorted_tables:
        elements: list[DDLElement] = [CreateTable(table)]
        elements += [CreateIndex(index) for index in sorted(table.indexes, key=lambda index: str(index.name))]
        elements.append(SetTableComment(table))
        elements += [SetColumnComment(column) for column in table.columns]
        blocks.append("".join(f"{_compile(element)};\n" for element in elements))
    storage = connection.execute(text(_STORAGE))
    blocks.append("".join(f"ALTER TABLE {row[0]} ALTER COLUMN {row[1]} SET STORAGE {row[2]};\n" for row in storage))
    blocks += [f"{source.rstrip()};\n" for source in connection.execute(text(_FUNCTIONS)).scalars()]
    blocks += [f"{source};\n" for source in connection.execute(text(_TRIGGERS)).scalars()]
    for name, select, comment in connection.execute(text(_VIEWS)):
        blocks.append(f"CREATE VIEW {name} AS\n{select.rstrip()}\n" + _comment(f"VIEW {name}", comment))
    blocks.append(
        "CREATE TABLE alembic_version (\n"
        "\tversion_num VARCHAR(32) NOT NULL,\n"
        "\tCONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)\n"
        ");\n"
        f"INSERT INTO alembic_version (version_num) VALUES ('{newest_revision()}');\n"
    )
    return "\n".join(blocks)


def render_page() -> str:
    """Return schema.md: the ER diagram, then every table with its columns."""
    return _PAGE_BEFORE + "".join(_section(table) for table in Table.metadata.sorted_tables)


def render_diagram() -> str:
    """Return schema.svg."""
    return draw(list(Table.metadata.sorted_tables))


def _keys(column: Column[object]) -> str:
    marks = {
        "PK": column.primary_key,
        "FK": bool(column.foreign_keys),
        "UK": (column.name,) in _unique(column.table),
    }
    return ", ".join(mark for mark, holds in marks.items() if holds)


def _unique(table: SqlTable) -> list[tuple[str, ...]]:
    """Return the columns of each unique constraint."""
    constraints = [constraint for constraint in table.constraints if isinstance(constraint, UniqueConstraint)]
    return sorted(tuple(column.name for column in constraint.columns) for constraint in constraints)


def _section(table: SqlTable) -> str:
    lines = [f"\n## {table.name}\n", f"{table.comment}.\n", "| column | type | null | meaning |", "|---|---|---|---|"]
    for column in table.columns:
        keys = f" ({_keys(column)})" if _keys(column) else ""
        meaning = (column.comment or "").replace("|", "\\|")
        lines.append(f"| `{column.name}`{keys} | {_type(column)} | {'yes' if column.nullable else ''} | {meaning} |")
    unique = [f"({', '.join(names)})" for names in _unique(table) if len(names) > 1]
    return "\n".join(lines) + "\n" + (f"\nUnique: {', '.join(unique)}.\n" if unique else "")


def _type(column: Column[object]) -> str:
    return column.type.compile(dialect=_DIALECT).lower()


def _compile(element: DDLElement) -> str:
    lines = str(element.compile(dialect=_DIALECT)).strip().splitlines()
    return "\n".join(line.rstrip() for line in lines)


def _comment(what: str, comment: str | None) -> str:
    quoted = (comment or "").replace("'", "''")
    return f"COMMENT ON {what} IS '{quoted}';\n"


def main() -> int:
    """Write both files; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="guichet-schema-") as folder:
        try:
            with migrated_postgres(Path(folder)) as url:
                engine = make_engine(url)
                with engine.connect() as connection:
                    SQL_FILE.write_text(render_sql(connection), encoding="utf-8")
                engine.dispose()
        except ServerError as problem:
            print(f"make schema: {problem}", file=sys.stderr)
            return 1
    PAGE_FILE.write_text(render_page(), encoding="utf-8")
    DIAGRAM_FILE.write_text(render_diagram(), encoding="utf-8")
    print("written:", *(file.relative_to(ROOT) for file in (SQL_FILE, PAGE_FILE, DIAGRAM_FILE)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
