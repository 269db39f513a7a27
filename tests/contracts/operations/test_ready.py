"""/readyz says whether a submission would be stored now, and /health why not."""

import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from shared.database.engine import make_engine
from tests.contracts.helpers import beside, paused
from tests.support.stack import Stack

pytestmark = pytest.mark.flow  # each takes something from a service, and waits until it says so


def wait_for_ready(client: httpx2.Client, status: int, *, seconds: float = 10) -> dict[str, Any]:
    """Ask /readyz until it answers with this status; each answer comes at once."""
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        answer = client.get("/readyz")
        assert time.monotonic() - began < 3
        if answer.status_code == status:
            body: dict[str, Any] = answer.json()
            return body
        assert time.monotonic() < deadline, f"/readyz did not come to {status} within {seconds} s"
        time.sleep(0.1)


def check_reason(client: httpx2.Client, reason: str) -> None:
    """Nothing is stored now, and both probes say why; a connection that was cut is a moment's other reason."""
    deadline = time.monotonic() + 10
    reasons = wait_for_ready(client, 503)["reasons"]
    while not any(reason in text for text in reasons):
        assert time.monotonic() < deadline, reasons
        time.sleep(0.1)
        reasons = wait_for_ready(client, 503)["reasons"]
    health = client.get("/health")
    assert (health.status_code, health.json()["status"]) == (503, "down")
    assert any(reason in text for text in health.json()["reasons"])


def test_database_that_is_read_only_is_not_ready(queue: Stack, tmp_path: Path, attrition_row: dict[str, Any]) -> None:
    engine = make_engine(queue.database_url, autocommit=True)
    url = make_url(queue.database_url).set(username="bystander").render_as_string(hide_password=False)
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'bystander'"
    with engine.connect() as connection:
        connection.execute(text("CREATE ROLE bystander SUPERUSER LOGIN"))
        try:
            with beside(queue, tmp_path, DATABASE_URL=url) as other, other.client() as client:
                connection.execute(text("ALTER ROLE bystander SET default_transaction_read_only = on"))
                connection.execute(text(ended))
                check_reason(client, "read-only")
                assert client.post("/jobs", json={"features": attrition_row}).status_code == 503
                assert client.get("/models").status_code == 200
                connection.execute(text("ALTER ROLE bystander RESET default_transaction_read_only"))
                connection.execute(text(ended))
                wait_for_ready(client, 200)
                assert client.post("/jobs", json={"features": attrition_row}).status_code == 202
        finally:
            connection.execute(text("DROP ROLE bystander"))
    engine.dispose()


def test_tables_that_are_locked_are_not_ready(queue: Stack) -> None:
    """Readers get past this lock, writers do not."""
    engine = make_engine(queue.database_url)
    with queue.client() as client:
        with engine.connect() as connection:
            connection.execute(text("LOCK TABLE model_inputs IN EXCLUSIVE MODE"))
            check_reason(client, "locked")
            assert client.get("/jobs").status_code == 200
            connection.rollback()
        wait_for_ready(client, 200)
    engine.dispose()


def test_file_that_another_program_writes_to_for_long_is_not_ready(sync: Stack, attrition_row: dict[str, Any]) -> None:
    engine = make_engine(sync.database_url)
    with sync.client() as client:
        with engine.connect() as connection:  # takes the lock of the one writer
            connection.execute(text("UPDATE jobs SET attempt = attempt WHERE false"))
            wait_for_ready(client, 503)
            connection.rollback()
        wait_for_ready(client, 200)
        assert client.post("/predict", json={"features": attrition_row}).status_code == 200
    engine.dispose()


def test_service_that_has_just_started_is_starting(queue: Stack, tmp_path: Path) -> None:
    """Its workers stand still, and were heard of an hour ago."""
    engine = make_engine(queue.database_url)
    hidden = "UPDATE workers SET seen_at = seen_at - interval '1 hour'"
    with paused(queue, "interactive", "bulk"):
        with engine.begin() as connection:
            connection.execute(text(hidden))
        with beside(queue, tmp_path) as other, other.client() as client:
            health = client.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "starting")
    assert health.json()["reasons"][0] == "The service is starting: no worker has been heard of yet."
    queue.wait_for_workers(2)
    engine.dispose()


def test_recovery_that_nobody_does_is_told_of(queue: Stack) -> None:
    with queue.client() as client:
        assert client.get("/health").json()["recovery"] == "ok"
        with paused(queue, "interactive", "bulk"):
            deadline = time.monotonic() + 15
            while (health := client.get("/health").json())["recovery"] != "late":
                assert time.monotonic() < deadline
                time.sleep(0.2)
        assert health["status"] == "degraded"
        assert any("Recovery is late" in reason for reason in health["reasons"])
        deadline = time.monotonic() + 15
        while client.get("/health").json()["recovery"] != "ok":
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_nobody_is_told_that_jobs_wait_while_none_does(queue: Stack, tmp_path: Path) -> None:
    with beside(queue, tmp_path, REDIS_URL="redis://127.0.0.1:1/0") as other, other.client() as client:
        time.sleep(1.5)  # a sample of the queues
        reasons = client.get("/health").json()["reasons"]
    assert reasons[0] == "Redis does not answer: jobs are stored."
    assert not any("wait" in reason for reason in reasons)
