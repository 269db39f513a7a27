"""A deadline for every statement on our side: a network that falls silent holds nobody up for ever."""

import time
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from scripts.servers.postgres import Postgres
from shared.database import deadlines
from shared.database.engine import make_engine, run_again, take_time
from tests.conftest import create_database
from tests.faults.proxy import Proxy, proxy_to


@pytest.fixture
def proxy(session_postgres: Postgres) -> Iterator[Proxy]:
    with proxy_to(session_postgres) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def database(session_postgres: Postgres) -> str:
    create_database(session_postgres, "deadlines")
    return "deadlines"


@pytest.fixture
def engine(proxy: Proxy, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(deadlines.Connection, "patience", 1.0)
    engine = make_engine(f"postgresql+psycopg2://postgres@127.0.0.1:{proxy.port}/{database}")
    with engine.connect() as connection:  # what SQLAlchemy asks first
        connection.exec_driver_sql("SELECT 1")
    yield engine
    engine.dispose()


def copy(connection: Connection) -> None:
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor:
        cursor.copy_expert("COPY pg_catalog.pg_type TO STDOUT", BytesIO())


def insert_many(connection: Connection) -> None:
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor:
        cursor.executemany("SELECT %s", [(1,), (2,)])


@pytest.mark.parametrize(
    "wait", [lambda connection: connection.execute(text("SELECT 1")), lambda c: c.commit(), copy, insert_many]
)
def test_answer_that_never_comes_ends_the_connection_and_the_next_one_serves(
    engine: Engine, proxy: Proxy, wait: Callable[[Connection], object]
) -> None:
    connection = engine.connect()
    connection.execute(text("SELECT 1"))  # begins a transaction, which there is something to commit of
    proxy.fall_silent()
    began = time.monotonic()
    with pytest.raises(Exception, match=r"closed|terminat|EOF") as failure:
        wait(connection)
    assert 0.9 < time.monotonic() - began < 4
    if isinstance(failure.value, OperationalError):
        assert failure.value.connection_invalidated
    connection.invalidate()
    connection.close()
    with engine.connect() as next_one:
        assert next_one.scalar(text("SELECT 2")) == 2


def test_work_goes_on_without_anyone_who_asks_again(engine: Engine, proxy: Proxy) -> None:
    """As the hot path does it: whatever the pool holds fell silent together."""
    with engine.connect(), engine.connect():
        pass
    proxy.fall_silent()

    def ask() -> Any:
        with engine.connect() as connection:
            return connection.scalar(text("SELECT 3"))

    assert run_again(ask) == 3


def test_statement_that_takes_its_time_within_the_deadline_is_left_alone(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_sleep(0.6)"))
        time.sleep(1.5)  # nothing is waited for: a connection may lie idle for as long as it likes
        connection.execute(text("SELECT pg_sleep(0.6)"))


def test_operators_transaction_takes_the_time_that_it_needs_and_the_next_one_does_not(
    engine: Engine, proxy: Proxy
) -> None:
    with engine.connect() as connection:
        take_time(connection)
        connection.execute(text("SELECT pg_sleep(2.2)"))
        connection.commit()
        assert connection.connection.driver_connection.patience < 60  # type: ignore[union-attr]


def test_idle_connections_that_are_as_silent_are_not_waited_for_one_after_the_other(
    engine: Engine, proxy: Proxy
) -> None:
    late, idle = engine.connect(), engine.connect()
    for connection in (late, idle):
        connection.execute(text("SELECT 1"))
    proxy.fall_silent()
    with pytest.raises(OperationalError):
        late.execute(text("SELECT 1"))
    began = time.monotonic()
    with pytest.raises(OperationalError):
        idle.execute(text("SELECT 1"))
    assert time.monotonic() - began < 0.5  # its own deadline is a second away


def test_idle_connections_to_another_server_are_left_alone_and_a_pool_replaces_what_was_shut_in_it(
    engine: Engine, proxy: Proxy, database: str, session_postgres: Postgres
) -> None:
    with proxy_to(session_postgres) as other_proxy:
        other = make_engine(f"postgresql+psycopg2://postgres@127.0.0.1:{other_proxy.port}/{database}")
        with other.connect() as connection:
            connection.execute(text("SELECT 1"))
            late, pooled = engine.connect(), engine.connect()
            pooled.execute(text("SELECT 1"))
            pooled.close()
            proxy.fall_silent()
            with pytest.raises(OperationalError):
                late.execute(text("SELECT 1"))
            with engine.connect() as next_one:  # is not the one that was shut: nobody has to ask again
                assert next_one.scalar(text("SELECT 2")) == 2
            assert connection.scalar(text("SELECT 3")) == 3
        other.dispose()
