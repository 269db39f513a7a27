"""Jobs after their submission: polled, read, canceled, listed, expired."""

import threading
import time
import uuid
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine

from tests.contracts.helpers import (
    check_accepted,
    check_job,
    check_problem,
    check_result,
    check_result_body,
    faults_of,
    logged,
    new_id,
    paused,
    stored_job,
    stored_rows,
    wait_for_job,
)
from tests.support.stack import Stack

NOBODY = "0195f5e8-7a3c-7def-8123-456789abcdef"
ODD_IDS = [
    "x",
    NOBODY[:-1],
    NOBODY + "0",
    NOBODY.replace("-", ""),
    "{" + NOBODY + "}",
    "%00",
    "%27%20OR%201=1",
    "é",
    "1",
]


@pytest.fixture
def done(client: httpx2.Client, attrition_row: dict[str, Any]) -> dict[str, Any]:
    """The result of a job that has ended."""
    return check_result(client.post("/predict", json={"features": attrition_row}))


def submit(client: httpx2.Client, row: dict[str, Any], **more: Any) -> str:
    job_id: str = check_accepted(client.post("/jobs", json={"features": row, **more}))["id"]
    return job_id


# ── GET /jobs/{id} ───────────────────────────────────────────────────────────────────────────────────────────────


def test_job_that_succeeded_holds_its_result(client: httpx2.Client, done: dict[str, Any]) -> None:
    answer = client.get(f"/jobs/{done['job_id']}")
    assert answer.status_code == 200
    job = answer.json()
    check_job(job)
    assert (job["status"], job["kind"], job["has_failures"]) == ("succeeded", "predict", False)
    assert job["result"] == done
    assert "error" not in job
    assert job["model_sha256"] == client.get("/models/attrition").json()["model_sha256"]
    assert "retry-after" not in answer.headers


def test_unchanged_job_is_not_sent_again(client: httpx2.Client, done: dict[str, Any]) -> None:
    path = f"/jobs/{done['job_id']}"
    etag = client.get(path).headers["etag"]
    assert etag.startswith('"')
    answer = client.get(path, headers={"If-None-Match": etag})
    assert answer.status_code == 304
    assert answer.content == b""
    assert answer.headers["etag"] == etag


@pytest.mark.parametrize("form", ['"other", {}', "W/{}", "*", '{} , "other"'])
def test_etag_is_recognized_in_every_form_of_rfc_9110(client: httpx2.Client, done: dict[str, Any], form: str) -> None:
    path = f"/jobs/{done['job_id']}"
    etag = client.get(path).headers["etag"]
    assert client.get(path, headers={"If-None-Match": form.format(etag)}).status_code == 304


def test_changed_job_is_sent_again(queue: Stack, attrition_row: dict[str, Any]) -> None:
    with queue.client() as client:
        with paused(queue):
            path = f"/jobs/{submit(client, attrition_row)}"
            etag = client.get(path).headers["etag"]
        wait_for_job(client, path.removeprefix("/jobs/"))
        answer = client.get(path, headers={"If-None-Match": etag})
        assert answer.status_code == 200
        assert answer.headers["etag"] != etag


def test_poll_that_waits_is_answered_when_the_job_ends(queue: Stack, attrition_row: dict[str, Any]) -> None:
    answers: list[httpx2.Response] = []
    with queue.client() as client:
        with paused(queue):
            path = f"/jobs/{submit(client, attrition_row)}"
            poll = threading.Thread(target=lambda: answers.append(client.get(path, headers={"Prefer": "wait=20"})))
            poll.start()
            time.sleep(0.3)
            assert answers == []
        poll.join(20)
        assert answers[0].json()["status"] == "succeeded"
        assert answers[0].headers["preference-applied"] == "wait=20"
        assert answers[0].elapsed.total_seconds() < 15


def test_poll_whose_wait_runs_out_is_answered_with_the_job_as_it_stands(
    queue: Stack, attrition_row: dict[str, Any]
) -> None:
    with queue.client() as client:
        with paused(queue):
            job_id = submit(client, attrition_row)
            answer = client.get(f"/jobs/{job_id}", headers={"Prefer": "wait=1"})
            assert answer.status_code == 200
            assert answer.json()["status"] == "queued"
            assert answer.headers["retry-after"]
            assert 0.9 <= answer.elapsed.total_seconds() < 3
        wait_for_job(client, job_id)


