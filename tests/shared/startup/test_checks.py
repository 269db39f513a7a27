"""A start that cannot succeed ends with one sentence that says what to do, exit code 1, and nothing half-started."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import inspect, text

from scripts.servers.postgres import Postgres
from scripts.servers.redis import Redis
from shared.config.settings import Settings, get_settings
from shared.database.engine import make_engine
from shared.database.revision import newest_revision, revision_problem
from shared.startup import checks
from shared.startup.checks import CannotStart, check_broker, check_database, check_start
from tests.conftest import create_database
from tests.support.databases import ROOT, alembic_config, migrate, settings_for, settings_of
from tests.support.stack import environment, free_port

pytestmark = pytest.mark.long  # real processes, again and again: `make faults` runs them

NOBODY = "postgresql+psycopg2://guichet:hunter2@127.0.0.1:1/guichet"


def queue_settings(url: str, redis: str = "redis://127.0.0.1:1/0", **more) -> dict[str, str]:
    return {"RUNTIME": "queue", "DATABASE_URL": url, "REDIS_URL": redis, "START_SECONDS": "0.3", **more}


def refused(check, **env: str) -> str:
    """Return the sentence with which a start ends."""
    with settings_of(**env), pytest.raises(CannotStart) as caught:
        check(get_settings())
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ── the database ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_database_that_stays_away_ends_the_start_after_start_seconds():
    began = time.monotonic()
    assert "did not answer for 0.3 s" in refused(check_database, **queue_settings(NOBODY))
    assert time.monotonic() - began < 5


def test_database_that_comes_in_time_is_waited_for(session_postgres, monkeypatch):
    url = create_database(session_postgres, "late")
    migrate(url)
    real, tries = checks._missing, []

    def late(engine):
        tries.append(1)
        if len(tries) < 3:
            dead = make_engine(NOBODY)
            return real(dead)
        return real(engine)

    monkeypatch.setattr(checks, "_missing", late)
    with settings_of(**queue_settings(url, START_SECONDS="30")):
        check_database(get_settings())
    assert len(tries) == 3


def test_database_that_does_not_exist_is_told_at_once(session_postgres):
    env = queue_settings(session_postgres.url_of("nowhere"), START_SECONDS="30")
    began = time.monotonic()
    message = refused(check_database, **env)
    assert 'database "nowhere" does not exist' in message
    assert "scripts.create_db" in message
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("dialect", ["postgresql", "sqlite"])
def test_database_without_tables_asks_for_the_migrations(dialect, session_postgres, tmp_path):
    url = create_database(session_postgres, "bare") if dialect == "postgresql" else f"sqlite:///{tmp_path / 'bare.db'}"
    message = refused(check_database, **settings_for(url))
    assert message == "guichet: the database has no tables yet: run `python -m alembic upgrade head` first."


def test_older_tables_ask_for_the_migrations_and_newer_ones_serve():
    assert "at migration 0001, and this release needs" in (revision_problem("0001") or "")
    assert revision_problem(newest_revision()) is None
    assert revision_problem("9999") is None  # the next release migrates while this one still serves


def test_older_tables_end_the_start(tmp_path):
    url = f"sqlite:///{tmp_path / 'old.db'}"
    with settings_of(**settings_for(url)):
        command.upgrade(alembic_config(), "0001")
    assert "at migration 0001" in refused(check_database, **settings_for(url))


def test_role_that_may_not_write_ends_the_start(session_postgres):
    url = create_database(session_postgres, "unwritable")
    migrate(url)
    engine = make_engine(url, autocommit=True)
    with engine.connect() as connection:
        connection.execute(text("CREATE ROLE start_reader LOGIN"))
        connection.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA public TO start_reader"))
    engine.dispose()
    env = queue_settings(url.replace("postgres@", "start_reader@"))
    first = "start_reader lacks INSERT on alias_events, INSERT on audit_logs, INSERT on erased_jobs"
    assert first in refused(check_database, **env)
    with settings_of(**env):  # whoever migrates need not write rows
        check_database(get_settings(), migrated=False)


def test_file_in_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    message = refused(check_database, RUNTIME="sync", DATA_DIR=str(tmp_path / "file" / "data"))
    assert "cannot be made (Not a directory): set DATA_DIR" in message


def test_read_only_data_folder_is_refused(tmp_path, monkeypatch):
    """Root may write anywhere, so that rights are asked for rather than set."""
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != tmp_path)
    message = refused(check_database, RUNTIME="sync", DATA_DIR=str(tmp_path))
    assert f"{tmp_path} is read-only for this user: change its rights, or set DATA_DIR or DATABASE_URL to" in message


def test_folder_that_takes_no_files_is_refused_at_once():
    message = refused(check_database, **settings_for("sqlite:////proc/guichet.db"))
    assert message.endswith(
        "cannot be used (unable to open database file): set DATA_DIR or DATABASE_URL to another place."
    )


# ── the broker ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_worker_ends_without_its_broker_and_the_api_starts_all_the_same(caplog):
    env = queue_settings(NOBODY, redis="redis://:hunter2@127.0.0.1:1/0")
    message = refused(lambda settings: check_broker(settings, needed=True), **env)
    assert "Redis at redis://:***@127.0.0.1:1/0 did not answer for 0.3 s" in message
    with settings_of(**env):
        check_broker(get_settings(), needed=False)
    assert "jobs are stored, and wait until it is back" in caplog.text


@pytest.mark.parametrize("needed", [True, False])
def test_wrong_password_of_the_broker_is_told_at_once(needed, session_redis):
    wrong = f"redis://:hunter2@127.0.0.1:{session_redis.port}/0"
    message = refused(lambda settings: check_broker(settings, needed=needed), **queue_settings(NOBODY, redis=wrong))
    assert "refuses the password" in message
    assert "correct REDIS_URL" in message


def test_sync_runtime_needs_no_broker(tmp_path):
    url = f"sqlite:///{tmp_path / 'guichet.db'}"
    migrate(url)
    check_start(Settings(runtime="sync", database_url=url), needs_broker=True)


# ── the processes ────────────────────────────────────────────────────────────────────────────────────────────────


def run(*arguments: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    base = environment(folder, runtime="queue", port=free_port(), database_url=NOBODY, models=folder)
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=base | {"REDIS_URL": "redis://127.0.0.1:1/0", "START_SECONDS": "0.2"} | env,
        capture_output=True,
        text=True,
        timeout=60,
    )


WORKER = ("celery", "-A", "worker.main:app", "worker", "-Q", "interactive", "-c", "1")


@pytest.mark.parametrize(
    "arguments", [("api",), WORKER, ("alembic", "upgrade", "head")], ids=["api", "worker", "migrate"]
)
def test_process_without_its_database_ends_with_one_sentence(arguments, tmp_path):
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.rstrip().splitlines()[-1].startswith("guichet: the database postgresql+psycopg2://guichet:***@")
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


def test_worker_of_a_lane_that_nothing_is_sent_to_ends_with_one_sentence(session_postgres, session_redis, tmp_path):
    url = create_database(session_postgres, "lanes")
    migrate(url)
    worker = (*WORKER[:4], "-Q", "bulk,bulkk", "-c", "1")
    done = run(*worker, folder=tmp_path, DATABASE_URL=url, REDIS_URL=session_redis.url)
    assert done.returncode == 1
    assert done.stderr.rstrip().splitlines()[-1] == (
        "guichet: there is no lane bulkk: give -Q some of interactive,bulk,maintenance."
    )
    assert "Traceback" not in done.stderr


def test_api_whose_port_is_taken_ends_with_one_sentence_and_touches_no_database(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run("api", folder=tmp_path, RUNTIME="sync", REDIS_URL="", DATABASE_URL="", PORT=str(port))
    assert done.returncode == 1
    assert done.stderr == f"guichet: cannot listen on 127.0.0.1:{port} (Address already in use): set PORT or HOST.\n"
    assert not (tmp_path / "guichet.db").exists()


# ── migrations that fail ─────────────────────────────────────────────────────────────────────────────────────────

BREAKS = '''
"""Fails halfway."""

import sqlalchemy as sa
from alembic import op

revision = "9001"
down_revision = "{last}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("half", sa.Column("id", sa.Integer(), primary_key=True))
    op.add_column("api_keys", sa.Column("half", sa.Text()))
    op.execute("INSERT INTO half (id) VALUES (1)")
    {fault}


def downgrade() -> None:
    op.drop_column("api_keys", "half")
    op.drop_table("half")
'''


@pytest.fixture
def broken(tmp_path) -> Config:
    """The migrations of this release, and one more that fails halfway."""
    copy = tmp_path / "migrations"
    shutil.copytree(ROOT / "migrations", copy, ignore=shutil.ignore_patterns("__pycache__"))
    write_last(copy, 'op.execute("INSERT INTO nowhere VALUES (1)")')
    config = alembic_config()
    config.set_main_option("script_location", str(copy))
    return config


def write_last(migrations: Path, fault: str) -> None:
    (migrations / "versions" / "9001_break.py").write_text(BREAKS.format(last=newest_revision(), fault=fault))


@pytest.mark.parametrize("start_at", ["base", "head"])
@pytest.mark.parametrize("dialect", ["postgresql", "sqlite"])
def test_migration_that_fails_halfway_leaves_the_database_as_it_was(
    dialect, start_at, broken, session_postgres, tmp_path
):
    name = f"halfway_{start_at}"
    url = create_database(session_postgres, name) if dialect == "postgresql" else f"sqlite:///{tmp_path / name}.db"
    engine = make_engine(url)

    def everything() -> dict[str, object]:
        inspector = inspect(engine)
        tables = sorted(set(inspector.get_table_names()) - {"alembic_version"})
        with engine.connect() as connection:
            stored = checks.stored_revision(connection)
        return {"tables": {table: len(inspector.get_columns(table)) for table in tables}, "revision": stored}

    with settings_of(**settings_for(url)):
        if start_at != "base":
            command.upgrade(alembic_config(), start_at)
        before = everything()
        with pytest.raises(CannotStart, match=r"a migration failed, and nothing was changed .*nowhere"):
            command.upgrade(broken, "head")
        assert everything() == before
        # Mended, the same command goes on.
        write_last(Path(broken.get_main_option("script_location")), "pass")
        command.upgrade(broken, "head")
        assert everything()["revision"] == "9001"
        assert "half" in everything()["tables"]
    engine.dispose()


@pytest.mark.long
def test_two_migrations_at_once_wait_for_each_other(session_postgres: Postgres, tmp_path):
    url = create_database(session_postgres, "twice")
    results: list[int] = []

    def upgrade() -> None:
        done = run("alembic", "upgrade", "head", folder=tmp_path, DATABASE_URL=url, START_SECONDS="20")
        results.append(done.returncode)

    threads = [threading.Thread(target=upgrade) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [0, 0, 0]
    engine = make_engine(url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [
            newest_revision()
        ]
    engine.dispose()


def test_broker_that_answers_lets_a_worker_start(session_redis: Redis):
    with settings_of(**queue_settings(NOBODY, redis=session_redis.url)):
        check_broker(get_settings(), needed=True)
