"""Versions of one name that two hosts register at the same time, on PostgreSQL: the second waits for the first."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sqlalchemy import Engine, select

from scripts.servers.postgres import Postgres
from shared.database.engine import session_scope
from shared.packages.fetching import local_folder
from shared.packages.package import is_complete
from shared.packages.sources import AddOptions
from shared.registry.adding import add
from shared.registry.versions import list_versions
from shared.tables import ModelAlias, ModelVersion
from tests.support.brief import prove_briefly
from tests.support.databases import postgres_engine


@pytest.fixture(scope="module")
def engine(session_postgres: Postgres) -> Iterator[Engine]:
    with postgres_engine(session_postgres, "turns", autocommit=False) as engine:
        yield engine


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two models of one kind, and the rows that both were trained on."""
    rows = pd.DataFrame({"age": np.arange(60) % 40 + 20.0})
    for name, limit in (("first", 40), ("second", 30)):
        joblib.dump(LogisticRegression().fit(rows, rows["age"] > limit), tmp_path / f"{name}.joblib")
    rows.to_csv(tmp_path / "rows.csv", index=False)
    return tmp_path


@pytest.fixture(autouse=True)
def _short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    prove_briefly(monkeypatch)


def register(engine: Engine, files: Path, name: str, host: str, artefact: str) -> int:
    """Register a model as a host does that has a folder of models of its own; return its version."""
    with session_scope(engine) as session:
        options = AddOptions(reference=files / "rows.csv", name=name)
        return add(session, files / f"{artefact}.joblib", options, models_dir=files / host).version


@pytest.mark.parametrize(("artefact", "is_kept", "versions"), [
    ("second", True, [1, 2]),
    ("first", True, [1]),  # the very same model
    ("second", False, [1]),  # the first comes to nothing
])  # fmt: skip
def test_second_of_two_hosts_waits_for_the_first_and_takes_a_number_of_its_own(
    engine: Engine, files: Path, artefact: str, is_kept: bool, versions: list[int]
) -> None:
    name = f"people-{artefact}-{is_kept}".lower()
    may_end = threading.Event()

    def register_first() -> None:
        with session_scope(engine) as session:
            options = AddOptions(reference=files / "rows.csv", name=name)
            add(session, files / "first.joblib", options, models_dir=files / "one")
            session.flush()
            is_written.set()
            assert may_end.wait(60)
            if not is_kept:
                session.rollback()

    is_written = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(register_first)
        assert is_written.wait(60)
        second = pool.submit(register, engine, files, name, "two", artefact)
        with pytest.raises(TimeoutError):
            second.result(3)
        may_end.set()
        first.result(60)
        assert second.result(60) == versions[-1]
    with session_scope(engine, read_only=True) as session:
        rows = list_versions(session, name)
        assert [row.version for row in rows] == versions
        champion = session.scalars(select(ModelAlias.model_version_id).where(ModelAlias.name == name)).all()
        assert champion == [rows[0].id]
        for row in rows:
            hosts = [host for host in ("one", "two") if is_complete(local_folder(row, files / host), row.sha256)]
            assert hosts
        if versions == [1, 2]:
            assert not (files / "two" / name / "1").exists()
        assert (
            session.scalar(select(ModelVersion.id).where(ModelVersion.name == name, ModelVersion.version > 2)) is None
        )


def test_many_that_register_one_name_at_once_get_each_a_number_of_its_own(engine: Engine, files: Path) -> None:
    """Twelve at once on three hosts, two models: one of them was first, and the other the second."""
    started = threading.Barrier(12)

    def run(place: int) -> tuple[str, int]:
        artefact = ("first", "second")[place % 2]
        started.wait(60)
        return artefact, register(engine, files, "crowd", f"host-{place % 3}", artefact)

    with ThreadPoolExecutor(12) as pool:
        pairs = set(pool.map(run, range(12)))
    assert len(pairs) == 2
    assert {version for _, version in pairs} == {1, 2}
    with session_scope(engine, read_only=True) as session:
        assert [row.version for row in list_versions(session, "crowd")] == [1, 2]