def test_poll_of_an_ended_job_never_waits(client: httpx2.Client, done: dict[str, Any]) -> None:
    answer = client.get(f"/jobs/{done['job_id']}", headers={"Prefer": "wait=20"})
    assert answer.json()["status"] == "succeeded"
    assert answer.elapsed.total_seconds() < 3


@pytest.mark.parametrize("part", ["", "/result"])
@pytest.mark.parametrize("job_id", [NOBODY, *ODD_IDS])
def test_job_that_does_not_exist_is_not_found(client: httpx2.Client, engine: Engine, job_id: str, part: str) -> None:
    request_id = new_id()
    answer = client.get(f"/jobs/{job_id}{part}", headers={"X-Request-Id": request_id})
    check_problem(answer, 404, "not_found")
    assert logged(engine, request_id)["status"] == 404


@pytest.mark.parametrize("job_id", [NOBODY, "x", "%00"])
def test_job_that_does_not_exist_cannot_be_canceled(client: httpx2.Client, job_id: str) -> None:
    check_problem(client.post(f"/jobs/{job_id}/cancel"), 404, "not_found")


# ── GET /jobs/{id}/result ────────────────────────────────────────────────────────────────────────────────────────


def test_result_is_read_as_often_as_one_likes(client: httpx2.Client, done: dict[str, Any]) -> None:
    for _ in range(2):
        answer = client.get(f"/jobs/{done['job_id']}/result")
        assert answer.status_code == 200
        assert answer.json() == done
        check_result_body(answer.json())


def test_result_of_an_unfinished_job_is_202_with_the_job(queue: Stack, attrition_row: dict[str, Any]) -> None:
    with queue.client() as client:
        with paused(queue):
            job_id = submit(client, attrition_row)
            job = check_accepted(client.get(f"/jobs/{job_id}/result"))
            assert (job["id"], job["status"]) == (job_id, "queued")
        wait_for_job(client, job_id)


# ── cancel ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_queued_job_is_canceled_at_once_and_never_scored(queue: Stack, attrition_row: dict[str, Any]) -> None:
    with queue.client() as client:
        with paused(queue):
            job_id, later = submit(client, attrition_row), submit(client, attrition_row)
            answer = client.post(f"/jobs/{job_id}/cancel")
            assert answer.status_code == 200
            job = answer.json()
            check_job(job)
            assert (job["id"], job["status"]) == (job_id, "canceled")
            assert job["counts"]["pending"] == 0
            problem = check_problem(client.post(f"/jobs/{job_id}/cancel"), 409, "conflict")
            assert problem["job_id"] == job_id
        wait_for_job(client, later)
        assert client.get(f"/jobs/{job_id}").json()["status"] == "canceled"
        problem = check_problem(client.get(f"/jobs/{job_id}/result"), 409, "conflict")
        assert problem["job_id"] == job_id


