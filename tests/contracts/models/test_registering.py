"""Models added over HTTP: what an upload becomes, what is refused, and what a hostile one cannot do."""

import io
import json
import time
import uuid
import zipfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from guichet import Client, JobFailed
from guichet.command import main as guichet
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sqlalchemy import Engine, func, select

from shared.database.engine import reader
from shared.tables import AliasEvent, AuditLog, Job, ModelVersion, Registration, RegistrationPart
from tests.contracts.helpers import apart, check_problem, wait_until
from tests.support.stack import ROOT, Stack

COUNT = 60
FRAME = pd.DataFrame({"age": np.arange(COUNT) % 40 + 20.0, "income": np.arange(COUNT) * 30.0, "note": "x"})
LEFT = (FRAME["age"] > 40).astype(int)
ROW = {"age": 51.0, "income": 300.0}
_names: dict[str, str] = {}  # by the service: the model that it has


@cache
def fitted() -> Any:
    """Return one pipeline for all: another fit differs in the last digits, where another number of threads makes it."""
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME[["age", "income"]], LEFT)


def rows_csv() -> bytes:
    return FRAME.assign(left=LEFT).to_csv(index=False).encode()


def joblib_of(thing: object) -> bytes:
    file = io.BytesIO()
    joblib.dump(thing, file)
    return file.getvalue()


class Program:
    """What runs these lines when it is read."""

    def __init__(self, lines: str) -> None:
        self.lines = lines

    def __reduce__(self) -> Any:
        return exec, (self.lines,)


def but_for_flows(cases: Iterable[str], *short: str) -> list[Any]:
    """Return cases that each take a process of its own; all but the named ones are flows."""
    return [case if case in short else pytest.param(case, marks=pytest.mark.flow) for case in cases]


def new_name() -> str:
    return f"uploaded-{uuid.uuid4().hex[:12]}"


def send(
    client: httpx2.Client,
    artefact: bytes | None,
    *,
    filename: str = "model.joblib",
    files: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
    **fields: str,
) -> httpx2.Response:
    parts: dict[str, Any] = {"reference": ("rows.csv", rows_csv())} | (files or {})
    if artefact is not None:
        parts["artefact"] = (filename, artefact)
    return client.post("/models", data=fields, files={k: v for k, v in parts.items() if v}, headers=headers)


def ended(client: httpx2.Client, accepted: httpx2.Response, *, seconds: float = 270) -> dict[str, Any]:
    assert accepted.status_code == 202, accepted.text
    job = accepted.json()
    assert accepted.headers["location"] == f"/jobs/{job['id']}"
    assert (job["kind"], job["model_version"]) == ("register", None)

    def look() -> dict[str, Any] | None:
        body: dict[str, Any] = client.get(f"/jobs/{job['id']}", headers={"Prefer": "wait=20"}).json()
        return body if body["finished_at"] else None

    final: dict[str, Any] = wait_until(look, seconds=seconds)
    return final


def registered(client: httpx2.Client, accepted: httpx2.Response) -> dict[str, Any]:
    job = ended(client, accepted)
    assert job["status"] == "succeeded", job["error"]
    result = client.get(f"/jobs/{job['id']}/result")
    assert result.status_code == 200, result.text
    body: dict[str, Any] = result.json()
    assert (job["model"], job["model_version"]) == (body["model"], body["model_version"])
    assert job["model_sha256"] == body["model_sha256"]
    return body


def check_nothing_left(stack: Stack, engine: Engine, models_dir: Path, name: str) -> None:
    with reader(engine).connect() as connection:
        assert connection.scalar(select(func.count()).select_from(ModelVersion).where(ModelVersion.name == name)) == 0
        wait_until(lambda: connection.scalar(select(func.count()).select_from(RegistrationPart)) == 0 or None)
    assert not (models_dir / name).exists()
    assert list(models_dir.glob(".registering-*")) == []


@pytest.fixture
def name(stack: Stack, client: httpx2.Client) -> str:
    """A model whose first version was uploaded."""
    if stack.url not in _names:
        name = new_name()
        result = registered(client, send(client, joblib_of(fitted()), name=name, target="left", metrics='{"auc": 0.9}'))
        assert (result["version"], result["alias"]) == (1, "champion")
        _names[stack.url] = name
    return _names[stack.url]


