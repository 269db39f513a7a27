"""Training over HTTP: a candidate version from a file or a window, what is refused, and cancel, on both runtimes."""

import json
import os
import re
import time
import uuid
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from guichet import Client
from sqlalchemy import Engine, func, select

from shared.database.engine import reader
from shared.monitoring.metric_order import METRICS
from shared.tables import ModelVersion, RegistrationPart
from tests.contracts.helpers import check_problem, faults_of, wait_for_job, wait_until
from tests.support.stack import Stack
from tests.support.trainings import TARGET, csv_of, make_rows

QUICK = {"target": TARGET, "draws": "2", "estimators": "linear,hist_gradient_boosting"}
SECONDS = 240
CHILD_SECONDS = 5.0  # in which the process of a canceled training ends

_trained: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}  # by the service: a job and its result


def post(client: httpx2.Client, content: bytes, **query: str) -> httpx2.Response:
    return client.post("/train", params=QUICK | query, content=content, headers={"Content-Type": "text/csv"})


def new_name() -> str:
    return f"trained-{uuid.uuid4().hex[:12]}"


def ended(client: httpx2.Client, accepted: httpx2.Response, *, status: str = "succeeded") -> dict[str, Any]:
    assert accepted.status_code == 202, accepted.text
    assert accepted.headers["location"] == f"/jobs/{accepted.json()['id']}"
    wait_until(
        lambda: client.get(f"/jobs/{accepted.json()['id']}", headers={"Prefer": "wait=10"}).json()["finished_at"],
        seconds=SECONDS,
    )
    return wait_for_job(client, accepted.json()["id"], status=status)


def versions_of(engine: Engine, name: str) -> int:
    with reader(engine).connect() as connection:
        return connection.scalar(select(func.count()).where(ModelVersion.name == name)) or 0


@pytest.fixture
def leavers(stack: Stack, client: httpx2.Client) -> tuple[dict[str, Any], dict[str, Any]]:
    """A training that has succeeded: its job and its result."""
    if stack.url not in _trained:
        job = ended(client, post(client, csv_of(make_rows()), name=new_name(), cost_fn="3"))
        result = client.get(f"/jobs/{job['id']}/result")
        assert result.status_code == 200, result.text
        _trained[stack.url] = job, result.json()
    return _trained[stack.url]


def test_training_becomes_a_candidate_that_no_alias_means(client, engine, leavers):
    job, result = leavers
    name = result["model"]
    assert (job["kind"], job["model"], job["model_version"]) == ("train", name, 1)
    assert job["training"]["stage"] == "proving"
    assert (result["version"], result["alias"], result["task"], result["labels"]) == (1, None, "binary", ["no", "yes"])
    assert 0.6 < result["metrics"]["roc_auc"]["low"] < result["metrics"]["roc_auc"]["value"] < 1
    assert result["decision"]["cost_fn"] == 3
    assert result["threshold"] == result["card"]["threshold"] == result["decision"]["threshold"]
    assert result["threshold"] in result["curve"]["threshold"]
    assert [each["estimator"] for each in result["tried"]].count(result["best"]["estimator"]) == 1
    assert client.get(f"/models/{name}/versions/1").json()["model_sha256"] == result["model_sha256"]
    assert client.get(f"/models/{name}/versions/1").json()["aliases"] == []
    assert client.get(f"/models/{name}/aliases/champion").status_code == 404
    with reader(engine).connect() as connection:  # the rows are not kept
        left = select(func.count()).select_from(RegistrationPart).where(RegistrationPart.job_id == job["id"])
        assert connection.scalar(left) == 0


def test_candidate_predicts_when_it_is_promoted(client, leavers):
    name, version = leavers[1]["model"], leavers[1]["version"]
    row = {key: value for key, value in make_rows(1)[0].items() if key != TARGET}
    by_number = client.post(f"/models/{name}@{version}/predict", json={"features": row}, headers={"Prefer": "wait=60"})
    assert by_number.status_code == 200, by_number.text
    body = {"version": version, "reason": "the first one"}
    assert client.put(f"/models/{name}/aliases/champion", json=body).status_code == 200

    def promoted() -> dict[str, Any] | None:
        answer = client.post(f"/models/{name}/predict", json={"features": row}, headers={"Prefer": "wait=60"})
        return answer.json() if answer.status_code == 200 else None

    answer = wait_until(promoted)
    assert answer["model_version"] == version
    assert answer["probability"] == by_number.json()["probability"]
    assert answer["threshold"] == leavers[1]["threshold"]