@pytest.mark.parametrize("stack", ["queue"], indirect=True)
def test_input_of_a_canceled_job_is_kept_without_an_output(
    stack: Stack, client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    with paused(stack):
        job_id = submit(client, attrition_row)
        client.post(f"/jobs/{job_id}/cancel")
    [stored], job = stored_rows(engine, job_id), stored_job(engine, job_id)
    assert stored["features"] == attrition_row
    assert stored["prediction"] is None
    assert job["cancel_requested_at"] is not None
    assert job["attempt"] == 0


def test_predict_that_waits_for_a_canceled_job_is_told_so(queue: Stack, attrition_row: dict[str, Any]) -> None:
    answers: list[httpx2.Response] = []
    request_id = new_id()
    with queue.client(**{"X-Request-Id": request_id}) as client, queue.client() as other, paused(queue):
        sender = threading.Thread(
            target=lambda: answers.append(client.post("/predict", json={"features": attrition_row}))
        )
        sender.start()
        time.sleep(0.3)
        [job] = [job for job in other.get("/jobs?limit=5").json()["items"] if job["request_id"] == request_id]
        assert other.post(f"/jobs/{job['id']}/cancel").status_code == 200
        sender.join(20)
    problem = check_problem(answers[0], 409, "conflict")
    assert problem["job_id"] == job["id"]


def test_ended_job_cannot_be_canceled(client: httpx2.Client, engine: Engine, done: dict[str, Any]) -> None:
    request_id = new_id()
    answer = client.post(f"/jobs/{done['job_id']}/cancel", headers={"X-Request-Id": request_id})
    problem = check_problem(answer, 409, "conflict")
    assert problem["job_id"] == done["job_id"]
    assert "succeeded" in problem["detail"]
    assert client.get(f"/jobs/{done['job_id']}").json()["status"] == "succeeded"
    entry = logged(engine, request_id)
    assert (entry["status"], entry["job_id"]) == (409, done["job_id"])


# ── expiry ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_job_that_queues_longer_than_allowed_expires(queue: Stack, attrition_row: dict[str, Any]) -> None:
    with queue.client() as client:
        with paused(queue):
            job_id = submit(client, attrition_row, expires_in=1)
            job = wait_for_job(client, job_id, status="expired", seconds=8)
        check_job(job)
        assert job["error"]["code"] == "expired"
        assert "result" not in job
        problem = check_problem(client.get(f"/jobs/{job_id}/result"), 409, "conflict")
        assert problem["job_id"] == job_id
        assert "expired" in problem["detail"]
        check_problem(client.post(f"/jobs/{job_id}/cancel"), 409, "conflict")


def test_job_that_is_scored_in_time_does_not_expire(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    job_id = submit(client, attrition_row, expires_in=60)
    assert wait_for_job(client, job_id)["expires_at"] is not None


# ── GET /jobs ────────────────────────────────────────────────────────────────────────────────────────────────────


def follow(client: httpx2.Client, path: str) -> list[list[dict[str, Any]]]:
    """Return the pages from a path on."""
    pages = []
    following: str | None = path
    while following is not None:
        answer = client.get(following)
        assert answer.status_code == 200
        assert answer.json().keys() == {"items", "next"}
        pages.append(answer.json()["items"])
        following = answer.json()["next"]
    return pages


def test_pages_of_jobs_hold_every_job_once_newest_first(client: httpx2.Client, energy_row: dict[str, Any]) -> None:
    ids = [submit(client, energy_row, model="energy") for _ in range(5)]
    for job_id in ids:
        wait_for_job(client, job_id)
    all_ids = [job["id"] for page in follow(client, "/jobs?model=energy&limit=200") for job in page]
    assert all_ids == sorted(all_ids, reverse=True)
    assert all_ids[:5] == ids[::-1]
    pages = follow(client, "/jobs?model=energy&status=succeeded&limit=2")
    assert all(len(page) == 2 for page in pages[:-1])
    assert 1 <= len(pages[-1]) <= 2
    paged = [job["id"] for page in pages for job in page]
    assert paged == [
        job["id"] for page in follow(client, "/jobs?model=energy&status=succeeded&limit=200") for job in page
    ]
    assert len(set(paged)) == len(paged)


def test_cursor_is_steady_while_new_jobs_come(client: httpx2.Client, energy_row: dict[str, Any]) -> None:
    ids = [submit(client, energy_row, model="energy") for _ in range(3)]
    first = client.get("/jobs?model=energy&limit=2").json()
    submit(client, energy_row, model="energy")
    second = client.get(first["next"]).json()
    assert [job["id"] for job in first["items"]] == [ids[2], ids[1]]
    assert second["items"][0]["id"] == ids[0]


def test_listed_jobs_are_as_they_are_read(client: httpx2.Client, done: dict[str, Any]) -> None:
    [job] = client.get("/jobs?limit=1").json()["items"]
    check_job(job)
    assert job == client.get(f"/jobs/{done['job_id']}").json()


def test_filters_keep_only_what_they_say(queue: Stack, attrition_row: dict[str, Any]) -> None:
    with queue.client() as client:
        with paused(queue):
            job_id = submit(client, attrition_row)
            queued = client.get("/jobs?status=queued&model=attrition&limit=200").json()["items"]
            assert job_id in [job["id"] for job in queued]
            assert {(job["status"], job["model"]) for job in queued} == {("queued", "attrition")}
            assert client.get("/jobs?status=queued&model=energy").json() == {"items": [], "next": None}
        wait_for_job(client, job_id)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("ghost", "There is no model of that name."),
        ("", "There is no model of that name."),
        ("energy@99", "There is no such version or alias of energy."),
        ("energy@ghost", "There is no such version or alias of energy."),
        ("energy@", "There is no such version"),
    ],
)
def test_filter_by_unknown_model_says_so(client: httpx2.Client, model: str, sentence: str) -> None:
    problem = check_problem(client.get("/jobs", params={"model": model}), 404, "not_found")
    assert problem["detail"].startswith(sentence)


