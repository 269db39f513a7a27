"""AUTH=predict-open, as on a Space: everyone may predict so often, and whatever else changes something needs a key."""

import re
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import Engine, insert

from api.auth.callers import make_key
from api.auth.rate_limit import FILE_ROWS_PER_ROW
from shared.database.engine import make_engine
from shared.tables import ApiKey
from tests.contracts.helpers import (
    apart,
    asks_for_key,
    check_accepted,
    check_problem,
    check_result,
    demands_key,
    operations,
    stored_job,
    wait_for_job,
)
from tests.support.stack import Stack

BURST = 12
SUBMITTING = re.compile(
    r"(/models/\{name\})?/(predict|predict_batch|predict_csv|invocations|explain)|/jobs|/jobs/\{id\}/explain"
    r"|/v2/models/\{name\}(/versions/\{version\})?/infer|/v2/repository/index"  # the last one only reads
)
# What was made of everyone's rows, and what everyone did.
OF_ALL = (
    "/alerts",
    "/drift",
    "/jobs",
    "/keys",
    "/logs/audit",
    "/logs/errors",
    "/logs/requests",
    "/metrics",
    "/metrics/feature-distribution",
    "/metrics/kpis",
    "/metrics/model",
    "/metrics/system",
    "/models/{name}/comparison",
    "/models/{name}/history",
)
PROBES = ("/health", "/livez", "/readyz", "/ping", "/version", "/v2/health/live", "/v2/health/ready")


