"""Flower beside the queue runtime, through its own HTTP API: it shows work, and every lane."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from shared.broker.app import NEW_MODELS, TaskName
from tests.contracts.csv_files import check_taken, post_csv
from tests.contracts.helpers import apart, wait_for_job, wait_until
from tests.contracts.models.test_registering import ended, joblib_of, send
from tests.support.stack import Stack, free_port

pytestmark = pytest.mark.flow  # Flower itself, before workers that score

LANES = ["bulk", "interactive", "maintenance"]


@contextmanager
def watching(stack: Stack) -> Iterator[httpx2.Client]:
    """Run Flower as `make run` does, with an API that asks for no password; yield a client of it."""
    port = free_port()
    command = ("celery", "-q", "-A", "worker.main:app", "flower", "--address=127.0.0.1", f"--port={port}")
    stack.start("flower", *command, FLOWER_UNAUTHENTICATED_API="true", FLOWER_INSPECT_TIMEOUT="5000")  # ms
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait_until(lambda: is_up(client), seconds=60)
            yield client
    finally:
        stack.stop("flower")


def is_up(flower: httpx2.Client) -> bool | None:
    try:
        return flower.get("/healthcheck").status_code == 200 or None
    except httpx2.TransportError:
        return None


@pytest.fixture(scope="module")
def flower(queue: Stack) -> Iterator[httpx2.Client]:
    """A client of a Flower that watches both workers of the queue runtime."""
    with watching(queue) as client:
        wait_until(lambda: len(client.get("/api/workers?refresh=1").json()) == 2 or None, seconds=60)
        yield client


def lanes(flower: httpx2.Client) -> list[str]:
    return sorted(lane["name"] for lane in flower.get("/api/queues/length").json()["active_queues"])


def tasks(flower: httpx2.Client) -> list[dict[str, Any]]:
    return list(flower.get("/api/tasks", params={"limit": 1_000}).json().values())


def latest(flower: httpx2.Client) -> float:
    """Return when the last task was received, 0 where none was."""
    return max((float(task["received"]) for task in tasks(flower)), default=0.0)


def wait_for_task(
    flower: httpx2.Client, name: str, lane: str, *, result: str = "", after: float = 0.0
) -> dict[str, Any]:
    """Return a task of this name, lane and result that has ended and was received after a moment."""

    def look() -> dict[str, Any] | None:
        return next(
            (
                task
                for task in tasks(flower)
                if task["name"] == name
                and lane in (task["args"] or "")
                and task["state"] == "SUCCESS"
                and result in task["result"]
                and task["received"] > after
            ),
            None,
        )

    return wait_until(look, seconds=60)


def test_tasks_have_the_names_of_the_models_that_they_score(
    queue: Stack, flower: httpx2.Client, attrition_row: dict[str, Any], credit_row: dict[str, Any]
) -> None:
    with queue.client() as client:
        for model, row in (("attrition", attrition_row), ("credit", credit_row)):
            answer = client.post("/predict", json={"model": model, "features": row})
            assert answer.status_code == 200, answer.text
        content = "\n".join([",".join(attrition_row), ",".join(map(str, attrition_row.values()))]) + "\n"
        wait_for_job(client, check_taken(post_csv(client, content.encode()))["id"])
        ended(client, send(client, joblib_of({}), name=f"nothing-{uuid.uuid4().hex[:8]}"))
    wait_for_task(flower, "attrition@1", "interactive", result="attrition@1: 1 jobs")
    wait_for_task(flower, "credit@1", "interactive", result="credit@1: 1 jobs")
    wait_for_task(flower, "attrition@1", "bulk", result="attrition@1: 1 rows of files")
    wait_for_task(flower, NEW_MODELS, "bulk")
    assert not [task for task in tasks(flower) if task["name"].startswith("guichet.")]


def test_recovery_after_a_lost_wakeup_sends_one_with_a_name(
    queue: Stack, flower: httpx2.Client, attrition_row: dict[str, Any], tmp_path: Path
) -> None:
    # The address of no Redis: this API stores the row and wakes nobody, so that the recovery has to.
    with apart(queue, tmp_path, REDIS_URL="redis://127.0.0.1:1/0") as other, other.client() as client:
        last = latest(flower)
        job = client.post("/jobs", json={"features": attrition_row})
        assert job.status_code == 202, job.text
        wait_for_job(client, job.json()["id"])
    wait_for_task(flower, "attrition@1", "interactive", after=last)


def test_what_the_clock_does_is_no_task_and_sends_no_events(
    queue: Stack, flower: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    with queue.client() as client:
        client.post("/predict", json={"features": attrition_row})
        wait_for_task(flower, "attrition@1", "interactive")
        last = latest(flower)
        # As the beat of an older release would: into the queue of the worker that scores the next row.
        for name in (TaskName.RECOVER, TaskName.FORGET):
            assert flower.post(f"/api/task/send-task/{name}", json={}).status_code == 200
        assert client.post("/predict", json={"features": attrition_row}).status_code == 200
    wait_for_task(flower, "attrition@1", "interactive", after=last)
    assert not [task for task in tasks(flower) if task["name"] in (TaskName.RECOVER, TaskName.FORGET)]


def test_every_lane_is_listed(flower: httpx2.Client) -> None:
    wait_until(lambda: lanes(flower) == LANES or None)


def test_every_lane_is_listed_while_no_worker_is_there(queue: Stack, tmp_path: Path) -> None:
    alone = Stack("queue", queue.env | {"REDIS_URL": f"{queue.env['REDIS_URL'].rpartition('/')[0]}/9"}, tmp_path, 1)
    with watching(alone) as client:
        assert lanes(client) == LANES
