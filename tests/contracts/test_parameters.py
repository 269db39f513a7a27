"""Query parameters that a route does not know are refused, on every route, and what was meant is named."""

import re
from typing import Any

import httpx2
import pytest

from tests.contracts.helpers import check_problem, faults_of

PAGES = ("/", "/docs", "/redoc")  # for browsers, to whose address others add what they like
REQUIRED = {"/train": {"name": "new", "target": "left"}}  # of a file, which the body would say
UNKNOWN = "00000000-0000-7000-8000-000000000000"


def every_route(client: httpx2.Client) -> list[tuple[str, str]]:
    document = client.get("/openapi.json").json()
    return [
        (method.upper(), re.sub(r"\{\w+\}", UNKNOWN, path.replace("{name}", "attrition").replace("{version}", "1")))
        for path, item in document["paths"].items()
        for method in item
    ]


def test_every_route_refuses_a_parameter_that_it_does_not_know(client: httpx2.Client) -> None:
    routes = every_route(client)
    assert len(routes) > 30
    for method, path in routes:
        answer = client.request(
            method, path, params=REQUIRED.get(path, {}) | {"nonsense": "secret-value"}, content=b"", timeout=10
        )
        assert answer.status_code in (400, 422), f"{method} {path}: {answer.status_code} {answer.text}"
        assert "nonsense is not a query parameter of this request" in answer.text, f"{method} {path}: {answer.text}"
        assert "secret-value" not in answer.text
        if answer.headers["content-type"] == "application/problem+json":
            assert faults_of(check_problem(answer, 422, "invalid_request")) == [
                ("/query/nonsense", "unknown_parameter")
            ]
        else:
            assert path.startswith("/v2") or path.endswith("/invocations")


@pytest.mark.parametrize(
    ("method", "place", "advice"),
    [
        ("GET", "/jobs?limt=2", "did you mean `limit`?"),
        ("GET", "/features?modle=credit", "did you mean `model`?"),
        ("POST", "/predict_csv?delimeter=;", "did you mean `delimiter`?"),
        ("POST", "/predict?version=2", "`version` is a field of the body"),
        ("POST", "/models/attrition/predict?version=2", "/models/NAME@VERSION/predict"),
        ("POST", "/models/attrition/predict?versoin=2", "`version` is a field of the body"),
        ("POST", "/predict_batch?on_error=abort", "`on_error` is a field of the body"),
        ("POST", "/jobs?timeout=3", "`timeout` is a field of the body"),
        ("POST", "/v2/models/attrition/infer?version=2", "/v2/models/NAME/versions/VERSION"),
        ("POST", "/invocations?version=2", "/models/NAME@VERSION/invocations"),
        ("GET", "/models/attrition?version=2", "/models/NAME@VERSION"),
        ("POST", "/predict?wait=5", "`Prefer: wait=SECONDS`"),
        ("POST", "/predict?api_key=guichet_x", "`X-API-Key`"),
        ("POST", "/predict?", None),
    ],
)
def test_what_was_meant_is_named(
    client: httpx2.Client, attrition_row: dict[str, Any], method: str, place: str, advice: str | None
) -> None:
    answer = client.request(method, place, json={"features": attrition_row})
    if advice is None:
        assert answer.status_code == 200, answer.text
    else:
        assert answer.status_code in (400, 422)
        assert advice in answer.text


def test_nothing_is_queued_where_a_parameter_is_refused(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    newest = client.get("/jobs?limit=1").json()["items"]
    assert client.post("/jobs?version=2", json={"features": attrition_row}).status_code == 422
    assert client.get("/jobs?limit=1").json()["items"] == newest


@pytest.mark.parametrize("page", PAGES)
def test_pages_for_browsers_take_what_others_add_to_their_address(client: httpx2.Client, page: str) -> None:
    assert client.get(page, params={"__theme": "dark"}, follow_redirects=True).status_code == 200
