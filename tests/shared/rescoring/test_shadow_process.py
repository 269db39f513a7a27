"""The process of a challenger: what it answers, and that whatever the model does ends it and nothing else."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import psutil
import pytest

from shared.database.engine import session_scope
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from shared.rescoring import shadow_process
from shared.rescoring.shadow_process import NOT_LOADED, ShadowFailed, ShadowProcess, columns_of
from tests.faults.models import CRASHES, EATS, GOOD, KEEPS_GIL, RAISES, Trap
from tests.support.brief import prove_briefly
from tests.support.databases import sqlite_engine

pytestmark = pytest.mark.flow  # a process for each test, which loads the libraries of models anew

MEMORY_MB = 700
NICENESS = 3  # beside other tests, one of 19 would wait for minutes


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("trap")
    frame = pd.DataFrame({"mark": [0.0, 1.0, 2.0, 3.0], "chance": [0.1, 0.9, 0.2, 0.8]})
    joblib.dump(Trap().fit(frame, [0, 1, 0, 1]), folder / "model.joblib")
    frame.to_csv(folder / "rows.csv", index=False)
    with pytest.MonkeyPatch.context() as patch, sqlite_engine(folder) as engine, session_scope(engine) as session:
        prove_briefly(patch)
        options = AddOptions(reference=folder / "rows.csv", name="trap")
        added = add(session, folder / "model.joblib", options, models_dir=folder / "models")
        yield columns_of(added) | {"directory": folder / "models"}


@pytest.fixture
def start(version: dict[str, Any]) -> Iterator[Callable[..., ShadowProcess]]:
    processes = []

    def make(**changes: Any) -> ShadowProcess:
        about = version | changes
        process = ShadowProcess(about, about.pop("directory"), memory_mb=MEMORY_MB, niceness=NICENESS)
        processes.append(process)
        assert process.is_ready(300)
        return process

    yield make
    for process in processes:
        process.close()


def row(mark: float, chance: float = 0.75) -> str:
    return json.dumps({"mark": mark, "chance": chance})


def is_running(process: ShadowProcess) -> bool:
    return Path(f"/proc/{process.pid}").exists()


def test_rows_are_scored_until_one_takes_the_process_down(start):
    process = start()
    results = process.score([row(GOOD), row(RAISES), row(GOOD, 0.25)], [], 30, is_exact=False)
    assert results == [(1.0, "1", 0.75), "model_failed", (0.0, "0", 0.25)]
    # As rows of a version with another card they are checked: what this one does not take is refused.
    foreign = process.score([row(GOOD), json.dumps({"mark": "x"})], [0, 1], 30, is_exact=True)
    assert foreign[0] == (1.0, "1", 0.75)
    assert isinstance(foreign[1], str)
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(19, os.nice(0) + NICENESS)
    assert "DATABASE_URL" not in Path(f"/proc/{process.pid}/environ").read_text()
    with pytest.raises(ShadowFailed) as failure:
        process.score([row(CRASHES)], [], 30, is_exact=False)
    assert (failure.value.code, is_running(process)) == ("worker_lost", False)
    assert "exit status -11" in failure.value.reason


@pytest.mark.parametrize(("mark", "code"), [(KEEPS_GIL, "timeout"), (EATS, "out_of_memory")])
def test_model_that_hangs_or_eats_memory_is_ended(start, mark, code):
    process = start()
    with pytest.raises(ShadowFailed) as failure:
        process.score([row(mark)], [], 2 if code == "timeout" else 60, is_exact=False)
    assert (failure.value.code, is_running(process)) == (code, False)


def test_memory_fits_into_the_container(start, monkeypatch):
    monkeypatch.setattr(shadow_process, "container_memory", lambda: 2 * 400 * 2**20)
    process = start()
    limit, _ = psutil.Process(process.pid).rlimit(psutil.RLIMIT_DATA)
    assert limit == 400 * 2**20
    with pytest.raises(ShadowFailed, match="needed more than 400 MB, half of its container's memory, to score"):
        process.score([row(EATS)], [], 60, is_exact=False)
    monkeypatch.setattr(shadow_process, "container_memory", lambda: 64 * 2**30)
    assert psutil.Process(start().pid).rlimit(psutil.RLIMIT_DATA)[0] == MEMORY_MB * 2**20


def test_version_that_cannot_be_loaded_says_why(start, monkeypatch):
    with pytest.raises(ShadowFailed) as failure:
        start(sha256="0" * 64)
    assert failure.value.code == NOT_LOADED
    assert "It cannot be loaded:" in failure.value.reason
    monkeypatch.setattr(shadow_process, "LOAD_SECONDS", 0.01)
    with pytest.raises(ShadowFailed, match="did not load within"):
        start()
