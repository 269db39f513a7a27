"""A running queue runtime for fault tests: a database of its own, and a Redis that may be emptied and killed."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import psutil
import pytest
from redis import Redis as Client
from sqlalchemy import Engine, text

from scripts.servers.postgres import Postgres
from scripts.servers.redis import Redis
from shared.database.engine import make_engine
from tests.conftest import create_database, example_rows
from tests.faults.models import Trap
from tests.support.stack import Stack, environment, free_port, queue_stack

TERMINAL = ("succeeded", "failed", "canceled", "expired")


def rows_to_score(count: int) -> list[dict[str, Any]]:
    """Return so many different good rows of the energy model."""
    rows = example_rows("energy")
    return [
        rows[index % len(rows)]
        | {
            "heating_degree_days": 2000.0 + index,
            "setpoint_celsius": 19.0 + (index % 7) / 2,
            "occupants": 5 + index % 50,
        }
        for index in range(count)
    ]


@dataclass
class Crowd:
    """Callers that submit rows one by one, and what each was answered."""

    accepted: dict[str, int] = field(default_factory=dict)  # job id -> row
    refused: list[tuple[int, str]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


class Service:
    """The running service, and what a test may do to it."""

    def __init__(self, stack: Stack, engine: Engine) -> None:
        self.stack = stack
        self.engine = engine

    def rows(self, query: str, **values: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(query), values))

    # ── submitting ───────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def submitting(self, rows: list[dict[str, Any]], *, callers: int = 4, rate: float, model: str) -> Iterator[Crowd]:
        """Submit rows at `rate` a second while the block runs; leave when all are answered."""
        crowd = Crowd()
        lock = threading.Lock()
        work = iter(enumerate(rows))
        began = time.monotonic()

        def call() -> None:
            with self.stack.client() as client:
                while True:
                    with lock:
                        index, row = next(work, (None, None))
                    if index is None:
                        return
                    time.sleep(max(0.0, began + index / rate - time.monotonic()))
                    sent_at = time.monotonic()
                    answer = client.post("/jobs", json={"model": model, "features": row})
                    with lock:
                        crowd.seconds.append(time.monotonic() - sent_at)
                        if answer.status_code == 202:
                            crowd.accepted[answer.json()["id"]] = index
                        else:
                            crowd.refused.append((answer.status_code, answer.text))

        with ThreadPoolExecutor(callers) as pool:
            calls = [pool.submit(call) for _ in range(callers)]
            yield crowd
            for done in calls:
                done.result(60)

    def undisturbed(self, rows: list[dict[str, Any]], *, model: str) -> list[float]:
        """Return the prediction of every row when nothing is broken."""
        with self.stack.client(Prefer="wait=30") as client:
            predictions: list[float] = []
            for start in range(0, len(rows), 100):
                answer = client.post("/predict_batch", json={"model": model, "rows": rows[start : start + 100]})
                assert answer.status_code == 200, answer.text
                predictions += [item["prediction"] for item in answer.json()["items"]]
        return predictions

    # ── what is promised ─────────────────────────────────────────────────────────────────────────────────────────

    def wait_until(self, what: Callable[[], bool], *, seconds: float, every: float = 0.05) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            if time.monotonic() > deadline:
                logs = "\n".join(line[:300] for line in self.stack.logs(10).splitlines())
                raise AssertionError(f"not within {seconds} s:\n{self.states()}\n{logs}")
            time.sleep(every)

    def states(self) -> list[Any]:
        return self.rows("SELECT state, attempt, crash_count, count(*) FROM jobs GROUP BY 1, 2, 3 ORDER BY 1, 2, 3")

    def wait_until_all_ended(self, *, seconds: float) -> None:
        unfinished = "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')"
        self.wait_until(lambda: self.rows(unfinished)[0][0] == 0, seconds=seconds)

    def check_promise(self, crowd: Crowd, oracle: list[float]) -> None:
        """Every 202 was kept: its job succeeded, with exactly one output, which is that of an undisturbed run."""
        stored = self.rows(
            "SELECT jobs.id::text, state, array_remove(array_agg(prediction), NULL) FROM jobs "
            "JOIN model_inputs ON job_id = jobs.id LEFT JOIN model_outputs ON input_id = model_inputs.id GROUP BY 1, 2"
        )
        by_id = {job_id: (state, outputs) for job_id, state, outputs in stored}
        assert {job_id: by_id[job_id][0] for job_id in crowd.accepted} == dict.fromkeys(crowd.accepted, "succeeded")
        for job_id, row in crowd.accepted.items():
            # the last bits of a dot product differ with the number of rows that are scored together
            assert by_id[job_id][1] == [pytest.approx(oracle[row], rel=1e-12)]

    # ── harm ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def pool_child(self, name: str = "interactive") -> psutil.Process | None:
        """Return the process in which the worker runs its tasks, None while there is none."""
        with suppress(psutil.NoSuchProcess, KeyError):
            children = psutil.Process(self.stack.processes[name].pid).children()
            return children[0] if children else None
        return None

    def freeze_in_the_middle(self, *, seconds: float) -> psutil.Process:
        """Stop the pool child at a moment when it holds claims, none of them a job's last attempt."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            child = self.pool_child()
            if child is None:
                time.sleep(0.05)
                continue
            with suppress(psutil.NoSuchProcess):
                child.suspend()
                held = self.rows(
                    "SELECT count(*), coalesce(bool_or(attempt >= max_attempts), false) FROM jobs "
                    "WHERE state = 'running' AND leased_by LIKE :worker",
                    worker=f"%:{child.pid}",
                )[0]
                if held[0] and not held[1]:
                    return child
                child.resume()
            time.sleep(0.003)
        raise AssertionError(f"no claim was met within {seconds} s:\n{self.states()}")

    def kill_pool_child(self) -> None:
        """SIGKILL the process that scores, in the middle of a claim; the worker's parent lives on."""
        self.freeze_in_the_middle(seconds=30).kill()

    def kill_while_it_holds_a_chunk(self, *, whole_worker: bool, seconds: float = 30) -> bool:
        """SIGKILL the process that scores files, or its whole worker, while it holds a chunk; False if none is left."""
        deadline = time.monotonic() + seconds
        held = "SELECT DISTINCT leased_by FROM job_chunks WHERE state = 'running'"
        while time.monotonic() < deadline:
            workers = psutil.Process(self.stack.processes["bulk"].pid).children()
            for name in self.rows(held):
                child = next((child for child in workers if name[0].endswith(f":{child.pid}")), None)
                with suppress(psutil.NoSuchProcess):
                    if child is not None:
                        child.suspend()
                        if name in self.rows(held):
                            child.kill()
                            if whole_worker:
                                self.stack.stop("bulk", sig=signal.SIGKILL)
                            return True
                        child.resume()
            if self.rows("SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')")[0][0] == 0:
                return False
            time.sleep(0.003)
        raise AssertionError(f"no chunk was met within {seconds} s:\n{self.states()}")

    def kill_worker(self) -> None:
        """SIGKILL the worker and everything that it started, in the middle of a claim."""
        self.freeze_in_the_middle(seconds=30)
        self.stack.stop("interactive", sig=signal.SIGKILL)


