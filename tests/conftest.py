"""What tests share: real servers, the example models, and a running service of each runtime."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psycopg2
import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Engine

from scripts.servers.postgres import Postgres
from scripts.servers.redis import Redis
from shared.config.settings import Settings
from shared.database.engine import make_engine
from shared.packages.package import Package, read_package
from tests.e2e.browser import NOT_RUN, has_browser
from tests.support.stack import MODELS, Stack, build_examples, queue_stack, sync_stack

ROOT = Path(__file__).resolve().parent.parent

# Two cores may be busy with something else: how long an example takes says nothing about the code.
settings.register_profile("guichet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("guichet")


# Files of tests that take longest begin first, so that no process ends long after the others.
LONGEST = (
    "test_registering",
    "test_routes",
    "test_lineage",
    "test_csv_output",
    "test_csv",
    "test_reproductions",
    "test_training",
    "test_csv_upload",
    "test_promotions",
    "test_tracing",
    "test_console",
    "test_registry",
    "test_gate",
    "test_tutorials",
    "test_lost_answers",
    "test_challenger",
    "test_strangers",
    "test_logs_and_metrics",
    "test_keys",
    "test_notebook",
    "test_artefact",
    "test_erasure",
    "test_selection",
    "test_openapi",
    "test_csv_refusals",
    "test_console_jobs",
    "test_console_models",
    "test_trainings",
    "test_rehearse",
    "test_shadow_process",
    "test_structure",
    "test_paths",
    "test_unavailable",
    "test_train",
    "test_files",
    "test_words",
    "test_ready",
    "test_key_routes",
    "test_console_operations",
    "test_monitoring",
    "test_visitors",
    "test_counting",
    "test_replays",
    "test_attrition_flat",
    "test_flower",
    "test_backup",
    "test_submitting",
    "test_foreign",
    "test_decisions",
    "test_examples",
    "test_contracts",
    "test_connections",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(LONGEST)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not has_browser():
        terminalreporter.write_line(NOT_RUN, yellow=True)


def create_database(postgres: Postgres, name: str, *, template: str = "template1") -> str:
    """Make an empty database in the cluster, or a copy of another one; return its URL."""
    connection = psycopg2.connect(postgres.url_of("postgres").replace("+psycopg2", ""))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    connection.close()
    return postgres.url_of(name)


@pytest.fixture(scope="session")
def session_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A PostgreSQL that every test shares, each with a database of its own."""
    with Postgres(tmp_path_factory.mktemp("pg")) as server:
        yield server


@pytest.fixture(scope="session")
def session_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A Redis that the queue stack has to itself."""
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example models and a database of them, which one of the processes that run the tests has made for all."""
    run = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        run = run.parent
    folder = run / "examples"
    with (run / "examples.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            build_examples(folder)
    return folder


@pytest.fixture(scope="session")
def models_dir(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example models, to which tests add their own."""
    copy = tmp_path_factory.mktemp("models")
    shutil.copytree(trained / MODELS, copy, dirs_exist_ok=True)
    return copy


@pytest.fixture(scope="session")
def example_package(models_dir: Path) -> Callable[[str], Package]:
    """Return what training an example model gave: its card, its pipeline, its reference rows."""

    def read(name: str) -> Package:
        folder = models_dir / name / "1"
        return read_package(folder / "model.joblib", folder / "model.json", folder / "reference.jsonl", {})

    return read


@pytest.fixture(scope="session")
def queue(
    tmp_path_factory: pytest.TempPathFactory,
    models_dir: Path,
    trained: Path,
    session_postgres: Postgres,
    session_redis: Redis,
) -> Iterator[Stack]:
    """The queue runtime: API, workers, PostgreSQL, Redis."""
    create_database(session_postgres, "contracts")
    with queue_stack(
        tmp_path_factory.mktemp("queue"),
        models_dir,
        trained,
        postgres=session_postgres,
        redis=session_redis,
        database="contracts",
    ) as stack:
        yield stack


@pytest.fixture(scope="session")
def sync(tmp_path_factory: pytest.TempPathFactory, models_dir: Path, trained: Path) -> Iterator[Stack]:
    """The sync runtime: one process and SQLite."""
    with sync_stack(tmp_path_factory.mktemp("sync"), models_dir, trained) as stack:
        yield stack


@pytest.fixture(params=["queue", "sync"])
def stack(request: pytest.FixtureRequest) -> Stack:
    """Each runtime in turn: the same contract holds on both."""
    running: Stack = request.getfixturevalue(request.param)
    return running


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx2.Client]:
    """A client of the running service."""
    with stack.client() as client:
        yield client


@pytest.fixture
def engine(stack: Stack) -> Iterator[Engine]:
    """The database of the running service, to look at what was stored."""
    engine = make_engine(stack.database_url)
    yield engine
    engine.dispose()


def example_rows(model: str) -> list[dict[str, Any]]:
    """Return the rows to try of an example model."""
    rows: list[dict[str, Any]] = json.loads((ROOT / "examples" / model / "rows.json").read_text())
    return rows


@pytest.fixture
def attrition_row() -> dict[str, Any]:
    """A good row of the attrition model."""
    return dict(example_rows("attrition")[0])


@pytest.fixture
def credit_row() -> dict[str, Any]:
    """A good row of the credit model."""
    return dict(example_rows("credit")[0])


@pytest.fixture
def energy_row() -> dict[str, Any]:
    """A good row of the energy model."""
    return dict(example_rows("energy")[0])


@pytest.fixture
def no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no setting of the shell that runs the tests reach one that makes Settings itself."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