# ── what an upload becomes ───────────────────────────────────────────────────────────────────────────────────────


def test_first_version_of_a_name_serves_at_once_and_is_audited(client, engine, name):
    answer = client.post(f"/models/{name}/predict", json={"features": ROW}, headers={"Prefer": "wait=60"})
    assert answer.status_code == 200, answer.text
    expected = fitted().predict_proba(pd.DataFrame([ROW]))[0, 1]
    model = client.get(f"/models/{name}").json()
    # On a busy machine, the float32 graph may have been measured as the fastest scorer: its own proof says how far off.
    near = model["scorer"]["max_abs_diff"] if model["scorer"]["kind"] == "onnx" else 1e-12
    assert near < 1e-6
    assert answer.json()["probability"] == pytest.approx(expected, abs=near)
    assert model["card"]["metrics"] == {"auc": 0.9}
    assert (model["card"]["target"], model["aliases"]) == ("left", ["champion"])
    with reader(engine).connect() as connection:
        job_id, actor, digest = connection.execute(
            select(Registration.job_id, Registration.actor, Registration.sha256).where(Registration.name == name)
        ).one()
        added = connection.execute(select(AuditLog.__table__).where(AuditLog.target == f"{name}@1")).all()
        request_id = connection.scalar(select(Job.request_id).where(Job.id == job_id))
        moved = connection.scalars(select(AliasEvent.actor).where(AliasEvent.name == name)).all()
    assert actor == "anyone"
    assert (added[0].action, added[0].actor, added[0].request_id) == ("model.added", "anyone", request_id)
    assert added[0].details["sha256"] == digest == model["model_sha256"]
    assert moved == ["anyone"]
    result = client.get(f"/jobs/{job_id}/result").json()
    assert result["left_out"] == ["note", "left"]
    assert result["files"]["artefact"]["sha256"] == digest
    assert job_id in {job["id"] for job in client.get("/jobs").json()["items"]}


def test_job_that_registers_a_model_has_no_rows(client, engine, name):
    with reader(engine).connect() as connection:
        job_id = connection.scalar(select(Registration.job_id).where(Registration.name == name))
    for path in ("output.csv", "errors.csv", "lineage", "explanations"):
        assert 400 <= client.get(f"/jobs/{job_id}/{path}").status_code < 500, path
    for path, body in (("outcome", {"actual": 1}), ("explain", None), ("retry", None), ("cancel", None)):
        answer = client.post(f"/jobs/{job_id}/{path}", json=body)
        assert 400 <= answer.status_code < 500, (path, answer.text)
    assert 400 <= client.post("/explain", json={"job_id": job_id}).status_code < 500
    events = client.get(f"/jobs/{job_id}/events", headers={"Accept": "text/event-stream"})
    assert events.status_code == 200
    assert "succeeded" in events.text


@pytest.mark.flow
def test_next_version_waits_to_be_promoted_and_the_same_model_stays_the_version_it_is(client, name, tmp_path):
    skops.io.dump(fitted(), tmp_path / "model.skops")
    content = (tmp_path / "model.skops").read_bytes()
    result = registered(client, send(client, content, filename="model.skops", name=name, target="left"))
    assert (result["version"], result["alias"]) == (2, None)
    assert client.get(f"/models/{name}").json()["model_version"] == 1
    again = registered(client, send(client, joblib_of(fitted()), name=name, target="left", metrics='{"auc": 0.9}'))
    assert (again["version"], again["alias"]) == (1, None)


@pytest.mark.flow
def test_zipped_mlflow_folder_is_added_by_its_signature(client):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((ROOT / "tests" / "mlflow" / "visitors").iterdir()):
            archive.write(path, f"visitors/{path.name}")
        archive.writestr("__MACOSX/visitors/._MLmodel", b"\0")
    name = new_name()
    result = registered(
        client, send(client, file.getvalue(), filename="visitors.zip", files={"reference": None}, name=name)
    )
    assert result["card"]["task"] == "binary"
    assert client.get(f"/models/{name}").json()["model_version"] == 1


