"""A version that is suspended: claims say so, and what its fast scorer computed meanwhile is not stored."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, Engine, insert, update

from scripts.servers.postgres import Postgres
from shared.jobs import transitions as jobs
from shared.tables import Alert
from tests.support.databases import empty, end, job_row, outputs_of, postgres_engine, queue, take


@pytest.fixture(scope="module")
def postgres(session_postgres: Postgres) -> Iterator[Engine]:
    with postgres_engine(session_postgres, "suspended") as engine:
        yield engine


@pytest.fixture
def connection(postgres: Engine) -> Iterator[Connection]:
    empty(postgres)
    with postgres.connect() as connection:
        connection.exec_driver_sql("DELETE FROM alerts")
        yield connection


def suspend(connection: Connection, version: int = 1) -> None:
    now = datetime.now(UTC)
    about = {"kind": "self_audit", "subject": "score", "level": "high", "details": {}}
    connection.execute(insert(Alert).values(model_version_id=version, opened_at=now, seen_at=now, **about))


def test_claims_say_whether_their_version_is_suspended(connection):
    queue(connection)
    assert [claim.by_pipeline for claim in take(connection)] == [False]
    suspend(connection, version=2)
    queue(connection)
    assert [claim.by_pipeline for claim in take(connection)] == [False]
    suspend(connection)
    queue(connection)
    (claim,) = take(connection)
    assert claim.by_pipeline
    assert claim.rows == [{"x": 0.0}]
    assert end(connection, [claim]) == [claim.job_id]
    connection.execute(update(Alert).values(closed_at=datetime.now(UTC)))
    queue(connection)
    assert [claim.by_pipeline for claim in take(connection)] == [False]


def test_fast_scores_of_a_version_that_was_suspended_meanwhile_are_not_stored(connection):
    job = queue(connection)
    claims = take(connection)
    suspend(connection)
    assert end(connection, claims) == []
    assert outputs_of(connection, job) == []
    assert job_row(connection, job)["state"] == "running"
    assert jobs.release(connection, claims) == 1  # as the worker does
    (again,) = take(connection)
    assert again.by_pipeline
    assert again.attempt == 1  # it was no fault of the job
    assert end(connection, [again]) == [job]
    assert len(outputs_of(connection, job)) == 1
