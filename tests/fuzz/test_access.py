"""Who may do what: every operation of the document, by every kind of key, on a job of another owner."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import pytest

from examples.build import NAMES
from tests.contracts.helpers import apart
from tests.support.stack import Stack

pytestmark = pytest.mark.fuzz

OPEN = {"/health", "/livez", "/readyz", "/version", "/ping", "/v2/health/live", "/v2/health/ready"}
READING = {"/v2/repository/index"}  # POST, and changes nothing
# What is made of everyone's rows, and what changes a model: only for keys with the scope `admin`.
CARD = "/models/{name}/versions/{version}/card"  # of what the service trained itself, and this model is none of it
ADMIN = {
    "/alerts",
    "/alerts/{id}/acknowledge",
    "/drift",
    "/jobs/{id}/reproduce",
    "/keys",
    "/keys/{id}",
    "/keys/{id}/rotate",
    "/logs/audit",
    "/logs/errors",
    "/logs/requests",
    "/metrics/feature-distribution",
    "/metrics/kpis",
    "/metrics/model",
    "/models/{name}/comparison",
    "/models/{name}/history",
    "/replays",
    "/train",
    "/models/{name}/aliases/{alias}/rollback",
    "/models/{name}/versions/{version}/archive",
    "/models/{name}/versions/{version}/restore",
}
CHANGES = {("PUT", "/models/{name}/aliases/{alias}"), ("DELETE", "/models/{name}/aliases/{alias}")}
CHANGES |= {("DELETE", "/models/{name}/versions/{version}"), ("POST", "/models")}
CALLERS = {"nobody": None, "a guess": "guess", "reader": "read", "predictor": "predict", "both": "read,predict"}


def test_every_operation_asks_for_its_scope_and_gives_no_job_of_another_owner(
    stack: Stack, attrition_row: dict[str, Any], tmp_path: Path
) -> None:
    with apart(stack, tmp_path, models=NAMES, AUTH="keys") as guarded, guarded.client() as client:
        owner = make_key(guarded, "owner", "predict,read")
        answer = client.post("/jobs", json={"features": attrition_row}, headers=owner)
        assert answer.status_code == 202, answer.text
        job = answer.json()["id"]
        statuses: Counter[int] = Counter()
        wrong = []
        for caller, scopes in CALLERS.items():
            headers = {}
            if caller == "a guess":
                headers = {"Authorization": "Bearer guichet_" + "a" * 43}
            elif scopes is not None:
                headers = make_key(guarded, caller, scopes)
            document = client.get("/openapi.json", headers=owner).json()
            for path, method in operations(document):
                status = ask(client, path, method, job, headers)
                statuses[status] += 1
                if status not in expected(path, method, scopes, is_known=scopes not in (None, "guess")):
                    wrong.append(f"{caller}: {method} {path}: {status}")
        assert wrong == []
        assert client.get(f"/jobs/{job}", headers=owner).status_code == 200
        sums = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
        print(f"\nmake fuzz: {stack.runtime}, access matrix of {statuses.total()} requests, answers {sums}")


def operations(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(path, method.upper()) for path, item in document["paths"].items() for method in item]


def expected(path: str, method: str, scopes: str | None, *, is_known: bool) -> set[int]:
    """Return what an operation may answer this caller, who owns nothing."""
    if path in OPEN:
        return {200}
    if not is_known:
        return {401}
    assert scopes is not None
    if path in ADMIN or (method, path) in CHANGES:
        return {403}
    if method != "GET" and path not in READING and "predict" not in scopes:
        return {403}
    if path == CARD or (path.startswith("/jobs/{id}") and method != "PUT"):
        return {404}
    return {200, 202, 400, 415, 422} if method != "GET" else {200}


def ask(client: httpx2.Client, path: str, method: str, job: str, headers: dict[str, str]) -> int:
    place = path.replace("{id}", job if method != "PUT" else "of-mine").replace("{name}", "attrition")
    place = place.replace("{alias}", "champion")
    content = {} if method == "GET" else {"json": {}}
    return client.request(method, place.replace("{version}", "1"), headers=headers, **content).status_code


def make_key(stack: Stack, name: str, scopes: str) -> dict[str, str]:
    """Make a key as an operator does; return the header that brings it."""
    output = stack.run("api.keys", "create", "--name", name, "--scopes", scopes).stdout
    key = re.search(r"key: +(\S+)", output)
    assert key is not None, output
    return {"Authorization": f"Bearer {key[1]}"}