def test_model_card_is_a_page(stack, client, leavers):
    result = leavers[1]
    page = client.get(result["links"]["card"])
    with Client(stack.url) as python:
        assert python.model_card(result["model"], 1) == page.text
    assert page.status_code == 200, page.text
    assert page.headers["content-type"].startswith("text/markdown")
    for part in (f"# Model card of {result['model']}@1", "## Limits", "## Intended use", result["data_sha256"]):
        assert part.replace("_", "\\_") in page.text or part in page.text
    card = client.get(result["links"]["card"], headers={"Accept": "application/json"})
    assert (card.status_code, card.headers["content-type"]) == (200, "application/json")
    body = card.json()
    assert (body["model"], body["version"]) == (result["model"], 1)
    for part in ("model_sha256", "data_sha256", "rows", "labels", "metrics", "importance", "calibration", "notes"):
        assert body[part] == result[part], part
    assert body["threshold"]["threshold"] == result["threshold"]
    assert body["libraries"]["scikit-learn"]
    assert list(body["libraries"]) == sorted(body["libraries"])
    written = [name for name in METRICS if name in body["metrics"]]
    assert list(body["metrics"]) == list(result["metrics"]) == written
    table = page.text.partition("| metric | ")[2].partition("## ")[0]
    assert re.findall(r"^\| (\w+) \|", table, re.MULTILINE)[-len(written) :] == written
    for sentence in (*body["limits"], body["intended_use"]):
        assert sentence in page.text
    problem = check_problem(client.get("/models/attrition/versions/1/card"), 404)
    assert "was not trained by this service" in problem["detail"]


def test_job_that_trains_has_no_rows(client, leavers):
    job = leavers[0]
    check_problem(client.post(f"/jobs/{job['id']}/retry"), 409)
    check_problem(client.get(f"/jobs/{job['id']}/lineage"), 409)
    events = client.get(f"/jobs/{job['id']}/events").text
    assert events.count("event: ") == 3
    assert job["id"] in [each["id"] for each in client.get("/jobs", params={"limit": 50}).json()["items"]]


def test_same_request_under_one_key_is_one_training(client):
    headers = {"Content-Type": "text/csv", "Idempotency-Key": new_name()}
    query = QUICK | {"name": new_name(), "draws": "1"}
    content = csv_of(make_rows(60))
    first = client.post("/train", params=query, content=content, headers=headers)
    again = client.post("/train", params=query, content=content, headers=headers)
    other = client.post("/train", params=query | {"seed": "1"}, content=content, headers=headers)
    assert first.status_code == again.status_code == 202
    assert first.json()["id"] == again.json()["id"]
    check_problem(other, 422, "idempotency_mismatch")
    client.post(f"/jobs/{first.json()['id']}/cancel")


def test_form_with_the_file_is_taken(client):
    answer = client.post(
        "/train", params=QUICK | {"name": new_name(), "draws": "1"}, files={"file": ("rows.csv", csv_of(make_rows(60)))}
    )
    assert answer.status_code == 202, answer.text
    client.post(f"/jobs/{answer.json()['id']}/cancel")


# ── refused ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _with_gaps() -> bytes:
    rows = make_rows()
    for row in rows[:9]:
        row[TARGET] = ""
    return csv_of(rows)


@pytest.mark.parametrize(
    ("content", "query", "code", "words"),
    [
        (csv_of(make_rows(49)), {}, "too_few_rows", "49 rows, and a training needs 50"),
        (csv_of([row | {TARGET: "no"} for row in make_rows()]), {}, "one_class", "the same value in every row"),
        (_with_gaps(), {}, "missing_target", "no value in 9 of 200 rows"),
        (csv_of(make_rows()), {"target": "gone"}, "no_column", "has no column 'gone', the target"),
        (csv_of(make_rows()), {"leave_out": "nothing"}, "no_column", "has no column 'nothing'"),
        (csv_of(make_rows()), {"estimators": "forest"}, "estimator", "There is no estimator 'forest'"),
        (csv_of(make_rows()), {"target_recall": "0.8", "cost_fp": "2"}, "target_recall", "name one of them"),
        (csv_of(make_rows()), {"name": "No Name"}, "name", "cannot be a name"),
        (b"\x00\x01\x02", {}, None, ""),
        (b"", {}, None, ""),
    ],
)
def test_what_cannot_be_trained_on_is_refused_at_once(client, engine, content, query, code, words):
    name = new_name()
    answer = post(client, content, **{"name": name} | query)
    assert answer.status_code in (400, 415, 422), answer.text
    problem = check_problem(answer, answer.status_code)
    assert words in problem["detail"]
    if code is not None:
        assert [each for _, each in faults_of(problem)] == [code]
    assert versions_of(engine, name) == 0


def test_parameters_are_checked(client):
    problem = check_problem(post(client, csv_of(make_rows()), taget="left", name="a"), 422)
    assert faults_of(problem) == [("/query/taget", "unknown_parameter")]
    check_problem(client.post("/train", content=b"a", headers={"Content-Type": "text/csv"}), 422)
    check_problem(post(client, csv_of(make_rows()), name="a", draws="0"), 422)
    check_problem(client.post("/train", json={"model": "nobody"}), 404)
    check_problem(client.post("/train", json={"model": "attrition", "targets": 1}), 422)
    check_problem(client.post("/train?draws=3", json={"model": "attrition"}), 422)


