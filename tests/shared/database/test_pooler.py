"""Behind a connection pooler such as PgBouncer: whole sessions do, single transactions are refused at the start."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg2
import pytest
from sqlalchemy import text

from api.check.__main__ import examine
from scripts.servers.postgres import Postgres
from shared.config.settings import Settings
from shared.database.engine import make_engine
from shared.database.prepared import Statement
from shared.startup.checks import CannotStart, check_database
from tests.conftest import create_database
from tests.support.databases import migrate
from tests.support.pooler import Pooler


@pytest.fixture(scope="module")
def database(session_postgres: Postgres) -> str:
    url = create_database(session_postgres, "pooled")
    migrate(url)
    return url


def behind(database: str, pooler: Pooler) -> str:
    parts = urlsplit(database)
    return f"postgresql+psycopg2://{parts.username}@127.0.0.1:{pooler.port}{parts.path}"


@pytest.fixture(params=["session", "transaction"])
def pooled(request: pytest.FixtureRequest, database: str) -> Iterator[tuple[str, str]]:
    """The mode of a pooler, and the address of the database behind it."""
    (folder,) = parse_qs(urlsplit(database).query)["host"]
    with Pooler(f"{folder}/.s.PGSQL.5432", pool_mode=request.param) as pooler:
        yield request.param, behind(database, pooler)


def settings_for(url: str, folder: Path) -> Settings:
    return Settings(
        runtime="queue",
        database_url=url,
        redis_url="redis://127.0.0.1:1/0",
        data_dir=folder,
        auth="open",
        start_seconds=3,
    )


def start(url: str, folder: Path) -> str | None:
    """Return why a process does not start."""
    try:
        check_database(settings_for(url, folder))
    except CannotStart as fault:
        return fault.reason
    return None


def findings(url: str, folder: Path) -> dict[str, Any]:
    return {finding.name: finding for finding in examine(settings_for(url, folder), loading=False)}


def test_pooler_of_the_test_refuses_options_as_pgbouncer_does(pooled):
    url = pooled[1].replace("+psycopg2", "")
    with pytest.raises(psycopg2.OperationalError, match="unsupported startup parameter: options"):
        psycopg2.connect(url, options="-c statement_timeout=1")
    psycopg2.connect(url).close()


def test_process_starts_behind_a_pooler_of_sessions_and_not_of_transactions(pooled, tmp_path):
    mode, url = pooled
    refusal, examined = start(url, tmp_path), findings(url, tmp_path)
    if mode == "session":
        assert refusal is None
        assert "pooler" not in examined
        assert examined["database"].status != "failed"  # a busy machine is slow
    else:
        assert refusal is not None
        assert "pool_mode = session" in refusal
        assert (examined["pooler"].status, examined["pooler"].detail) == ("failed", refusal)


def test_nothing_is_said_of_poolers_where_there_is_none(database, tmp_path):
    assert start(database, tmp_path) is None
    assert "pooler" not in findings(database, tmp_path)


@pytest.mark.parametrize("pooled", ["session"], indirect=True)
@pytest.mark.parametrize("autocommit", [True, False])
def test_connection_has_its_settings_and_keeps_what_it_prepared(pooled, autocommit):
    engine = make_engine(pooled[1], pool_size=1, autocommit=autocommit, durable=False)
    double = Statement("double", ["integer"], "SELECT $1 * 2")
    try:
        for _ in range(2):
            with engine.connect() as connection:
                shown = {
                    name: connection.execute(text(f"SHOW {name}")).scalar()
                    for name in ("timezone", "statement_timeout", "synchronous_commit", "enable_seqscan")
                }
                assert double.run(connection, 21).scalar() == 42
                connection.rollback()
            seqscan = "off" if autocommit else "on"
            assert shown == {
                "timezone": "UTC",
                "statement_timeout": "30s",
                "synchronous_commit": "off",
                "enable_seqscan": seqscan,
            }
    finally:
        engine.dispose()