@pytest.fixture(scope="module")
def space(sync: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The sync runtime's database behind an API that is set as a Space is."""
    folder = tmp_path_factory.mktemp("space")
    rate = {"RATE_PER_MINUTE": "0.1", "RATE_BURST": str(BURST), "PROXY_HOPS": "1"}
    with apart(sync, folder, AUTH="predict-open", **rate) as stack:
        yield stack


@pytest.fixture(scope="module")
def database(space: Stack) -> Iterator[Engine]:
    engine = make_engine(space.database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def visitor(space: Stack, request: pytest.FixtureRequest) -> Iterator[httpx2.Client]:
    """Someone without a key, at an address of its own."""
    number = sum(request.node.nodeid.encode())
    with space.client() as client:
        client.headers["X-Forwarded-For"] = f"198.{number // 256 % 256}.100.{number % 256}"
        yield client


@pytest.fixture
def key(database: Engine) -> dict[str, str]:
    secret, digest = make_key()
    with database.begin() as connection:
        row = {"id": digest[:16], "name": "test", "sha256": digest, "scopes": "predict,read"}
        connection.execute(insert(ApiKey).values(**row))
    return {"Authorization": f"Bearer {secret}"}


def test_visitor_predicts_and_reads_its_job(
    visitor: httpx2.Client, database: Engine, attrition_row: dict[str, Any]
) -> None:
    result = check_result(visitor.post("/predict", json={"features": attrition_row}))
    assert visitor.get(f"/jobs/{result['job_id']}").json()["status"] == "succeeded"
    assert visitor.get(f"/jobs/{result['job_id']}/result").json()["probability"] == result["probability"]
    assert stored_job(database, result["job_id"])["owner"] is None


def test_visitor_scores_a_file(visitor: httpx2.Client) -> None:
    file = Path("examples/attrition/rows.csv").read_bytes()
    job = visitor.post("/predict_csv", content=file, headers={"Content-Type": "text/csv"})
    assert job.status_code == 202
    ended = wait_for_job(visitor, job.json()["id"])
    assert visitor.get(f"/jobs/{ended['id']}/output.csv").status_code == 200


def test_visitor_may_submit_and_read_and_nothing_else(visitor: httpx2.Client) -> None:
    """A new route that submits or reads is let in here; one that changes something must not be."""
    paths = visitor.get("/openapi.json").json()["paths"]
    wrong, tried = [], 0
    for path, item in paths.items():
        for method in item:
            is_allowed = path in PROBES or (method == "get" and path not in OF_ALL)
            is_allowed |= method == "post" and SUBMITTING.fullmatch(path) is not None
            address = re.sub(r"\{\w+\}", "1", path)
            tried += 1
            visitor.headers["X-Forwarded-For"] = f"203.0.113.{tried}"  # guesses are soon too many for one address
            answer = visitor.request(method, address, json={} if method in ("post", "put") else None)
            if (answer.status_code != 401) != is_allowed:
                wrong.append(f"{method} {path}: {answer.status_code}")
    assert wrong == []


def test_document_demands_a_key_where_the_service_does(visitor: httpx2.Client) -> None:
    document = visitor.get("/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    assert {scheme["type"] for scheme in schemes.values()} == {"http", "apiKey"}
    by_key = [{name: []} for name in schemes]
    wrong = []
    for number, (path, method, operation) in enumerate(operations(document)):
        address = f"203.0.114.{number}"
        assert asks_for_key(visitor, path, method, **{"X-Forwarded-For": address}) is demands_key(operation), path
        assert operation["security"] in ([], by_key, [{}, *by_key])
        assert (operation["security"] == []) == (path in PROBES)
        if demands_key(operation):
            wrong.append((method, path))
    assert sorted(wrong) == [
        ("delete", "/jobs/{id}"),
        ("delete", "/keys/{id}"),
        ("delete", "/models/{name}/aliases/{alias}"),
        ("delete", "/models/{name}/versions/{version}"),
        *(("get", path) for path in OF_ALL),
        ("post", "/alerts/{id}/acknowledge"),
        ("post", "/jobs/cancel"),
        ("post", "/jobs/retry"),
        ("post", "/jobs/{id}/cancel"),
        ("post", "/jobs/{id}/outcome"),
        ("post", "/jobs/{id}/reproduce"),
        ("post", "/jobs/{id}/retry"),
        ("post", "/keys"),
        ("post", "/keys/{id}/rotate"),
        ("post", "/models"),
        ("post", "/models/{name}/aliases/{alias}/rollback"),
        ("post", "/models/{name}/versions/{version}/archive"),
        ("post", "/models/{name}/versions/{version}/restore"),
        ("post", "/outcomes"),
        ("post", "/replays"),
        ("post", "/train"),
        ("put", "/jobs/{id}"),
        ("put", "/models/{name}/aliases/{alias}"),
    ]


def test_visitors_job_is_neither_listed_nor_canceled_nor_seen_by_keys(
    visitor: httpx2.Client, attrition_row: dict[str, Any], key: dict[str, str]
) -> None:
    job = check_accepted(visitor.post("/jobs", json={"features": attrition_row}))
    check_problem(visitor.get("/jobs"), 401, "unauthorized")
    check_problem(visitor.post(f"/jobs/{job['id']}/cancel"), 401, "unauthorized")
    check_problem(visitor.get(f"/jobs/{job['id']}", headers=key), 404, "not_found")
    assert job["id"] not in {listed["id"] for listed in visitor.get("/jobs", headers=key).json()["items"]}


def test_job_of_a_key_does_not_exist_for_visitors(
    visitor: httpx2.Client, attrition_row: dict[str, Any], key: dict[str, str]
) -> None:
    job = check_accepted(visitor.put("/jobs/mine-1", json={"features": attrition_row}, headers=key))
    for address in (job["id"], "mine-1"):
        check_problem(visitor.get(f"/jobs/{address}"), 404, "not_found")
    assert visitor.get("/jobs/mine-1", headers=key).json()["id"] == job["id"]


def test_unknown_key_is_refused_and_not_taken_for_a_visitor(
    visitor: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    answer = visitor.post("/predict", json={"features": attrition_row}, headers={"X-API-Key": "guichet_unknown"})
    check_problem(answer, 401, "unauthorized")


def test_visitors_idempotency_key_must_be_one_that_nobody_else_chooses(
    visitor: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    body = {"features": attrition_row}
    answer = visitor.post("/jobs", json=body, headers={"Idempotency-Key": "order-1"})
    assert "UUID" in check_problem(answer, 400)["detail"]
    wish = {"Idempotency-Key": "5f0c2e0e-7d0b-4b0c-9a53-2f7b7c6f8a11"}
    first, again = (check_accepted(visitor.post("/jobs", json=body, headers=wish))["id"] for _ in range(2))
    assert first == again


def test_submissions_over_the_quota_are_refused_until_retry_after(
    visitor: httpx2.Client, attrition_row: dict[str, Any], key: dict[str, str]
) -> None:
    body = {"features": attrition_row}
    statuses = [visitor.post("/predict", json=body).status_code for _ in range(BURST - 1)]
    statuses.append(visitor.post("/models/attrition/predict_batch", json={"rows": []}).status_code)  # refused, counted
    assert statuses == [200] * (BURST - 1) + [422]
    refused = visitor.post("/jobs", json=body)
    assert "0.1 rows a minute" in check_problem(refused, 429, "too_many_requests")["detail"]
    assert 590 <= int(refused.headers["retry-after"]) <= 600
    check_problem(visitor.post("/predict_csv", content=b"age\n1\n", headers={"Content-Type": "text/csv"}), 429)
    assert visitor.get("/models").status_code == 200  # reading has a quota of its own
    # What a caller writes before the proxy's entry does not make it another one; a key, or another address, does.
    forged = {"X-Forwarded-For": "192.0.2.77, " + visitor.headers["X-Forwarded-For"]}
    assert visitor.post("/predict", json=body, headers=forged).status_code == 429
    assert visitor.post("/predict", json=body, headers=key).status_code == 200
    assert visitor.post("/predict", json=body, headers={"X-Forwarded-For": "192.0.2.78"}).status_code == 200


def test_batch_counts_by_its_rows(visitor: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    assert visitor.post("/predict_batch", json={"rows": [attrition_row] * (BURST - 1)}).status_code == 200
    statuses = [visitor.post("/predict", json={"features": attrition_row}).status_code for _ in range(2)]
    assert statuses == [200, 429]


def test_file_delays_the_next_file_and_nothing_else(visitor: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    """A visitor may go on after one large file; twenty rows of a file cost what one alone does, and files are owed."""
    lines = Path("examples/attrition/rows.csv").read_text().splitlines()
    file = "\n".join([lines[0], *[lines[1]] * (BURST * FILE_ROWS_PER_ROW + 60)]).encode()
    headers = {"Content-Type": "text/csv"}
    assert visitor.post("/predict_csv", content=file, headers=headers).status_code == 202
    for params in ({}, {"validate_only": "true"}):
        refused = visitor.post("/predict_csv", params=params, content=file, headers=headers)
        assert "2 rows of files a minute" in check_problem(refused, 429, "too_many_requests")["detail"]
        assert 1_700 <= int(refused.headers["retry-after"]) <= 1_830  # 61 of them
    assert visitor.post("/predict", json={"features": attrition_row}).status_code == 200
    assert visitor.post("/predict_batch", json={"rows": [attrition_row] * 2}).status_code == 200


def test_guesses_of_jobs_and_keys_are_soon_too_many(visitor: httpx2.Client) -> None:
    for guess in (lambda: visitor.get(f"/jobs/{uuid4()}"), lambda: visitor.get("/models", headers={"X-API-Key": "x"})):
        visitor.headers["X-Forwarded-For"] = str(IPv4Address(int(IPv4Address(visitor.headers["X-Forwarded-For"])) + 1))
        statuses = [guess().status_code for _ in range(BURST + 1)]
        assert statuses[0] in (401, 404)
        assert statuses[-1] == 429
        assert visitor.get("/livez").status_code == 200


def test_id_of_a_visitors_job_is_random_in_every_bit(
    visitor: httpx2.Client, attrition_row: dict[str, Any], key: dict[str, str]
) -> None:
    job = check_accepted(visitor.post("/jobs", json={"features": attrition_row}))
    assert UUID(job["id"]).version == 4  # RFC 9562: 122 random bits
    owned = check_accepted(visitor.post("/jobs", json={"features": attrition_row}, headers=key))
    assert UUID(owned["id"]).version == 7  # in the order of time, and not by itself a lock


def test_service_that_is_open_without_a_limit_refuses_to_start(sync: Stack) -> None:
    done = sync.run("api", check=False, AUTH="predict-open")
    assert done.returncode == 1
    assert "set RATE_PER_MINUTE" in done.stderr
    assert "Traceback" not in done.stderr
