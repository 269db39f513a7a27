"""Explanations through HTTP, on both runtimes: exact, stored, waited for or polled; refused with advice."""

import csv
import io
import json
import math
import uuid

import httpx2
import joblib
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import RidgeClassifier
from sqlalchemy import Engine, select

from shared.database.engine import reader, session_scope
from shared.explanations.storage import find_explanation_of_row
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from shared.tables import ModelInput, StoredExplanation
from tests.contracts.helpers import check_problem, faults_of, wait_until


@pytest.fixture
def row(client: httpx2.Client) -> dict:
    return client.get("/models/attrition").json()["example"]


def explained(client: httpx2.Client, body: dict, path: str = "/explain", **headers: str) -> dict:
    answer = client.post(path, json=body, headers={"Prefer": "wait=30", **headers})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_row_is_explained_by_the_features_that_were_sent(client, engine, row):
    score = client.post("/models/attrition/predict", json={"features": row}).json()
    explanation = explained(client, {"features": row}, "/models/attrition/explain")
    assert explanation["method"] == "tree_interventional"
    assert explanation["scale"] == "log_odds"
    assert explanation["label"] == "Part"
    assert 1 / (1 + math.exp(-explanation["value"])) == pytest.approx(score["probability"], abs=1e-9)
    assert explanation["probability"] == score["probability"]
    total = explanation["base_value"] + sum(one["contribution"] for one in explanation["contributions"])
    assert total == pytest.approx(explanation["value"], abs=1e-9)
    by_name = {one["feature"]: one["value"] for one in explanation["contributions"]}
    assert by_name == row
    sizes = [abs(one["contribution"]) for one in explanation["contributions"]]
    assert sizes == sorted(sizes, reverse=True)
    assert explanation["top"] == [one["text"] for one in explanation["contributions"][:5]]
    assert explanation["reference"]["rows"] == 200
    with reader(engine).connect() as connection:
        stored = connection.execute(
            select(StoredExplanation.__table__, ModelInput.features)
            .join(ModelInput, ModelInput.id == StoredExplanation.input_id)
            .where(ModelInput.job_id == explanation["job_id"])
        ).one()
        assert stored.features == row
        assert stored.contributions == explanation["contributions"]
        same = find_explanation_of_row(connection, stored.model_version_id, row)
        assert same is not None
        assert same.value == explanation["value"]


def test_row_of_a_job_is_explained_by_the_version_that_scored_it(client, row):
    batch = client.post(
        "/models/attrition/predict_batch",
        json={"rows": [row, row | {"revenu_mensuel": row["revenu_mensuel"] + 1}, {"genre": 1}]},
        headers={"Prefer": "wait=30"},
    ).json()
    body = {"job_id": batch["job_id"], "row": 1}
    explanation = explained(client, body)
    assert explanation["model"] == "attrition"
    values = {one["feature"]: one["value"] for one in explanation["contributions"]}
    assert values["revenu_mensuel"] == row["revenu_mensuel"] + 1
    assert explanation["probability"] == batch["items"][1]["probability"]
    failed = check_problem(client.post("/explain", json=body | {"row": 2}), 409, "conflict")
    assert "correct it and send it again" in failed["detail"]
    check_problem(client.post("/explain", json=body | {"row": 3}), 422, "invalid_row")
    check_problem(client.post("/explain", json=body | {"row": -1}), 422, "invalid_row")
    check_problem(client.post("/explain", json=body | {"model": "credit"}), 422, "invalid_row")
    check_problem(client.post("/explain", json=body | {"seed": 1}), 422, "invalid_row")


@pytest.fixture(scope="module")
def files() -> dict[int, str]:
    """The scored files of the services, by their ports."""
    return {}


@pytest.fixture
def changed(row) -> dict:
    return row | {"revenu_mensuel": row["revenu_mensuel"] + 1}


@pytest.fixture
def file(client, stack, row, changed, files) -> str:
    """A CSV job of three rows, of which the last has no score."""
    if stack.port not in files:
        table = "id;note;" + ";".join(row) + "\n"
        for place, other in enumerate([row, changed, row | {"age": "old"}]):
            cells = ["" if value is None else str(value) for value in other.values()]
            table += f"r{place};=1+1;" + ";".join(cells) + "\n"
        query = {"model": "attrition", "id_column": "id"}
        answer = client.post("/predict_csv", params=query, content=table, headers={"Content-Type": "text/csv"})
        files[stack.port] = ended(client, answer)["id"]
    return files[stack.port]


def ended(client: httpx2.Client, accepted: httpx2.Response) -> dict:
    """Return an accepted job when it has ended well."""
    assert accepted.status_code == 202, accepted.text
    place = accepted.headers["location"]

    def ask() -> dict | None:
        job = client.get(place, headers={"Prefer": "wait=5"}).json()
        assert job["status"] in ("queued", "running", "succeeded"), job
        return job if job["status"] == "succeeded" else None

    return wait_until(ask)


def test_row_of_a_csv_job_is_explained_as_the_same_row_is_alone(client, file, changed):
    explanation = explained(client, {"job_id": file, "row": 1})
    alone = explained(client, {"model": "attrition", "features": changed})
    assert explanation["contributions"] == alone["contributions"]
    assert explanation["value"] == alone["value"]
    failed = check_problem(client.post("/explain", json={"job_id": file, "row": 2}), 409, "conflict")
    assert "correct it and send it again" in failed["detail"]
    check_problem(client.post("/explain", json={"job_id": file, "row": 3}), 422, "invalid_row")
    unnamed = check_problem(client.post("/explain", json={"job_id": file}), 422, "invalid_row")
    assert [place for place, _ in faults_of(unnamed)] == ["/row"]
    assert f"/jobs/{file}/explain explains all" in unnamed["errors"][0]["message"]


