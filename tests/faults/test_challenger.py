"""Challengers that crash, hang or eat memory, and processes that are killed while they score: no answer feels it."""

import os
import re
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import joblib
import pandas as pd
import psutil
import pytest
from sqlalchemy import func, select

from scripts.servers.postgres import Postgres
from scripts.servers.redis import Redis
from shared.database.engine import session_scope
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from shared.tables import Shadow, ShadowScore
from tests.contracts.helpers import wait_until
from tests.faults.either import engine_of, new_stack, start
from tests.faults.models import ARMED, GOOD, Armed, Trap
from tests.support.brief import prove_briefly
from tests.support.stack import Stack

pytestmark = pytest.mark.long

CAUSES = {
    "exit": "ended while it had to score",
    "hang": "did not score",
    "eat": "SHADOW_MEMORY_MB=700",
    "load": "ended while it had to load (exit status 9)",
}
WORKERS = (("one", "interactive"), ("bulk", "bulk,maintenance"))
FEATURES = pd.DataFrame({"mark": [0.0, 1.0, 2.0, 3.0] * 5, "chance": [0.05 * step for step in range(20)]})
WHY = {"reason": "to try it"}


@contextmanager
def armed_service(
    runtime: str, folder: Path, postgres: Postgres, redis: Redis, *acts: str, **env: str
) -> Iterator[Stack]:
    """Yield a running service with a model for each act: version 1 decides, version 2 acts on armed rows."""
    with new_stack(runtime, folder, postgres, redis, name=f"challenger-{acts[0]}", model=acts[0]) as stack:
        with engine_of(stack) as engine, pytest.MonkeyPatch.context() as patch:
            prove_briefly(patch)
            for act in acts:
                for estimator in (Trap(), Armed(str(folder / act), act)):
                    joblib.dump(estimator.fit(FEATURES, [0, 1] * 10), folder / "model.joblib")
                    FEATURES.to_csv(folder / "rows.csv", index=False)
                    with session_scope(engine) as session:
                        options = AddOptions(reference=folder / "rows.csv", name=act)
                        add(session, folder / "model.joblib", options, models_dir=folder / "models")
        stack.env |= {"SHADOW_TIMEOUT_SECONDS": "10", "SHADOW_MEMORY_MB": "700"} | env
        start(stack, *WORKERS, models=len(acts))
        yield stack


def challenge(door: httpx2.Client, name: str) -> None:
    moved = door.put(f"/models/{name}/aliases/challenger", json={"version": 2, **WHY})
    assert moved.status_code == 200, moved.text
    wait_until(lambda: shadow(door, name), seconds=120)


def shadow(door: httpx2.Client, name: str) -> Any:
    return door.get(f"/models/{name}/aliases/challenger").json()["shadow"]


def stopped_by_metrics(door: httpx2.Client) -> dict[str, float]:
    """Return what Prometheus reads of each challenger: 1 for one that is left alone."""
    text = door.get("/metrics").text
    return {name: float(value) for name, value in re.findall(r'challenger_stopped\{model="(\w+)@2"\} (.+)', text)}


def seconds_of(door: httpx2.Client, name: str, mark: float = ARMED) -> float:
    """Have a row decided by the champion, check the answer, and return how long it took."""
    features = {"mark": mark, "chance": 0.25}
    began = time.perf_counter()
    answer = door.post(f"/models/{name}/predict", json={"features": features}, headers={"Prefer": "wait=30"})
    seconds = time.perf_counter() - began
    assert answer.status_code == 200, answer.text
    assert answer.json()["probability"] == 0.25
    return seconds


def shadow_processes(stack: Stack) -> list[int]:
    """Return the processes of challengers of a service."""
    return [
        child.pid
        for process in stack.processes.values()
        for child in psutil.Process(process.pid).children(recursive=True)
        if "shared.rescoring.shadow_child" in child.cmdline()
    ]


