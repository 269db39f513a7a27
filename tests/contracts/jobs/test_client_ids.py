"""PUT /jobs/{id}: a job under an id that its caller gave it."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine

from tests.contracts.helpers import check_accepted, check_problem, counts, faults_of, new_id, paused, wait_for_job
from tests.support.stack import Stack


def test_job_is_known_by_the_id_that_its_caller_gave(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    mine = new_id()
    before = counts(engine)
    job = check_accepted(client.put(f"/jobs/{mine}", json={"features": attrition_row}))
    assert counts(engine) == (before[0] + 1, before[1] + 1)
    assert job["id"] != mine
    done = wait_for_job(client, mine)
    assert done["id"] == job["id"]
    assert client.get(f"/jobs/{mine}/result").json() == done["result"]
    assert client.get(f"/jobs/{job['id']}").json() == done


def test_same_id_and_body_again_is_the_same_job(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    mine = new_id()
    first = check_accepted(client.put(f"/jobs/{mine}", json={"features": attrition_row}))
    wait_for_job(client, mine)
    before = counts(engine)
    again = check_accepted(client.put(f"/jobs/{mine}", json={"features": attrition_row}))
    assert (again["id"], again["status"]) == (first["id"], "succeeded")
    assert counts(engine) == before


def test_same_id_with_another_body_is_refused(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    mine = new_id()
    first = check_accepted(client.put(f"/jobs/{mine}", json={"features": attrition_row}))
    before = counts(engine)
    other = {"features": attrition_row | {"poste": "Manager"}}
    problem = check_problem(client.put(f"/jobs/{mine}", json=other), 422, "idempotency_mismatch")
    assert problem["job_id"] == first["id"]
    assert problem["detail"].startswith("This id was used with another body")
    assert counts(engine) == before


def test_idempotency_key_of_the_same_text_is_another_job(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    mine = new_id()
    body = {"features": attrition_row}
    put = check_accepted(client.put(f"/jobs/{mine}", json=body))
    post = check_accepted(client.post("/jobs", json=body, headers={"Idempotency-Key": mine}))
    assert put["id"] != post["id"]


def test_job_is_canceled_by_the_id_of_its_caller(queue: Stack, attrition_row: dict[str, Any]) -> None:
    mine = new_id()
    with queue.client() as client, paused(queue):
        check_accepted(client.put(f"/jobs/{mine}", json={"features": attrition_row}))
        assert client.post(f"/jobs/{mine}/cancel").json()["status"] == "canceled"


def test_uuid_may_be_the_id_of_a_caller(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    mine = new_id().removeprefix("contract-")
    job = check_accepted(client.put(f"/jobs/{mine}", json={"features": attrition_row}))
    assert wait_for_job(client, mine)["id"] == job["id"]


@pytest.mark.parametrize("written", [str, str.upper])
def test_id_of_a_job_that_there_is_cannot_be_that_of_another(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any], written: Callable[[str], str]
) -> None:
    job = check_accepted(client.post("/jobs", json={"features": attrition_row}))
    before = counts(engine)
    answer = client.put(f"/jobs/{written(job['id'])}", json={"features": attrition_row})
    assert check_problem(answer, 409, "conflict")["job_id"] == job["id"]
    assert counts(engine) == before


def test_bad_row_is_refused_and_its_id_stays_free(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    mine, before = new_id(), counts(engine)
    problem = check_problem(client.put(f"/jobs/{mine}", json={"features": attrition_row | {"age": "old"}}), 422)
    assert ("/features/age", "type") in faults_of(problem)
    assert counts(engine) == before
    check_problem(client.get(f"/jobs/{mine}"), 404, "not_found")
    check_accepted(client.put(f"/jobs/{mine}", json={"features": attrition_row}))


@pytest.mark.parametrize("bad", ["a" * 201, "-x", "a%00b", "caf%C3%A9", "a%20b"])
def test_id_that_cannot_be_a_path_is_refused(client: httpx2.Client, attrition_row: dict[str, Any], bad: str) -> None:
    check_problem(client.put(f"/jobs/{bad}", json={"features": attrition_row}), 422, "invalid_request")
    check_problem(client.get(f"/jobs/{bad}"), 404, "not_found")
