"""`POST /jobs/{id}/reproduce` and `guichet reproduce`: past decisions made again over HTTP, on both runtimes."""

import json
from typing import Any

import httpx2
import pytest
from guichet import Client, Refused
from guichet.command import main as guichet
from sqlalchemy import Engine, select, update

from shared.packages.package import MODEL_FILE
from shared.tables import ModelInput, ModelOutput
from tests.contracts.csv_files import check_taken, post_csv
from tests.contracts.helpers import check_problem, new_id, wait_for_job
from tests.support.stack import Stack

WAIT = {"Prefer": "wait=30"}
SECONDS = 270  # a process of its own imports the libraries anew, at a low priority


def reproduced(client: httpx2.Client, job_id: str, **params: object) -> dict[str, Any]:
    """Make the decisions of a job again; return the result."""
    answer = client.post(f"/jobs/{job_id}/reproduce", params=params)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/jobs/{answer.json()['id']}"
    job = wait_for_job(client, answer.json()["id"], seconds=SECONDS)
    assert (job["kind"], job["status"]) == ("reproduce", "succeeded"), job
    result = client.get(f"/jobs/{job['id']}/result")
    assert result.status_code == 200, result.text
    body: dict[str, Any] = result.json()
    assert body["reproduces"] == job_id
    return body


def file_of(rows: list[dict[str, Any]]) -> str:
    return "\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]) + "\n"


def test_decision_comes_out_again(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    job_id = client.post("/predict", json={"features": attrition_row}, headers=WAIT).json()["job_id"]
    body = reproduced(client, job_id, row=0)
    model = client.get("/models/attrition").json()
    assert (body["model"], body["model_version"], body["sha256"]) == ("attrition", 1, model["model_sha256"])
    assert (body["is_equal"], body["changed"]) == (True, {})
    assert body["counts"] == {"rows": 1, "equal": 1}
    assert (body["scorer"], body["threshold"]) == (model["scorer"]["kind"], model["card"]["threshold"])
    assert (body["libraries"], body["libraries_that_differ"]) == (model["card"]["libraries"], [])
    (row,) = body["rows"]
    assert row["stored"] == row["now"]
    assert "folder" not in body


@pytest.mark.flow
def test_changed_input_and_output_of_a_file_are_named_by_the_command(
    client: httpx2.Client,
    engine: Engine,
    stack: Stack,
    attrition_row: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [attrition_row | {"revenu_mensuel": attrition_row["revenu_mensuel"] + place} for place in range(60)]
    file = check_taken(post_csv(client, file_of(rows), "/models/attrition/predict_csv"))["id"]
    wait_for_job(client, file, seconds=SECONDS)
    with engine.begin() as connection:
        place = connection.execute(
            select(ModelInput.id, ModelInput.features).where(ModelInput.job_id == file, ModelInput.row_index == 7)
        ).one()
        features = place.features | {"age": place.features["age"] + 1}
        connection.execute(update(ModelInput).where(ModelInput.id == place.id).values(features=features))
        output = select(ModelInput.id).where(ModelInput.job_id == file, ModelInput.row_index == 9).scalar_subquery()
        connection.execute(
            update(ModelOutput)
            .where(ModelOutput.input_id == output)
            .values(probability=ModelOutput.probability + 1e-15)
        )
    assert guichet(["--url", stack.url, "reproduce", file, "--json"]) == 3
    body = json.loads(capsys.readouterr().out)
    assert body["is_equal"] is False
    assert body["counts"] == {"rows": 60, "equal": 58, "input": 1, "output": 1}
    assert [(row["index"], row["changed"]) for row in body["rows"]] == [(7, "input"), (9, "output")]
    assert body["rows"][1]["stored"]["probability"] != body["rows"][1]["now"]["probability"]


@pytest.mark.flow
def test_changed_artefact_is_named_and_not_loaded(
    client: httpx2.Client, models_dir: Any, speak: Any, attrition_row: dict[str, Any]
) -> None:
    name = speak("altered", "attrition")
    answer = client.post(f"/models/{name}/predict", json={"features": attrition_row}, headers=WAIT)
    job_id = answer.json().get("job_id") or answer.json()["id"]
    wait_for_job(client, job_id, seconds=SECONDS)
    artefact = models_dir / name / "1" / MODEL_FILE
    whole = artefact.read_bytes()
    try:
        artefact.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        body = reproduced(client, job_id)
    finally:
        artefact.write_bytes(whole)
    assert (body["is_equal"], list(body["changed"])) == (False, ["artefact"])
    assert str(models_dir) not in json.dumps(body)
    assert body["rows"] == []


def test_jobs_without_scores_of_their_own_are_refused(
    client: httpx2.Client, stack: Stack, attrition_row: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    scored = client.post("/predict", json={"features": attrition_row}, headers=WAIT).json()["job_id"]
    check_problem(client.post(f"/jobs/{new_id()}/reproduce"), 404, "not_found")
    problem = check_problem(client.post(f"/jobs/{scored}/reproduce?row=1"), 422)
    assert problem["errors"][0]["message"] == "must be below 1, the number of rows of the job"
    explained = client.post("/explain", json={"job_id": scored}, headers=WAIT).json()["job_id"]
    problem = check_problem(client.post(f"/jobs/{explained}/reproduce"), 409, "conflict")
    assert "of the kind explain has no scores" in problem["detail"]
    key = {"Idempotency-Key": new_id()}
    first, again = (client.post(f"/jobs/{scored}/reproduce", headers=key).json()["id"] for _ in range(2))
    assert first == again
    check_problem(client.post(f"/jobs/{scored}/reproduce?row=0", headers=key), 422, "idempotency_mismatch")
    refusal = check_problem(client.get(f"/jobs/{first}/lineage"), 409, "conflict")
    assert "no rows" in refusal["detail"]
    assert guichet(["--url", stack.url, "reproduce", scored, "5"]) == 2
    assert "no such row" in capsys.readouterr().err


@pytest.mark.flow
def test_reproduction_is_erased_with_its_job(
    client: httpx2.Client, stack: Stack, attrition_row: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    row = attrition_row | {"revenu_mensuel": attrition_row["revenu_mensuel"] + 1_077}  # that nobody else has explained
    job_id = client.post("/predict", json={"features": row}, headers=WAIT).json()["job_id"]
    with Client(stack.url) as ours:
        job = ours.reproduce(job_id, row=0)
        assert job.result(timeout=SECONDS).is_equal
        copy = job.id
        assert guichet(["--url", stack.url, "wait", copy]) == 0
        assert "1 row, 1 equal bit for bit" in capsys.readouterr().out
        erasure = ours.erase(job_id, reason="a test")
        assert erasure.erased == (job_id, copy)
        with pytest.raises(Refused) as caught:
            ours.job(copy)
        assert caught.value.status == 410
