"""docs/routes: every operation has an example, and a running service of each runtime accepts it as it stands there."""

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from sqlalchemy import Engine, insert, select

from scripts.generate.reference.routes import ADDRESS, PREPARE, Request, requests
from shared.database.engine import make_engine
from shared.tables import Alert, ModelVersion
from tests.conftest import example_rows
from tests.contracts.helpers import apart, operations, wait_until
from tests.support.csv_jobs import put_file
from tests.support.stack import MODELS, ROOT, Stack

NOT_YET = (404, 409, 503)  # of a question whose answer needs a moment: a model is being loaded, rows are being counted
SECONDS = 600  # two trainings and a proof, on a machine that is busy


def test_every_operation_has_an_example_with_a_status_that_the_document_has(client: httpx2.Client) -> None:
    documented = {
        operation["operationId"]: operation["responses"]
        for *_, operation in operations(client.get("/openapi.json").json())
    }
    shown = [request for request in requests() if not request.hidden]
    assert documented.keys() == {request.operation for request in shown}
    assert [request.send for request in shown if str(request.status) not in documented[request.operation]] == []
    assert [request.send for request in shown if request.status >= 300] == []


@pytest.mark.flow
def test_example_of_every_operation_is_accepted_as_it_stands_on_the_pages(
    stack: Stack, trained: Path, tmp_path: Path
) -> None:
    desk, env = tmp_path / "desk", {"AUTH": "keys"}
    desk.mkdir()
    (desk / "examples").symlink_to(ROOT / "examples")
    subprocess.run([sys.executable, "-c", PREPARE], cwd=desk, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    if stack.runtime == "sync":  # a database of its own, in which no model is called churn
        shutil.copytree(trained / MODELS, tmp_path / MODELS)
        env["MODELS_DIR"] = str(tmp_path / MODELS)
    with apart(stack, tmp_path, models=("attrition", "credit"), **env) as guarded:
        engine = make_engine(guarded.database_url)
        names = {
            "KEY": f"Authorization: Bearer {make_key(guarded)}",
            "QUEUED": put_file(engine, [[example_rows("attrition")[0]]]),
            "ALERT": str(put_alert(engine)),
        }
        engine.dispose()
        with guarded.client(Authorization=names["KEY"].partition(": ")[2]) as client:
            wait_until(lambda: client.get("/models").status_code == 200 or None)
            for request in requests():
                if request.ended is not None:
                    wait_until(lambda job=names[request.ended]: has_ended(client, job), seconds=SECONDS)
                if request.hidden and request.send == "POST /models/churn/predict_batch":
                    wait_until(
                        lambda: client.get("/models/churn/aliases/challenger").json()["shadow"] is not None or None
                    )
                answer = wait_until(lambda request=request: send(request, desk, names, guarded.url), seconds=SECONDS)
                for name, place in request.keep.items():
                    names[name] = answer[place]


def send(request: Request, desk: Path, names: dict[str, str], url: str) -> Any:
    """Send an example by curl, and return the body of its answer; None while a question cannot be answered yet."""
    command = request.command.replace(ADDRESS, url) + " --max-time 100 -D head -w '\\n%{http_code}'"
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "HOME", "LANG", "TMP"))}
    done = subprocess.run(["bash", "-c", command], cwd=desk, env=kept | names, capture_output=True, timeout=120)
    assert done.returncode == 0, f"{request.command}: {done.stderr!r}"
    body, _, status = done.stdout.rpartition(b"\n")
    is_question = request.send.startswith("GET") or b"try again" in body
    if int(status) in NOT_YET and int(status) != request.status and (int(status) == 503 or is_question):
        return None
    assert int(status) == request.status, f"{request.command}: {status!r} {body[:2000]!r}"
    return orjson.loads(body) if request.keep else True


def has_ended(client: httpx2.Client, job: str) -> bool | None:
    """Return True once a job has succeeded, None before; fail when it ended in another way."""
    body = client.get(f"/jobs/{job}", headers={"Prefer": "wait=10"}).json()
    assert body["finished_at"] is None or body["status"] == "succeeded", body
    return True if body["finished_at"] else None


def make_key(guarded: Stack) -> str:
    """Make a key as an operator does, and return its secret."""
    printed = guarded.run("api.keys", "create", "--name", "reader", "--scopes", "admin").stdout
    return next(word for word in printed.split() if word.startswith("guichet_"))


def put_alert(engine: Engine) -> int:
    """Store an open alert, and return its id."""
    version = select(ModelVersion.id).where(ModelVersion.name == "credit").limit(1).scalar_subquery()
    now = datetime.now(UTC)
    alert = insert(Alert).values(
        model_version_id=version,
        kind="drift",
        subject="loan_amount",
        level="moderate",
        details={"psi": 0.25},
        opened_at=now,
        seen_at=now,
    )
    with engine.begin() as connection:
        return int(connection.execute(alert.returning(Alert.id)).scalar_one())
