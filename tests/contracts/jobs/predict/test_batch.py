"""Batches: each row with its own status, in input order, and bad rows that spoil nothing."""

from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine

from tests.conftest import example_rows
from tests.contracts.helpers import (
    check_accepted,
    check_job,
    check_problem,
    counts,
    faults_of,
    stored_job,
    stored_rows,
    wait_for_job,
)


def post_rows(client: httpx2.Client, rows: list[Any], **more: Any) -> dict[str, Any]:
    answer = client.post("/predict_batch", json={"rows": rows, **more})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    fields = {"job_id", "request_id", "model", "model_version", "n_rows", "has_failures", "items", "latency_ms"}
    assert body.keys() == fields
    assert answer.headers["content-location"] == f"/jobs/{body['job_id']}"
    assert body["n_rows"] == len(rows) == len(body["items"])
    assert [item["index"] for item in body["items"]] == list(range(len(rows)))
    return body


@pytest.mark.parametrize("model", ["attrition", "credit", "energy"])
def test_rows_are_answered_in_input_order(client: httpx2.Client, model: str) -> None:
    rows = example_rows(model)
    alone = [client.post(f"/models/{model}/predict", json={"features": row}).json()["prediction"] for row in rows]
    there = post_rows(client, rows, model=model)
    back = post_rows(client, rows[::-1], model=model)
    assert [item["prediction"] for item in there["items"]] == pytest.approx(alone)
    assert [item["prediction"] for item in back["items"]] == pytest.approx(alone[::-1])
    assert there["has_failures"] is back["has_failures"] is False


def test_row_of_a_batch_scores_as_it_does_alone(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    alone = client.post("/predict", json={"features": attrition_row}).json()
    [item] = post_rows(client, [attrition_row])["items"]
    assert item == {
        "index": 0,
        "status": "succeeded",
        **{name: alone[name] for name in ("prediction", "label", "probability", "threshold")},
    }


def test_bad_rows_of_a_batch_spoil_no_good_ones(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    rows = [attrition_row, attrition_row | {"age": "Neuf"}, attrition_row | {"genre": 9, "agee": 1}, attrition_row]
    body = post_rows(client, rows)
    assert [item["status"] for item in body["items"]] == ["succeeded", "failed", "failed", "succeeded"]
    assert body["has_failures"] is True
    assert faults_of(body["items"][1]) == [("/age", "type")]
    assert faults_of(body["items"][2]) == [("/agee", "unknown_feature"), ("/genre", "range")]
    assert body["items"][0]["probability"] == body["items"][3]["probability"]
    assert "Neuf" not in str(body)

    job = client.get(f"/jobs/{body['job_id']}").json()
    check_job(job)
    assert (job["kind"], job["status"], job["has_failures"]) == ("batch", "succeeded", True)
    assert job["counts"] == {"total": 4, "succeeded": 2, "failed": 2, "pending": 0}
    stored = stored_rows(engine, body["job_id"])
    assert [row["features"] for row in stored] == rows
    assert [row["faults"] is None for row in stored] == [True, False, False, True]
    assert [row["prediction"] is None for row in stored] == [False, True, True, False]


@pytest.mark.parametrize("bad", [5, "text", [], {}, True, 1.5, None], ids=str)
def test_row_that_is_no_row_fails_alone(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any], bad: Any
) -> None:
    body = post_rows(client, [attrition_row, bad, attrition_row])
    assert [item["status"] for item in body["items"]] == ["succeeded", "failed", "succeeded"]
    assert body["items"][1]["errors"]
    assert stored_rows(engine, body["job_id"])[1]["features"] == bad


def test_first_row_that_is_bad_spoils_no_good_ones(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    body = post_rows(client, [{}, attrition_row])
    assert [item["status"] for item in body["items"]] == ["failed", "succeeded"]


def test_abort_refuses_the_batch_with_every_fault(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    before = counts(engine)
    rows = [attrition_row, attrition_row | {"age": "old"}, attrition_row | {"genre": 9, "agee": 1}, 5]
    problem = check_problem(client.post("/predict_batch", json={"rows": rows, "on_error": "abort"}), 422, "invalid_row")
    assert faults_of(problem) == [
        ("/rows/1/age", "type"),
        ("/rows/2/agee", "unknown_feature"),
        ("/rows/2/genre", "range"),
        ("/rows/3", "not_an_object"),
    ]
    assert counts(engine) == before


def test_abort_of_a_good_batch_scores_it(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    assert post_rows(client, [attrition_row] * 2, on_error="abort")["has_failures"] is False


def test_batch_without_a_good_row_is_refused(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    before = counts(engine)
    rows = [attrition_row | {"age": "old"}, attrition_row | {"age": 900}]
    problem = check_problem(client.post("/predict_batch", json={"rows": rows}), 422, "invalid_row")
    assert faults_of(problem) == [("/rows/0/age", "type"), ("/rows/1/age", "range")]
    assert counts(engine) == before


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, [("/rows", "missing")]),
        ({"rows": []}, [("/rows", "length")]),
        ({"rows": None}, [("/rows", "type")]),
        ({"rows": {}}, [("/rows", "type")]),
        ({"rows": "text"}, [("/rows", "type")]),
        ({"rows": [], "on_error": "stop"}, [("/on_error", "category"), ("/rows", "length")]),
        ({"rows": [], "on_error": None}, [("/on_error", "category"), ("/rows", "length")]),
        ({"rows": [], "on_error": ["abort"]}, [("/on_error", "category"), ("/rows", "length")]),
        ({"features": {}}, [("/features", "unknown_field"), ("/rows", "missing")]),
    ],
    ids=str,
)
def test_batch_whose_fields_do_not_fit_is_refused(
    client: httpx2.Client, body: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert faults_of(check_problem(client.post("/predict_batch", json=body), 422, "invalid_row")) == expected


@pytest.mark.parametrize(("count", "lane"), [(100, "interactive"), (101, "bulk"), (1_000, "bulk")])
def test_batch_takes_the_lane_of_its_size_and_is_scored_whole(
    client: httpx2.Client, engine: Engine, credit_row: dict[str, Any], count: int, lane: str
) -> None:
    rows = [credit_row | {"age_years": 20 + index / 20} for index in range(count)]
    body = post_rows(client, rows, model="credit")
    assert stored_job(engine, body["job_id"])["lane"] == lane
    assert [row["features"]["age_years"] for row in stored_rows(engine, body["job_id"])] == [
        row["age_years"] for row in rows
    ]
    assert body["has_failures"] is False
    assert all(item["status"] == "succeeded" for item in body["items"])
    for index in (0, count // 2, count - 1):
        alone = client.post("/models/credit/predict", json={"features": rows[index]}).json()
        assert body["items"][index]["probability"] == pytest.approx(alone["probability"], abs=1e-9)


def test_asynchronous_batch_gives_its_result_later(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    rows = [attrition_row] * 150 + [{}]
    job = check_accepted(client.post("/predict_batch", json={"rows": rows}, headers={"Prefer": "respond-async"}))
    assert (job["kind"], job["counts"]["total"]) == ("batch", 151)
    done = wait_for_job(client, job["id"])
    assert done["counts"] == {"total": 151, "succeeded": 150, "failed": 1, "pending": 0}
    assert "result" not in done
    body = client.get(f"/jobs/{job['id']}/result").json()
    assert (body["n_rows"], body["has_failures"], len(body["items"])) == (151, True, 151)
    assert [item["status"] for item in body["items"]] == ["succeeded"] * 150 + ["failed"]
