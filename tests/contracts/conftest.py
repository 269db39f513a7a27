"""What only the contract tests use: clients and engines that last, and a model that fails on demand."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import joblib
import numpy as np
import pytest
from sqlalchemy import Engine

from shared.database.engine import make_engine, session_scope
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from tests.contracts.helpers import apart, wait_until
from tests.contracts.moody import Moody
from tests.support.stack import Stack


@pytest.fixture(scope="session", autouse=True)
def _brief_proof() -> Iterator[None]:
    """Ask models for as few rows as a proof may have; the fastest way to score is measured as ever, and so the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shared.scoring.selection.PROOF", 0)
        yield


@pytest.fixture(scope="session")
def clients() -> Iterator[dict[str, httpx2.Client]]:
    """Clients by URL: to make one takes longer than most of these tests."""
    made: dict[str, httpx2.Client] = {}
    yield made
    for client in made.values():
        client.close()


@pytest.fixture(scope="session")
def engines() -> Iterator[dict[str, Engine]]:
    """Engines by URL, for the same reason."""
    made: dict[str, Engine] = {}
    yield made
    for engine in made.values():
        engine.dispose()


@pytest.fixture
def client(stack: Stack, clients: dict[str, httpx2.Client]) -> httpx2.Client:
    """A client of the running service."""
    return clients.setdefault(stack.url, clients.get(stack.url) or stack.client())


@pytest.fixture
def engine(stack: Stack, engines: dict[str, Engine]) -> Engine:
    """The database of the running service, to look at what was stored."""
    return engines.setdefault(stack.database_url, engines.get(stack.database_url) or make_engine(stack.database_url))


@pytest.fixture(scope="session")
def keyed_services() -> Iterator[tuple[ExitStack, dict[str, Stack]]]:
    """Services that want keys, by the URL of the one beside them, and what must be closed with them."""
    with ExitStack() as closing:
        yield closing, {}


@pytest.fixture
def keyed(
    stack: Stack, keyed_services: tuple[ExitStack, dict[str, Stack]], tmp_path_factory: pytest.TempPathFactory
) -> Stack:
    """The runtime behind an API that wants keys. Tests share it: each makes keys of its own, and asks for own jobs."""
    closing, services = keyed_services
    if stack.url not in services:
        services[stack.url] = closing.enter_context(apart(stack, tmp_path_factory.mktemp("keyed"), AUTH="keys"))
    return services[stack.url]


@pytest.fixture(scope="session")
def moody_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A trained model and its reference rows, as someone would bring them."""
    folder = tmp_path_factory.mktemp("moody")
    mood = np.linspace(-1, 1, 40)
    joblib.dump(Moody().fit(mood[:, None], mood > 0), folder / "model.joblib")
    (folder / "rows.csv").write_text("mood\n" + "\n".join(f"{value:.6f}" for value in mood) + "\n")
    return folder / "model.joblib", folder / "rows.csv"


@pytest.fixture
def moody(client: httpx2.Client, engine: Engine, moody_files: tuple[Path, Path], models_dir: Path) -> str:
    """The name of a model that raises on 1,000,000 and never returns on 2,000,000."""
    if client.get("/models/moody").status_code == 404:
        model, rows = moody_files
        with session_scope(engine) as session:
            add(session, model, AddOptions(reference=rows, name="moody"), models_dir=models_dir)
        wait_until(lambda: client.get("/models/moody").status_code == 200 or None)
    return "moody"


@pytest.fixture
def speak(client: httpx2.Client, engine: Engine, models_dir: Path, tmp_path: Path) -> Callable[..., str]:
    """Register an example model under another name, with a card that says more."""

    def register(name: str, example: str, **words: Any) -> str:
        if client.get(f"/models/{name}").status_code == 404:
            folder = models_dir / example / "1"
            card = json.loads((folder / "model.json").read_text()) | {"name": name, "version": 1} | words
            (tmp_path / "model.json").write_text(json.dumps(card))
            reference = folder / "reference.jsonl"
            with session_scope(engine) as session:
                model = folder / "model.joblib"
                add(
                    session, model, AddOptions(card=tmp_path / "model.json", reference=reference), models_dir=models_dir
                )
            wait_until(lambda: client.get(f"/models/{name}").status_code == 200 or None)
        return name

    return register
