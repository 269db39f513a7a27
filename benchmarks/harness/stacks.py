"""Both designs as child processes on the same PostgreSQL and Redis, each with a database of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.harness.probe import connect
from scripts.servers.postgres import Postgres
from scripts.servers.processes import Child, runs, wait_until
from scripts.servers.redis import Redis

ROOT = Path(__file__).resolve().parents[2]
CELERY = [sys.executable, "-m", "celery"]
QUIET = ["--loglevel", "WARNING", "--without-gossip", "--without-mingle"]


@dataclass(slots=True)
class Stack:
    """One design: how its parts are started, and which of them run."""

    name: str
    folder: Path
    env: dict[str, str]
    api_command: list[str]
    port: int
    database: str | None = None  # None: nothing of it is in PostgreSQL
    worker_command: list[str] = field(default_factory=list)  # `-c N` is appended
    children: dict[str, Child] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, part: str, command: list[str]) -> Child:
        """Start a part in the folder of the repository."""
        log = self.folder / "logs" / f"{self.name}-{part}.log"
        child = Child(f"{self.name}-{part}", command, log=log, env=self.env, cwd=ROOT)
        child.start()
        self.children[part] = child
        return child

    def start_api(self) -> float:
        """Start the API and return the seconds until `/readyz` answered 200."""
        started = time.perf_counter()
        child = self.start("api", self.api_command)
        if not wait_until(lambda: not child.alive or answers(f"{self.url}/readyz"), timeout=60, every=0.01):
            raise RuntimeError(f"{child.name} is not ready after 60 s; see {child.log}")
        self.check_alive()
        return time.perf_counter() - started

    def start_worker(self, processes: int) -> None:
        """Start the workers that score; returns at once."""
        self.start("worker", [*self.worker_command, "-c", str(processes)])

    def stop(self, *parts: str) -> None:
        """End these parts (all of them when none is named)."""
        for part in parts or tuple(self.children):
            child = self.children.pop(part, None)
            if child is not None:
                child.send(signal.SIGTERM)
                child.wait(15)
                child.kill()

    def check_alive(self) -> None:
        """Raise RuntimeError if a part has ended by itself."""
        for child in self.children.values():
            if not child.alive:
                lines = [f"{child.name} ended with exit code {child.exit_code} ({child.log}):", *child.last_lines()]
                raise RuntimeError("\n  ".join(lines))

    def processes(self, *parts: str) -> list[psutil.Process]:
        """Return every running process of these parts."""
        family = []
        for part in parts:
            child = self.children.get(part)
            if child is not None and child.pid is not None:
                family += [psutil.Process(child.pid), *child.family()]
        return [process for process in family if runs(process)]


def answers(url: str) -> bool:
    """Return whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def servers(folder: Path) -> Iterator[tuple[Postgres, Redis]]:
    """Run the PostgreSQL and the Redis that both designs share."""
    with Postgres(folder) as postgres, Redis(folder) as redis:
        yield postgres, redis


