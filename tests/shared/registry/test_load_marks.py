"""Loads that take their process down, in real processes that are killed."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

from shared.errors import ArtefactError
from shared.registry.load_marks import FORGOTTEN_SECONDS, PAUSES, marked

MODEL = 7


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of marks of this process' children; this process itself looks into it as one of them does."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "getppid", lambda: 1)
    return tmp_path / f"guichet-loading-{os.getuid()}-1"


def lose(*, slow: bool = False) -> None:
    """Begin a load in a process of its own, which is killed meanwhile, as another process of the worker would be."""
    pid = os.fork()
    if not pid:
        with marked(MODEL, patient=False) as note_slow:
            if slow:
                note_slow()
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL


def make_older(folder: Path, seconds: float) -> None:
    """Let time go by."""
    for mark in folder.iterdir():
        at = mark.stat().st_mtime - seconds
        os.utime(mark, (at, at))


def load(*, patient: bool = False) -> None:
    with marked(MODEL, patient=patient):
        pass


def test_one_lost_load_keeps_nobody_waiting(folder: Path):
    lose()
    load()
    assert not folder.exists()  # and it is forgotten, since the model is well
    lose()
    load()


def test_pause_grows_with_each_lost_load_and_ends(folder: Path):
    lose()
    for pause in (*PAUSES[1:], PAUSES[-1]):
        lose()
        with pytest.raises(ArtefactError, match=f"tried again in {pause:.0f} s"):
            load()
        make_older(folder, pause - 5)
        with pytest.raises(ArtefactError, match=r"tried again in [1-5] s"):
            load()
        make_older(folder, 5)
    load()


def test_loads_of_other_models_do_not_wait():
    lose()
    lose()
    with marked(MODEL + 1, patient=False):
        pass
    with pytest.raises(ArtefactError):
        load()


def test_load_that_was_too_slow_is_left_to_the_patient(folder: Path):
    lose(slow=True)
    with pytest.raises(ArtefactError, match=f"tried again in {PAUSES[-1]:.0f} s"):
        load()
    load(patient=True)
    with pytest.raises(ArtefactError):
        load()  # somebody would wait for it again
    make_older(folder, PAUSES[-1])
    load()


def test_load_that_fails_with_an_error_leaves_no_mark(folder: Path):
    with pytest.raises(ValueError, match="no model"), marked(MODEL, patient=False):
        raise ValueError("no model")
    assert not folder.exists()


def test_old_marks_are_removed(folder: Path):
    lose()
    lose()
    make_older(folder, FORGOTTEN_SECONDS)
    load()
    assert not folder.exists()


def test_folder_of_a_killed_worker_is_removed_once_its_marks_count_for_nobody(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    lose()
    lose()
    other = folder.with_name(f"guichet-loading-{os.getuid()}-2")
    empty = folder.with_name(f"guichet-loading-{os.getuid()}-3")  # as earlier releases left them
    empty.mkdir()
    monkeypatch.setattr(os, "getppid", lambda: 2)  # the next worker
    load()
    assert (len(list(folder.iterdir())), other.exists(), empty.exists()) == (2, False, False)
    make_older(folder, FORGOTTEN_SECONDS)
    load()
    assert not folder.exists()


def test_folder_of_a_worker_that_loads_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch):
    with marked(MODEL, patient=False):
        monkeypatch.setattr(os, "getppid", lambda: 2)  # another worker, which may see no process of the first one
        load()
        assert [mark.name for mark in folder.iterdir()] == [f"{MODEL}-{os.getpid()}"]
    assert not folder.exists()
