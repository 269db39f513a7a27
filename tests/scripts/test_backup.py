"""docs/backup.md: its commands bring every row back, on PostgreSQL with its roles and on a SQLite file."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import text

from scripts.generate import samples
from scripts.servers.postgres import Postgres
from scripts.servers.programs import postgres_programs
from shared.database.engine import make_engine
from shared.tables import Table
from tests.conftest import create_database
from tests.docs.blocks import Block, blocks_of
from tests.support.databases import migrate
from tests.support.stack import ROOT

DUMP, MAKE, MAKE_AGAIN, COPY = range(4)


@pytest.fixture(scope="module")
def blocks() -> list[Block]:
    commands = blocks_of(ROOT / "docs" / "backup.md")
    assert len(commands) == 4
    return commands


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """Another server, on which nothing of ours is."""
    with Postgres(tmp_path_factory.mktemp("elsewhere")) as server:
        with closing(psycopg2.connect(plain(server.url_of("postgres")))) as connection:
            connection.autocommit = True
            connection.cursor().execute("DROP DATABASE IF EXISTS guichet")
        yield server


def plain(url: str) -> str:
    return url.replace("+psycopg2", "")


def run(block: Block, folder: Path, **env: str) -> None:
    """Type a block in a shell that has PostgreSQL's programs."""
    programs = postgres_programs("18", None)
    path = f"{Path(sys.executable).parent}:{programs}:{os.environ['PATH']}"
    env |= {"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    done = subprocess.run(["bash", "-ec", block.text], cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def rows(url: str) -> dict[str, list[str]]:
    """Return the rows of every table as texts."""
    engine = make_engine(url)
    with engine.connect() as connection:
        stored = {
            table.name: sorted(map(str, connection.execute(text(f"SELECT * FROM {table.name}")).all()))
            for table in Table.metadata.sorted_tables
        }
    engine.dispose()
    return stored


@pytest.mark.flow
def test_dump_of_postgresql_comes_back_on_another_server(
    session_postgres: Postgres, elsewhere: Postgres, blocks: list[Block], tmp_path: Path
) -> None:
    url = create_database(session_postgres, "backed_up")
    migrate(url)
    engine = make_engine(url)
    raw = engine.raw_connection()
    raw.cursor().execute((samples.FOLDER / "predictions.sql").read_text())
    raw.commit()
    raw.close()
    engine.dispose()
    run(blocks[DUMP], tmp_path, DATABASE=plain(url))
    admin = {
        "ADMIN_URL": plain(elsewhere.url_of("postgres")),
        "OWNER_PASSWORD": "owner-5f1c",
        "APP_PASSWORD": "app-77aa",
    }
    other = elsewhere.url_of("guichet").replace("postgres@", "guichet_owner:owner-5f1c@")
    run(blocks[MAKE], tmp_path, OTHER=plain(other), **admin)
    run(blocks[MAKE_AGAIN], tmp_path, **admin)
    before = rows(url)
    assert len(before["model_inputs"]) > 10
    # The role of the API reads it all, which the owner's tables let it only where they were granted.
    app = elsewhere.url_of("guichet").replace("postgres@", "guichet_app:app-77aa@")
    assert rows(app) == before
    secrets = ("passwords.txt", "passwords-again.txt")
    assert all((tmp_path / name).is_file() for name in secrets)


def test_copy_of_a_sqlite_file_has_every_row(blocks: list[Block], tmp_path: Path) -> None:
    file = tmp_path / "guichet.db"
    migrate(f"sqlite:///{file}")
    samples.load_sqlite(file)
    with closing(sqlite3.connect(file)) as open_elsewhere:
        open_elsewhere.execute("SELECT count(*) FROM jobs")
        run(blocks[COPY], tmp_path, FILE=str(file))
    shutil.move(tmp_path / "guichet-backup.db", tmp_path / "copy.db")
    before = rows(f"sqlite:///{file}")
    assert len(before["model_inputs"]) > 10
    assert rows(f"sqlite:///{tmp_path / 'copy.db'}") == before
