"""Outcomes: told once by row or by file, revised only on request, and the quality that they show."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import joblib
import pandas as pd
import pytest
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sqlalchemy import Engine, text

from shared.database.engine import reader, session_scope
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from tests.contracts.csv_files import CSV, check_taken, post_csv
from tests.contracts.helpers import check_problem, faults_of, new_id, wait_for_job, wait_until

UNKNOWN = "00000000-0000-7000-8000-000000000000"


def scored(client: httpx2.Client, model: str, rows: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """Score a batch as soon as the model is loaded; return its job id and the items of its result."""
    body = {"model": model, "rows": rows}

    def ask() -> httpx2.Response | None:
        answer = client.post("/predict_batch", json=body, headers={"Prefer": "wait=30"})
        return None if answer.status_code == 503 else answer  # it is being loaded

    answer = wait_until(ask)
    assert answer.status_code == 200, answer.text
    return answer.json()["job_id"], answer.json()["items"]


def history(engine: Engine, job_id: str) -> list[tuple[int, int, str, bool]]:
    """Return (row, revision, label, whether it is in force) of a job's outcomes."""
    query = text(
        "SELECT row_index, revision, label, replaced_at IS NULL FROM outcomes "
        "JOIN model_inputs ON model_inputs.id = input_id WHERE job_id = :id ORDER BY row_index, revision"
    )
    with reader(engine).connect() as connection:
        return [(row[0], row[1], row[2], bool(row[3])) for row in connection.execute(query, {"id": job_id})]


def test_outcome_is_told_once_and_revised_on_request(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    job_id = client.post("/predict", json={"features": attrition_row}).json()["job_id"]
    path = f"/jobs/{job_id}/outcome"
    first = client.post(path, json={"actual": 1, "observed_at": "2026-03-01T12:00:00+02:00"})
    assert first.status_code == 201
    assert first.json()["observed_at"] == "2026-03-01T10:00:00Z"
    assert {key: first.json()[key] for key in ("job_id", "row", "actual", "revision")} == {
        "job_id": job_id,
        "row": 0,
        "actual": "Part",
        "revision": 1,
    }
    again = client.post(path, json={"actual": "Part", "row": 0})
    assert (again.status_code, again.json()) == (200, first.json())
    assert check_problem(client.post(path, json={"actual": "Reste"}), 409)["job_id"] == job_id
    revised = client.post(path, params={"revise": "true"}, json={"actual": "Reste"})
    assert (revised.status_code, revised.json()["revision"], revised.json()["actual"]) == (200, 2, "Reste")
    assert history(engine, job_id) == [(0, 1, "Part", False), (0, 2, "Reste", True)]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"actual": "Perhaps"}, "/actual"),
        ({"actual": 2}, "/actual"),
        ({"actual": ""}, "/actual"),
        ({"actual": None}, "/actual"),
        ({"actual": {"class": 1}}, "/actual"),
        ({"actual": [1]}, "/actual"),
        ({}, "/actual"),
        ({"actual": 1, "row": 1}, "/row"),
        ({"actual": 1, "row": -1}, "/row"),
        ({"actual": 1, "row": "0"}, "/row"),
        ({"actual": 1, "row": 10**30}, "/row"),
        ({"actual": 1, "observed_at": "2026-03-01"}, "/observed_at"),
        ({"actual": 1, "observed_at": "2026-03-01T12:00:00"}, "/observed_at"),
        ({"actual": 1, "observed_at": 20260301}, "/observed_at"),
        ({"actual": 1, "outcome": 1}, "/outcome"),
    ],
)
def test_outcome_that_cannot_be_is_refused(
    client: httpx2.Client, attrition_row: dict[str, Any], body: dict[str, Any], pointer: str
) -> None:
    job_id = client.post("/predict", json={"features": attrition_row}).json()["job_id"]
    answer = client.post(f"/jobs/{job_id}/outcome", json=body)
    if body.get("row") == 10**30:  # more digits than the service reads
        assert answer.status_code in (400, 422)
        return
    problem = check_problem(answer, 422)
    assert pointer in [place for place, _ in faults_of(problem)]
    assert "boolean" not in problem["detail"]


