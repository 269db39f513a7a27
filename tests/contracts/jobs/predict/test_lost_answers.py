"""What is answered when the database's own answer is lost, late or out of reach: never less than the truth."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from shared.database.engine import make_engine
from tests.contracts.helpers import beside, check_accepted, check_problem, paused, wait_for_job
from tests.support.cut_line import CutLine, cut_line
from tests.support.stack import Stack


@pytest.fixture(scope="module")
def line(queue: Stack) -> Iterator[CutLine]:
    assert queue.postgres is not None
    with cut_line(queue.postgres.socket_dir / ".s.PGSQL.5432") as line:
        yield line


@pytest.fixture(scope="module")
def other(queue: Stack, line: CutLine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An API whose every connection to the database goes over the bad line."""
    database = make_url(queue.database_url).database
    url = f"postgresql+psycopg2://postgres@127.0.0.1:{line.port}/{database}"
    with beside(queue, tmp_path_factory.mktemp("bad-line"), DATABASE_URL=url) as other:
        yield other


@pytest.fixture
def across(other: Stack, line: CutLine) -> Iterator[httpx2.Client]:
    with other.client() as client:
        yield client
        line.is_silent = line.refuses = line.then_refuses = False
        deadline = time.monotonic() + 15
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline, "the service did not come back"
            time.sleep(0.1)


def count(queue: Stack, request_id: str) -> int:
    engine = make_engine(queue.database_url)
    with engine.connect() as connection:
        number = connection.scalar(text("SELECT count(*) FROM jobs WHERE request_id = :id"), {"id": request_id})
    engine.dispose()
    return int(number or 0)


def lose_answer(line: CutLine) -> None:
    line.lost = 0
    line.loses_answer_to = b"EXECUTE submit_jobs"


@pytest.mark.parametrize("key", [None, "the-same-key-1"])
def test_job_whose_commit_was_not_heard_of_is_accepted_and_stored_once(
    queue: Stack, line: CutLine, across: httpx2.Client, attrition_row: dict[str, Any], key: str | None
) -> None:
    headers = {} if key is None else {"Idempotency-Key": key}
    lose_answer(line)
    answer = across.post("/jobs", json={"features": attrition_row}, headers=headers)
    job = check_accepted(answer)
    assert line.lost == 1
    assert count(queue, answer.headers["x-request-id"]) == 1
    with queue.client() as client:
        assert wait_for_job(client, job["id"])["status"] == "succeeded"


