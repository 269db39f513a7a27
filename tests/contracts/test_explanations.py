"""Explanations through HTTP, on both runtimes: exact, stored, waited for or polled; refused with advice."""

import json
import math
import uuid

import httpx2
import joblib
import pytest
from sklearn.linear_model import RidgeClassifier
from sqlalchemy import Engine, select

from shared.database.engine import reader, session_scope
from shared.explanations.storage import find_explanation_of_row
from shared.packages.sources import AddOptions
from shared.registry.adding import add
from shared.tables import ModelInput, StoredExplanation
from tests.contracts.helpers import check_problem, wait_until


@pytest.fixture
def row(client: httpx2.Client) -> dict:
    return client.get("/models/attrition").json()["example"]


def explained(client: httpx2.Client, body: dict, path: str = "/explain", **headers: str) -> dict:
    answer = client.post(path, json=body, headers={"Prefer": "wait=30", **headers})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_row_is_explained_by_the_features_that_were_sent(client, engine, row):
    score = client.post("/models/attrition/predict", json={"features": row}).json()
    found = explained(client, {"features": row}, "/models/attrition/explain")
    assert found["method"] == "tree_interventional"
    assert found["scale"] == "log_odds"
    assert found["label"] == "Part"
    assert 1 / (1 + math.exp(-found["value"])) == pytest.approx(score["probability"], abs=1e-9)
    assert found["probability"] == score["probability"]
    total = found["base_value"] + sum(one["contribution"] for one in found["contributions"])
    assert total == pytest.approx(found["value"], abs=1e-9)
    by_name = {one["feature"]: one["value"] for one in found["contributions"]}
    assert by_name == row
    sizes = [abs(one["contribution"]) for one in found["contributions"]]
    assert sizes == sorted(sizes, reverse=True)
    assert found["top"] == [one["text"] for one in found["contributions"][:5]]
    assert found["reference"]["rows"] == 200
    with reader(engine).connect() as connection:
        stored = connection.execute(
            select(StoredExplanation.__table__, ModelInput.features)
            .join(ModelInput, ModelInput.id == StoredExplanation.input_id)
            .where(ModelInput.job_id == found["job_id"])
        ).one()
        assert stored.features == row
        assert stored.contributions == found["contributions"]
        same = find_explanation_of_row(connection, stored.model_version_id, row)
        assert same is not None
        assert same.value == found["value"]


def test_row_of_a_job_is_explained_by_the_version_that_scored_it(client, row):
    batch = client.post(
        "/models/attrition/predict_batch",
        json={"rows": [row, row | {"revenu_mensuel": row["revenu_mensuel"] + 1}, {"genre": 1}]},
        headers={"Prefer": "wait=30"},
    ).json()
    body = {"job_id": batch["job_id"], "row": 1}
    found = explained(client, body)
    assert found["model"] == "attrition"
    values = {one["feature"]: one["value"] for one in found["contributions"]}
    assert values["revenu_mensuel"] == row["revenu_mensuel"] + 1
    assert found["probability"] == batch["items"][1]["probability"]
    failed = check_problem(client.post("/explain", json=body | {"row": 2}), 409, "conflict")
    assert "correct it and send it again" in failed["detail"]
    check_problem(client.post("/explain", json=body | {"row": 3}), 422, "invalid_row")
    check_problem(client.post("/explain", json=body | {"row": -1}), 422, "invalid_row")
    check_problem(client.post("/explain", json=body | {"model": "credit"}), 422, "invalid_row")
    check_problem(client.post("/explain", json=body | {"seed": 1}), 422, "invalid_row")


def test_row_of_a_csv_job_is_explained_as_the_same_row_is_alone(client, row):
    table = "id;" + ";".join(row) + "\n"
    for place, other in enumerate([row, row | {"revenu_mensuel": row["revenu_mensuel"] + 1}, row | {"age": "old"}]):
        table += f"{place};" + ";".join("" if value is None else str(value) for value in other.values()) + "\n"
    answer = client.post("/models/attrition/predict_csv", content=table, headers={"Content-Type": "text/csv"})
    job = answer.json()["id"]
    wait_until(lambda: client.get(f"/jobs/{job}").json()["status"] == "succeeded" or None)
    found = explained(client, {"job_id": job, "row": 1})
    alone = explained(client, {"model": "attrition", "features": row | {"revenu_mensuel": row["revenu_mensuel"] + 1}})
    assert found["contributions"] == alone["contributions"]
    assert found["value"] == alone["value"]
    failed = check_problem(client.post("/explain", json={"job_id": job, "row": 2}), 409, "conflict")
    assert "correct it and send it again" in failed["detail"]
    check_problem(client.post("/explain", json={"job_id": job, "row": 3}), 422, "invalid_row")


