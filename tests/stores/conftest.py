"""A store of each kind, empty, and a model's package to put there."""

import time
from collections.abc import Iterator
from pathlib import Path

import joblib
import pytest
from sqlalchemy import Engine

from shared.database.engine import make_engine, session_scope
from shared.packages import stores
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from shared.tables import Table
from tests.shared.registry.test_registry import fitted, people
from tests.stores.places import KEYS, Bucket, Folder, Repository, Store, enter, running_s3
from tests.support.brief import prove_briefly
from tests.support.hub import Hub, running_hub

LONG = pytest.mark.long  # the library of each takes a second to load, the S3 server three to start
KINDS = ["file", pytest.param("hf", marks=LONG), pytest.param("s3", marks=LONG)]


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    with running_s3(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture(scope="session")
def hub():
    with running_hub() as hub:
        yield hub


@pytest.fixture
def hub_of_mine(hub: Hub):
    yield hub
    hub.token = None
    hub.ails.clear()


@pytest.fixture(autouse=True)
def _short_pauses_and_no_keys(monkeypatch):
    monkeypatch.setattr(stores, "PAUSE_SECONDS", 0.02)
    prove_briefly(monkeypatch)
    for name in ("HF_TOKEN", "HF_ENDPOINT", "AWS_PROFILE", *KEYS):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=KINDS)
def store(request, tmp_path, monkeypatch) -> Store:
    """Each kind of store in turn, empty."""
    name = f"a{time.monotonic_ns()}"
    made: Store
    if request.param == "file":
        made = Folder(tmp_path / "store")
    elif request.param == "s3":
        made = Bucket(request.getfixturevalue("s3"), name)
    else:
        made = Repository(request.getfixturevalue("hub"), f"somebody/{name}")
    enter(monkeypatch, made)
    return made


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages people/1 and people/2, two models, as another copy of the service made them."""
    folder = tmp_path_factory.mktemp("packages")
    engine = make_engine(f"sqlite:///{folder / 'guichet.db'}")
    Table.metadata.create_all(engine)
    people().to_csv(folder / "rows.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        prove_briefly(patch)
        for seed in (3, 4):
            joblib.dump(fitted(seed=seed), folder / "model.joblib")
            with session_scope(engine) as session:
                add(
                    session,
                    folder / "model.joblib",
                    AddOptions(reference=folder / "rows.csv", name="people", target="left"),
                    models_dir=folder / "models",
                )
    engine.dispose()
    return folder / "models"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An empty database."""
    engine = make_engine(f"sqlite:///{tmp_path / 'guichet.db'}")
    Table.metadata.create_all(engine)
    yield engine
    engine.dispose()
