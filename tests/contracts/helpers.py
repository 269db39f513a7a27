"""What the contract tests share: errors as they must look, what the tables hold, workers that stand still."""

import json
import os
import re
import shutil
import signal
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from sqlalchemy import Engine, func, select
from sqlalchemy.engine import RowMapping

from shared.database.engine import reader
from shared.tables import ErrorLog, Job, ModelInput, ModelOutput, ModelVersion, Table
from tests.support.stack import NEW, Stack, free_port

SINGLE_ROUTES = ("/jobs", "/predict", "/models/attrition/predict")
ROUTES = (*SINGLE_ROUTES, "/predict_batch")
JOB_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[47][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

Value = TypeVar("Found")


def body_for(route: str, row: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return the body that sends one row to a route."""
    return {"rows": [row], **more} if route == "/predict_batch" else {"features": row, **more}


def with_raw(route: str, row: dict[str, Any], text: str, name: str = "revenu_mensuel") -> bytes:
    """Return the bytes of a body in which one value is written by hand."""
    return json.dumps(body_for(route, row | {name: "@@"})).replace('"@@"', text).encode()


def post_raw(client: httpx2.Client, route: str, content: bytes, **headers: str) -> httpx2.Response:
    """Send bytes as JSON."""
    return client.post(route, content=content, headers={"Content-Type": "application/json", **headers})


def new_id() -> str:
    """Return an id that no other request of this session has."""
    return f"contract-{uuid.uuid4()}"


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def check_problem(answer: httpx2.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """Check that an answer is an RFC 9457 problem document of this status and code; return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem.keys() >= {"type", "title", "status", "detail", "instance", "request_id"}
    assert problem.keys() <= {"type", "title", "status", "detail", "instance", "request_id", "job_id", "errors"}
    assert problem["status"] == status
    assert problem["instance"] == answer.request.url.path
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["title"]
    assert problem["detail"].endswith((".", "?"))
    assert "Traceback" not in answer.text
    assert 'File "' not in answer.text
    if code is not None:
        assert problem["type"] == f"urn:guichet:error:{code}"
    for fault in problem.get("errors", []):
        assert fault.keys() == {"pointer", "code", "message"}
        assert fault["pointer"] == "" or fault["pointer"].startswith("/")
    return problem


def faults_of(problem: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the (pointer, code) of every fault, sorted."""
    return sorted((fault["pointer"], fault["code"]) for fault in problem.get("errors", []))


def check_accepted(answer: httpx2.Response) -> dict[str, Any]:
    """Check that an answer is 202 with a job, where to find it and when to ask; return the job."""
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    check_job(job)
    assert answer.headers["location"] == f"/jobs/{job['id']}"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert "content-location" not in answer.headers
    return job


def check_job(job: dict[str, Any]) -> None:
    """Check that a job has every field of the contract, and that they agree with each other."""
    fields = {
        "id",
        "kind",
        "status",
        "model",
        "model_version",
        "model_sha256",
        "created_at",
        "started_at",
        "finished_at",
        "expires_at",
        "attempts",
        "counts",
        "queue",
        "has_failures",
        "request_id",
        "links",
    }
    claimed_again = {"claims"} if job["attempts"] > 1 else set()
    fields |= claimed_again
    assert fields <= job.keys() <= fields | {"result", "error", "cancel_requested_at"}
    assert JOB_ID.fullmatch(job["id"])
    assert job["kind"] in ("predict", "batch")
    assert re.fullmatch(r"[0-9a-f]{64}", job["model_sha256"])
    assert job["counts"].keys() == {"total", "succeeded", "failed", "pending"}
    assert job["links"]["self"] == f"/jobs/{job['id']}"
    assert job["links"]["result"] == f"/jobs/{job['id']}/result"
    assert job["created_at"].endswith("Z")
    ended = job["status"] in ("succeeded", "failed", "canceled", "expired")
    assert (job["finished_at"] is not None) == ended
    assert ("cancel" in job["links"]) == (not ended)
    assert (job["queue"] is not None) == (job["status"] == "queued")
    if job["queue"] is not None:
        assert job["queue"].keys() == {"position", "eta_seconds", "is_lower_bound"}
    if job["status"] == "succeeded":
        assert sum(job["counts"][part] for part in ("succeeded", "failed", "pending")) == job["counts"]["total"]


def check_result(answer: httpx2.Response) -> dict[str, Any]:
    """Check that an answer is 200 with the result of one row; return it."""
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    check_result_body(result)
    assert answer.headers["content-location"] == f"/jobs/{result['job_id']}"
    assert "location" not in answer.headers
    assert result["request_id"] == answer.headers["x-request-id"]
    return result


def check_result_body(result: dict[str, Any]) -> None:
    """Check that a result has every field of the contract, and a score that fits itself."""
    fields = {"job_id", "request_id", "model", "model_version", "prediction", "label", "probability", "threshold"}
    assert fields | {"latency_ms"} <= result.keys() <= fields | {"latency_ms", "probabilities"}
    assert result["latency_ms"] >= 0
    if result["threshold"] is not None:
        assert result["prediction"] == int(result["probability"] >= result["threshold"])


def wait_for_job(
    client: httpx2.Client, job_id: str, *, status: str = "succeeded", seconds: float = 30
) -> dict[str, Any]:
    """Return a job as soon as it has a status; fail when it does not come to it."""
    deadline = time.monotonic() + seconds
    for pause in _pauses():
        job: dict[str, Any] = client.get(f"/jobs/{job_id}").json()
        if job["status"] == status or time.monotonic() > deadline:
            break
        time.sleep(pause)
    assert job["status"] == status, job
    return job


def wait_until(look: Callable[[], Value | None], *, seconds: float = 30) -> Value:
    """Return what `look` finds as soon as it finds something; fail when it finds nothing. The time is no claim."""
    deadline = time.monotonic() + seconds
    pauses = _pauses()
    while (value := look()) is None:
        assert time.monotonic() < deadline, f"nothing was found within {seconds} s"
        time.sleep(next(pauses))
    return value


def _pauses() -> Iterator[float]:
    """Yield seconds between two looks, from 0.01 to 0.1: who asks all the time takes the core of what is waited for."""
    pause = 0.01
    while True:
        yield pause
        pause = min(1.25 * pause, 0.1)


# ── the OpenAPI document ─────────────────────────────────────────────────────────────────────────────────────────


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield path, method and description of every operation."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method in ("get", "put", "post", "delete", "patch"):
                yield path, method, operation


def demands_key(operation: dict[str, Any]) -> bool:
    """Tell whether the document lets nobody call this operation without a key."""
    return bool(operation["security"]) and {} not in operation["security"]


def asks_for_key(client: httpx2.Client, path: str, method: str, **headers: str) -> bool:
    """Tell whether the service refuses this operation to who brings no key."""
    body = {"json": {}} if method in ("post", "put") else {}
    return client.request(method, re.sub(r"\{\w+\}", "1", path), headers=headers, **body).status_code == 401


def wait_for_keys(stack: Stack, *secrets: str) -> None:
    """Wait until an API takes new keys: at once, unless the machine is too busy to read them within its patience."""
    with stack.client() as client:
        for secret in secrets:
            headers = {"X-API-Key": secret}
            wait_until(
                lambda headers=headers: client.get("/models", headers=headers).status_code not in (401, 503) or None
            )


# ── what is stored ───────────────────────────────────────────────────────────────────────────────────────────────


def counts(engine: Engine) -> tuple[int, int]:
    """Return how many jobs and inputs are stored."""
    with reader(engine).connect() as connection:
        tables: tuple[type[Table], ...] = (Job, ModelInput)
        numbers = [connection.scalar(select(func.count()).select_from(table)) or 0 for table in tables]
    return numbers[0], numbers[1]


def stored_job(engine: Engine, job_id: str) -> RowMapping:
    """Return a job's row, with the name of its model."""
    with reader(engine).connect() as connection:
        query = select(Job.__table__, ModelVersion.name).join(ModelVersion, ModelVersion.id == Job.model_version_id)
        return connection.execute(query.where(Job.id == job_id)).mappings().one()


def stored_rows(engine: Engine, job_id: str) -> list[RowMapping]:
    """Return a job's inputs in order, each with its output's columns (null where it has none)."""
    with reader(engine).connect() as connection:
        outputs = (ModelOutput.prediction, ModelOutput.label, ModelOutput.probability, ModelOutput.threshold)
        query = (
            select(ModelInput.row_index, ModelInput.features, ModelInput.faults, *outputs)
            .outerjoin(ModelOutput, ModelOutput.input_id == ModelInput.id)
            .where(ModelInput.job_id == job_id)
            .order_by(ModelInput.row_index)
        )
        return list(connection.execute(query).mappings())


def logged(engine: Engine, request_id: str, *, seconds: float = 30) -> RowMapping:
    """Return the entry of error_logs about a request; it is written beside the answer, a moment later."""

    def look() -> RowMapping | None:
        with reader(engine).connect() as connection:
            query = select(ErrorLog.__table__).where(ErrorLog.request_id == request_id)
            return connection.execute(query).mappings().one_or_none()

    return wait_until(look, seconds=seconds)


# ── processes ────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def paused(stack: Stack, *names: str) -> Iterator[None]:
    """Stop workers (the interactive one when none is named) where they stand; let them go on afterwards."""
    groups = [stack.processes[name].pid for name in names or ("interactive",)]
    try:
        for group in groups:
            os.killpg(group, signal.SIGSTOP)
        yield
    finally:
        for group in groups:
            os.killpg(group, signal.SIGCONT)


@contextmanager
def apart(stack: Stack, folder: Path, *, models: Sequence[str] = ("attrition",), **env: str) -> Iterator[Stack]:
    """Yield one more API process with settings of its own, and in the sync runtime with a database of its own.

    That one holds these example models alone: each has a process that scores, and none is started for nothing.
    """
    if stack.runtime == "sync":
        database = folder / "guichet.db"
        shutil.copy(stack.folder / NEW, database)
        with closing(sqlite3.connect(database)) as connection, connection:
            for table in ("model_aliases", "model_versions"):
                connection.execute(
                    f"DELETE FROM {table} WHERE name NOT IN ({', '.join('?' for _ in models)})", tuple(models)
                )
        env = {"DATABASE_URL": f"sqlite:///{database}"} | env
    with beside(stack, folder, **env) as other:
        yield other


@contextmanager
def beside(stack: Stack, folder: Path, **env: str) -> Iterator[Stack]:
    """Yield one more API process on the same database, with settings of its own."""
    port = free_port()
    other = Stack(stack.runtime, stack.env | {"PORT": str(port)} | env, folder, port)
    try:
        other.start_api()
        yield other
    finally:
        other.stop_all()
