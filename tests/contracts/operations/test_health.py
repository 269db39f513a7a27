"""Probes: what they say of a service that is well."""

import platform

import httpx2
import pytest

from shared.version import VERSION
from tests.support.stack import Stack


def test_health_of_a_service_that_is_well(stack: Stack, client: httpx2.Client) -> None:
    answer = client.get("/health")
    assert answer.status_code == 200
    body = answer.json()
    # Other tests of this service let a model of theirs, moody, fail.
    assert [reason for reason in body["reasons"] if not reason.startswith("moody@")] == []
    assert (body["status"] == "ok") == (not body["reasons"])
    assert (body["model_loaded"], body["model"], body["model_version"]) == (True, "attrition", 1)
    assert (body["runtime"], body["database"]) == (stack.runtime, "ok")


def test_health_of_the_queue_runtime_names_its_workers(queue: Stack) -> None:
    with queue.client() as client:
        body = client.get("/health").json()
    assert body["broker"] == "ok"
    lanes = {lane for worker in body["workers"] for lane in worker["lanes"]}
    assert lanes == {"interactive", "bulk", "maintenance"}
    for worker in body["workers"]:
        assert worker.keys() == {"id", "lanes", "models", "seen_at"}
        assert "attrition@1" in worker["models"]
    assert body["worker_count"] == len(body["workers"])
    assert 0 <= body["oldest_queued_seconds"] < 30


def test_health_of_the_sync_runtime_has_neither_broker_nor_workers(sync: Stack) -> None:
    with sync.client() as client:
        body = client.get("/health").json()
    assert body["broker"] is None
    assert body["workers"] == []


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probe_of_a_service_that_is_well(client: httpx2.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok"}


def test_version_names_the_service_and_its_runtime(stack: Stack, client: httpx2.Client) -> None:
    expected = {"name": "guichet", "version": VERSION, "runtime": stack.runtime, "python": platform.python_version()}
    body = client.get("/version").json()
    models = {model["model"]: model for model in body.pop("models")}
    assert body == expected
    served = client.get("/models/attrition").json()
    assert models["attrition"] == {
        "model": "attrition",
        "model_version": 1,
        "model_sha256": served["model_sha256"],
        "trained_at": served["card"].get("trained_at"),
        "created_at": served["created_at"],
    }


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz", "/version", "/nothing", "/models"])
def test_every_answer_has_a_request_id_and_says_nothing_of_the_server(client: httpx2.Client, path: str) -> None:
    answer = client.get(path)
    assert len(answer.headers["x-request-id"]) == 36
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers
