"""Migrated databases for tests of the inside: the real tables, and no running service."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from redis import Redis
from sqlalchemy import Connection, Engine, text
from uuid_utils import uuid7

from scripts.servers.postgres import Postgres
from shared.config.settings import Settings, get_settings
from shared.database.engine import get_engine, make_engine
from shared.faults import Fault
from shared.jobs.submission import Submission
from shared.jobs.transitions import Claim, ClaimGroup, Output, claim, finish, submit
from tests.conftest import create_database
from tests.support.stack import free_port

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = tuple(name.upper() for name in Settings.model_fields)


@contextmanager
def settings_of(**env: str) -> Iterator[None]:
    """Let this process have these settings and no others, as if it had just been started with them."""

    def forget() -> None:
        if get_engine.cache_info().currsize:
            get_engine().dispose()
        get_engine.cache_clear()
        get_settings.cache_clear()

    forget()
    with pytest.MonkeyPatch.context() as patch:
        for name in SETTINGS:
            patch.delenv(name, raising=False)
        for name, value in env.items():
            patch.setenv(name, value)
        try:
            yield
        finally:
            forget()


def settings_for(url: str) -> dict[str, str]:
    """Return the environment of a command that needs the database and nothing else."""
    return {"RUNTIME": "sync" if url.startswith("sqlite") else "queue", "DATABASE_URL": url}


def alembic_config() -> Config:
    """Return Alembic's settings, whatever the working directory is; what it prints goes nowhere."""
    config = Config(str(ROOT / "alembic.ini"), stdout=io.StringIO())
    config.set_main_option("script_location", str(ROOT / "migrations"))
    return config


def migrate(url: str) -> None:
    """Run every migration."""
    with settings_of(**settings_for(url)):
        config = alembic_config()
        command.upgrade(config, "head")


@cache
def migrated_file() -> bytes:
    """Return a migrated SQLite database, as a file: every migration was run once in this process."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "guichet.db"
        migrate(f"sqlite:///{file}")
        return file.read_bytes()


@cache
def migrated_database(postgres: Postgres) -> str:
    """Return the name of a migrated database of a server, of which others are copies."""
    name = "migrated"
    migrate(create_database(postgres, name))
    return name


@contextmanager
def postgres_engine(postgres: Postgres, name: str, *, autocommit: bool = True) -> Iterator[Engine]:
    """Yield the engine of a new, migrated database with two model versions, 1 and 2.

    With `autocommit`, statements commit one by one.
    """
    url = create_database(postgres, name, template=migrated_database(postgres))
    engine = make_engine(url, autocommit=autocommit)
    with engine.begin() as connection:
        add_versions(connection)
    yield engine
    engine.dispose()


@contextmanager
def sqlite_engine(folder: Path) -> Iterator[Engine]:
    """Yield the same on a SQLite file."""
    file = folder / "guichet.db"
    file.write_bytes(migrated_file())
    engine = make_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        add_versions(connection)
    yield engine
    engine.dispose()


@contextmanager
def either_engine(dialect: str, name: str, postgres: Postgres, folder: Path) -> Iterator[Engine]:
    """Yield the same on either dialect, with transactions."""
    with sqlite_engine(folder) if dialect == "sqlite" else postgres_engine(postgres, name, autocommit=False) as engine:
        yield engine


def add_versions(connection: Connection) -> None:
    """Register two versions that nobody will load."""
    for number in (1, 2):
        connection.execute(
            text(
                "INSERT INTO model_versions (id, name, version, sha256, uri, card, scorer) "
                "VALUES (:id, 'm', :id, :sha256, 'm/1', '{}', '{}')"
            ),
            {"id": number, "sha256": "0" * 64},
        )


def empty(engine: Engine) -> None:
    """Forget every job, input and output."""
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM jobs")


def submission(*, rows: int | Sequence[Any] = 1, **changes: Any) -> Submission:
    """Return a good submission of so many rows, or of these rows."""
    values = [{"x": float(index)} for index in range(rows)] if isinstance(rows, int) else list(rows)
    options: dict[str, Any] = {
        "id": str(uuid7()),
        "kind": "predict" if len(values) == 1 else "batch",
        "lane": "interactive",
        "model_version_id": 1,
        "request_id": "request-1",
        "rows": values,
        "faults": [None] * len(values),
        "timeout_seconds": 30.0,
        "max_attempts": 3,
    }
    return Submission(**options | changes)


def queue(connection: Connection, *, rows: int | Sequence[Any] = 1, **changes: Any) -> str:
    """Submit one job; return its id."""
    job = submission(rows=rows, **changes)
    assert list(submit(connection, [job])) == [job.id]
    return job.id


def take(connection: Connection, **changes: Any) -> list[Claim]:
    """Claim what is ready, as a worker does."""
    options: dict[str, Any] = {
        "model_version_id": 1,
        "lane": "interactive",
        "worker": "here:1",
        "lease_seconds": 15.0,
        "max_jobs": 100,
        "max_rows": 1000,
    } | changes
    groups = [ClaimGroup(("predict", "batch"), options.pop("max_rows"))]
    return claim(connection, **{"groups": groups} | options)


def good(probability: float = 0.75) -> Output:
    """Return a score of a binary model."""
    return Output("binary", float(probability >= 0.5), "Part", probability, None, 0.5)


FAULT = Fault("", "model_failed", "the model raised ValueError on this row")


def end(connection: Connection, claims: Sequence[Claim], **changes: Any) -> list[str]:
    """Finish claims with a good output for every row."""
    results = [[good() for _ in claim.rows] for claim in claims]
    return finish(connection, claims, results, model_version_id=changes.get("model_version_id", 1))


def job_row(connection: Connection, job_id: str) -> dict[str, Any]:
    """Return every column of a job."""
    rows = connection.execute(text("SELECT * FROM jobs WHERE id = :id"), {"id": job_id}).mappings().all()
    return dict(rows[0])


def outputs_of(connection: Connection, job_id: str) -> list[tuple[int, float, float | None]]:
    """Return (row index, prediction, probability) of a job's outputs, in input order."""
    rows = connection.execute(
        text(
            "SELECT row_index, prediction, probability FROM model_outputs "
            "JOIN model_inputs ON model_inputs.id = input_id WHERE job_id = :id ORDER BY row_index"
        ),
        {"id": job_id},
    )
    return [(row[0], row[1], row[2]) for row in rows]


def empty_keys(engine: Engine) -> None:
    """Forget every API key."""
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM api_keys")


def refusing_redis() -> Redis:
    """Return a client of a Redis that is not there, made as the API makes its own."""
    return Redis.from_url(f"redis://127.0.0.1:{free_port()}/0", socket_timeout=0.5, socket_connect_timeout=0.5)
