"""What is answered when the service cannot take a request, or can although something is down."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from shared.database.engine import make_engine
from tests.contracts.helpers import ROUTES, beside, body_for, check_accepted, check_problem, paused, wait_for_job
from tests.support.stack import Stack, environment, free_port

pytestmark = pytest.mark.flow  # each stops a server beneath a service, or starts one that lacks something


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service without any model."""
    folder, port = tmp_path_factory.mktemp("empty"), free_port()
    env = environment(
        folder, runtime="sync", port=port, database_url=f"sqlite:///{folder / 'guichet.db'}", models=folder / "models"
    )
    stack = Stack("sync", env | {"DEFAULT_MODEL": ""}, folder, port)
    stack.run("alembic", "upgrade", "head")
    stack.start("api", "api")
    try:
        stack.wait_until_answers("/livez")
        yield stack
    finally:
        stack.stop_all()


@pytest.mark.parametrize("route", ROUTES)
def test_submission_without_any_model_is_refused_for_now(empty: Stack, route: str) -> None:
    with empty.client() as client:
        answer = client.post(route, json=body_for(route, {}))
    assert "shared.registry add" in check_problem(answer, 503, "unavailable")["detail"]
    assert int(answer.headers["retry-after"]) >= 1


def test_service_without_any_model_is_alive_and_not_ready(empty: Stack) -> None:
    with empty.client() as client:
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert ready.headers["retry-after"]
        assert "No model is registered" in ready.json()["reasons"][0]
        assert client.get("/ping").status_code == 503
        assert client.post("/invocations", json={"inputs": {"a": 1}}).status_code == 503
        health = client.get("/health")
        assert health.status_code == 503
        assert (health.json()["status"], health.json()["model_loaded"]) == ("down", False)
        assert health.json()["model"] is health.json()["model_version"] is None
        assert client.get("/models").json() == {"items": []}
        check_problem(client.get("/models/attrition"), 503)
        assert client.get("/openapi.json").status_code == 200


def test_full_queue_is_refused_for_now(queue: Stack, tmp_path: Path, attrition_row: dict[str, Any]) -> None:
    with beside(queue, tmp_path, MAX_QUEUED="3") as other, other.client() as client:
        jobs: list[str] = []
        with paused(queue):
            deadline = time.monotonic() + 8
            answer = client.post("/jobs", json={"features": attrition_row})
            while answer.status_code == 202 and time.monotonic() < deadline:
                jobs.append(check_accepted(answer)["id"])
                time.sleep(0.2)
                answer = client.post("/jobs", json={"features": attrition_row})
            problem = check_problem(answer, 503, "unavailable")
            assert "full" in problem["detail"]
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            # Another model's queue is not full.
            check_problem(client.post("/models/energy/predict", json={"features": {}}), 422)
        for job_id in jobs:
            wait_for_job(client, job_id)


def test_submission_is_accepted_while_redis_is_down(
    queue: Stack, tmp_path: Path, attrition_row: dict[str, Any]
) -> None:
    nobody = f"redis://127.0.0.1:{free_port()}/0"
    with beside(queue, tmp_path, REDIS_URL=nobody) as other, other.client() as client:
        job = check_accepted(client.post("/jobs", json={"features": attrition_row}))
        # Nobody wakes a worker: recovery finds the job; and the wait ends by polling.
        done = client.get(f"/jobs/{job['id']}", headers={"Prefer": "wait=10"}).json()
        assert done["status"] == "succeeded"
        health = client.get("/health")
        assert health.status_code == 200
        assert (health.json()["status"], health.json()["broker"]) == ("degraded", "down")
        assert client.get("/readyz").status_code == 200


def test_submission_is_refused_for_now_while_the_database_is_down(
    queue: Stack, tmp_path: Path, attrition_row: dict[str, Any]
) -> None:
    engine = make_engine(queue.database_url, autocommit=True)
    url = make_url(queue.database_url).set(username="doomed").render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text("CREATE ROLE doomed SUPERUSER LOGIN"))
        with beside(queue, tmp_path, DATABASE_URL=url) as other, other.client() as client:
            job_id = check_accepted(client.post("/jobs", json={"features": attrition_row}))["id"]
            connection.execute(text("ALTER ROLE doomed NOLOGIN"))
            connection.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'doomed'"))
            for answer in (
                client.post("/jobs", json={"features": attrition_row}),
                client.post("/predict", json={"features": attrition_row}),
                client.get(f"/jobs/{job_id}"),
                client.get("/jobs"),
            ):
                problem = check_problem(answer, 503, "unavailable")
                assert "doomed" not in answer.text
                assert "database" in problem["detail"]
                assert int(answer.headers["retry-after"]) >= 1
            wait_for_ready(client, 503)
            assert client.get("/livez").status_code == 200
            connection.execute(text("ALTER ROLE doomed LOGIN"))
            wait_for_ready(client, 200)
            assert client.post("/predict", json={"features": attrition_row}).status_code == 200
        connection.execute(text("DROP ROLE doomed"))
    engine.dispose()


def wait_for_ready(client: httpx2.Client, status: int) -> None:
    deadline = time.monotonic() + 10
    while client.get("/readyz").status_code != status:
        assert time.monotonic() < deadline, f"/readyz did not come to {status}"
        time.sleep(0.1)