def test_refusal_does_not_say_not_accepted_when_nobody_can_tell(
    queue: Stack, line: CutLine, across: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    """COMMIT's answer is lost, and the database is out of reach from then on: the job is stored, and runs."""
    lose_answer(line)
    line.then_refuses = True
    began = time.monotonic()
    answer = across.post("/jobs", json={"features": attrition_row})
    assert time.monotonic() - began < 12
    problem = check_problem(answer, 503, "unavailable")
    assert line.lost == 1
    assert "may have been accepted" in problem["detail"]
    assert "not accepted" not in problem["detail"]
    assert f"/jobs/{problem['job_id']}" in problem["detail"]
    assert count(queue, answer.headers["x-request-id"]) == 1
    with queue.client() as client:
        assert wait_for_job(client, problem["job_id"])["status"] == "succeeded"


def test_refusal_with_a_key_says_that_the_same_key_makes_two_one(
    queue: Stack, line: CutLine, across: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    lose_answer(line)
    line.then_refuses = True
    headers = {"Idempotency-Key": "the-same-key-2"}
    answer = across.post("/jobs", json={"features": attrition_row}, headers=headers)
    assert "same key" in check_problem(answer, 503, "unavailable")["detail"]
    with queue.client() as client:
        again = check_accepted(client.post("/jobs", json={"features": attrition_row}, headers=headers))
    assert again["id"] == answer.json()["job_id"]


@pytest.mark.long
def test_request_that_never_reached_the_database_was_not_accepted(
    queue: Stack, tmp_path: Path, attrition_row: dict[str, Any]
) -> None:
    """A table that refuses says so: nothing was stored, and the answer may promise it."""
    engine = make_engine(queue.database_url, autocommit=True)
    url = make_url(queue.database_url).set(username="barred").render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text("CREATE ROLE barred SUPERUSER LOGIN"))
        try:
            with beside(queue, tmp_path, DATABASE_URL=url) as other, other.client() as client:
                connection.execute(text("ALTER ROLE barred SET default_transaction_read_only = on"))
                ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'barred'"
                connection.execute(text(ended))
                answer = client.post("/jobs", json={"features": attrition_row})
                detail = check_problem(answer, 503, "unavailable")["detail"]
                if "may have been" in detail:  # the first one met the connection that was ended just now
                    answer = client.post("/jobs", json={"features": attrition_row})
                    detail = check_problem(answer, 503, "unavailable")["detail"]
                assert "not accepted" in detail
                assert count(queue, answer.headers["x-request-id"]) == 0
        finally:
            connection.execute(text("DROP ROLE barred"))
    engine.dispose()


def test_stored_job_is_accepted_without_a_place_that_cannot_be_read(
    queue: Stack, attrition_row: dict[str, Any]
) -> None:
    engine = make_engine(queue.database_url)
    with paused(queue), queue.client() as client, engine.connect() as connection:
        answers: list[httpx2.Response] = []
        body = {"features": attrition_row}
        asking = threading.Thread(
            target=lambda: answers.append(client.post("/predict", json=body, headers={"Prefer": "wait=1"}))
        )
        asking.start()
        time.sleep(0.5)
        connection.execute(text("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"))
        asking.join(6)
        assert answers, "no answer within six seconds"
        connection.rollback()
    job = check_accepted(answers[0])
    assert job["queue"] == {"position": None, "eta_seconds": None, "is_lower_bound": False}
    with queue.client() as client:
        assert wait_for_job(client, job["id"])["status"] == "succeeded"
    engine.dispose()


@pytest.mark.long
@pytest.mark.parametrize("number", [1, 2])
def test_name_that_nobody_knows_is_answered_while_the_database_is_silent(
    line: CutLine, across: httpx2.Client, number: int
) -> None:
    line.is_silent = True
    began = time.monotonic()
    while number == 1 and across.get("/readyz").status_code != 503:  # bounded, though nobody closes a connection
        assert time.monotonic() - began < 8
        time.sleep(0.1)
    for path in ("/models/nobody/predict", "/v2/models/nobody/infer", "/models/nobody"):
        began = time.monotonic()
        answer = across.get(path) if path == "/models/nobody" else across.post(path, json={"features": {}})
        assert time.monotonic() - began < 5
        assert answer.status_code == 503
        assert "database" in answer.text


def test_place_beyond_ten_thousand_says_that_it_is_a_lower_bound(queue: Stack, attrition_row: dict[str, Any]) -> None:
    engine = make_engine(queue.database_url)
    copies = (
        "INSERT INTO jobs SELECT (jsonb_populate_record(j, jsonb_build_object('id', gen_random_uuid()))).* "
        "FROM jobs j, generate_series(1, 10005) WHERE j.id = :id"
    )
    with paused(queue, "interactive", "bulk"), queue.client() as client:
        first, second = (check_accepted(client.post("/jobs", json={"features": attrition_row})) for _ in range(2))
        near = client.get(f"/jobs/{second['id']}").json()["queue"]
        assert near["is_lower_bound"] is False
        with engine.begin() as connection:
            connection.execute(text(copies), {"id": first["id"]})
        try:
            far = client.get(f"/jobs/{second['id']}").json()["queue"]
        finally:
            with engine.begin() as connection:
                connection.execute(
                    text("DELETE FROM jobs WHERE request_id = :request AND id <> :id"),
                    {"request": first["request_id"], "id": first["id"]},
                )
        assert (far["position"], far["is_lower_bound"]) == (10_001, True)
    with queue.client() as client:
        for job in (first, second):
            wait_for_job(client, job["id"])
    engine.dispose()