def test_explanation_is_a_job_like_any_other(client, row):
    headers = {"Prefer": "respond-async", "Idempotency-Key": str(uuid.uuid4())}
    first = client.post("/models/attrition/explain", json={"features": row}, headers=headers)
    assert first.status_code == 202
    job = first.json()
    assert job["kind"] == "explain"
    again = client.post("/models/attrition/explain", json={"features": row}, headers=headers)
    assert again.json()["id"] == job["id"]
    wait_until(lambda: client.get(f"/jobs/{job['id']}").json()["status"] == "succeeded" or None)
    result = client.get(f"/jobs/{job['id']}/result").json()
    assert result["job_id"] == job["id"]
    assert result["contributions"]
    check_problem(client.post(f"/jobs/{job['id']}/cancel"), 409, "conflict")


def test_bad_requests_are_refused_before_anything_is_stored(client, row):
    check_problem(client.post("/models/nobody/explain", json={"features": row}), 404, "not_found")
    check_problem(client.post("/models/attrition/explain", json={"features": row | {"age": "old"}}), 422)
    check_problem(client.post("/explain", json={"job_id": str(uuid.uuid4())}), 404, "not_found")
    check_problem(client.post("/explain", json={"job_id": 7}), 422, "invalid_row")
    check_problem(client.post("/explain", json={"row": 1}), 422)
    check_problem(client.post("/explain", json=[row]), 422)


@pytest.mark.parametrize("is_known", [True, False], ids=["found-out-at-registration", "registered-before-that"])
def test_model_that_gives_classes_only_is_refused_with_advice(
    client, engine: Engine, models_dir, tmp_path, is_known: bool
):
    name = "classes_only" if is_known else "older_classes_only"
    if client.get(f"/models/{name}").status_code == 404:
        from sklearn.ensemble import VotingClassifier

        rows = [[place / 10, place % 3] for place in range(40)]
        vote = VotingClassifier([("a", RidgeClassifier()), ("b", RidgeClassifier(alpha=5.0))], voting="hard")
        joblib.dump(vote.fit(rows, [place > 20 for place in range(40)]), tmp_path / "model.joblib")
        (tmp_path / "rows.csv").write_text("a,b\n" + "\n".join(f"{a},{b}" for a, b in rows) + "\n")
        with session_scope(engine) as session:
            rows_file = tmp_path / "rows.csv"
            options = AddOptions(reference=rows_file, name=name)
            added = add(session, tmp_path / "model.joblib", options, models_dir=models_dir)
            if not is_known:
                added.scorer = {key: value for key, value in added.scorer.items() if key != "explanation"}
        wait_until(lambda: client.get(f"/models/{name}").status_code == 200 or None)
    body = {"features": {"a": 1.5, "b": 2}}
    answer = client.post(f"/models/{name}/explain", json=body, headers={"Prefer": "wait=30"})
    problem = check_problem(answer, 422, "not_explainable")
    assert problem["detail"].startswith(f"The row cannot be explained: {name}@1 gives classes without")
    assert "train it with probabilities" in problem["detail"]
    known = client.get(f"/models/{name}").json()["explanation"]
    if is_known:
        assert known["refused"] in problem["detail"]
        assert "job_id" not in problem  # refused at once, and not by a worker
        scored = client.post(f"/models/{name}/predict", json=body).json()["job_id"]
        by_job = client.post("/explain", json={"job_id": scored})
        assert check_problem(by_job, 422, "not_explainable")["detail"] == problem["detail"]
    else:
        assert known is None
        assert client.get(f"/jobs/{problem['job_id']}").json()["error"]["code"] == "not_explainable"
    assert "NaN" not in json.dumps(problem)