def add_trap(stack: Stack, name: str, model: Trap | None = None) -> None:
    """Register the model that does what the worst models do, or one of its kind."""
    features = pd.DataFrame({"mark": [0.0, 1.0, 2.0, 3.0] * 5, "chance": [0.05 * step for step in range(20)]})
    joblib.dump((model or Trap()).fit(features, [0, 1] * 10), stack.folder / "trap.joblib")
    features.to_csv(stack.folder / "trap.csv", index=False)
    stack.run(
        "shared.registry", "add", str(stack.folder / "trap.joblib"),
        "--reference", str(stack.folder / "trap.csv"), "--name", name, "--labels", "0=no,1=yes",
    )  # fmt: skip


@pytest.fixture(scope="session")
def fault_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A Redis that nobody else uses, so that it may be harmed."""
    with Redis(tmp_path_factory.mktemp("fault-redis")) as server:
        yield server


@pytest.fixture(scope="session")
def running(
    tmp_path_factory: pytest.TempPathFactory,
    models_dir: Path,
    trained: Path,
    session_postgres: Postgres,
    fault_redis: Redis,
) -> Iterator[Service]:
    create_database(session_postgres, "faults")
    folder = tmp_path_factory.mktemp("faults")
    with queue_stack(
        folder, models_dir, trained, postgres=session_postgres, redis=fault_redis, database="faults"
    ) as stack:
        add_trap(stack, "trap")
        engine = make_engine(stack.database_url)
        yield Service(stack, engine)
        engine.dispose()


@pytest.fixture
def service(running: Service) -> Service:
    """The service with no jobs and both workers."""
    with running.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM jobs")
    for name, options in (("interactive", {}), ("bulk", {"lanes": "bulk,maintenance"})):
        process = running.stack.processes.get(name)
        if process is None or process.poll() is not None:
            running.stack.start_worker(name, **options)
    return running


@pytest.fixture(scope="session")
def idle(tmp_path_factory: pytest.TempPathFactory, session_postgres: Postgres, fault_redis: Redis) -> Iterator[Service]:
    """A service of which nothing runs, with two models: `trap`, and `other`, which is another one of the same kind."""
    folder = tmp_path_factory.mktemp("idle")
    env = environment(
        folder,
        runtime="queue",
        port=free_port(),
        database_url=create_database(session_postgres, "idle"),
        models=folder / "models",
        redis_url=fault_redis.url,
    ) | {"DEFAULT_MODEL": "trap"}
    stack = Stack("queue", env, folder, int(env["PORT"]), postgres=session_postgres, redis=fault_redis)
    stack.run("alembic", "upgrade", "head")
    for name in ("trap", "other"):
        add_trap(stack, name)
    engine = make_engine(stack.database_url)
    yield Service(stack, engine)
    engine.dispose()


@pytest.fixture
def quiet(idle: Service) -> Iterator[Service]:
    """The same without jobs and messages; what a test starts is stopped after it."""
    with idle.engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE jobs, workers, timed_tasks CASCADE")
    with Client.from_url(idle.stack.env["REDIS_URL"]) as client:
        client.flushall()
    for log in idle.stack.folder.glob("*.log"):
        log.unlink()
    yield idle
    idle.stack.stop_all()
