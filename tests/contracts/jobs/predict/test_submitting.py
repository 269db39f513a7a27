"""What an accepted submission is answered, and what is stored of it."""

import threading
import time
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine

from tests.contracts.helpers import (
    ROUTES,
    SINGLE_ROUTES,
    TRACEPARENT,
    body_for,
    check_accepted,
    check_job,
    check_problem,
    check_result,
    counts,
    logged,
    new_id,
    paused,
    stored_job,
    stored_rows,
    wait_for_job,
)
from tests.contracts.moody import RAISES, SLEEPS
from tests.support.stack import Stack

WAITING_ROUTES = ("/predict", "/models/attrition/predict", "/predict_batch")


# ── finished within the wait ─────────────────────────────────────────────────────────────────────────────────────


def test_predict_answers_the_result(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    result = check_result(client.post("/predict", json={"features": attrition_row}))
    assert result["prediction"] in (0, 1)
    assert result["label"] == ["Reste", "Part"][result["prediction"]]
    assert 0 <= result["probability"] <= 1
    assert result["model"] == "attrition"
    assert result["model_version"] == 1


def test_named_model_answers_the_same_as_the_default_one(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    answers = [
        check_result(client.post("/predict", json={"features": attrition_row})),
        check_result(client.post("/predict", json={"features": attrition_row, "model": "attrition", "version": 1})),
        check_result(client.post("/models/attrition/predict", json={"features": attrition_row})),
        check_result(client.post("/models/attrition/predict", json={"features": attrition_row, "model": "attrition"})),
    ]
    assert len({answer["probability"] for answer in answers}) == 1
    assert len({answer["job_id"] for answer in answers}) == 4


def test_regression_answers_a_number_and_nulls(client: httpx2.Client, energy_row: dict[str, Any]) -> None:
    result = check_result(client.post("/models/energy/predict", json={"features": energy_row}))
    assert isinstance(result["prediction"], float)
    assert result["label"] is result["probability"] is result["threshold"] is None


def test_missing_feature_of_a_relaxed_card_is_scored_as_null(
    client: httpx2.Client, engine: Engine, credit_row: dict[str, Any]
) -> None:
    without = {name: value for name, value in credit_row.items() if name != "bureau_score_a"}
    absent = check_result(client.post("/models/credit/predict", json={"features": without}))
    null = check_result(client.post("/models/credit/predict", json={"features": without | {"bureau_score_a": None}}))
    assert absent["probability"] == null["probability"]
    assert stored_rows(engine, absent["job_id"])[0]["features"] == without | {"bureau_score_a": None}


def test_integral_floats_are_taken_for_integers(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    result = check_result(client.post("/predict", json={"features": attrition_row | {"age": 36.0}}))
    stored = stored_rows(engine, result["job_id"])[0]["features"]["age"]
    assert stored == 36
    assert isinstance(stored, int)


def test_input_output_and_job_of_an_answer_are_stored(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    before = counts(engine)
    result = check_result(client.post("/predict", json={"features": attrition_row}))
    assert counts(engine) == tuple(count + 1 for count in before)
    job, [row] = stored_job(engine, result["job_id"]), stored_rows(engine, result["job_id"])
    assert (job["state"], job["kind"], job["lane"], job["name"]) == ("succeeded", "predict", "interactive", "attrition")
    assert (job["row_count"], job["failed_count"], job["attempt"], job["owner"]) == (1, 0, 1, None)
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]
    assert row["features"] == attrition_row
    assert row["faults"] is None
    assert (row["prediction"], row["label"]) == (result["prediction"], result["label"])
    assert (row["probability"], row["threshold"]) == (result["probability"], result["threshold"])


@pytest.mark.parametrize("route", WAITING_ROUTES)
def test_asked_wait_that_is_kept_is_named_in_preference_applied(
    client: httpx2.Client, attrition_row: dict[str, Any], route: str
) -> None:
    answer = client.post(route, json=body_for(route, attrition_row), headers={"Prefer": "wait=9"})
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=9"


def test_answer_without_preference_names_none(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    answer = client.post("/predict", json={"features": attrition_row}, headers={"Prefer": "handling=lenient"})
    check_result(answer)
    assert "preference-applied" not in answer.headers


def test_wait_above_the_cap_is_cut_to_it(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    answer = client.post("/predict", json={"features": attrition_row}, headers={"Prefer": "wait=86400"})
    check_result(answer)
    assert answer.headers["preference-applied"] == "wait=60"


@pytest.mark.parametrize("prefer", ["wait=", "wait=soon", "wait=-1", "wait=1.5", "wait=\xb2", ",", "=", "wait"])
def test_unreadable_preference_is_ignored(client: httpx2.Client, attrition_row: dict[str, Any], prefer: str) -> None:
    headers = httpx2.Headers({"Prefer": prefer}, encoding="latin-1")
    answer = client.post("/predict", json={"features": attrition_row}, headers=headers)
    check_result(answer)
    assert "preference-applied" not in answer.headers


# ── accepted, asynchronous ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("route", ROUTES)
def test_asynchronous_submission_is_accepted_and_ends(
    client: httpx2.Client, attrition_row: dict[str, Any], route: str
) -> None:
    headers = {} if route == "/jobs" else {"Prefer": "respond-async"}
    answer = client.post(route, json=body_for(route, attrition_row), headers=headers)
    job = check_accepted(answer)
    assert answer.headers.get("preference-applied") == headers.get("Prefer")
    assert (job["model"], job["model_version"], job["counts"]["total"]) == ("attrition", 1, 1)
    done = wait_for_job(client, job["id"])
    check_job(done)
    assert done["counts"] == {"total": 1, "succeeded": 1, "failed": 0, "pending": 0}
    assert done["attempts"] == 1
    result = client.get(answer.headers["location"] + "/result").json()
    assert result["job_id"] == job["id"]


def test_preference_for_asynchronous_may_carry_parameters_and_other_wishes(
    client: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    headers = {"Prefer": 'handling=lenient, respond-async; foo="bar"'}
    answer = client.post("/predict", json={"features": attrition_row}, headers=headers)
    check_accepted(answer)
    assert answer.headers["preference-applied"] == "respond-async"


def test_jobs_answers_at_once_whatever_wait_is_asked(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    answer = client.post("/jobs", json={"features": attrition_row}, headers={"Prefer": "wait=5"})
    check_accepted(answer)
    assert "preference-applied" not in answer.headers  # RFC 7240, 3: only what was honoured is named


def test_queued_job_tells_its_place(queue: Stack, attrition_row: dict[str, Any]) -> None:
    with queue.client() as client, paused(queue):
        jobs = [check_accepted(client.post("/jobs", json={"features": attrition_row})) for _ in range(3)]
        assert all(job["status"] == "queued" and job["queue"]["position"] >= 1 for job in jobs)
        seen = [client.get(f"/jobs/{job['id']}").json() for job in jobs]
        assert [job["queue"]["position"] for job in seen] == [1, 2, 3]
        assert all(job["counts"] == {"total": 1, "succeeded": 0, "failed": 0, "pending": 1} for job in seen)
    with queue.client() as client:
        for job in jobs:
            wait_for_job(client, job["id"])


def test_queue_tells_the_time_from_the_measured_drain_rate(queue: Stack, attrition_row: dict[str, Any]) -> None:
    with queue.client() as client:
        with paused(queue):
            job = check_accepted(client.post("/jobs", json={"features": attrition_row}))
            eta = client.get(f"/jobs/{job['id']}").json()["queue"]["eta_seconds"]
            assert eta is None or eta > 0  # none is known before there was a backlog
        wait_for_job(client, job["id"])


def test_sync_runtime_has_scored_before_it_accepts(sync: Stack, attrition_row: dict[str, Any]) -> None:
    with sync.client() as client:
        job = check_accepted(client.post("/jobs", json={"features": attrition_row}))
        assert job["status"] == "succeeded"
        assert job["queue"] is None


def test_options_of_a_job_are_stored(client: httpx2.Client, engine: Engine, credit_row: dict[str, Any]) -> None:
    body = {"features": credit_row, "model": "credit", "version": 1, "expires_in": 3600, "timeout": 7.5}
    job = check_accepted(client.post("/jobs", json=body))
    assert job["model"] == "credit"
    stored = stored_job(engine, job["id"])
    assert (stored["name"], stored["timeout_seconds"]) == ("credit", 7.5)
    assert (stored["expires_at"] - stored["created_at"]).total_seconds() == pytest.approx(3600, abs=1)
    assert job["expires_at"] is not None
    wait_for_job(client, job["id"])


# ── the wait ran out ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("route", WAITING_ROUTES)
def test_wait_that_runs_out_is_answered_202_and_the_job_goes_on(
    queue: Stack, attrition_row: dict[str, Any], route: str
) -> None:
    with queue.client() as client:
        with paused(queue):
            start = time.monotonic()
            answer = client.post(route, json=body_for(route, attrition_row), headers={"Prefer": "wait=1"})
            waited = time.monotonic() - start
            job = check_accepted(answer)
            assert answer.headers["preference-applied"] == "wait=1"
            assert 0.9 <= waited < 3
            assert job["status"] == "queued"
        wait_for_job(client, job["id"])


def test_asynchronous_with_a_wait_gives_the_result_if_it_is_there_in_time(
    client: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    headers = {"Prefer": "respond-async, wait=9"}
    answer = client.post("/predict", json={"features": attrition_row}, headers=headers)
    check_result(answer)
    assert answer.headers["preference-applied"] == "respond-async, wait=9"


def test_request_that_waits_gets_the_result_once_the_worker_goes_on(
    queue: Stack, attrition_row: dict[str, Any]
) -> None:
    answers: list[httpx2.Response] = []
    with queue.client() as client:
        sender = threading.Thread(
            target=lambda: answers.append(client.post("/predict", json={"features": attrition_row}))
        )
        with paused(queue):
            sender.start()
            time.sleep(0.3)
            assert answers == []
        sender.join(20)
    check_result(answers[0])


# ── failed within the wait ───────────────────────────────────────────────────────────────────────────────────────


def test_model_that_raises_is_answered_500_with_the_job(client: httpx2.Client, engine: Engine, moody: str) -> None:
    answer = client.post(f"/models/{moody}/predict", json={"features": {"mood": RAISES}})
    problem = check_problem(answer, 500, "model_failed")
    assert "CANARY" not in answer.text
    job = client.get(f"/jobs/{problem['job_id']}").json()
    check_job(job)
    assert job["status"] == "failed"
    assert job["has_failures"] is True
    assert job["error"]["code"] == "model_failed"
    assert job["counts"] == {"total": 1, "succeeded": 0, "failed": 1, "pending": 0}
    assert "CANARY" not in client.get(f"/jobs/{problem['job_id']}").text
    check_problem(client.get(f"/jobs/{problem['job_id']}/result"), 409, "conflict")
    entry = logged(engine, problem["request_id"])
    assert (entry["status"], entry["code"], entry["job_id"]) == (500, "model_failed", problem["job_id"])


def test_row_that_the_model_raises_on_spoils_no_other_row(client: httpx2.Client, moody: str) -> None:
    rows = [{"mood": 0.5}, {"mood": RAISES}, {"mood": -0.5}]
    body = client.post("/predict_batch", json={"model": moody, "rows": rows}).json()
    assert [item["status"] for item in body["items"]] == ["succeeded", "failed", "succeeded"]
    assert [item.get("prediction") for item in body["items"]] == [1, None, 0]
    assert body["items"][1]["errors"][0]["code"] == "model_failed"
    assert body["has_failures"] is True


def test_job_that_outruns_its_own_timeout_is_answered_504_with_the_job(
    client: httpx2.Client, engine: Engine, moody: str
) -> None:
    answer = client.post(f"/models/{moody}/predict", json={"features": {"mood": SLEEPS}, "timeout": 1})
    problem = check_problem(answer, 504, "job_timeout")
    job = client.get(f"/jobs/{problem['job_id']}").json()
    assert (job["status"], job["error"]["code"]) == ("failed", "timeout")
    assert logged(engine, problem["request_id"])["job_id"] == problem["job_id"]
    # Queue: the stuck process ended itself, and the next one scores. Sync: the stuck thread was left behind.
    later = {"Prefer": "wait=60"}  # a new process reads the model first
    check_result(client.post(f"/models/{moody}/predict", json={"features": {"mood": 0.5}}, headers=later))


# ── ids of the request ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("route", ROUTES)
def test_request_id_and_trace_are_stored_and_returned(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any], route: str
) -> None:
    request_id = new_id()
    headers = {"X-Request-Id": request_id, "traceparent": TRACEPARENT}
    answer = client.post(route, json=body_for(route, attrition_row), headers=headers)
    assert answer.headers["x-request-id"] == request_id
    assert answer.headers["traceparent"] == TRACEPARENT
    assert answer.json()["request_id"] == request_id
    job = stored_job(engine, answer.json().get("job_id") or answer.json()["id"])
    assert (job["request_id"], job["traceparent"]) == (request_id, TRACEPARENT)
    assert client.get(f"/jobs/{job['id']}").json()["request_id"] == request_id


@pytest.mark.parametrize("request_id", [None, "", "a b", "x" * 129, "<script>", "é"])
def test_request_id_that_cannot_be_kept_is_replaced(
    client: httpx2.Client, attrition_row: dict[str, Any], request_id: str | None
) -> None:
    headers = httpx2.Headers({} if request_id is None else {"X-Request-Id": request_id}, encoding="utf-8")
    answer = client.post("/predict", json={"features": attrition_row}, headers=headers)
    result = check_result(answer)
    assert result["request_id"] != request_id
    assert len(result["request_id"]) == 36
    assert "traceparent" not in answer.headers


@pytest.mark.parametrize(
    "traceparent", ["", "nonsense", TRACEPARENT.upper(), TRACEPARENT.replace("00f067aa0ba902b7", "0" * 16)]
)
def test_trace_that_is_not_w3c_is_dropped(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any], traceparent: str
) -> None:
    answer = client.post("/predict", json={"features": attrition_row}, headers={"traceparent": traceparent})
    result = check_result(answer)
    assert "traceparent" not in answer.headers
    assert stored_job(engine, result["job_id"])["traceparent"] is None


@pytest.mark.parametrize("route", SINGLE_ROUTES)
def test_body_without_content_type_is_not_read_as_json_where_no_key_is_needed(
    client: httpx2.Client, attrition_row: dict[str, Any], route: str
) -> None:
    """A web page may send such a body unasked; tests/contracts/operations/test_keys.py sends one with a key."""
    request = client.build_request("POST", route, json=body_for(route, attrition_row))
    del request.headers["content-type"]
    check_problem(client.send(request), 415, "unsupported_media_type")