def test_window_keeps_what_arrived_in_it(client: httpx2.Client, energy_row: dict[str, Any]) -> None:
    jobs = [client.get(f"/jobs/{submit(client, energy_row, model='energy')}").json() for _ in range(3)]
    times = [job["created_at"] for job in jobs]
    window = {"model": "energy", "from": times[1], "to": times[2]}
    assert [job["id"] for job in client.get("/jobs", params=window).json()["items"]] == [jobs[1]["id"]]
    two = follow(client, f"/jobs?model=energy&limit=1&from={times[1]}")
    assert [job["id"] for page in two for job in page][:2] == [jobs[2]["id"], jobs[1]["id"]]
    assert len(two) == 2
    assert client.get("/jobs", params={"from": "9998-12-31T23:59:59Z"}).json() == {"items": [], "next": None}


def test_cursor_of_an_older_release_goes_on_after_its_job(client: httpx2.Client, energy_row: dict[str, Any]) -> None:
    first, second = (submit(client, energy_row, model="energy") for _ in range(2))
    page = client.get("/jobs", params={"model": "energy", "limit": 1, "before": second.upper()}).json()
    assert [job["id"] for job in page["items"]] == [first]
    unknown = client.get("/jobs", params={"before": str(uuid.uuid4())})
    assert faults_of(check_problem(unknown, 422))[0][0] == "/query/before"


def test_cursor_before_the_first_job_finds_nothing(client: httpx2.Client) -> None:
    assert client.get("/jobs", params={"before": str(uuid.UUID(int=0))}).json() == {"items": [], "next": None}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("limit", "0"),
        ("limit", "-1"),
        ("limit", "201"),
        ("limit", "many"),
        ("limit", ""),
        ("limit", "9" * 5_000),
        ("status", "done"),
        ("status", ""),
        ("before", "yesterday"),
        ("before", ""),
        ("before", "12.yesterday"),
        ("before", "9" * 18 + ".00000000-0000-0000-0000-000000000000"),
        ("from", "yesterday"),
        ("to", "20261101"),
        ("to", "0001-01-01T00:00:00+14:00"),
        ("model", "x" * 128),
    ],
)
def test_parameter_that_does_not_fit_is_refused(client: httpx2.Client, engine: Engine, name: str, text: str) -> None:
    request_id = new_id()
    answer = client.get("/jobs", params={name: text}, headers={"X-Request-Id": request_id})
    problem = check_problem(answer, 422)
    assert [pointer for pointer, _ in faults_of(problem)] == [f"/query/{name}"]
    entry = logged(engine, request_id)
    assert (entry["status"], entry["path"]) == (422, "/jobs")
    if len(text) > 1:
        assert text not in entry["detail"] + str(entry["faults"])


def test_request_id_of_a_poll_is_returned_and_the_jobs_own_stays(client: httpx2.Client, done: dict[str, Any]) -> None:
    request_id = new_id()
    answer = client.get(f"/jobs/{done['job_id']}", headers={"X-Request-Id": request_id})
    assert answer.headers["x-request-id"] == request_id
    assert answer.json()["request_id"] == done["request_id"]
