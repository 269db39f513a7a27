"""Workers that are killed, models that loop for ever or crash: nothing that was accepted is lost or scored twice."""

import time
from typing import Any

import pytest

from tests.faults.conftest import Service, rows_to_score
from tests.faults.models import CRASHES, GOOD, LOOPS, RAISES

COUNT = 600


@pytest.mark.long
def test_jobs_survive_workers_that_are_killed_in_the_middle_of_them(service: Service) -> None:
    """The pool child dies twice, the whole worker twice, each while it holds claims and more jobs arrive."""
    rows = rows_to_score(COUNT)
    oracle = service.undisturbed(rows, model="energy")
    with service.submitting(rows, rate=60, model="energy") as crowd:
        service.kill_pool_child()
        service.kill_worker()
        service.stack.start_worker()
        service.kill_pool_child()
        service.kill_worker()
    killed = service.rows("SELECT count(*) FROM jobs WHERE state = 'running' OR attempt > 0")[0][0]
    service.stack.start_worker()
    service.wait_until_all_ended(seconds=25)
    assert crowd.refused == []
    assert len(crowd.accepted) == COUNT
    assert killed > 0
    service.check_promise(crowd, oracle)
    again = service.rows("SELECT count(*) FROM jobs WHERE attempt > 1")[0][0]
    assert again >= 4  # each kill hit at least one claim, and every one of them was run again
    assert service.rows("SELECT count(*) FROM model_outputs")[0][0] == 2 * COUNT  # the undisturbed run's are there, too


def queue_while_no_worker_runs(service: Service, marks: list[float], **options: Any) -> dict[str, float]:
    """Submit rows with these marks so that one claim takes them all; return job id to mark."""
    service.stack.stop("interactive")
    marks_of = {}
    with service.stack.client() as client:
        for place, mark in enumerate(marks):
            features = {"mark": mark, "chance": round((place % 100) / 100, 2)}
            answer = client.post("/jobs", json={"model": "trap", "features": features, **options})
            assert answer.status_code == 202, answer.text
            marks_of[answer.json()["id"]] = mark
    service.stack.start_worker()
    return marks_of


def ended(service: Service) -> dict[str, Any]:
    query = (
        "SELECT jobs.id::text, state, error->>'code' AS code, attempt, count(model_outputs.id) AS outputs,"
        " max(abs(probability - (features->>'chance')::float8)) AS off FROM jobs "
        "JOIN model_inputs ON job_id = jobs.id LEFT JOIN model_outputs ON input_id = model_inputs.id "
        "GROUP BY 1, 2, 3, 4"
    )
    return {row.id: row for row in service.rows(query)}


@pytest.mark.long
def test_row_that_loops_for_ever_times_out_and_spoils_no_other(service: Service) -> None:
    marks = [GOOD] * 20 + [LOOPS] + [GOOD] * 20
    marks_of = queue_while_no_worker_runs(service, marks, timeout=1)
    service.wait_until_all_ended(seconds=30)
    for job_id, row in ended(service).items():
        if marks_of[job_id] == LOOPS:
            assert (row.state, row.code, row.outputs) == ("failed", "timeout", 0)
        else:
            assert (row.state, row.outputs, row.off) == ("succeeded", 1, 0.0)
    with service.stack.client(Prefer="wait=20") as client:
        began = time.monotonic()
        answer = client.post("/models/trap/predict", json={"features": {"mark": LOOPS, "chance": 0.5}, "timeout": 1})
        assert answer.status_code == 504, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "urn:guichet:error:job_timeout"
        job = client.get(f"/jobs/{answer.json()['job_id']}").json()
        assert (job["status"], job["error"]["code"]) == ("failed", "timeout")
        assert time.monotonic() - began < 15


@pytest.mark.long
def test_row_that_crashes_the_process_fails_after_three_deaths_and_spoils_no_other(service: Service) -> None:
    marks = [GOOD] * 20 + [CRASHES] + [GOOD] * 10 + [RAISES] + [GOOD] * 10
    marks_of = queue_while_no_worker_runs(service, marks)
    service.wait_until_all_ended(seconds=50)
    for job_id, row in ended(service).items():
        if marks_of[job_id] == CRASHES:
            assert (row.state, row.code, row.attempt, row.outputs) == ("failed", "worker_lost", 3, 0)
        elif marks_of[job_id] == RAISES:
            assert (row.state, row.code, row.outputs) == ("failed", "model_failed", 0)
        else:
            assert (row.state, row.outputs, row.off) == ("succeeded", 1, 0.0)
