"""CSV files whose workers are killed, crash or loop: every row is stored exactly once, and only guilty rows fail."""

import math
import random
import time
from typing import Any

import pytest

from tests.faults.conftest import Service, rows_to_score
from tests.faults.models import CRASHES, GOOD, LOOPS, RAISES

Job = dict[str, Any]


def csv_of(rows: list[dict[str, Any]]) -> bytes:
    lines = [",".join(rows[0])]
    lines += [",".join(str(value) for value in row.values()) for row in rows]
    return ("\n".join(lines) + "\n").encode()


def upload(service: Service, content: bytes, model: str, **query: Any) -> str:
    with service.stack.client() as client:
        answer = client.post(
            "/predict_csv", params={"model": model, **query}, content=content, headers={"Content-Type": "text/csv"}
        )
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def wait(service: Service, job_id: str, *, seconds: float) -> Job:
    with service.stack.client() as client:
        deadline = time.monotonic() + seconds
        while True:
            job: Job = client.get(f"/jobs/{job_id}", headers={"Prefer": "wait=5"}).json()
            if job["finished_at"] is not None:
                return job
            assert time.monotonic() < deadline, (
                job,
                service.rows("SELECT state, crash_count, row_count FROM job_chunks"),
            )


def output(service: Service, job_id: str) -> list[str]:
    with service.stack.client() as client:
        answer = client.get(f"/jobs/{job_id}/output.csv")
    assert answer.status_code == 200, answer.text
    return answer.text.splitlines()


def check_every_row_once(service: Service, job_id: str, count: int) -> None:
    stored = service.rows(
        "SELECT count(*), count(DISTINCT row_index), min(row_index), max(row_index) FROM model_inputs "
        "WHERE job_id = :id",
        id=job_id,
    )[0]
    assert tuple(stored) == (count, count, 0, count - 1)
    outputs = service.rows(
        "SELECT count(*), count(DISTINCT input_id) FROM model_outputs "
        "JOIN model_inputs ON model_inputs.id = input_id WHERE job_id = :id",
        id=job_id,
    )[0]
    assert tuple(outputs) == (count, count)


def check_same(lines: list[str], expected: list[str]) -> None:
    """Each row is there once, with its score; how many rows are scored at a time may change its last digit."""
    assert len(lines) == len(expected)
    assert lines[0] == expected[0]
    for line, expected_line in zip(lines[1:], expected[1:], strict=True):
        (row, score, error), (wanted_row, wanted_score, wanted_error) = line.split(","), expected_line.split(",")
        assert (row, error) == (wanted_row, wanted_error)
        assert math.isclose(float(score), float(wanted_score), rel_tol=1e-12)


def survive(service: Service, *, rows: int, kills: int) -> None:
    """Score a file again and again, until its workers were killed so often while they held a chunk."""
    chance = random.Random(rows)
    content = csv_of(rows_to_score(rows))
    quiet = upload(service, content, "energy")
    assert wait(service, quiet, seconds=60)["status"] == "succeeded"
    expected = output(service, quiet)
    left, files = kills, 0
    while left:
        files += 1
        assert files < 20, f"{left} of {kills} kills are left after {files} files"
        job_id = upload(service, content, "energy")
        while left:
            whole_worker = chance.random() < 0.3
            if not service.kill_while_it_holds_a_chunk(whole_worker=whole_worker):
                break
            left -= 1
            if whole_worker:
                service.stack.start_worker("bulk", lanes="bulk,maintenance")
            time.sleep(chance.random())
        job = wait(service, job_id, seconds=60 + 10 * kills)
        assert (job["status"], job["counts"]) == (
            "succeeded",
            {"total": rows, "succeeded": rows, "failed": 0, "pending": 0},
        )
        check_every_row_once(service, job_id, rows)
        check_same(output(service, job_id), expected)
    assert service.rows("SELECT sum(crash_count) FROM job_chunks")[0][0] > 0


@pytest.mark.long
def test_file_survives_workers_that_are_killed_in_the_middle_of_it(service: Service) -> None:
    survive(service, rows=40_000, kills=3)


@pytest.mark.long
def test_large_file_survives_many_kills(service: Service) -> None:
    survive(service, rows=200_000, kills=20)


@pytest.mark.long
def test_rows_that_crash_loop_or_raise_spoil_no_other(service: Service) -> None:
    marks = [GOOD] * 300
    marks[40], marks[41], marks[200], marks[299] = CRASHES, RAISES, LOOPS, CRASHES
    rows = [{"mark": mark, "chance": (place % 100) / 100} for place, mark in enumerate(marks)]
    job_id = upload(service, csv_of(rows), "trap", timeout=1)
    job = wait(service, job_id, seconds=180)
    assert (job["status"], job["counts"]["failed"], job["has_failures"]) == ("succeeded", 4, True)
    with service.stack.client() as client:
        errors = client.get(f"/jobs/{job_id}/errors.csv").text.splitlines()[1:]
    assert [(line.split(",")[0], line.split(",")[2]) for line in errors] == [
        ("41", "worker_lost"),
        ("42", "model_failed"),
        ("201", "worker_lost"),
        ("300", "worker_lost"),
    ]
    scored = service.rows(
        "SELECT row_index, probability, (features->>'chance')::float8 FROM model_inputs "
        "JOIN model_outputs ON input_id = model_inputs.id WHERE job_id = :id ORDER BY row_index",
        id=job_id,
    )
    assert [row[0] for row in scored] == [place for place, mark in enumerate(marks) if mark == GOOD]
    assert all(probability == chance for _, probability, chance in scored)
    with service.stack.client() as client:
        again = client.post(f"/jobs/{job_id}/retry", params={"only": "failed"})
    assert again.status_code == 202, again.text  # the rows that took workers down are tried again
    job = wait(service, job_id, seconds=120)
    assert (job["status"], job["counts"]["failed"]) == ("succeeded", 4)