def test_every_row_of_a_file_is_explained_in_the_background(client, file, row, changed):
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    accepted = client.post(f"/jobs/{file}/explain", headers=headers)
    assert client.post(f"/jobs/{file}/explain", headers=headers).json()["id"] == accepted.json()["id"]
    job = ended(client, accepted)
    assert (job["kind"], job["explains"], job["has_failures"]) == ("explain_batch", file, True)
    assert job["counts"] == {"total": 3, "succeeded": 2, "failed": 1, "pending": 0}
    assert job["progress"]["rows_done"] == 3
    output = client.get(job["links"]["output"])
    assert 'filename="' in output.headers["content-disposition"]
    lines = list(csv.DictReader(io.StringIO(output.text), delimiter=";"))
    assert [(line["row_no"], line["id"], line["note"]) for line in lines] == [
        (str(place + 1), f"r{place}", "'=1+1") for place in range(3)
    ]
    assert "age" in lines[2]["error"]
    alone = explained(client, {"model": "attrition", "features": changed})
    assert {name: float(lines[1][name]) for name in row} == pytest.approx(
        {one["feature"]: one["contribution"] for one in alone["contributions"]}, abs=1e-9
    )
    total = float(lines[1]["base_value"]) + sum(float(lines[1][name]) for name in row)
    assert float(lines[1]["value"]) == pytest.approx(total, abs=1e-9)
    assert lines[1]["top"] == " ".join(alone["top"])
    assert (lines[1]["method"], lines[1]["scale"], lines[1]["label"]) == ("tree_interventional", "log_odds", "Part")
    table = pq.read_table(io.BytesIO(client.get(job["links"]["output"], params={"format": "parquet"}).content))
    assert table.column_names == list(lines[0])
    assert table["value"].to_pylist() == [float(lines[0]["value"]), float(lines[1]["value"]), None]
    errors = list(csv.DictReader(io.StringIO(client.get(job["links"]["errors"]).text), delimiter=";"))
    assert [(error["row_no"], error["column"]) for error in errors] == [("3", "age")]
    assert "finished" in client.get(job["links"]["events"]).text
    check_problem(client.get(job["links"]["output"], params={"join": "true"}), 422, "invalid_request")
    check_problem(client.post(f"/jobs/{job['id']}/explain"), 409, "conflict")


def test_stored_explanations_of_a_job_can_be_read_again(client, row, changed):
    batch = client.post(
        "/models/attrition/predict_batch",
        json={"rows": [row | {"age": row["age"] + 1}, {"genre": 1}, changed]},
        headers={"Prefer": "wait=30"},
    ).json()
    place = f"/jobs/{batch['job_id']}/explanations"
    first = explained(client, {"job_id": batch["job_id"], "row": 0})
    [item] = client.get(place, params={"row": 0}).json()["items"]
    assert (item["row"], item["contributions"], item["top"]) == (0, first["contributions"], first["top"])
    ended(client, client.post(f"/jobs/{batch['job_id']}/explain"))
    page = client.get(place, params={"limit": 1}).json()
    assert [item["row"] for item in page["items"]] == [0]
    rest = client.get(page["next"].replace("limit=1", "limit=50")).json()
    assert [item["row"] for item in rest["items"]] == [2]  # the second row has no score
    assert rest["next"] is None
    check_problem(client.get(f"/jobs/{uuid.uuid4()}/explanations"), 404, "not_found")


def test_job_without_scores_is_not_explained(client, row):
    table = ",".join(row) + "\n" + ",".join("?" for _ in row) + "\n"
    headers = {"Content-Type": "text/csv"}
    job_id = client.post("/models/attrition/predict_csv", content=table, headers=headers).json()["id"]
    wait_until(lambda: client.get(f"/jobs/{job_id}").json()["status"] == "failed" or None)
    problem = check_problem(client.post(f"/jobs/{job_id}/explain"), 409, "conflict")
    assert "No row of the job has a score to explain" in problem["detail"]
    check_problem(client.post(f"/jobs/{uuid.uuid4()}/explain"), 404, "not_found")
    check_problem(client.post(f"/jobs/{job_id}/explain", params={"timeout": 1e6}), 422, "invalid_request")
    check_problem(client.post(f"/jobs/{job_id}/explain", params={"rows": 3}), 422, "invalid_request")


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
    both = check_problem(client.post("/explain", json={"job_id": str(uuid.uuid4()), "features": row}), 422)
    assert [(fault["pointer"], fault["code"]) for fault in both["errors"]] == [("/job_id", "conflict")]
    for several in ([row], {"rows": [row, row]}, {"model": "attrition", "rows": []}):
        problem = check_problem(client.post("/explain", json=several), 422, "invalid_row")
        assert "POST /jobs/{id}/explain explains all" in problem["errors"][0]["message"]
    too_many = client.post("/explain", json={"rows": [{"age": 1}] * 100_000})
    assert too_many.status_code in (413, 422), too_many.text


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
    described = client.get(f"/models/{name}").json()["explanation"]
    if is_known:
        assert described["refused"] in problem["detail"]
        assert "job_id" not in problem  # refused at once, and not by a worker
        scored = client.post(f"/models/{name}/predict", json=body).json()["job_id"]
        by_job = client.post("/explain", json={"job_id": scored})
        assert check_problem(by_job, 422, "not_explainable")["detail"] == problem["detail"]
    else:
        assert described is None
        assert client.get(f"/jobs/{problem['job_id']}").json()["error"]["code"] == "not_explainable"
    assert "NaN" not in json.dumps(problem)