@pytest.mark.flow
def test_preprocessor_labels_threshold_and_contract_are_taken(client):
    scaler = StandardScaler().fit(FRAME[["age", "income"]])
    model = LogisticRegression().fit(scaler.transform(FRAME[["age", "income"]]), LEFT)
    name = new_name()
    contract = {"description": "Who leaves", "response": {"fields": {"odds": "probability"}}}
    accepted = send(
        client,
        joblib_of(model),
        files={
            "preprocessor": ("scaler.joblib", joblib_of(scaler)),
            "labels": ("labels.json", b'{"stays": 0, "leaves": 1}'),
            "contract": ("contract.json", json.dumps(contract).encode()),
        },
        name=name,
        target="left",
        threshold="0.3",
    )
    card = registered(client, accepted)["card"]
    assert (card["labels"], card["threshold"]) == ({"0": "stays", "1": "leaves"}, 0.3)
    answer = client.post(f"/models/{name}/predict", json={"features": ROW}, headers={"Prefer": "wait=60"})
    assert answer.json().keys() == {"odds"}, answer.text


@pytest.mark.flow
def test_client_registers_an_estimator_with_its_data_and_the_command_a_file(stack, name, tmp_path, capsys):
    joblib.dump(fitted(), tmp_path / "model.joblib")
    (tmp_path / "rows.csv").write_bytes(rows_csv())
    with Client(stack.url) as client:
        other = new_name()
        job = client.register(fitted(), FRAME[["age", "income"]], LEFT.rename("left"), name=other)
        result = job.result(timeout=270)
        assert (result.model, result.model_version, result.alias) == (other, 1, "champion")
        assert (result.features, result.card["target"]) == (["age", "income"], "left")
        with pytest.raises(JobFailed, match="no fitted model"):
            client.register({"age": 1}, FRAME, name=other).result(timeout=270)
    words = ["register", str(tmp_path / "model.joblib"), "--name", name, "--reference", str(tmp_path / "rows.csv")]
    at = ["--url", stack.url]
    assert guichet([*words, "--target", "left", "--threshold", "0.4", *at]) == 0
    out = capsys.readouterr().out
    assert f"{name}@" in out
    assert "age, income" in out
    assert guichet(["list", name, *at]) == 0
    assert f"{name}@1" in capsys.readouterr().out
    assert guichet(["show", f"{name}@1", *at]) == 0
    assert "curl -s" in capsys.readouterr().out
    assert guichet(["jobs", *at]) == 0
    assert "register" in capsys.readouterr().out


@pytest.mark.flow
def test_same_idempotency_key_is_the_same_job_and_another_model_under_it_is_refused(client, name):
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first = send(client, joblib_of(fitted()), name=name, target="left", metrics='{"auc": 0.9}', headers=key)
    again = send(client, joblib_of(fitted()), name=name, target="left", metrics='{"auc": 0.9}', headers=key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"]
    check_problem(send(client, joblib_of({"a": 1}), name=name, headers=key), 422, "idempotency_mismatch")
    registered(client, first)


def test_cancelled_upload_registers_nothing(stack, client, engine, models_dir):
    name = new_name()
    accepted = send(client, joblib_of(Program("import time; time.sleep(50)")), name=name)
    job_id = accepted.json()["id"]
    wait_until(lambda: client.get(f"/jobs/{job_id}").json()["status"] == "running" or None, seconds=60)
    assert client.post(f"/jobs/{job_id}/cancel").status_code in (200, 202)
    assert ended(client, accepted, seconds=30)["status"] == "canceled"
    check_nothing_left(stack, engine, models_dir, name)


# ── what is refused at once ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "files", "pointer", "words"),
    [
        ({}, {}, "/name", "is missing"),
        ({"name": "../etc"}, {}, "/name", "cannot be a model's name"),
        ({"name": "Churn"}, {}, "/name", "cannot be a model's name"),
        ({"name": "churn", "nmae": "x"}, {}, "/nmae", 'did you mean "name"?'),
        ({"name": "churn", "threshold": "1.5"}, {}, "/threshold", "no threshold from 0 to 1"),
        ({"name": "churn", "threshold": "NaN"}, {}, "/threshold", "no threshold from 0 to 1"),
        ({"name": "churn", "metrics": "[1]"}, {}, "/metrics", "no metrics"),
        ({"name": "churn", "labels": "0=No,1="}, {}, "/labels", "class=label"),
        ({"name": "churn", "version": "0"}, {}, "/version", "a number from 1 on"),
        ({"name": "churn", "task": "ranking"}, {}, "/task", "must be binary or multiclass or regression"),
        ({"name": "churn", "target": "a", "scores": "a"}, {}, "/scores", "cannot be the target too"),
        ({"name": "churn"}, {"artefact": None, "code": ("a.py", b"")}, "/artefact", "is missing"),
        ({"name": "churn"}, {"artefact": ("model.joblib", b"")}, "/artefact", "is an empty file"),
        ({"name": "churn"}, {"artefact": ("m", b"<!DOCTYPE html><p>")}, "/artefact", "is a web page, not a model"),
        ({"name": "churn"}, {"artefact": ("m.json", b'{"learner": 1}')}, "/artefact", "is JSON and not a joblib file"),
        ({"name": "churn"}, {"code": ("no-module.txt", b"x = 1")}, "/code", "must be a .py file"),
    ],
)
def test_form_that_cannot_be_meant_is_refused_with_the_field(client, engine, fields, files, pointer, words):
    before = _jobs(engine)
    parts = {"artefact": ("model.joblib", joblib_of(fitted()))} | files
    answer = client.post("/models", data=fields or {"skip_bad": "true"}, files={k: v for k, v in parts.items() if v})
    problem = check_problem(answer, 422)
    assert words in next(fault["message"] for fault in problem["errors"] if fault["pointer"] == pointer)
    assert _jobs(engine) == before


