"""An alias that moves while several clients ask: every answer names who decided, no job is lost, soon all are new."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import joblib
import pytest
from sqlalchemy import text

from scripts.servers.postgres import Postgres
from scripts.servers.redis import Redis
from shared.database.engine import session_scope
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from tests.contracts.helpers import wait_until
from tests.contracts.versions import COLUMNS, fitted, rows_of
from tests.faults.either import engine_of, new_stack, start
from tests.support.brief import prove_briefly
from tests.support.stack import Stack, free_port

pytestmark = pytest.mark.long

MODEL = "moved"
LIMIT = 5.0  # seconds, from the answer of the promotion until no process answers with the version before
WORKERS = (("one", "interactive"), ("bulk", "bulk,maintenance"))
ROW = rows_of(1)[0]
FULL = {"Prefer": "wait=60"}


@dataclass
class Traffic:
    """What the clients were answered: (time, version, probability), and the jobs that nobody waited for."""

    answers: list[tuple[float, int, float]] = field(default_factory=list)
    jobs: dict[str, int] = field(default_factory=dict)  # id -> the version that it was accepted for
    refused: list[str] = field(default_factory=list)


@contextmanager
def two_versions(runtime: str, folder: Path, postgres: Postgres, redis: Redis) -> Iterator[Stack]:
    """Yield a running service of a model with two versions that disagree."""
    with new_stack(runtime, folder, postgres, redis, name=f"moved-{runtime}", model=MODEL) as stack:
        with engine_of(stack) as engine, pytest.MonkeyPatch.context() as patch:
            prove_briefly(patch)
            for weight in (0, 25):
                estimator, frame = fitted(weight, COLUMNS)
                joblib.dump(estimator, folder / "model.joblib")
                frame.to_csv(folder / "rows.csv", index=False)
                with session_scope(engine) as session:
                    options = AddOptions(reference=folder / "rows.csv", name=MODEL)
                    add(session, folder / "model.joblib", options, models_dir=folder / "models")
        start(stack, *WORKERS, models=1)
        yield stack


@contextmanager
def asking(urls: list[str], *, clients: int) -> Iterator[Traffic]:
    """Ask each address while the block runs: in turn for a row that is waited for, and for one that is not."""
    traffic, ends = Traffic(), threading.Event()

    def ask(url: str) -> None:
        with httpx2.Client(base_url=url, timeout=90) as client:
            while not ends.is_set():
                answer = client.post(f"/models/{MODEL}/predict", json={"features": ROW}, headers=FULL)
                if answer.status_code == 200:
                    body = answer.json()
                    traffic.answers.append((time.monotonic(), body["model_version"], body["probability"]))
                else:
                    traffic.refused.append(answer.text)
                accepted = client.post("/jobs", json={"model": MODEL, "features": ROW})
                if accepted.status_code == 202:
                    traffic.jobs[accepted.json()["id"]] = accepted.json()["model_version"]
                else:
                    traffic.refused.append(accepted.text)

    with ThreadPoolExecutor(clients) as pool:
        calls = [pool.submit(ask, urls[place % len(urls)]) for place in range(clients)]
        try:
            yield traffic
        finally:
            ends.set()
        for call in calls:
            call.result(120)


def move(door: httpx2.Client, method: str, path: str, body: dict[str, Any]) -> float:
    """Move the champion; return when that was answered."""
    moved = door.request(method, f"/models/{MODEL}/aliases/champion{path}", json=body | {"reason": "to try it"})
    assert moved.status_code == 200, moved.text
    return time.monotonic()


@pytest.mark.parametrize("runtime", ["queue", "sync"])
def test_promotion_under_load_takes_effect_in_every_process_and_loses_nothing(
    runtime: str,
    tmp_path: Path,
    session_postgres: Postgres,
    fault_redis: Redis,
    record_property: Callable[[str, object], None],
) -> None:
    """In the queue runtime two API processes are asked, and one of them is told of the promotion."""
    with ExitStack() as exits:
        stack = exits.enter_context(two_versions(runtime, tmp_path / "service", session_postgres, fault_redis))
        door = exits.enter_context(stack.client())
        urls = [stack.url]
        if runtime == "queue":
            port = free_port()
            stack.start("api-2", "api", PORT=str(port))
            urls.append(f"http://127.0.0.1:{port}")
            second = exits.enter_context(httpx2.Client(base_url=urls[1]))
            wait_until(lambda: _is_ready(second), seconds=120)
        scores = {}
        for version in (1, 2):
            answer = door.post(f"/models/{MODEL}@{version}/predict", json={"features": ROW}, headers=FULL)
            assert (answer.status_code, answer.json()["model_version"]) == (200, version)
            scores[version] = answer.json()["probability"]
        assert scores[1] != scores[2]
        moves: list[tuple[float, int]] = []
        with asking(urls, clients=4) as traffic:
            time.sleep(3)
            for method, path, body, version in (
                ("PUT", "", {"version": 2}, 2),
                ("POST", "/rollback", {}, 1),
                ("PUT", "", {"version": 2}, 2),
            ):
                moves.append((move(door, method, path, body), version))
                time.sleep(LIMIT + 2)
        assert traffic.refused == []
        assert all(probability == scores[version] for _, version, probability in traffic.answers)
        for place, (at, version) in enumerate(moves):
            end = moves[place + 1][0] if place + 1 < len(moves) else float("inf")
            after = [(when - at, each) for when, each, _ in traffic.answers if at <= when < end - 0.5]
            first_new = min(seconds for seconds, each in after if each == version)
            last_old = max((seconds for seconds, each in after if each != version), default=0.0)
            record_property(f"move {place + 1}", f"{len(after)} answers, {first_new:.3f} s, {last_old:.3f} s")
            assert first_new <= LIMIT
            assert last_old <= LIMIT
        assert set(traffic.jobs.values()) == {1, 2}
        with engine_of(stack) as engine:

            def have_ended() -> bool | None:
                with engine.connect() as connection:
                    count = connection.scalar(text("SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')"))
                return count == 0 or None

            wait_until(have_ended, seconds=120)
            with engine.connect() as connection:
                rows = connection.execute(
                    text(
                        "SELECT CAST(j.id AS text), j.state, v.version, o.probability FROM jobs j "
                        "JOIN model_versions v ON v.id = j.model_version_id JOIN model_inputs i ON i.job_id = j.id "
                        "LEFT JOIN model_outputs o ON o.input_id = i.id"
                    )
                ).all()
        decided = {row[0]: tuple(row[1:]) for row in rows}
        assert len(decided) == len(rows) == len(traffic.jobs) + len(traffic.answers) + 2
        for job, version in traffic.jobs.items():
            assert decided[job] == ("succeeded", version, scores[version])


def _is_ready(client: httpx2.Client) -> bool | None:
    try:
        return client.get("/readyz").status_code == 200 or None
    except httpx2.TransportError:
        return None
