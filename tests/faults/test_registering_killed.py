"""Workers that are killed while they register an uploaded model: the job ends, and nothing is half registered."""

import io
import signal
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import psutil
import pytest
from sklearn.linear_model import LogisticRegression

from shared.packages.package import sha256_of
from tests.faults.conftest import Service

FRAME = pd.DataFrame({"age": np.arange(60) % 40 + 20.0})
ENDED = ("succeeded", "failed")


def upload(service: Service, thing: object, name: str) -> str:
    artefact = io.BytesIO()
    joblib.dump(thing, artefact)
    with service.stack.client() as client:
        answer = client.post(
            "/models",
            data={"name": name},
            files={
                "artefact": ("model.joblib", artefact.getvalue()),
                "reference": ("rows.csv", FRAME.to_csv(index=False).encode()),
            },
        )
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def proofs() -> list[psutil.Process]:
    """Return the processes that prove an upload."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "shared.registry.proof" in (process.info["cmdline"] or [])
    ]


def state(service: Service, job_id: str) -> Any:
    return service.rows("SELECT state, attempt, error FROM jobs WHERE id = :id", id=job_id)[0]


class Slow:
    """A model that takes its time to be read."""

    def __init__(self, model: object) -> None:
        self.model = model

    def __reduce__(self) -> Any:
        return eval, ("(__import__('time').sleep(3), model)[1]", {"model": self.model})


@pytest.mark.long
def test_two_workers_that_register_one_name_at_once_make_versions_of_their_own(service: Service) -> None:
    """Five models and one of them again, by two workers: five versions, each with its own file and its audit entry."""
    models = Path(service.stack.env["MODELS_DIR"])
    estimators = [LogisticRegression().fit(FRAME, FRAME["age"] > limit) for limit in (30, 35, 40, 45, 50)]
    service.stack.start_worker("second", lanes="bulk,maintenance")
    try:
        service.stack.wait_for_workers(3)
        jobs = [upload(service, each, "twice") for each in (*estimators, estimators[0])]  # a caller has one place
        at_once = set()

        def have_ended() -> bool:
            at_once.add(service.rows("SELECT count(*) FROM jobs WHERE state = 'running'")[0][0])
            return all(state(service, job).state in ENDED for job in jobs)

        service.wait_until(have_ended, seconds=300)
        assert [tuple(state(service, job)) for job in jobs] == [("succeeded", 1, None)] * 6
        assert max(at_once) == 2  # else it was no race
    finally:
        service.stack.stop("second")
    versions = service.rows("SELECT id, version, sha256 FROM model_versions WHERE name = 'twice' ORDER BY version")
    assert [row.version for row in versions] == [1, 2, 3, 4, 5]
    assert len({row.sha256 for row in versions}) == 5
    made = service.rows("SELECT job_id::text AS job, model_version_id AS version FROM registrations")
    by_job = {row.job: row.version for row in made}
    assert {by_job[job] for job in jobs} == {row.id for row in versions}
    assert by_job[jobs[0]] == by_job[jobs[5]]
    assert sorted(path.name for path in (models / "twice").iterdir()) == ["1", "2", "3", "4", "5"]
    for row in versions:
        assert sha256_of(models / "twice" / str(row.version) / "model.joblib") == row.sha256
    champion = service.rows("SELECT model_version_id FROM model_aliases WHERE name = 'twice'")
    assert [row[0] for row in champion] == [versions[0].id]
    added = "SELECT target FROM audit_logs WHERE action = 'model.added' AND target LIKE 'twice@%' ORDER BY target"
    assert [row.target for row in service.rows(added)] == [f"twice@{number}" for number in range(1, 6)]


@pytest.mark.long
@pytest.mark.parametrize("after", [0.0, 1.5, 4.0, 8.0, 12.0, 16.0])
def test_upload_whose_worker_is_killed_becomes_a_whole_version(service: Service, after: float) -> None:
    """At whatever moment: it is taken up by another, its version is whole, and one; no file of the first is left."""
    models = Path(service.stack.env["MODELS_DIR"])
    name = f"killed-{str(after).replace('.', '-')}"
    model = LogisticRegression().fit(FRAME, FRAME["age"] > 40)
    job_id = upload(service, Slow(model), name)
    service.wait_until(lambda: state(service, job_id).state != "queued", seconds=30)
    time.sleep(after)
    service.stack.stop("bulk", sig=signal.SIGKILL)
    service.wait_until(lambda: proofs() == [], seconds=5)  # it ends with the process that started it
    service.stack.start_worker("bulk", lanes="bulk,maintenance")
    service.wait_until(lambda: state(service, job_id).state in ENDED, seconds=180)
    ended = state(service, job_id)
    assert ended.state == "succeeded", ended
    versions = service.rows("SELECT version, sha256 FROM model_versions WHERE name = :name", name=name)
    assert [row.version for row in versions] == [1]
    assert service.rows("SELECT alias FROM model_aliases WHERE name = :name", name=name)[0].alias == "champion"
    assert len(service.rows("SELECT 1 FROM audit_logs WHERE target = :target", target=f"{name}@1")) == 2
    assert sorted(path.name for path in (models / name).iterdir()) == ["1"]
    service.wait_until(lambda: list(models.glob(".registering-*")) == [], seconds=5)
    assert service.rows("SELECT count(*) FROM registration_parts")[0][0] == 0
    with service.stack.client() as client:
        answer = client.post(f"/models/{name}/predict", json={"features": {"age": 50.0}}, headers={"Prefer": "wait=60"})
    assert answer.status_code == 200, answer.text


@pytest.mark.long
def test_upload_that_kills_the_worker_itself_fails_in_the_end(service: Service) -> None:
    """It may: it runs as the same user. Its attempts are counted, and others are registered afterwards."""

    class Killer:
        def __reduce__(self) -> Any:
            return exec, ("import os, signal; os.kill(os.getppid(), signal.SIGKILL)",)

    name = "killer"
    job_id = upload(service, Killer(), name)
    service.wait_until(lambda: state(service, job_id).state in ENDED, seconds=180)
    ended = state(service, job_id)
    assert (ended.state, ended.attempt, ended.error["code"]) == ("failed", 3, "worker_lost")
    assert service.rows("SELECT count(*) FROM model_versions WHERE name = :name", name=name)[0][0] == 0
    models = Path(service.stack.env["MODELS_DIR"])
    assert not (models / name).exists()
    good = LogisticRegression().fit(FRAME, FRAME["age"] > 40)
    other = upload(service, good, "after-the-killer")
    service.wait_until(lambda: state(service, other).state in ENDED, seconds=180)
    assert state(service, other).state == "succeeded"
    assert list(models.glob(".registering-*")) == []
    service.wait_until(lambda: service.rows("SELECT count(*) FROM registration_parts")[0][0] == 0, seconds=10)