def _jobs(engine: Engine) -> int:
    with reader(engine).connect() as connection:
        return connection.scalar(select(func.count()).select_from(Registration)) or 0


def test_what_is_no_form_is_refused_with_an_example(client, engine):
    before = _jobs(engine)
    problem = check_problem(client.post("/models", json={"name": "churn"}), 415)
    assert "curl -F artefact=@model.joblib" in problem["detail"]
    check_problem(client.post("/models", content=b"x", headers={"Content-Type": "multipart/form-data"}), 400)
    twice = client.post("/models", data={"name": ["a", "b"]}, files={"artefact": ("m", b"x")})
    assert "comes twice" in check_problem(twice, 422)["detail"]
    assert _jobs(engine) == before


def test_upload_that_is_cut_off_or_too_large_leaves_nothing(stack, client, engine, models_dir):
    before = _jobs(engine)
    body = (
        b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nchurn\r\n'
        b'--b\r\nContent-Disposition: form-data; name="artefact"; filename="m"\r\n\r\n' + joblib_of(fitted())
    )
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    cut = client.post("/models", content=body, headers=form)
    assert "cut off before its end" in check_problem(cut, 400)["detail"]
    problem = check_problem(send(client, b"\x80" * 5_000_001, name="churn"), 413)
    assert "MAX_MODEL_BYTES" in problem["detail"]

    def endless() -> Any:  # without a Content-Length: the bytes are counted as they come
        yield body
        for _ in range(600):
            yield b"\x80" * 10_000

    check_problem(client.post("/models", content=endless(), headers=form), 413)
    assert _jobs(engine) == before
    check_nothing_left(stack, engine, models_dir, "churn")


@pytest.mark.flow
def test_uploads_are_off_unless_they_are_turned_on(stack, tmp_path):
    with apart(stack, tmp_path, MODEL_UPLOADS="") as other, other.client() as client:
        problem = check_problem(send(client, joblib_of(fitted()), name="churn"), 403, "forbidden")
    assert "MODEL_UPLOADS=on" in problem["detail"]


# ── what the proof refuses ───────────────────────────────────────────────────────────────────────────────────────


