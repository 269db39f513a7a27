"""The tables as code: all of them are in the metadata, and PostgreSQL keeps their names whole."""

from enum import Enum

import pytest
from sqlalchemy import CheckConstraint, Index

from shared import tables
from shared.tables import ChunkState, JobState, Table

LONGEST_NAME = 63  # bytes: PostgreSQL cuts the rest off, and two names may become one


def named() -> list[str]:
    constraints = [each for table in Table.metadata.tables.values() for each in (*table.constraints, *table.indexes)]
    return [str(each.name) for each in constraints]


def test_every_table_of_the_metadata_is_exported():
    """Alembic compares whatever this room imports: a table that is missing here would be dropped by a migration."""
    exported = [getattr(tables, name) for name in tables.__all__]
    classes = {each for each in exported if isinstance(each, type) and issubclass(each, Table)} - {Table}
    assert {each.__tablename__ for each in classes} == set(Table.metadata.tables)


def test_every_constraint_and_index_has_a_name_of_its_own_that_fits():
    names = named()
    assert len(names) > 60
    assert "None" not in names
    assert len(set(names)) == len(names)
    assert [name for name in names if len(name.encode()) > LONGEST_NAME] == []


def test_names_begin_with_their_kind_and_table():
    for table in Table.metadata.tables.values():
        for each in (*table.constraints, *table.indexes):
            kinds = ("ix", "uq") if isinstance(each, Index) else ("ck", "fk", "pk", "uq")
            assert str(each.name).startswith(tuple(f"{kind}_{table.name}" for kind in kinds)), each.name


@pytest.mark.parametrize(
    ("table", "column", "members"),
    [("jobs", "state", JobState), ("job_chunks", "state", ChunkState)],
)
def test_check_of_a_column_admits_every_member_of_its_enum(table: str, column: str, members: type[Enum]):
    checks = [
        str(each.sqltext) for each in Table.metadata.tables[table].constraints if isinstance(each, CheckConstraint)
    ]
    (check,) = [text for text in checks if text.startswith(f"{column} IN")]
    assert all(f"'{member.value}'" in check for member in members)