@pytest.mark.flow
@pytest.mark.parametrize(
    ("column", "code"),
    [
        (lambda row, place: 1000 + place if row[TARGET] == "yes" else place, "leaked_target"),
        (lambda row, place: f"person {place}", "too_many_categories"),
        (lambda row, place: "FR", "constant_columns"),
    ],
)
def test_unfit_column_fails_the_job_by_name(client, engine, models_dir, column, code):
    rows = [row | {"strange": column(row, place)} for place, row in enumerate(make_rows())]
    name = new_name()
    job = ended(client, post(client, csv_of(rows), name=name), status="failed")
    assert job["error"]["code"] == code
    assert "'strange'" in job["error"]["message"]
    assert versions_of(engine, name) == 0
    assert not (models_dir / name).exists()


# ── canceled ─────────────────────────────────────────────────────────────────────────────────────────────────────


def training_processes(job_id: str) -> list[psutil.Process]:
    processes = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "shared.handlers.training_process" in line and any(job_id in part for part in line):
            processes.append(process)
    return processes


@pytest.mark.flow
def test_canceled_training_ends_its_process_and_registers_nothing(client, engine, models_dir):
    name = new_name()
    accepted = post(client, csv_of(make_rows(1_500)), name=name, draws="200", estimators="random_forest")
    job_id = accepted.json()["id"]
    wait_until(
        lambda: (client.get(f"/jobs/{job_id}").json()["training"] or {}).get("stage") == "searching" or None,
        seconds=SECONDS,
    )
    [process] = training_processes(job_id)
    assert client.post(f"/jobs/{job_id}/cancel").status_code in (200, 202)
    began = time.monotonic()
    wait_until(lambda: True if not process.is_running() or process.status() == "zombie" else None, seconds=30)
    assert time.monotonic() - began < CHILD_SECONDS
    job = wait_for_job(client, job_id, status="canceled")
    assert job["error"] is None if "error" in job else True
    assert versions_of(engine, name) == 0
    assert not (models_dir / name).exists()
    wait_until(lambda: not [each for each in os.listdir(models_dir) if job_id in each] or None)


# ── a window ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.flow
def test_window_of_scored_rows_with_outcomes_is_trained_on(client, engine, leavers):
    name = leavers[1]["model"]
    rows = make_rows(120, seed=11)
    features = [{key: value for key, value in row.items() if key != TARGET} for row in rows]
    scored = client.post(f"/models/{name}@1/predict_batch", json={"rows": features}, headers={"Prefer": "wait=60"})
    assert scored.status_code == 200, scored.text
    job_id = scored.json()["job_id"]
    lines = "".join(f"{job_id},{place},{row[TARGET]}\n" for place, row in enumerate(rows))
    outcomes = client.post("/outcomes", content=f"job_id,row,actual\n{lines}", headers={"Content-Type": "text/csv"})
    assert outcomes.status_code in (200, 201, 202), outcomes.text
    before = check_problem(client.post("/train", json={"model": f"{name}@1", "to": "2020-01-01T00:00:00Z"}), 422)
    assert "0 rows" in before["detail"]
    assert "load reference data, send outcomes, or choose a longer window" in before["detail"]
    body = {"model": f"{name}@1", "draws": 1, "estimators": ["linear"], "target_recall": 0.9}
    job = ended(client, client.post("/train", json=body))
    result = client.get(f"/jobs/{job['id']}/result").json()
    assert (result["model"], result["version"], result["rows"]) == (name, 2, 120)
    assert result["decision"]["recall"] >= 0.9
    assert [(each["name"], each["type"]) for each in result["card"]["features"]] == [
        (each["name"], each["type"]) for each in leavers[1]["card"]["features"]
    ]
    assert result["card"]["labels"] == leavers[1]["card"]["labels"]
    assert client.get(f"/models/{name}/versions/2").json()["aliases"] == []


# ── the client ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.flow
def test_command_trains_and_prints_what_came_of_it(stack, tmp_path: Path, capsys):
    from guichet.command import main as guichet

    path = tmp_path / "data.csv"
    path.write_bytes(csv_of(make_rows(80)))
    name = new_name()
    arguments = ["--url", stack.url, "train", str(path), "--target", TARGET, "--name", name, "--draws", "1"]
    assert guichet([*arguments, "--json", "--seed", "3"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["model"], result["version"]) == (name, 1)
    refused = [*arguments[:4], "--target", "gone", "--name", name]
    assert guichet(refused) != 0
    assert "has no column 'gone'" in capsys.readouterr().err