def _zip(*entries: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, content in entries:
            archive.writestr(entry, content)
    return file.getvalue()


def _link() -> bytes:
    entry = zipfile.ZipInfo("model.joblib")
    entry.external_attr = 0o120777 << 16
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    return file.getvalue()


BAD = {
    "slip": (lambda: _zip(("../../outside.txt", b"x")), "would leave the folder"),
    "absolute": (lambda: _zip(("/tmp/outside.txt", b"x")), "would leave the folder"),
    "link": (_link, "which is a link or a device"),
    "bomb": (lambda: _zip(("model.joblib", bytes(20_000_000))), "MB unpacked"),
    "many": (lambda: _zip(*((f"{place}.txt", b"") for place in range(1_200))), "1200 files, which is no model"),
    "damaged": (lambda: _zip(("model.joblib", joblib_of(fitted())))[:-40], "no zip archive that can be read"),
    "keras": (lambda: _zip(("config.json", b"{}"), ("model.weights.h5", b"x")), "neither MLmodel nor model.joblib"),
    "text": (lambda: b"age,income\n1,2\n", "is not a complete joblib file"),
    "cut": (lambda: joblib_of(fitted())[:-100], "joblib file"),
    "unfitted": (lambda: joblib_of(LogisticRegression()), "fit"),
    "own class": (lambda: b"\x80\x04\x8c\x08__main__\x8c\x07Encoder\x93.", "--code"),
}


@pytest.mark.parametrize("case", but_for_flows(BAD, "slip"))
def test_upload_that_is_no_model_fails_with_advice(stack, client, engine, models_dir, case):
    make, words = BAD[case]
    name = new_name()
    job = ended(client, send(client, make(), filename="model.zip", name=name, target="left"))
    assert job["status"] == "failed", job
    assert job["error"]["code"] == "model_refused"
    assert words in job["error"]["message"]
    assert str(models_dir) not in job["error"]["message"]
    check_nothing_left(stack, engine, models_dir, name)


def test_archive_of_mlflow_without_an_example_is_named_as_one(client):
    card = b"flavors: {sklearn: {pickled_model: model.pkl}}"
    archive = _zip(("m/MLmodel", card), ("m/model.pkl", joblib_of(fitted())))
    job = ended(client, send(client, archive, filename="m.zip", files={"reference": None}, name=new_name()))
    assert (job["status"], job["error"]["code"]) == ("failed", "model_refused")
    assert job["error"]["message"].startswith("archive/m holds no input example")


KILLERS = {
    "crashes": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "model_crashed", "takes its process down"),
    "exits": ("import os; os._exit(0)", "model_crashed", "takes its process down"),
    "eats memory": ("a = [bytearray(20_000_000) for _ in range(500)]", "out_of_memory", "MODEL_PROOF_BYTES"),
    "raises": ("raise ValueError('no')", "model_refused", "joblib file"),
}


@pytest.mark.parametrize("case", but_for_flows(KILLERS, "crashes"))
def test_artefact_that_harms_its_process_harms_nothing_else(stack, client, engine, models_dir, case):
    lines, code, words = KILLERS[case]
    name = new_name()
    accepted = send(client, joblib_of(Program(lines)), name=name)
    time.sleep(1)
    assert client.get("/readyz").status_code == 200
    job = ended(client, accepted)
    assert (job["status"], job["error"]["code"], job["attempts"]) == ("failed", code, 1), job
    assert words in job["error"]["message"]
    problem = check_problem(client.get(f"/jobs/{job['id']}/result"), 409)
    assert "failed" in problem["detail"]
    check_nothing_left(stack, engine, models_dir, name)


@pytest.mark.flow
def test_artefact_that_hangs_is_given_up_in_time(stack, engine, models_dir, tmp_path):
    name = new_name()
    with apart(stack, tmp_path, MODEL_PROOF_SECONDS="8") as other, other.client() as client:
        job = ended(client, send(client, joblib_of(Program("while True: pass")), name=name))
    assert (job["status"], job["error"]["code"], job["attempts"]) == ("failed", "timeout", 1), job
    assert "within 8 s" in job["error"]["message"]
    assert "MODEL_PROOF_SECONDS" in job["error"]["message"]
    check_nothing_left(stack, engine, models_dir, name)


def test_artefact_sees_no_secret_of_the_service(stack, client, engine, models_dir):
    seen = "import os; raise RuntimeError(' '.join(sorted(os.environ)))"
    job = ended(client, send(client, joblib_of(Program(seen)), name=new_name()))
    assert "PYTHONPATH" in job["error"]["message"]
    assert "DATABASE_URL" not in job["error"]["message"]
    assert "REDIS_URL" not in job["error"]["message"]