@pytest.mark.parametrize("runtime", ["queue", "sync"])
def test_bad_challengers_are_left_alone_and_the_champions_answer_on(
    runtime: str, tmp_path: Path, session_postgres: Postgres, fault_redis: Redis
) -> None:
    folder = tmp_path / "service"
    with armed_service(runtime, folder, session_postgres, fault_redis, *CAUSES) as stack, stack.client() as door:
        for name in CAUSES:
            seconds_of(door, name)
        before = [seconds_of(door, name) for _ in range(40) for name in CAUSES]
        (folder / "load").touch()
        for name in CAUSES:
            challenge(door, name)
        during: list[float] = []
        deadline = time.monotonic() + 420
        while any(shadow(door, name)["state"] != "stopped" for name in CAUSES):
            assert time.monotonic() < deadline, stack.logs()
            during += [seconds_of(door, name) for _ in range(5) for name in CAUSES]
            time.sleep(0.2)
        # Their processes have the lowest priority; what is left is noise, which is large on a busy machine.
        limit = 2 * statistics.median(before) + 0.02
        assert statistics.median(during) < limit, (statistics.median(before), statistics.median(during), max(during))

        def complaints() -> list[str] | None:
            complaints = [why for why in door.get("/health").json()["reasons"] if "has been stopped since" in why]
            return complaints if len(complaints) == len(CAUSES) else None

        health = wait_until(complaints)
        assert door.get("/health").json()["status"] == "degraded"
        assert door.get("/readyz").status_code == 200
        wait_until(lambda: stopped_by_metrics(door) == dict.fromkeys(CAUSES, 1.0) or None)
        for name, cause in CAUSES.items():
            (why,) = [why for why in health if f"The challenger {name}@2 " in why]
            assert cause in why
            assert cause in shadow(door, name)["reason"]
            report = door.get(f"/models/{name}/comparison")  # of rows on which it failed alone, or there are none
            assert (report.status_code, report.json().get("pairs")) in ((200, 0), (409, None))
            assert cause in report.text
        assert shadow_processes(stack) == []

        # Set again, one scores again.
        taken_away = door.request("DELETE", "/models/exit/aliases/challenger", json=WHY)
        assert taken_away.status_code == 204, taken_away.text
        challenge(door, "exit")
        seconds_of(door, "exit", GOOD)
        wait_until(lambda: shadow(door, "exit")["scored"] == 1 or None, seconds=120)
        assert "exit@2" not in str(door.get("/health").json()["reasons"])
        wait_until(lambda: stopped_by_metrics(door) == dict.fromkeys(CAUSES, 1.0) | {"exit": 0.0} or None)
        assert door.get("/models/exit/comparison").json()["pairs"] == 1


@pytest.mark.parametrize("runtime", ["queue", "sync"])
def test_rows_of_files_are_scored_where_a_share_of_them_is_to_be(
    runtime: str, tmp_path: Path, session_postgres: Postgres, fault_redis: Redis
) -> None:
    folder, share = tmp_path / "service", {"SHADOW_FILE_SHARE": "1"}
    with (
        armed_service(runtime, folder, session_postgres, fault_redis, "share", **share) as stack,
        stack.client() as door,
    ):
        challenge(door, "share")
        rows = "".join(f"{GOOD},{place / 1_000}\n" for place in range(150))
        sent = door.post(
            "/models/share/predict_csv", content=f"mark,chance\n{rows}", headers={"Content-Type": "text/csv"}
        )
        assert sent.status_code == 202, sent.text
        seconds_of(door, "share", GOOD)
        wait_until(lambda: shadow(door, "share")["scored"] == 151 or None, seconds=120)
        assert door.get("/models/share/comparison").json()["pairs"] == 151


@pytest.mark.parametrize("runtime", ["queue", "sync"])
def test_killed_in_the_middle_nothing_is_counted_twice(
    runtime: str, tmp_path: Path, session_postgres: Postgres, fault_redis: Redis
) -> None:
    folder = tmp_path / "service"
    hold, asks = folder / "hold", folder / "hold.asks"
    with armed_service(runtime, folder, session_postgres, fault_redis, "hold") as stack, stack.client() as door:
        stack_before = stack.processes.copy()
        hold.touch()
        challenge(door, "hold")
        rows = [{"mark": ARMED, "chance": place / 100} for place in range(60)]

        def decide() -> None:
            answer = door.post("/models/hold/predict_batch", json={"rows": rows}, headers={"Prefer": "wait=30"})
            assert answer.status_code == 200, answer.text

        def wait_until_asked() -> int:
            return int(wait_until(lambda: (asks.exists() and asks.read_text()) or None, seconds=120))

        decide()
        os.kill(wait_until_asked(), signal.SIGKILL)  # the challenger's own process
        hold.unlink()
        wait_until(lambda: shadow(door, "hold")["scored"] == 60 or None, seconds=120)
        asks.unlink()

        hold.touch()
        decide()
        wait_until_asked()
        if runtime == "queue":  # the process that has it scored; its pool starts another
            with engine_of(stack) as engine, engine.connect() as connection:
                holder = connection.scalar(select(Shadow.leased_by))
            os.kill(int(holder.rpartition(":")[2]), signal.SIGKILL)
        else:
            stack.stop("api", sig=signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(int(asks.read_text())) or None)  # its process went with it
        hold.unlink()
        if runtime == "sync":
            start(stack, models=1)
        assert stack.processes.keys() == stack_before.keys()
        wait_until(lambda: shadow(door, "hold")["scored"] == 120 or None, seconds=180)
        with engine_of(stack) as engine, engine.connect() as connection:
            stored = connection.execute(
                select(func.count(), func.count(ShadowScore.probability)).select_from(ShadowScore)
            ).one()
        assert tuple(stored) == (120, 120)
        body = door.get("/models/hold/comparison").json()
        assert (body["pairs"], body["refused"], body["flips"]["count"]) == (120, 0, 0)
