"""How a Space starts: where its data goes, what it finds there, whose key it admits."""

import os
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy.space import start
from deploy.space.start import Refused, choose_folder, environment, plant
from tests.support.databases import migrate

pytestmark = pytest.mark.long  # real processes, again and again: `make faults` runs them


def test_data_goes_where_it_is_kept(tmp_path: Path):
    assert choose_folder(tmp_path, tmp_path / "home") == (tmp_path, None)
    assert list(tmp_path.iterdir()) == []


def test_without_storage_data_goes_to_the_home_and_a_warning_says_so(tmp_path: Path):
    folder, warning = choose_folder(tmp_path / "none", tmp_path)
    assert folder == tmp_path / "data"
    assert warning is not None
    assert "none is not there" in warning
    assert "lost with this container" in warning


def test_storage_that_is_not_writable_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kept = tmp_path / "kept"
    kept.mkdir()
    monkeypatch.setattr(start, "is_writable", lambda folder: folder != kept)
    folder, warning = choose_folder(kept, tmp_path)
    assert folder == tmp_path / "data"
    assert warning is not None
    assert "is not writable" in warning


def test_nowhere_to_write_stops_the_start_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="cannot be made"):
        choose_folder(tmp_path / "none", tmp_path / "file")
    monkeypatch.setattr(start, "is_writable", lambda folder: False)
    with pytest.raises(Refused, match="give this user"):
        choose_folder(tmp_path / "none", tmp_path)


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    seed = tmp_path / "seed"
    (seed / "models" / "m" / "1").mkdir(parents=True)
    (seed / "models" / "m" / "1" / "model.json").write_text("{}")
    (seed / "guichet.db").write_text("new")
    return seed


def test_new_folder_gets_the_images_database_and_models(seed: Path, tmp_path: Path):
    folder = tmp_path / "data"
    folder.mkdir()
    assert plant(seed, folder)
    assert (folder / "guichet.db").read_text() == "new"
    assert (folder / "models" / "m" / "1" / "model.json").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["guichet.db", "models"]


def test_folder_with_a_database_is_left_as_it_is(seed: Path, tmp_path: Path):
    (tmp_path / "guichet.db").write_text("old")
    assert not plant(seed, tmp_path)
    assert (tmp_path / "guichet.db").read_text() == "old"
    assert not (tmp_path / "models").exists()


def test_copy_that_was_cut_off_is_begun_again(seed: Path, tmp_path: Path):
    folder = tmp_path / "data"
    (folder / "models.part" / "half").mkdir(parents=True)
    (folder / "guichet.db.part").write_text("ne")
    assert plant(seed, folder)
    assert not (folder / "models" / "half").exists()
    assert (folder / "guichet.db").read_text() == "new"
    (folder / "guichet.db").unlink()  # as if it had been cut off behind the models
    assert plant(seed, folder)
    assert (folder / "guichet.db").read_text() == "new"


def test_without_a_seed_the_start_makes_everything_itself(tmp_path: Path):
    assert not plant(tmp_path / "none", tmp_path)


def test_key_of_the_operator_does_not_stand_in_the_services_environment(tmp_path: Path):
    env = environment({"ADMIN_KEY": "guichet_x", "PORT": "7860"}, tmp_path)
    assert env == {"PORT": "7860", "DATA_DIR": str(tmp_path), "MODELS_DIR": str(tmp_path / "models")}


class Started(BaseException):
    """The start has become the API."""


@dataclass
class Start:
    """Starts a Space in this process, up to where it would become the API."""

    kept: Path
    ran: list[str] = field(default_factory=list)
    became: list[tuple[list[str], dict[str, str]]] = field(default_factory=list)

    def __call__(self) -> list[str]:
        """Return which commands it ran before."""
        self.ran.clear()
        with pytest.raises(Started):
            start.main()
        return list(self.ran)


@pytest.fixture
def starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """A Space whose storage holds migrated tables; only the command for keys is really run."""
    kept = tmp_path / "kept"
    kept.mkdir()
    migrate(f"sqlite:///{kept / 'guichet.db'}")
    starting = Start(kept)
    real = start._run

    def run(*arguments: str, env: dict[str, str]) -> None:
        starting.ran.append(arguments[0])
        if arguments[0] == "api.keys":
            real(*arguments, env=env)

    def become(program: str, arguments: list[str], env: dict[str, str]) -> None:
        starting.became.append((arguments, env))
        raise Started

    monkeypatch.setattr(start, "KEPT", kept)
    monkeypatch.setattr(start, "SEED", tmp_path / "seed")
    monkeypatch.setattr(start, "_run", run)
    monkeypatch.setattr(os, "execve", become)
    for name in ("DATABASE_URL", "REDIS_URL", "AUTH", "HOST", "ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RUNTIME", "sync")
    return starting


def test_start_prepares_the_folder_and_becomes_the_api(
    starting: Start, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    key = "guichet_" + "k" * 43
    monkeypatch.setenv("ADMIN_KEY", key)
    assert starting() == ["alembic", "examples.build", "api.keys"]
    [(arguments, env)] = starting.became
    assert arguments == [sys.executable, "-m", "api"]
    assert env["DATA_DIR"] == str(starting.kept)
    assert "ADMIN_KEY" not in env
    with closing(sqlite3.connect(starting.kept / "guichet.db")) as connection:
        assert connection.execute("SELECT scopes, revoked_at FROM api_keys").fetchall() == [("admin", None)]
    shown = capfd.readouterr()
    assert key not in shown.out + shown.err


def test_new_image_brings_kept_data_up_to_date_once(starting: Start, seed: Path):
    assert starting() == ["alembic", "examples.build", "api.keys"]
    assert starting() == ["api.keys"]
    (seed / "guichet.db").write_text("of the next build")
    assert starting() == ["alembic", "examples.build", "api.keys"]
    assert starting() == ["api.keys"]


def test_database_elsewhere_is_brought_up_to_date_at_every_start(
    starting: Start, seed: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{starting.kept / 'guichet.db'}")
    for _ in range(2):
        assert starting() == ["alembic", "examples.build", "api.keys"]
    assert not (starting.kept / "models").exists()


@pytest.mark.long
def test_step_that_fails_stops_the_start_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(start, "KEPT", tmp_path)
    monkeypatch.setattr(os, "execve", None)  # or a start that goes well would become of this process
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg2://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("RUNTIME", "sync")
    with pytest.raises(SystemExit, match=r"guichet: `python -m alembic` ended with 1"):
        start.main()
