"""Changes of all jobs that match a filter: counted first, confirmed, and done."""

from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, insert

from api.auth.callers import make_key
from shared.database.engine import make_engine
from shared.tables import ApiKey
from tests.contracts.helpers import check_accepted, check_problem, faults_of, paused, wait_for_job, wait_until
from tests.support.csv_jobs import let_go, put_file, wake
from tests.support.stack import Stack


def files(engine: Engine, row: dict[str, Any], count: int) -> list[str]:
    """Store files that no worker takes up yet, and return their ids."""
    return [put_file(engine, [[row], [row] * 2]) for _ in range(count)]


def states(client: httpx2.Client, ids: list[str]) -> list[str]:
    return [client.get(f"/jobs/{job_id}").json()["status"] for job_id in ids]


@pytest.fixture
def since() -> str:
    """The moment of the test, in the filter: other tests leave jobs behind."""
    return datetime.now(UTC).isoformat()


def test_queued_jobs_are_counted_then_canceled_and_later_ones_are_left_alone(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any], since: str
) -> None:
    ids = files(engine, attrition_row, 3)
    chosen = {"model": "attrition", "status": "queued", "from": since}
    answer = client.post("/jobs/cancel", json=chosen)
    assert answer.status_code == 200
    counted = answer.json()
    assert counted == {"count": 3, "is_lower_bound": False, "confirm": counted["confirm"]}
    assert states(client, ids) == ["queued"] * 3
    (later,) = files(engine, attrition_row, 1)
    answer = client.post("/jobs/cancel", json=chosen | {"confirm": counted["confirm"]})
    assert answer.status_code == 202
    assert answer.json() == {"changed": 3, "refused": 0, "has_more": False}
    assert states(client, [*ids, later]) == ["canceled"] * 3 + ["queued"]
    again = client.post("/jobs/cancel", json=chosen | {"confirm": counted["confirm"]})
    assert again.json() == {"changed": 0, "refused": 0, "has_more": False}
    client.post(f"/jobs/{later}/cancel")


def test_ended_files_are_counted_then_taken_up_again(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any], since: str
) -> None:
    ids = files(engine, attrition_row, 2)
    for job_id in ids:
        assert client.post(f"/jobs/{job_id}/cancel").status_code == 200
    client.post("/predict", json={"features": attrition_row})  # which cannot be taken up
    counted = client.post("/jobs/retry", json={"from": since}).json()
    assert counted["count"] == 2
    answer = client.post("/jobs/retry", json={"from": since, "confirm": counted["confirm"]})
    assert (answer.status_code, answer.json()) == (202, {"changed": 2, "refused": 0, "has_more": False})
    for job_id in ids:
        let_go(engine, job_id)
    wake(client, attrition_row)
    for job_id in ids:
        assert wait_for_job(client, job_id)["counts"]["succeeded"] == 3
    assert client.post("/jobs/retry", json={"from": since}).json() == {
        "count": 0,
        "is_lower_bound": False,
        "confirm": None,
    }


def test_single_rows_are_canceled_too(queue: Stack, attrition_row: dict[str, Any], since: str) -> None:
    with queue.client() as client:
        with paused(queue):
            rows = [check_accepted(client.post("/jobs", json={"features": attrition_row}))["id"] for _ in range(4)]
            counted = client.post("/jobs/cancel", json={"from": since, "status": "queued"}).json()
            assert counted["count"] == 4
            answer = client.post(
                "/jobs/cancel", json={"from": since, "status": "queued", "confirm": counted["confirm"]}
            )
            assert answer.json()["changed"] == 4
        assert states(client, rows) == ["canceled"] * 4


def test_confirmation_of_another_filter_is_refused(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any], since: str
) -> None:
    (job_id,) = files(engine, attrition_row, 1)
    confirm = client.post("/jobs/cancel", json={"from": since}).json()["confirm"]
    for path, body in (
        ("/jobs/cancel", {"confirm": confirm}),
        ("/jobs/cancel", {"from": since, "model": "attrition", "confirm": confirm}),
        ("/jobs/retry", {"from": since, "confirm": confirm}),
        ("/jobs/cancel", {"from": since, "confirm": "2" + confirm[1:]}),
        ("/jobs/cancel", {"from": since, "confirm": "yes"}),
        ("/jobs/cancel", {"from": since, "confirm": ""}),
        ("/jobs/cancel", {"from": since, "confirm": "nan.0"}),
    ):
        assert "counted again" in check_problem(client.post(path, json=body), 409, "conflict")["detail"]
    assert states(client, [job_id]) == ["queued"]
    client.post(f"/jobs/{job_id}/cancel")


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({"status": "done"}, 422, "/status"),
        ({"from": "yesterday"}, 422, "/from"),
        ({"to": 1}, 422, "/to"),
        ({"ids": []}, 422, "/ids"),
        ({"confirm": 1}, 422, "/confirm"),
        ([], 422, ""),
        ({"model": "ghost"}, 404, None),
    ],
)
@pytest.mark.parametrize("change", ["cancel", "retry"])
def test_filter_that_is_not_valid_is_refused(
    client: httpx2.Client, change: str, body: Any, status: int, pointer: str | None
) -> None:
    problem = check_problem(client.post(f"/jobs/{change}", json=body), status)
    if pointer is not None:
        assert [place for place, _ in faults_of(problem)] == [pointer]
    check_problem(client.post(f"/jobs/{change}", content=b"{", headers={"Content-Type": "application/json"}), 400)


def test_jobs_of_another_key_are_neither_counted_nor_changed(
    keyed: Stack, attrition_row: dict[str, Any], since: str
) -> None:
    secrets, owners = {}, {}
    with keyed.client() as door:
        own = make_engine(keyed.database_url)
        with own.begin() as connection:
            for name, scopes in {"ann": "predict,read", "ben": "predict", "cat": "read", "admin": "admin"}.items():
                secrets[name], digest = make_key()
                owners[name] = digest[:16]
                connection.execute(insert(ApiKey).values(id=digest[:16], name=name, sha256=digest, scopes=scopes))
        job_id = put_file(own, [[attrition_row]], owner=owners["ann"])
        own.dispose()

        def ask(name: str, **body: str) -> httpx2.Response:
            return door.post("/jobs/cancel", json={"from": since} | body, headers={"X-API-Key": secrets[name]})

        wait_until(lambda: ask("ann").status_code == 200 or None)  # the API has seen the keys
        assert {name: ask(name).json()["count"] for name in ("ann", "ben", "admin")} == {"ann": 1, "ben": 0, "admin": 1}
        assert ask("cat").status_code == 403
        assert door.post("/jobs/cancel", json={}).status_code == 401
        confirm = ask("ann").json()["confirm"]
        assert ask("ben", confirm=confirm).json() == {"changed": 0, "refused": 0, "has_more": False}
        job = door.get(f"/jobs/{job_id}", headers={"X-API-Key": secrets["ann"]}).json()
        assert job["status"] == "queued"
        assert ask("admin", confirm=confirm).json() == {"changed": 1, "refused": 0, "has_more": False}
