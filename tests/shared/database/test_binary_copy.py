"""Rows by binary COPY are the rows that a query returns, also where they are many, large, or without a value."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import BigInteger, Column, DateTime, Float, LargeBinary, MetaData, Table, insert, literal, select

from scripts.servers.postgres import Postgres
from shared.database import binary_copy
from shared.database.binary_copy import copy_rows, read_bigint, read_float, read_time
from shared.database.engine import make_engine

TABLE = Table(
    "copied",
    MetaData(),
    Column("a", BigInteger),
    Column("b", DateTime(timezone=True)),
    Column("c", Float),
    Column("d", LargeBinary),
    prefixes=["TEMPORARY"],
)
MOMENTS = [
    datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2000, 1, 1, tzinfo=UTC),
    datetime(2026, 3, 1, 12, tzinfo=UTC),
]


@pytest.mark.parametrize("in_memory", [16, 1 << 20])
def test_rows_are_those_of_the_query_and_the_connection_is_free_meanwhile(
    session_postgres: Postgres, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr(binary_copy, "IN_MEMORY", in_memory)
    rows = [
        (-(2**63) + place, moment + timedelta(days=place), (None, 1 / 3, -0.0)[place % 3], bytes(range(256)) * place)
        for place in range(50)
        for moment in MOMENTS
    ]
    engine = make_engine(session_postgres.url_of("postgres"))
    with engine.connect() as connection:
        TABLE.create(connection)
        connection.execute(insert(TABLE), [dict(zip("abcd", row, strict=True)) for row in rows])
        query = select(TABLE).order_by("b", "a")
        copied = []
        for number, moment, share, data in copy_rows(connection, query):
            assert number is not None
            assert moment is not None
            about = (read_bigint(number), read_time(moment), None if share is None else read_float(share))
            copied.append((*about, data))
            assert connection.scalar(select(literal(1))) == 1
        assert copied == sorted(rows, key=lambda row: row[1::-1])
        assert list(copy_rows(connection, query.limit(0))) == []
    engine.dispose()
