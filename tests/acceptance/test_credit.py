"""The credit client: numbers or null inside `features`, six fields back, alone and in batches, strict and relaxed."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.acceptance.conftest import CONTRACTS, Door
from tests.contracts.helpers import beside, new_id, wait_for_job, wait_until
from tests.support.stack import ROOT, Stack

CONTRACT = CONTRACTS["credit"]
FIELDS = ["request_id", "proba_default", "threshold", "decision", "model_version", "latency_ms"]
ROWS: list[dict[str, Any]] = json.loads((ROOT / "examples" / "credit" / "rows.json").read_text(encoding="utf-8"))
ROW = ROWS[0]


@pytest.fixture
def strict(door: Door) -> httpx2.Client:
    return door("lending")


@pytest.fixture
def relaxed(door: Door) -> httpx2.Client:
    return door("lending-relaxed")


def post(client: httpx2.Client, row: dict[str, Any], **headers: str) -> httpx2.Response:
    return client.post("/predict", json={"features": row}, headers=headers)


def check_score(body: dict[str, Any]) -> dict[str, Any]:
    assert list(body) == CONTRACT["response"] == FIELDS
    assert body["threshold"] == CONTRACT["threshold"] == 0.148
    assert 0 <= body["proba_default"] <= 1
    assert body["decision"] == int(body["proba_default"] >= 0.148)
    assert isinstance(body["request_id"], str)
    assert body["model_version"]
    assert body["latency_ms"] >= 0
    return body


def check_answered(answer: httpx2.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return check_score(answer.json())


def check_refused(answer: httpx2.Response, name: str) -> None:
    assert answer.status_code == 422, answer.text
    assert name in answer.text


# ── one row ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_row_is_answered_with_the_six_fields(strict: httpx2.Client) -> None:
    request_id = new_id()
    body = check_answered(post(strict, ROW, **{"X-Request-Id": request_id}))
    assert body["request_id"] == request_id
    assert {check_answered(post(strict, ROW | {"bureau_score_a": score}))["decision"] for score in (0.0, 1.0)} <= {0, 1}


def test_every_feature_may_be_null(strict: httpx2.Client) -> None:
    check_answered(post(strict, dict.fromkeys(ROW)))
    for name in ROW:
        check_answered(post(strict, ROW | {name: None}))


def test_strict_input_refuses_every_missing_and_every_unknown_feature(strict: httpx2.Client) -> None:
    for name in ROW:
        check_refused(post(strict, {key: value for key, value in ROW.items() if key != name}), name)
    check_refused(post(strict, ROW | {"loan_purpose": 1}), "loan_purpose")


def test_relaxed_input_takes_a_missing_feature_for_null_and_leaves_out_unknown_ones(relaxed: httpx2.Client) -> None:
    for name in list(ROW)[:5]:
        absent = check_answered(post(relaxed, {key: value for key, value in ROW.items() if key != name}))
        null = check_answered(post(relaxed, ROW | {name: None}))
        assert absent["proba_default"] == null["proba_default"]
    plain = check_answered(post(relaxed, ROW))["proba_default"]
    assert check_answered(post(relaxed, ROW | {"loan_purpose": "car"}))["proba_default"] == plain
    check_answered(post(relaxed, {}))


def test_every_feature_of_a_wrong_type_once_is_refused_both_ways(strict: httpx2.Client, relaxed: httpx2.Client) -> None:
    for name in ROW:
        answer = post(strict, ROW | {name: "beaucoup"})
        check_refused(answer, name)
        assert "beaucoup" not in answer.text
        check_refused(post(relaxed, {name: True}), name)


# ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_batch_is_answered_with_the_six_fields_of_each_row(strict: httpx2.Client) -> None:
    rows = [ROW, ROW | {"bureau_score_a": None}, ROW]
    answer = strict.post("/predict_batch", json={"rows": rows})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert list(body) == list(CONTRACT["batch"]["response"]) == ["n_rows", "items"]
    assert body["n_rows"] == len(body["items"]) == 3
    for row, item in zip(rows, body["items"], strict=True):
        alone = check_answered(post(strict, row))
        assert check_score(item)["proba_default"] == pytest.approx(alone["proba_default"], abs=1e-6)


def test_batch_is_strict_or_relaxed_as_one_row_is(strict: httpx2.Client, relaxed: httpx2.Client) -> None:
    rows = [ROW, {"loan_amount": 12_000.0}]
    answer = strict.post("/predict_batch", json={"rows": rows})
    check_refused(answer, "bureau_score_a")
    assert "/rows/1/" in answer.text
    items = relaxed.post("/predict_batch", json={"rows": rows}).json()["items"]
    assert [list(item) for item in items] == [FIELDS, FIELDS]
    check_refused(relaxed.post("/predict_batch", json={"rows": [ROW, {"loan_amount": "much"}]}), "loan_amount")


# ── around it ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_health_tells_the_status_and_the_model_version(stack: Stack, strict: httpx2.Client, tmp_path: Path) -> None:
    # an API of its own: the shared one tells for ten minutes that a row of another test ran out of time
    with beside(stack, tmp_path) as other, other.client() as root:

        def healthy() -> dict[str, Any] | None:
            body: dict[str, Any] = root.get("/health").json()
            return body if body["status"] == "ok" else None

        health = wait_until(healthy)
        assert CONTRACT["health"] == ["status", "model_version"]
        assert health["status"] == "ok", health
        assert health["model_version"] == 1
        assert root.get("/").is_redirect
        assert root.get("/", follow_redirects=True).status_code == 200
        assert "lending" in {item["model"] for item in root.get("/examples").json()["items"]}


def test_features_and_examples_are_there_to_try(strict: httpx2.Client) -> None:
    features = strict.get("/features").json()
    assert features["names"] == list(ROW)
    assert features["features"][0]["type"] == "number"
    for row in strict.get("/examples.json").json()["rows"]:
        check_answered(post(strict, row))
    table = strict.get("/examples.csv")
    assert table.headers["content-type"].startswith("text/csv")
    assert next(csv.reader(io.StringIO(table.text))) == list(ROW)


def test_file_is_scored(stack: Stack, strict: httpx2.Client) -> None:
    table = strict.get("/examples.csv").text
    answer = strict.post("/predict_csv", files={"file": ("rows.csv", table, "text/csv")})
    assert answer.status_code == 202, answer.text
    with stack.client() as root:
        job = wait_for_job(root, answer.json()["id"])
        output = list(csv.DictReader(io.StringIO(root.get(job["links"]["output"]).text)))
    assert len(output) == len(table.splitlines()) - 1
    for row in output:
        assert row["decision"] == str(int(float(row["proba_default"]) >= 0.148))
