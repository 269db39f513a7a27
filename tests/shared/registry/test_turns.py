"""Versions of one name that several hosts register at the same time, on PostgreSQL: one after the other."""

import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sqlalchemy import Engine, select, text

from scripts.servers.postgres import Postgres
from shared.database.engine import session_scope
from shared.packages.fetching import local_folder
from shared.packages.package import is_complete
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import Proved, prove, publish
from shared.registry.versions import list_versions
from shared.tables import ModelAlias
from tests.support.brief import prove_briefly
from tests.support.databases import postgres_engine

NAME = "people"


@pytest.fixture(scope="module")
def engine(session_postgres: Postgres) -> Iterator[Engine]:
    with postgres_engine(session_postgres, "turns", autocommit=False) as engine:
        with engine.begin() as connection:  # the two versions that it comes with chose their numbers themselves
            connection.execute(text("SELECT setval(pg_get_serial_sequence('model_versions', 'id'), 10)"))
        yield engine


@pytest.fixture(scope="module")
def proved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Proved]]:
    """Two models of one kind, each with its proof."""
    folder = tmp_path_factory.mktemp("proved")
    rows = pd.DataFrame({"age": np.arange(60) % 40 + 20.0})
    rows.to_csv(folder / "rows.csv", index=False)
    options = AddOptions(reference=folder / "rows.csv", name=NAME)
    for name, limit in (("first", 40), ("second", 30)):
        joblib.dump(LogisticRegression().fit(rows, rows["age"] > limit), folder / f"{name}.joblib")
    with pytest.MonkeyPatch.context() as patch:
        prove_briefly(patch)
        with prove(folder / "first.joblib", options) as first, prove(folder / "second.joblib", options) as second:
            yield {"first": first, "second": second}


@pytest.fixture(autouse=True)
def _no_versions(engine: Engine) -> None:
    with engine.begin() as connection:
        for table in ("model_aliases", "model_versions"):
            connection.execute(text(f"DELETE FROM {table} WHERE name = :name"), {"name": NAME})


def register(engine: Engine, proved: Proved, host: Path) -> int:
    """Register a model as a host does that has a folder of models of its own; return its version."""
    with session_scope(engine) as session:
        return publish(session, proved, AddOptions(name=NAME), uri=None, models_dir=host).version


@pytest.mark.parametrize(
    ("artefact", "is_kept", "versions"),
    [
        ("second", True, [1, 2]),
        ("first", True, [1]),  # the very same model
        ("second", False, [1]),  # the first comes to nothing
    ],
)
def test_second_of_two_hosts_waits_for_the_first_and_takes_a_number_of_its_own(
    engine: Engine, proved: dict[str, Proved], tmp_path: Path, artefact: str, is_kept: bool, versions: list[int]
) -> None:
    may_end, is_written = threading.Event(), Future[None]()

    def register_first() -> None:
        with session_scope(engine) as session:
            publish(session, proved["first"], AddOptions(name=NAME), uri=None, models_dir=tmp_path / "one")
            is_written.set_result(None)
            assert may_end.wait(60)
            if not is_kept:
                session.rollback()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(register_first)
        wait([first, is_written], 60, FIRST_COMPLETED)
        assert is_written.done(), first.exception()
        second = pool.submit(register, engine, proved[artefact], tmp_path / "two")
        with pytest.raises(TimeoutError):
            second.result(2)
        may_end.set()
        first.result(60)
        assert second.result(60) == versions[-1]
    with session_scope(engine, read_only=True) as session:
        rows = list_versions(session, NAME)
        assert [row.version for row in rows] == versions
        champions = session.scalars(select(ModelAlias.model_version_id).where(ModelAlias.name == NAME)).all()
        assert champions == [rows[0].id]
        for row in rows:
            folders = [local_folder(row, tmp_path / host) for host in ("one", "two")]
            assert any(is_complete(folder, row.sha256) for folder in folders)
    if versions == [1, 2]:
        assert not (tmp_path / "two" / NAME / "1").exists()


def test_many_that_register_one_name_at_once_come_to_one_version_of_each_model(
    engine: Engine, proved: dict[str, Proved], tmp_path: Path
) -> None:
    """Twelve at once on three hosts."""
    started = threading.Barrier(12)

    def run(place: int) -> tuple[str, int]:
        artefact = ("first", "second")[place % 2]
        started.wait(60)
        return artefact, register(engine, proved[artefact], tmp_path / f"host-{place % 3}")

    with ThreadPoolExecutor(12) as pool:
        pairs = set(pool.map(run, range(12)))
    assert sorted(version for _, version in pairs) == [1, 2]
    assert {artefact for artefact, _ in pairs} == {"first", "second"}
    with session_scope(engine, read_only=True) as session:
        assert [row.version for row in list_versions(session, NAME)] == [1, 2]
