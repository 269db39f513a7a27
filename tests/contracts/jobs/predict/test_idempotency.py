"""Idempotency-Key: the same request again is the same job, whatever happened to the first answer."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine

from tests.contracts.helpers import (
    ROUTES,
    body_for,
    check_accepted,
    check_problem,
    check_result,
    counts,
    logged,
    new_id,
    paused,
    wait_for_job,
)
from tests.support.stack import Stack


@pytest.mark.parametrize("route", ROUTES)
def test_same_key_and_body_is_the_same_job(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any], route: str
) -> None:
    headers = {"Idempotency-Key": new_id(), "Prefer": "respond-async"}
    first = check_accepted(client.post(route, json=body_for(route, attrition_row), headers=headers))
    before = counts(engine)
    again = check_accepted(client.post(route, json=body_for(route, attrition_row), headers=headers))
    assert again["id"] == first["id"]
    assert again["created_at"] == first["created_at"]
    assert again["request_id"] == first["request_id"]
    assert counts(engine) == before
    wait_for_job(client, first["id"])


def test_same_key_and_body_after_the_end_is_the_same_result(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    headers = {"Idempotency-Key": new_id()}
    first = check_result(client.post("/predict", json={"features": attrition_row}, headers=headers))
    before = counts(engine)
    answer = client.post("/predict", json={"features": attrition_row}, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-location"] == f"/jobs/{first['job_id']}"
    assert answer.json() == first
    assert counts(engine) == before


def test_same_key_with_another_body_is_refused_with_the_first_job(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    request_id = new_id()
    headers = {"Idempotency-Key": new_id()}
    first = check_accepted(client.post("/jobs", json={"features": attrition_row}, headers=headers))
    before = counts(engine)
    other = {"features": attrition_row | {"poste": "Manager"}}
    answer = client.post("/jobs", json=other, headers=headers | {"X-Request-Id": request_id})
    problem = check_problem(answer, 422, "idempotency_mismatch")
    assert problem["job_id"] == first["id"]
    assert counts(engine) == before
    entry = logged(engine, request_id)
    assert (entry["code"], entry["job_id"]) == ("idempotency_mismatch", first["id"])


def test_key_belongs_to_its_route(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": new_id(), "Prefer": "respond-async"}
    ids = {
        check_accepted(client.post(route, json=body_for(route, attrition_row), headers=headers))["id"]
        for route in ROUTES
    }
    assert len(ids) == len(ROUTES)


def test_key_of_a_refused_request_is_free_again(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": new_id()}
    check_problem(client.post("/predict", json={"features": attrition_row | {"age": -1}}, headers=headers), 422)
    check_result(client.post("/predict", json={"features": attrition_row}, headers=headers))


def test_requests_without_a_key_are_separate_jobs(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    ids = {check_result(client.post("/predict", json={"features": attrition_row}))["job_id"] for _ in range(2)}
    assert len(ids) == 2


def test_key_sent_by_many_at_once_makes_one_job(stack: Stack, engine: Engine, attrition_row: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": new_id()}
    before = counts(engine)
    with stack.client() as client, ThreadPoolExecutor(12) as pool:
        answers = list(
            pool.map(lambda _: client.post("/jobs", json={"features": attrition_row}, headers=headers), range(24))
        )
    assert counts(engine) == (before[0] + 1, before[1] + 1)
    ids = {check_accepted(answer)["id"] for answer in answers if answer.status_code != 409}
    assert len(ids) == 1
    for answer in answers:
        if answer.status_code == 409:
            check_problem(answer, 409, "conflict")
            assert int(answer.headers["retry-after"]) >= 1


def test_repeated_predict_waits_for_the_job_that_the_first_one_made(
    queue: Stack, attrition_row: dict[str, Any]
) -> None:
    headers = {"Idempotency-Key": new_id()}
    body = {"features": attrition_row}
    with queue.client() as client:
        with paused(queue):
            job = check_accepted(client.post("/predict", json=body, headers=headers | {"Prefer": "wait=0"}))
            answer = client.post("/predict", json=body, headers=headers | {"Prefer": "wait=1"})
            assert check_accepted(answer)["id"] == job["id"]
            assert answer.elapsed.total_seconds() > 0.9
        answer = client.post("/predict", json=body, headers=headers | {"Prefer": "wait=9"})
        assert answer.status_code == 200
        assert answer.json()["job_id"] == job["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "a\x7fb"])
def test_key_that_cannot_be_kept_is_refused(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any], key: str
) -> None:
    before = counts(engine)
    answer = client.post("/predict", json={"features": attrition_row}, headers={"Idempotency-Key": key})
    # The server itself may refuse a control character in a header, before the service sees the request.
    assert answer.status_code == 400
    if "x-request-id" in answer.headers:
        check_problem(answer, 400, "malformed_body")
    assert counts(engine) == before


@pytest.mark.parametrize("key", ["x", "x" * 255, "é ü", "a:b/c?d=e", "' OR 1=1 --"])
def test_key_of_any_printable_text_is_kept(client: httpx2.Client, attrition_row: dict[str, Any], key: str) -> None:
    headers = httpx2.Headers({"Idempotency-Key": key}, encoding="utf-8")
    first = check_result(client.post("/predict", json={"features": attrition_row}, headers=headers))
    again = client.post("/predict", json={"features": attrition_row}, headers=headers)
    assert again.json()["job_id"] == first["job_id"]