def test_row_without_a_score_has_no_outcome(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    check_problem(client.post(f"/jobs/{UNKNOWN}/outcome", json={"actual": 1}), 404)
    bad = attrition_row | {"age": "old"}
    answer = client.post("/predict_batch", json={"rows": [attrition_row, bad]})
    path = f"/jobs/{answer.json()['job_id']}/outcome"
    assert "no score" in check_problem(client.post(path, json={"actual": 1, "row": 1}), 409)["detail"]
    assert faults_of(check_problem(client.post(path, json={"actual": 1}), 422)) == [("/row", "missing")]


def test_file_of_outcomes_is_joined_and_quality_is_that_of_scikit_learn(
    client: httpx2.Client, engine: Engine, speak: Callable[..., str], credit_row: dict[str, Any]
) -> None:
    name = speak("judged", "credit")
    first = next(iter(credit_row))
    rows = [credit_row | {first: credit_row[first] * (1 + place / 10)} for place in range(60)]
    job_id, items = scored(client, name, rows)
    actual = [int((place * 7) % 3 == 0) for place in range(60)]
    own_id = new_id()
    client.put(f"/jobs/{own_id}", json={"model": name, "features": credit_row})
    wait_for_job(client, own_id)
    lines = [f"{job_id},{place},{value}" for place, value in enumerate(actual)]
    content = "\n".join(["job_id,row,actual", *lines, f"{own_id},,1", f"{own_id},0,1"])
    answer = client.post("/outcomes", content=content, headers=CSV)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"rows": 62, "created": 61, "unchanged": 0, "revised": 0, "refused": 0, "errors": []}
    again = client.post("/outcomes", files={"file": ("outcomes.csv", content.encode())}).json()
    assert (again["created"], again["unchanged"]) == (0, 61)
    body = client.get("/metrics/model", params={"model": f"{name}@1"}).json()
    assert (body["model"], len(body["windows"])) == (name, 1)
    window = body["windows"][0]
    assert (window["version"], window["rows"]) == (1, 61)
    own = client.get(f"/jobs/{own_id}/result").json()
    chances = [item["probability"] for item in [*items, own]]
    predictions = [item["prediction"] for item in [*items, own]]
    truth = [*actual, 1]
    for figure, expected in (
        ("accuracy", metrics.accuracy_score(truth, predictions)),
        ("roc_auc", metrics.roc_auc_score(truth, chances)),
        ("average_precision", metrics.average_precision_score(truth, chances)),
        ("log_loss", metrics.log_loss(truth, chances)),
        ("brier", metrics.brier_score_loss(truth, chances)),
    ):
        interval = window["metrics"][figure]
        assert interval["value"] == pytest.approx(expected, abs=1e-12)
        assert interval["low"] <= interval["value"] <= interval["high"]
    assert sum(part["rows"] for part in window["calibration"]) == 61
    assert window["roc"][-1]["true_positive_rate"] == 1.0
    assert body["card"] == window["card"] == client.get(f"/models/{name}").json()["card"]["metrics"]
    past = client.get("/metrics/model", params={"model": name, "to": "2020-01-01T00:00:00Z"})
    assert past.json()["windows"] == []
    check_problem(client.get("/metrics/model?model=ghost"), 404)