def child_env(folder: Path, **settings: object) -> dict[str, str]:
    """Return the environment of a server; bytecode is cached, so that a start after the first one is a warm one."""
    ours = {"AUTH", "DATA_DIR", "DATABASE_URL", "HOST", "MODELS_DIR", "PORT", "REDIS_URL", "RUNTIME"}
    env = {key: value for key, value in os.environ.items() if key not in ours | {"PYTHONDONTWRITEBYTECODE"}}
    env["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    return env | {key: str(value) for key, value in settings.items()}


def guichet_queue(folder: Path, models: Path, postgres: Postgres, redis: Redis) -> Stack:
    """Return Guichet in the queue runtime: migrated, with the attrition model."""
    port = free_port()
    database = postgres.create("bench_guichet")
    env = child_env(
        folder,
        RUNTIME="queue",
        AUTH="open",
        HOST="127.0.0.1",
        PORT=port,
        DATABASE_URL=database,
        REDIS_URL=redis.url,
        DATA_DIR=folder / "guichet",
        MODELS_DIR=models,
        LOG_LEVEL="WARNING",
    )
    prepare(env)
    worker = [*CELERY, "-A", "worker.main:app", "worker", "-Q", "interactive", "-n", "interactive@%h", "-E", *QUIET]
    return Stack("guichet", folder, env, [sys.executable, "-m", "api"], port, database, worker)


def guichet_bulk() -> list[str]:
    """Return the command of Guichet's other worker."""
    command = [*CELERY, "-A", "worker.main:app", "worker", "-Q", "bulk,maintenance", "-n", "bulk@%h", "-c", "1"]
    return [*command, *QUIET]


def guichet_sync(folder: Path, models: Path) -> Stack:
    """Return Guichet in the sync runtime on a new SQLite file, with the same model."""
    port = free_port()
    data = folder / "sync"
    data.mkdir()
    settings = {"AUTH": "open", "HOST": "127.0.0.1", "PORT": port, "DATA_DIR": data, "MODELS_DIR": models}
    env = child_env(folder, RUNTIME="sync", LOG_LEVEL="WARNING", **settings)
    prepare(env)
    return Stack("guichet-sync", folder, env, [sys.executable, "-m", "api"], port)


def naive(folder: Path, model: Path, postgres: Postgres, redis: Redis) -> Stack:
    """Return the naive design with the same model file."""
    port = free_port()
    database = postgres.create("bench_naive")
    broker = redis.url.removesuffix("/0") + "/1"
    # Otherwise two OpenMP threads spin for each other over one row, which on busy processors costs it a factor of ten.
    settings = {"NAIVE_DATABASE_URL": database, "NAIVE_REDIS_URL": broker, "NAIVE_MODEL": model, "OMP_NUM_THREADS": 1}
    env = child_env(folder, **settings)
    api = [sys.executable, "-m", "uvicorn", "benchmarks.naive.api:app", "--host", "127.0.0.1", "--port", str(port)]
    api += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    worker = [*CELERY, "-A", "benchmarks.naive.tasks", "worker", "-n", "naive@%h", *QUIET]
    return Stack("naive", folder, env, api, port, database, worker)


def prepare(env: dict[str, str]) -> None:
    """Migrate Guichet's database and register the model; it is trained where MODELS_DIR does not hold it yet."""
    for words in (["alembic", "upgrade", "head"], ["examples.build", "--native", "--only", "attrition"]):
        run = subprocess.run(
            [sys.executable, "-m", *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )
        if run.returncode != 0:
            raise RuntimeError(f"`python -m {' '.join(words)}` failed:\n{run.stdout[-2000:]}{run.stderr[-4000:]}")


def count_jobs(database: str, since: float) -> tuple[int, float]:
    """Return how many jobs made since then (Unix time) succeeded, and when the last of them finished."""
    statement = (
        "SELECT count(*), coalesce(extract(epoch FROM max(finished_at)), 0) FROM jobs"
        " WHERE created_at >= to_timestamp(%s) AND state = 'succeeded'"
    )
    with closing(connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute(statement, (since - 0.05,))
        count, last = cursor.fetchone()
    return int(count), float(last)


def wait_until_idle(stack: Stack, *, timeout: float = 120.0) -> None:
    """Return when none of its jobs is queued or running any more."""
    assert stack.database is not None
    statement = (
        "SELECT EXISTS (SELECT FROM jobs WHERE state = 'queued') OR EXISTS (SELECT FROM jobs WHERE state = 'running')"
    )

    def idle() -> bool:
        stack.check_alive()
        cursor.execute(statement)
        return not cursor.fetchone()[0]

    with closing(connect(stack.database)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            if not wait_until(idle, timeout=timeout, every=0.1):
                raise RuntimeError(f"{stack.name}: jobs are still unfinished {timeout:.0f} s after the load ended")


def cpu_seconds(processes: Iterable[psutil.Process]) -> dict[psutil.Process, float]:
    """Return the processor time that each of these processes has used so far; those that have ended are left out."""
    seconds = {}
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds[process] = times.user + times.system
    return seconds


def cpu_used(before: dict[psutil.Process, float]) -> float:
    """Return the processor time that these processes have used since then, in seconds."""
    return sum(now - before[process] for process, now in cpu_seconds(before).items())


def memory_mb(processes: Iterable[psutil.Process]) -> dict[str, float]:
    """Return RSS (counts shared pages once for each process) and PSS (shares them out), in MB."""
    infos = [process.memory_full_info() for process in processes]
    mb = 1024 * 1024
    return {
        "rss_mb": sum(info.rss for info in infos) / mb,
        "pss_mb": sum(getattr(info, "pss", info.uss) for info in infos) / mb,
    }


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
