"""A wrong threshold in the compiled trees of a running service: found, and after that no wrong answer is given.

The process that audits is killed in the middle of its first round.
"""

import csv
import io
import math
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sqlalchemy import select

from scripts.servers.postgres import Postgres
from scripts.servers.redis import Redis
from shared.database.engine import session_scope
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from shared.tables import Alert, Incident
from tests.contracts.csv_files import check_taken, post_csv
from tests.contracts.helpers import wait_until
from tests.faults.either import engine_of, new_stack, start
from tests.support.brief import prove_briefly
from tests.support.planted import in_every_process
from tests.support.stack import Stack

SHARE = 0.2
MODEL = "planted"


@contextmanager
def planted_service(runtime: str, folder: Path, postgres: Postgres, redis: Redis) -> Iterator[Stack]:
    """Yield a service all of whose processes score by trees with a wrong threshold; two answer the queue."""
    with new_stack(runtime, folder, postgres, redis, name="self-audit", model=MODEL) as stack:
        with engine_of(stack) as engine, pytest.MonkeyPatch.context() as patch, session_scope(engine) as session:
            prove_briefly(patch)
            # No faster way than trees, whatever the machine does at this moment.
            patch.setattr("shared.scoring.selection.CANDIDATES", ("treelite",))
            options = AddOptions(reference=folder.parent / "rows.csv", name=MODEL)
            add(session, folder.parent / "model.joblib", options, models_dir=folder / "models")
        stack.env |= {"SELF_AUDIT_SHARE": str(SHARE), "SELF_AUDIT_ROWS_PER_SECOND": "1000"}
        in_every_process(folder / "site", MODEL)
        stack.env["PYTHONPATH"] = str(folder / "site")
        start(stack, ("one", "interactive"), ("two", "interactive"), ("bulk", "bulk,maintenance"), models=1)
        yield stack


def ask(client: httpx2.Client, values: list[float]) -> list[float]:
    """Return the probabilities that callers get."""
    body = {"model": MODEL, "rows": [{"x": value} for value in values]}
    answer = client.post("/predict_batch", json=body, headers={"Prefer": "wait=30"})
    if answer.status_code == 202:
        job = answer.json()["id"]
        wait_until(lambda: client.get(f"/jobs/{job}").json()["status"] == "succeeded" or None)
        answer = client.get(f"/jobs/{job}/result")
    assert answer.status_code == 200, answer.text
    return [item["probability"] for item in answer.json()["items"]]


def kill_in_the_middle_of_a_round(stack: Stack, hold: Path) -> None:
    """Wait until the held pipeline is asked, kill the worker process that asks (sync: the service), and let go."""
    asks = hold.with_name("asks")
    asking = wait_until(lambda: (asks.exists() and asks.read_text()) or None)
    if stack.runtime == "queue":
        os.kill(int(asking), signal.SIGKILL)  # a process of the pool; its parent starts another
    else:
        stack.stop("api", sig=signal.SIGKILL)
    hold.unlink()
    if stack.runtime == "sync":
        stack.start_api()
        stack.wait_for_models(1)


def last_job(client: httpx2.Client) -> str:
    (job,) = client.get("/jobs", params={"limit": 1}).json()["items"]
    return str(job["id"])


def open_alerts(client: httpx2.Client) -> list[dict[str, Any]]:
    alerts: list[dict[str, Any]] = client.get("/alerts", params={"open": True, "kind": "self_audit"}).json()["items"]
    return alerts


