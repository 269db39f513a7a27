"""What is done by the clock: what is forgotten of old jobs, and what is not."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest
from sqlalchemy import Connection, Engine, text

from api.runtimes.idempotency import client_scope
from scripts.servers.postgres import Postgres
from shared.jobs.queries.jobs import find_by_idempotency_key
from tests.support.databases import postgres_engine, queue
from worker.maintenance.recovery import forget
from worker.runtime import Runtime


@pytest.fixture(scope="module")
def engine(session_postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with postgres_engine(session_postgres, "maintenance") as engine:
        yield engine


def old_job(connection: Connection, scope: str) -> str:
    job_id = queue(connection, idempotency_scope=scope, idempotency_key="order-4711", body_hash="a" * 64)
    old = text("UPDATE jobs SET created_at = created_at - interval '25 hours' WHERE id = :id")
    connection.execute(old, {"id": job_id})
    return job_id


def test_idempotency_keys_of_old_jobs_are_freed_and_ids_of_callers_stay(engine: Engine) -> None:
    with engine.connect() as connection:
        old_job(connection, "k:/jobs")
        named = {owner: old_job(connection, client_scope(owner)) for owner in (None, "k")}
        runtime = SimpleNamespace(settings=SimpleNamespace(idempotency_hours=24), engine=engine)
        assert forget(cast("Runtime", runtime)) == "1 keys freed"
        assert find_by_idempotency_key(connection, "k:/jobs", "order-4711") is None
        for owner, job_id in named.items():
            job = find_by_idempotency_key(connection, client_scope(owner), "order-4711")
            assert job is not None
            assert job[0] == job_id
