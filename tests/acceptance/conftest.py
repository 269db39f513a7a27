"""Clients that were written for other services, each before the model that was taken in for it."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from shared.database.engine import make_engine, session_scope
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from tests.contracts.helpers import apart, wait_until
from tests.support.brief import prove_briefly
from tests.support.stack import ROOT, Stack

CONTRACTS: dict[str, Any] = json.loads(Path(__file__).with_name("existing_clients.json").read_text(encoding="utf-8"))
Door = Callable[[str], httpx2.Client]


@pytest.fixture(scope="session")
def doors() -> Iterator[tuple[ExitStack, dict[str, httpx2.Client]]]:
    """Clients by URL, and what must be closed with them."""
    with ExitStack() as closing:
        yield closing, {}


@pytest.fixture
def door(stack: Stack, models_dir: Path, doors: tuple[ExitStack, dict[str, httpx2.Client]]) -> Door:
    """Return the client of a model, whose base URL is all that was changed for it."""
    closing, clients = doors

    def open_door(model: str) -> httpx2.Client:
        url = f"{stack.url}/models/{model}"
        if url not in clients:
            take_in(stack, model, models_dir)
            clients[url] = closing.enter_context(httpx2.Client(base_url=url, timeout=30))
        return clients[url]

    return open_door


@pytest.fixture(scope="session")
def fronts() -> Iterator[tuple[ExitStack, dict[str, Stack]]]:
    """Services whose default model is `turnover`, by runtime, and what must be closed with them."""
    with ExitStack() as closing:
        yield closing, {}


@pytest.fixture
def front(stack: Stack, tmp_path_factory: pytest.TempPathFactory, fronts: tuple[ExitStack, dict[str, Stack]]) -> Stack:
    """A service whose default model is `turnover`: nothing but the host is another one for its client."""
    closing, services = fronts
    if stack.runtime not in services:
        folder = tmp_path_factory.mktemp("front")
        services[stack.runtime] = closing.enter_context(
            apart(stack, folder, models=["turnover"], DEFAULT_MODEL="turnover")
        )
    return services[stack.runtime]


@pytest.fixture
def front_client(front: Stack) -> Iterator[httpx2.Client]:
    with front.client() as client:
        yield client


def take_in(stack: Stack, model: str, models_dir: Path) -> None:
    """Register the model of a client, as `python -m shared.registry add` does; `turnover` is there already."""
    foreign, examples, credit = ROOT / "tests" / "foreign", ROOT / "examples", models_dir / "credit" / "1"
    files: dict[str, tuple[Path, dict[str, Any]]] = {
        "leavers": (
            foreign / "model.joblib",
            {
                "reference": foreign / "rows.csv",
                "scores": "score",
                "contract": examples / "attrition" / "contract.json",
            },
        ),
        "lending": (credit, {"contract": examples / "credit" / "contract.json"}),
        "lending-relaxed": (credit, {"contract": examples / "credit" / "relaxed.json"}),
    }
    artefact, options = files[model]
    engine = make_engine(stack.database_url)
    try:
        with pytest.MonkeyPatch.context() as patch, session_scope(engine) as session:
            prove_briefly(patch)
            add(session, artefact, AddOptions(name=model, **options), models_dir=models_dir)
    finally:
        engine.dispose()
    with stack.client() as client:
        wait_until(lambda: client.get(f"/models/{model}").status_code == 200 or None)
