"""A whole Guichet for the tests: real servers, the real API and workers as child processes, on private ports."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from examples.build import NAMES
from scripts.servers.postgres import Postgres
from scripts.servers.redis import Redis
from shared.database.engine import make_engine, session_scope
from shared.registry.versions import list_versions
from shared.tables import ModelAlias, ModelVersion
from shared.views.views import make_views

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable
START_SECONDS = 180.0
DATABASE, MODELS = "guichet.db", "models"
NEW = "new.db"  # the database of a sync stack as it was before its first start, with the example models alone


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Stack:
    """One running service: its environment, its processes, a client to its API."""

    runtime: str
    env: dict[str, str]
    folder: Path
    port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    postgres: Postgres | None = None
    redis: Redis | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def database_url(self) -> str:
        return self.env["DATABASE_URL"]

    def client(self, **headers: str) -> httpx2.Client:
        """Return a client whose own limit is longer than the longest `Prefer: wait` (60 s)."""
        return httpx2.Client(base_url=self.url, headers=headers, timeout=90)

    def run(self, *arguments: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a module of the service (`python -m ...`) in the stack's environment."""
        return subprocess.run(
            [PYTHON, "-m", *arguments],
            cwd=ROOT,
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=120,
            check=check,
        )

    def start(self, name: str, *arguments: str, **env: str) -> "subprocess.Popen[bytes]":
        """Start a module of the service as a child in a process group of its own; its output goes to NAME.log."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [PYTHON, "-m", *arguments],
                cwd=ROOT,
                env=self.env | env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def start_api(self, **env: str) -> None:
        self.start("api", "api", **env)
        self.wait_until_answers("/readyz")

    def start_worker(self, name: str = "interactive", *, lanes: str = "interactive", **env: str) -> None:
        self.start(
            name,
            "celery",
            "-A",
            "worker.main:app",
            "worker",
            "-Q",
            lanes,
            "-c",
            "1",
            "-n",
            f"{name}@%h",
            "--without-gossip",
            "--without-mingle",
            **env,
        )

    def wait_for_workers(self, count: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        with self.client() as client:
            while len(client.get("/health").json()["workers"]) < count:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no {count} workers within {START_SECONDS} s:\n{self.logs()}")
                time.sleep(0.1)

    def wait_for_models(self, count: int) -> None:
        """Wait until so many models are ready (sync runtime: a start does not wait for those that load slowly)."""
        deadline = time.monotonic() + START_SECONDS
        with self.client() as client:
            names = [item["model"] for item in client.get("/models").json()["items"]]
            assert len(names) == count, names
            while any(client.get(f"/v2/models/{name}/ready").status_code != 200 for name in names):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the models were not loaded within {START_SECONDS} s:\n{self.logs()}")
                time.sleep(0.1)

    def wait_until_answers(self, path: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        with self.client() as client:
            while True:
                try:
                    if client.get(path).status_code == 200:
                        return
                except httpx2.TransportError:
                    pass  # it does not listen yet
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{path} did not answer 200 within {START_SECONDS} s:\n{self.logs()}")
                time.sleep(0.05)

    def logs(self, lines: int = 40) -> str:
        return "\n".join(
            f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
            for path in sorted(self.folder.glob("*.log"))
        )

    def stop(self, name: str, *, sig: int = signal.SIGTERM, timeout: float = 20) -> int:
        """Signal one child (SIGKILL: its whole group), wait for it, return its exit code."""
        process = self.processes.pop(name)
        if sig == signal.SIGKILL:
            os.killpg(process.pid, sig)
        else:
            process.send_signal(sig)
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)
            raise

    def stop_all(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(5)
        self.processes.clear()


def environment(
    folder: Path, *, runtime: str, port: int, database_url: str, models: Path, redis_url: str = ""
) -> dict[str, str]:
    """Return the environment of a service's processes; nothing of the caller's own settings leaks in."""
    kept = {
        name: value for name, value in os.environ.items() if name.startswith(("PATH", "HOME", "LANG", "COV", "TMP"))
    }
    return kept | {
        "RUNTIME": runtime,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "AUTH": "open",
        "DATA_DIR": str(folder),
        "MODELS_DIR": str(models),
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "DEFAULT_MODEL": "attrition",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        # Quick beats, so that a test of recovery takes seconds; the relations between them are the real ones.
        "LEASE_SECONDS": "3",
        "HEARTBEAT_SECONDS": "1",
        "RECOVER_SECONDS": "1",
        "REFRESH_SECONDS": "1",
        "MONITOR_SECONDS": "1",
        "SELF_AUDIT_SHARE": "0",
        "SHADOW_NICENESS": "0",  # beside other tests a challenger would wait for minutes
        "MODEL_UPLOADS": "on",
        "MAX_MODEL_BYTES": "5000000",
        "MODEL_PROOF_SECONDS": "240",
        "MODEL_PROOF_BYTES": "1000000000",
    }


def build_examples(folder: Path) -> None:
    """Train the example models; `folder`, with them and a SQLite database of them, appears when all are there."""
    being_made = folder.with_name("being-made")
    being_made.mkdir()
    url = f"sqlite:///{being_made / DATABASE}"
    env = environment(being_made, runtime="sync", port=free_port(), database_url=url, models=being_made / MODELS)
    stack = Stack("sync", env, being_made, free_port())
    stack.run("alembic", "upgrade", "head")
    training = [stack.start(f"build-{name}", "examples.build", "--native", "--only", name) for name in NAMES]
    assert [process.wait(300) for process in training] == [0] * len(NAMES), stack.logs()
    being_made.rename(folder)


def register_examples(source: Path, url: str) -> None:
    """Copy what the database of `build_examples` says of the example models into a migrated PostgreSQL, with views."""
    trained, engine = make_engine(f"sqlite:///{source / DATABASE}"), make_engine(url)
    with trained.connect() as old, engine.begin() as new:
        for table in (ModelVersion.__table__, ModelAlias.__table__):
            new.execute(table.insert(), [row._asdict() for row in old.execute(table.select())])
            name = table.name
            new.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), max(id)) FROM {name}")
    with session_scope(engine) as session:
        for version in list_versions(session):
            if version.card.get("views"):
                make_views(session, version.name)
    trained.dispose()
    engine.dispose()


@contextmanager
def queue_stack(
    folder: Path, models: Path, examples: Path, *, postgres: Postgres, redis: Redis, database: str
) -> Iterator[Stack]:
    """Yield a queue runtime on a database of its own: API, an interactive worker, a bulk and maintenance worker.

    `models` holds the models that `build_examples` made in `examples`.
    """
    port = free_port()
    env = environment(
        folder,
        runtime="queue",
        port=port,
        database_url=postgres.url_of(database),
        models=models,
        redis_url=redis.url,
    )
    stack = Stack("queue", env, folder, port, postgres=postgres, redis=redis)
    stack.run("alembic", "upgrade", "head")
    register_examples(examples, stack.database_url)
    try:
        stack.start("api", "api")
        stack.start_worker("interactive")
        stack.start_worker("bulk", lanes="bulk,maintenance")
        stack.wait_until_answers("/readyz")
        stack.wait_for_workers(2)
        yield stack
    finally:
        stack.stop_all()


@contextmanager
def sync_stack(folder: Path, models: Path, examples: Path) -> Iterator[Stack]:
    """Yield a sync runtime: one process and a SQLite file."""
    port = free_port()
    url = f"sqlite:///{folder / DATABASE}"
    stack = Stack("sync", environment(folder, runtime="sync", port=port, database_url=url, models=models), folder, port)
    for name in (DATABASE, NEW):
        shutil.copy(examples / DATABASE, folder / name)
    try:
        stack.start_api()
        stack.wait_for_models(len(NAMES))
        yield stack
    finally:
        stack.stop_all()