def test_file_with_lines_that_cannot_be_joined_stores_nothing_unless_told_to(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    job_id, _ = scored(client, "attrition", [attrition_row] * 3)
    bad = [f"{UNKNOWN},0,1", f"{job_id},9,1", f"{job_id},2,perhaps", f"{job_id},x,1", f"{job_id},0,0", f"{job_id},1"]
    content = "\n".join(["job_id,row,actual", f"{job_id},0,1", *bad])
    problem = check_problem(client.post("/outcomes", content=content, headers=CSV), 422)
    assert faults_of(problem) == [
        ("/2/job_id", "not_found"),
        ("/3/row", "not_found"),
        ("/4/actual", "category"),
        ("/5/row", "type"),
        ("/6/actual", "conflict"),
        ("/7/", "cells"),
    ]
    assert history(engine, job_id) == []
    report = client.post("/outcomes?on_error=continue", content=content, headers=CSV).json()
    assert (report["created"], report["refused"], len(report["errors"])) == (1, 6, 6)
    assert history(engine, job_id) == [(0, 1, "Part", True)]
    other = f"job_id;row_no;actual\n{job_id};1;Reste\n{job_id};2;Reste\n"
    check_problem(client.post("/outcomes", content=other, headers=CSV), 409)
    assert history(engine, job_id) == [(0, 1, "Part", True)]
    written_large = f"job_id,row,actual\n{job_id.upper()},0,Part\n"
    assert client.post("/outcomes", content=written_large, headers=CSV).json()["unchanged"] == 1
    revised = client.post("/outcomes?revise=true", content=other, headers=CSV).json()
    assert (revised["created"], revised["revised"]) == (1, 1)
    assert history(engine, job_id) == [(0, 1, "Part", False), (0, 2, "Reste", True), (1, 1, "Reste", True)]


def test_rows_of_a_csv_job_are_named_by_its_id_column(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    names = ["ana", "bo", "bo", "cy"]
    header = ",".join(["id", *attrition_row])
    lines = [",".join([name, *map(str, attrition_row.values())]) for name in names]
    job = check_taken(post_csv(client, "\n".join([header, *lines]).encode(), model="attrition"))
    wait_for_job(client, job["id"])
    content = "id,actual\ncy,Part\nana,Reste\nbo,Part\ndi,Part\n"
    path = f"/outcomes?job={job['id']}"
    problem = check_problem(client.post(path, content=content, headers=CSV), 422)
    assert faults_of(problem) == [("/3/id", "not_found"), ("/4/id", "not_found")]
    report = client.post(f"{path}&on_error=continue", content=content, headers=CSV).json()
    assert (report["created"], report["refused"]) == (2, 2)
    assert history(engine, job["id"]) == [(0, 1, "Reste", True), (3, 1, "Part", True)]
    single = client.post("/predict", json={"features": attrition_row}).json()["job_id"]
    check_problem(client.post(f"/outcomes?job={single}", content=content, headers=CSV), 422)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"job_id,row,actual\n", 422),
        (b"job_id,row\nx,1\n", 422),
        (b"row,actual\n1,1\n", 422),
        (b"id,job_id,actual\nx,y,1\n", 422),
        (b"id,actual,note\nx,1,n\n", 422),
        (b"id,row,row_no,actual\nx,1,2,1\n", 422),
        (b"%PDF-1.7 ...", 415),
    ],
)
def test_file_that_holds_no_outcomes_is_refused(client: httpx2.Client, content: bytes, status: int) -> None:
    problem = check_problem(client.post("/outcomes", content=content, headers=CSV), status)
    assert "x" not in problem.get("errors", [])


def test_card_of_a_model_with_a_target_has_metrics_that_are_called_those_of_its_reference(
    client: httpx2.Client, engine: Engine, models_dir: Path, tmp_path: Path
) -> None:
    name = f"in_sample_{new_id()[-12:]}"
    rows = pd.DataFrame({"age": range(20, 70), "left": [int(place % 3 == 0) for place in range(50)]})
    fitted = LogisticRegression().fit(rows[["age"]], rows["left"])
    joblib.dump(fitted, tmp_path / "model.joblib")
    rows.to_csv(tmp_path / "rows.csv", index=False)
    options = AddOptions(reference=tmp_path / "rows.csv", target="left", name=name)
    with session_scope(engine) as session:
        add(session, tmp_path / "model.joblib", options, models_dir=models_dir)
    wait_until(lambda: client.get(f"/models/{name}").status_code == 200 or None)
    card = client.get(f"/models/{name}").json()["card"]
    chances = fitted.predict_proba(rows[["age"]])[:, 1]
    assert (card["metrics_of"], card["metrics"]["rows"]) == ("reference", 50)
    assert card["metrics"]["roc_auc"] == pytest.approx(metrics.roc_auc_score(rows["left"], chances), abs=1e-6)
    body = client.get("/metrics/model", params={"model": f"{name}@1"}).json()
    assert (body["card_of"], body["windows"][0]["card_of"]) == ("reference", "reference")
    assert body["card"] == card["metrics"]
    assert client.get("/metrics/model?model=credit").json()["card_of"] is None
    assert "Computed on the reference rows" in client.get(f"/console/models/{name}").text
