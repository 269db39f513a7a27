"""A worker is killed in the middle of a training: its process ends, the job ends, nothing is half registered."""

import signal

import psutil
import pytest

from tests.contracts.models.test_training import training_processes
from tests.faults.conftest import Service
from tests.support.trainings import TARGET, csv_of, make_rows

CHILD_SECONDS = 5.0


@pytest.mark.long
@pytest.mark.parametrize("whole_worker", [False, True])
def test_training_whose_worker_is_killed_is_done_by_the_next_one_and_registered_once(
    service: Service, whole_worker: bool
) -> None:
    name = "of-workers" if whole_worker else "of-processes"
    query = {"target": TARGET, "name": name, "draws": "8", "estimators": "hist_gradient_boosting"}
    with service.stack.client() as client:
        accepted = client.post(
            "/train", params=query, content=csv_of(make_rows(600)), headers={"Content-Type": "text/csv"}
        )
        assert accepted.status_code == 202, accepted.text
        job_id = accepted.json()["id"]
        service.wait_until(
            lambda: (client.get(f"/jobs/{job_id}").json()["training"] or {}).get("stage") == "searching", seconds=90
        )
        [process] = training_processes(job_id)
        worker = process.parent()
        assert worker is not None
        if whole_worker:
            service.stack.stop("bulk", sig=signal.SIGKILL)
        else:
            worker.kill()
        service.wait_until(
            lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, seconds=CHILD_SECONDS
        )
        assert service.rows("SELECT count(*) FROM model_versions WHERE name = :name", name=name)[0][0] == 0
        if whole_worker:
            service.stack.start_worker("bulk", lanes="bulk,maintenance")
        service.wait_until_all_ended(seconds=240)
        job = client.get(f"/jobs/{job_id}").json()
        assert (job["status"], job["attempts"], job["model_version"]) == ("succeeded", 2, 1)
        assert service.rows("SELECT count(*) FROM model_versions WHERE name = :name", name=name)[0][0] == 1
        assert service.rows("SELECT count(*) FROM model_aliases WHERE name = :name", name=name)[0][0] == 0
        assert service.rows("SELECT count(*) FROM registration_parts")[0][0] == 0
    assert training_processes(job_id) == []