@pytest.mark.long
@pytest.mark.parametrize("runtime", ["queue", "sync"])
def test_wrong_threshold_is_caught_and_no_wrong_answer_is_given_after_the_switch(
    runtime: str, tmp_path: Path, session_postgres: Postgres, fault_redis: Redis
) -> None:
    random = np.random.default_rng(11)
    x = random.uniform(-1, 1, 400)
    trained = pd.DataFrame({"x": x})
    model = HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(
        trained, (x + random.normal(scale=0.1, size=400) > 0).astype(int)
    )
    joblib.dump(model, tmp_path / "model.joblib")
    trained.head(40).to_csv(tmp_path / "rows.csv", index=False)

    def right(values: list[float]) -> list[float]:
        return list(model.predict_proba(pd.DataFrame({"x": values}))[:, 1])

    def wrong_among(client: httpx2.Client, values: list[float]) -> int:
        pairs = zip(ask(client, values), right(values), strict=True)
        return sum(abs(answer - expected) > 1e-9 for answer, expected in pairs)

    def draw(count: int) -> list[float]:
        return [float(value) for value in random.uniform(-1, 1, count)]

    with planted_service(runtime, tmp_path / "service", session_postgres, fault_redis) as stack, stack.client() as door:
        hold = stack.folder / "site" / "hold"
        hold.touch()
        probe = [float(value) for value in np.linspace(-1, 1, 200)]
        wrong = wrong_among(door, probe) / len(probe)
        assert 0.05 < wrong < 0.5  # the fault is served
        enough = math.ceil(math.log(1e-9) / math.log(1 - SHARE * wrong))
        sent = len(probe)
        while sent < enough:
            wrong_among(door, draw(40))
            sent += 40
        assert open_alerts(door) == []
        kill_in_the_middle_of_a_round(stack, hold)
        (alert,) = wait_until(lambda: open_alerts(door) or None, seconds=120)  # a process starts anew
        assert (alert["model"], alert["kind"], alert["level"]) == (MODEL, "self_audit", "high")
        assert alert["details"]["scorer"] == "treelite"
        # The killed process has told nothing of them, and each is told once.
        with engine_of(stack) as engine, engine.connect() as connection:
            incidents = connection.execute(select(Incident.input_id, Alert.details).join(Alert)).all()
        rows = [incident.input_id for incident in incidents]
        assert len(rows) == len(set(rows)) == incidents[0].details["rows_differing"] > 0

        # From here on every answer is right: in both processes, to single rows, batches and files.
        def single(value: float) -> float:
            body = {"model": MODEL, "features": {"x": value}}
            answer = door.post("/predict", json=body, headers={"Prefer": "wait=30"})
            assert answer.status_code == 200, answer.text
            return float(answer.json()["probability"])

        values = draw(60)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(single, values))
        assert answers == pytest.approx(right(values), abs=1e-12)
        lineage = door.get(f"/jobs/{last_job(door)}/lineage", params={"row": 0}).json()
        assert lineage["version"]["scorer"] == "pipeline"
        assert sum(wrong_among(door, draw(40)) for _ in range(5)) == 0
        text = io.StringIO()
        csv.writer(text).writerows([["x"], *([value] for value in probe)])
        job = check_taken(post_csv(door, text.getvalue().encode(), f"/models/{MODEL}/predict_csv"))["id"]
        wait_until(lambda: door.get(f"/jobs/{job}").json()["status"] == "succeeded" or None)
        lines = list(csv.DictReader(io.StringIO(door.get(f"/jobs/{job}/output.csv").text)))
        assert [float(line["probability"]) for line in lines] == pytest.approx(right(probe), abs=1e-12)

        # A replay of the version by itself says which of its answers were wrong.
        replay = door.post("/replays", json={"model": f"{MODEL}@1"}).json()["id"]
        wait_until(lambda: door.get(f"/jobs/{replay}").json()["status"] == "succeeded" or None)
        again = list(csv.DictReader(io.StringIO(door.get(f"/jobs/{replay}/output.csv").text)))
        moved = [line for line in again if abs(float(line["score_before"]) - float(line["score_after"])) > 1e-9]
        assert len(moved) >= len(rows)
        assert {line["job_id"] for line in moved} >= {example["job_id"] for example in alert["details"]["examples"]}

        def reasons() -> list[str]:
            return [why for why in door.get("/health").json()["reasons"] if "by its pipeline" in why]

        assert f"alert {alert['id']}" in wait_until(lambda: reasons() or None)[0]
        assert door.get("/health").json()["status"] == "degraded"
        assert wait_until(lambda: f'guichet_suspended{{model="{MODEL}@1"}} 1.0' in door.get("/metrics").text or None)
        if runtime == "sync":  # a restart does not forget it
            stack.stop("api")
            stack.start_api()
            stack.wait_for_models(1)
            assert wrong_among(door, probe) == 0
        assert [one["id"] for one in open_alerts(door)] == [alert["id"]]

        # Acknowledged, it is scored the fast way again, and caught again.
        closed = door.post(f"/alerts/{alert['id']}/acknowledge", json={"reason": "let us see"}).json()
        assert closed["closed_at"] is not None
        (noted,) = door.get("/logs/audit", params={"action": "alert.acknowledged"}).json()["items"]
        assert (noted["target"], noted["details"]["reason"]) == (f"alert:{alert['id']}", "let us see")
        deadline = time.monotonic() + 60
        while not open_alerts(door):
            assert time.monotonic() < deadline
            wrong_among(door, draw(40))
        assert open_alerts(door)[0]["id"] != alert["id"]
