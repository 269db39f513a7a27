"""HEAD wherever there is GET, Allow with every method, and a service below a path prefix of a reverse proxy."""

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.contracts.helpers import apart, check_accepted, check_problem, check_result
from tests.support.stack import Stack

JOB = "00000000-0000-7000-8000-000000000000"
PAGES = ("/", "/docs", "/redoc", "/openapi.json", "/static-offline-docs/swagger-ui.css")


def shown(headers: httpx2.Headers) -> dict[str, str]:
    """Return what the answers to the same question twice have in common."""
    return {name: value for name, value in headers.items() if name not in ("date", "x-request-id")}


@pytest.fixture
def paths(client: httpx2.Client) -> dict[str, dict[str, Any]]:
    operations: dict[str, dict[str, Any]] = client.get("/openapi.json").json()["paths"]
    return operations


# Their answers are another each time: figures of this moment, and of requests such as these.
CHANGING = ("/health", f"/jobs/{JOB}", "/metrics", "/metrics/system", "/logs/requests", "/logs/errors")


def test_head_of_every_path_answers_as_get_does_without_a_body(
    client: httpx2.Client, paths: dict[str, dict[str, Any]]
) -> None:
    operations = [
        re.sub(r"\{\w+\}", JOB, path.replace("{name}", "attrition").replace("{version}", "1"))
        for path, item in paths.items()
        if "get" in item
    ]
    assert len(operations) > 20
    for path in [*PAGES, *operations]:
        get, head = client.get(path), client.head(path)
        assert head.status_code == get.status_code, path
        assert head.content == b""
        if path not in CHANGING and "problem" not in get.headers.get("content-type", ""):
            assert shown(head.headers) == shown(get.headers), path


def test_head_of_a_stream_ends_at_once(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    job = check_accepted(client.post("/jobs", json={"features": attrition_row}))
    head = client.head(f"/jobs/{job['id']}/events", timeout=5)
    assert head.headers["content-type"].startswith("text/event-stream")
    assert client.head("/livez").status_code == 200  # the connection is good for more


def test_allow_names_every_method_of_a_path(client: httpx2.Client, paths: dict[str, dict[str, Any]]) -> None:
    for path, item in paths.items():
        methods = {method.upper() for method in item} | ({"HEAD"} if "get" in item else set())
        address = re.sub(r"\{\w+\}", JOB, path)
        answer = client.request("PATCH", address)
        assert answer.status_code == 405, path
        assert set(answer.headers["allow"].split(", ")) == methods, path
    assert check_problem(client.patch("/jobs"), 405)["detail"].endswith("say which it takes.")


def test_head_of_a_path_without_get_is_405(client: httpx2.Client) -> None:
    answer = client.head("/predict")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


# ── below a prefix ───────────────────────────────────────────────────────────────────────────────────────────────


def follow(client: httpx2.Client, row: dict[str, Any], *, cut: str, **headers: str) -> None:
    """Use the service as a caller of `/scores/...` does, behind a proxy that cuts `cut` off each path."""

    def ask(method: str, path: str, **more: Any) -> httpx2.Response:
        assert path.startswith("/scores/"), path
        return client.request(method, path.removeprefix(cut), headers=headers, **more)

    root = ask("GET", "/scores/")
    assert root.headers["location"] == "/scores/docs"
    page = ask("GET", root.headers["location"]).text
    for place in re.findall(r"(?:src|href|url:?)\s*[=:]?\s*['\"](/[^'\"]+)", page):
        assert ask("GET", place).status_code == 200, place
    assert "'/scores/openapi.json'" in page
    assert ask("GET", "/scores/openapi.json").json()["servers"] == [{"url": "/scores"}]

    result = ask("POST", "/scores/predict", json={"features": row})
    assert result.status_code == 200
    job = ask("GET", result.headers["content-location"]).json()
    assert ask("GET", job["links"]["self"]).json()["id"] == job["id"]
    assert ask("GET", job["links"]["result"]).status_code == 200
    accepted = ask("POST", "/scores/jobs", json={"features": row})
    assert ask("GET", accepted.headers["location"]).json()["id"] == accepted.json()["id"]
    page = ask("GET", "/scores/jobs", params={"limit": 1}).json()
    assert ask("GET", page["next"]).status_code == 200
    model = ask("GET", "/scores/models").json()["items"][0]
    assert ask("GET", model["links"]["self"]).status_code == 200
    assert ask("POST", model["links"]["predict"], json={}).status_code == 422
    example = ask("GET", "/scores/examples").json()["items"][0]
    for place in example["links"].values():
        assert ask("HEAD", place).status_code in (200, 405), place
    problem = ask("GET", "/scores/jobs/nobody").json()
    assert (problem["status"], problem["instance"]) == (404, "/scores/jobs/nobody")
    assert ask("GET", "/scores/v2/models/nobody").json().keys() == {"error"}
    assert ask("POST", "/scores/invocations", content=b"{").json().keys() == {"error_code", "message"}


@pytest.mark.flow
def test_service_below_root_path_leads_its_callers_there(
    sync: Stack, tmp_path: Path, attrition_row: dict[str, Any]
) -> None:
    with apart(sync, tmp_path, ROOT_PATH="/scores/") as other, other.client() as client:
        for cut in ("", "/scores"):  # what the proxy takes off each path
            follow(client, attrition_row, cut=cut)


@pytest.mark.long  # one more service
def test_prefix_is_believed_of_a_proxy_whose_word_is_taken(
    sync: Stack, tmp_path: Path, attrition_row: dict[str, Any]
) -> None:
    with apart(sync, tmp_path, PROXY_HOPS="1") as other, other.client() as client:
        follow(client, attrition_row, cut="/scores", **{"X-Forwarded-Prefix": "/scores/"})
        for untrue in ("//evil.example", "https://evil.example", "/a\\b", "/../x", "/a b", "/" + "x" * 300, "scores"):
            answer = client.get("/", headers={"X-Forwarded-Prefix": untrue})
            assert answer.headers["location"] == "/docs", untrue


def test_prefix_of_a_caller_is_ignored_where_there_is_no_proxy(
    client: httpx2.Client, credit_row: dict[str, Any]
) -> None:
    headers = {"X-Forwarded-Prefix": "/scores"}
    assert client.get("/", headers=headers).headers["location"] == "/docs"
    check_result(client.post("/models/credit/predict", json={"features": credit_row}, headers=headers))
