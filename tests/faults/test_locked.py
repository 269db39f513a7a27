"""A table that somebody locks while results are to be stored: they wait, and nothing counts as a death."""

import time

import pytest

from tests.faults.conftest import Service
from tests.faults.models import GOOD
from tests.faults.test_csv_killed import csv_of, upload, wait

LOCK_SECONDS = 40.0  # longer than PostgreSQL lets a statement wait, and many leases


@pytest.mark.long
def test_lock_on_the_outputs_burns_no_attempt_of_rows_and_files(quiet: Service) -> None:
    stack = quiet.stack
    stack.start_api()
    rows = [{"mark": GOOD, "chance": (place % 100) / 100} for place in range(500)]
    with stack.client(Prefer="respond-async") as client, quiet.engine.connect() as locking:
        file = upload(quiet, csv_of(rows), "trap")
        ids = []
        for row in rows[:20]:
            answer = client.post("/jobs", json={"model": "trap", "features": row})
            assert answer.status_code == 202, answer.text
            ids.append(answer.json()["id"])
        locking.exec_driver_sql("LOCK TABLE model_outputs IN ACCESS EXCLUSIVE MODE")
        stack.start_worker()
        stack.start_worker("bulk", lanes="bulk,maintenance")
        running = "SELECT count(*) FROM jobs WHERE state = 'running'"
        quiet.wait_until(lambda: quiet.rows(running)[0][0] == 21, seconds=60)  # the file as well
        time.sleep(LOCK_SECONDS)
        locking.rollback()
    assert wait(quiet, file, seconds=60)["status"] == "succeeded"
    quiet.wait_until_all_ended(seconds=40)
    assert quiet.rows("SELECT DISTINCT state, attempt, crash_count FROM jobs WHERE kind <> 'csv'") == [
        ("succeeded", 1, 0)
    ]
    assert quiet.rows("SELECT DISTINCT state, attempt, crash_count FROM job_chunks") == [("done", 1, 0)]
    assert quiet.rows("SELECT count(*) FROM model_outputs")[0][0] == 520
