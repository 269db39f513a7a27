"""Recovery hangs on no single process, and nobody outlives his parent."""

import os
import signal
import time

import psutil
import pytest

from scripts.servers.processes import runs
from shared.observability.timed_tasks import recovery_age
from tests.faults.conftest import Service
from tests.faults.models import GOOD, KEEPS_GIL, SLOW

RECOVER_SECONDS = 1.0  # as in every stack of the tests
LEASE_SECONDS = 3.0


def age(service: Service) -> float:
    seconds = recovery_age(service.engine)
    return 1e9 if seconds is None else seconds


@pytest.mark.long
def test_recovery_goes_on_whoever_is_killed_and_leaves_no_orphan(quiet: Service) -> None:
    """A worker with the `-B` of older releases, killed with what it holds; the one that is left takes it over."""
    stack = quiet.stack
    stack.start_api()
    stack.start("bulk", "celery", "-A", "worker.main:app", "worker", "-Q", "bulk,maintenance,interactive", "-c", "2",
                "-n", "bulk@%h", "-B", "-s", str(stack.folder / "beat"))  # fmt: skip
    stack.wait_for_workers(2)
    family = psutil.Process(stack.processes["bulk"].pid).children(recursive=True)
    assert len(family) >= 3  # two that score, and a beat with nothing to do
    with stack.client(Prefer="respond-async") as client:
        answer = client.post("/predict_batch", json={"model": "trap", "rows": [{"mark": SLOW, "chance": 0.5}] * 100})
        assert answer.status_code == 202, answer.text[:300]
    stack.start_worker()
    quiet.wait_until(lambda: quiet.rows("SELECT count(*) FROM workers")[0][0] == 3, seconds=60)
    killed = stack.processes.pop("bulk")
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait(5)
    quiet.wait_until(lambda: not any(map(runs, family)), seconds=15)
    time.sleep(2 * RECOVER_SECONDS)
    assert age(quiet) < 2 * RECOVER_SECONDS
    quiet.wait_until_all_ended(seconds=20)
    assert quiet.rows("SELECT state, crash_count FROM jobs") == [("succeeded", 0)]


@pytest.mark.long
def test_row_that_keeps_the_interpreter_fails_alone_and_the_lane_goes_on(quiet: Service) -> None:
    stack = quiet.stack
    stack.start_api()
    stack.start_worker()
    stack.wait_for_workers(1)
    with stack.client(Prefer="wait=30") as client:
        bad = client.post(
            "/jobs", json={"model": "trap", "features": {"mark": KEEPS_GIL, "chance": 0.5}, "timeout": 1},
            headers={"Prefer": "respond-async"},
        )  # fmt: skip
        assert bad.status_code == 202, bad.text
        held = "SELECT extract(epoch FROM clock_timestamp() - claimed_at) FROM jobs WHERE state = 'running'"
        quiet.wait_until(lambda: bool(quiet.rows(held)), seconds=10)
        worker = quiet.rows("SELECT leased_by FROM jobs WHERE state = 'running'")[0][0]
        process = psutil.Process(int(worker.rpartition(":")[2]))
        quiet.wait_until(lambda: not runs(process), seconds=3.5)  # its timeout, two seconds, and what a look costs
        for name in ("other", "trap"):
            answer = client.post(f"/models/{name}/predict", json={"features": {"mark": GOOD, "chance": 0.25}})
            assert answer.status_code == 200, answer.text
        quiet.wait_until_all_ended(seconds=60)
        job = client.get(f"/jobs/{bad.json()['id']}").json()
    assert (job["status"], job["error"]["code"]) == ("failed", "worker_lost")
    assert quiet.rows("SELECT count(*) FROM jobs WHERE state = 'succeeded'")[0][0] == 2
