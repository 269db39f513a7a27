"""Erasing jobs over HTTP, and by their age: nothing that was made of their rows stays, on both runtimes."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import Engine, create_engine, insert, select, update

from api.auth.callers import make_key
from shared.database.engine import make_engine
from shared.tables import ApiKey, ErasedJob, FeatureCount, Job, ModelVersion, RequestLog, ScorePart, Table
from tests.contracts.csv_files import post_csv
from tests.contracts.helpers import apart, check_problem, new_id, paused, wait_for_job, wait_until
from tests.contracts.monitoring.test_monitoring import drift_when_counted
from tests.support.stack import Stack

WAIT = {"Prefer": "wait=30"}


def holders(engine: Engine, job_ids: list[str]) -> dict[str, int]:
    """Return the rows that speak of these jobs, by table, as far as there are any: every table that leads to `jobs`."""
    tables = Table.metadata.tables
    counts: dict[str, int] = {}
    with engine.connect() as connection:
        keys: dict[str, Any] = {"jobs": select(tables["jobs"].c.id).where(Job.id.in_(job_ids))}
        for table in Table.metadata.sorted_tables:
            for column in table.columns:
                for target in column.foreign_keys:
                    if target.column.table.name in keys and table.name not in keys and table.name != "jobs":
                        inside = column.in_(keys[target.column.table.name])
                        key = next(iter(table.primary_key.columns))
                        keys[table.name] = select(key).where(inside)
        for name, query in keys.items():
            if count := len(connection.execute(query).all()):
                counts[name] = count
    return counts


def aggregates(engine: Engine, name: str) -> tuple[list[Any], list[Any]]:
    """Return the counters and packed scores of a model, as far as they hold rows."""
    with engine.connect() as connection:
        of_model = ModelVersion.name == name
        counts = connection.execute(
            select(FeatureCount.span, FeatureCount.starts_at, FeatureCount.row_count, FeatureCount.counts)
            .join(ModelVersion)
            .where(of_model)
            .order_by(FeatureCount.span, FeatureCount.starts_at)
        ).all()
        parts = connection.execute(
            select(ScorePart.starts_at, ScorePart.input_ids, ScorePart.scores, ScorePart.decisions)
            .join(ModelVersion)
            .where(of_model)
            .order_by(ScorePart.starts_at, ScorePart.part)
        ).all()
    return [tuple(row) for row in counts], [tuple(row) for row in parts]


def test_erased_job_leaves_nothing_that_was_made_of_its_rows(
    client: httpx2.Client, engine: Engine, speak: Callable[..., str], attrition_row: dict[str, Any]
) -> None:
    name = speak("forgotten", "attrition")
    stays = attrition_row | {"revenu_mensuel": attrition_row["revenu_mensuel"] + 10}

    def predict(row: dict[str, Any], **headers: str) -> httpx2.Response | None:
        answer = client.post(f"/models/{name}/predict", json={"features": row}, headers=WAIT | headers)
        return answer if answer.status_code == 200 else None  # 503: it is being loaded

    other = wait_until(lambda: predict(stays)).json()["job_id"]
    drift_when_counted(client, 1, model=name)
    before = aggregates(engine, name)
    request_id = new_id()
    job_id = wait_until(lambda: predict(attrition_row, **{"X-Request-Id": request_id})).json()["job_id"]
    client.post(f"/jobs/{job_id}/outcome", json={"actual": "Part"}).raise_for_status()
    alone = client.post("/explain", json={"job_id": job_id}, headers=WAIT)
    assert alone.status_code == 200, alone.text
    explained = client.post("/explain", json={"job_id": other}, headers=WAIT).json()["job_id"]
    every = client.post(f"/jobs/{job_id}/explain").json()["id"]
    wait_for_job(client, every)
    drift_when_counted(client, 2, model=name)
    wait_until(lambda: any(hashes(engine, request_id)) or None)
    assert aggregates(engine, name) != before
    copies = [alone.json()["job_id"], every]

    answer = client.delete(f"/jobs/{job_id}", params={"reason": "asked for by the person"})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["id"], body["rows"], sorted(body["erased"][1:])) == (job_id, 1, sorted(copies))
    assert holders(engine, [job_id, *copies]) == {}
    assert aggregates(engine, name) == before
    assert hashes(engine, request_id) == [None]
    for place in ("", "/result", "/lineage", "/explanations", "/events"):
        check_problem(client.get(f"/jobs/{job_id}{place}"), 410, "gone")
    problem = check_problem(client.delete(f"/jobs/{job_id}"), 410, "gone")
    assert re.search(r"was erased at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC: nothing of it is left", problem["detail"])
    check_problem(client.get(f"/jobs/{every}/output.csv"), 410, "gone")
    for change in ("cancel", "retry", "explain"):
        check_problem(client.post(f"/jobs/{job_id}/{change}"), 410, "gone")
    check_problem(client.post("/explain", json={"job_id": job_id}), 410, "gone")
    assert client.get(f"/jobs/{other}/result").status_code == 200
    assert client.get(f"/jobs/{explained}/result").status_code == 200
    (entry,) = client.get("/logs/audit", params={"action": "job.erased", "target": f"job:{job_id}"}).json()["items"]
    assert entry["details"]["reason"] == "asked for by the person"
    assert sorted(entry["details"]["explanations"]) == sorted(copies)
    drift = drift_when_counted(client, 1, model=name)
    assert drift["rows"] == 1
    kpis = client.get("/metrics/kpis", params={"model": name}).json()
    assert sum(day["rows"] for day in kpis["days"]) == 1


def hashes(engine: Engine, request_id: str) -> list[str | None]:
    with engine.connect() as connection:
        return list(connection.scalars(select(RequestLog.input_hash).where(RequestLog.request_id == request_id)))


def test_file_is_erased_with_its_chunks_and_the_explanations_of_it(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    names = list(attrition_row)
    pay = attrition_row["revenu_mensuel"]
    rows = [attrition_row | {"revenu_mensuel": pay + 20 + place} for place in range(3)]
    lines = [",".join(str(row[name]) for name in names) for row in rows]
    job_id = post_csv(client, "\n".join([",".join(names), *lines]) + "\n").json()["id"]
    wait_for_job(client, job_id, seconds=60)
    every = client.post(f"/jobs/{job_id}/explain").json()["id"]
    wait_for_job(client, every, seconds=60)
    one = client.post("/explain", json={"job_id": job_id, "row": 1}, headers=WAIT).json()["job_id"]
    again = client.delete(f"/jobs/{every}")
    assert again.json()["erased"] == [every]  # an explanation can be erased alone
    assert client.get(f"/jobs/{job_id}/output.csv").status_code == 200
    assert client.delete(f"/jobs/{job_id}").json()["erased"] == [job_id, one]
    assert holders(engine, [job_id, one, every]) == {}


def test_job_that_has_not_ended_is_not_erased(queue: Stack, attrition_row: dict[str, Any]) -> None:
    row = attrition_row | {"revenu_mensuel": attrition_row["revenu_mensuel"] + 1_091}  # that nobody else has explained
    with queue.client() as client:
        for unknown in ("x" * 8, "0195f5e8-7a3c-7def-8123-456789abcdef"):
            check_problem(client.delete(f"/jobs/{unknown}"), 404, "not_found")
        scored = client.post("/predict", json={"features": row}, headers=WAIT).json()["job_id"]
        with paused(queue, "interactive", "bulk"):
            queued = client.post("/jobs", json={"features": row}).json()["id"]
            problem = check_problem(client.delete(f"/jobs/{queued}"), 409, "conflict")
            assert "still queued: cancel it" in problem["detail"]
            every = client.post(f"/jobs/{scored}/explain").json()["id"]
            problem = check_problem(client.delete(f"/jobs/{scored}"), 409, "conflict")
            assert f"The job {every} explains its rows and is still queued" in problem["detail"]
            assert client.get(f"/jobs/{scored}/result").status_code == 200
            for job_id in (queued, every):
                client.post(f"/jobs/{job_id}/cancel").raise_for_status()
            assert client.delete(f"/jobs/{queued}").json()["erased"] == [queued]
            assert client.delete(f"/jobs/{scored}").json()["erased"] == [scored, every]


@pytest.mark.parametrize("stack", ["sync"], indirect=True)
def test_job_of_somebody_else_is_not_erased(keyed: Stack, attrition_row: dict[str, Any]) -> None:
    with keyed.client() as client:
        keys = {}
        database = make_engine(keyed.database_url)
        with database.begin() as connection:
            for name, scope in (("owner", "predict"), ("other", "predict"), ("reader", "read"), ("admin", "admin")):
                secret, digest = make_key()
                keys[name] = {"X-API-Key": secret}
                connection.execute(insert(ApiKey).values(id=digest[:16], name=name, sha256=digest, scopes=scope))
        database.dispose()
        body = {"features": attrition_row}
        job_id = client.post("/predict", json=body, headers=keys["owner"] | WAIT).json()["job_id"]
        mine = client.post("/explain", json=body, headers=keys["other"] | WAIT).json()["job_id"]
        seen = client.post("/explain", json={"job_id": job_id}, headers=keys["admin"] | WAIT).json()["job_id"]
        for name, status in (("other", 404), ("reader", 403)):
            assert client.delete(f"/jobs/{job_id}", headers=keys[name]).status_code == status
        erased = client.delete(f"/jobs/{job_id}", headers=keys["owner"]).json()["erased"]
        assert erased == [job_id, seen]  # an administrator's explanation of it, and not another owner's equal row
        assert client.get(f"/jobs/{mine}/result", headers=keys["other"]).status_code == 200
        for name, status in (("owner", 410), ("admin", 410), ("other", 404), ("reader", 404)):
            assert client.get(f"/jobs/{job_id}", headers=keys[name]).status_code == status
        for name, status in (("owner", 410), ("admin", 410), ("other", 404)):  # the second time
            assert client.delete(f"/jobs/{job_id}", headers=keys[name]).status_code == status


@contextmanager
def retaining(stack: Stack, folder: Path) -> Iterator[tuple[Stack, Callable[[], None]]]:
    """Yield a service that erases what is 30 days old, and what lets it begin to do so."""
    if stack.runtime == "sync":
        with apart(stack, folder, JOB_DAYS="30") as other:

            def restart() -> None:
                other.stop("api")
                other.start_api()

            yield other, restart
        return
    extra = Stack(stack.runtime, stack.env | {"JOB_DAYS": "30"}, folder, stack.port)
    try:
        yield stack, lambda: extra.start_worker("retaining", lanes="bulk")
    finally:
        extra.stop_all()


@pytest.mark.flow
def test_jobs_are_erased_by_their_age(stack: Stack, tmp_path: Path, attrition_row: dict[str, Any]) -> None:
    with retaining(stack, tmp_path) as (service, begin), service.client() as client:
        engine = create_engine(service.database_url)
        batch = {"rows": [attrition_row] * 3}
        old, new = (client.post("/predict_batch", json=batch, headers=WAIT).json()["job_id"] for _ in range(2))
        every = client.post(f"/jobs/{old}/explain").json()["id"]
        wait_for_job(client, every, seconds=60)
        with engine.begin() as connection:
            long_ago = datetime.now(UTC) - timedelta(days=31)
            connection.execute(update(Job).where(Job.id == old).values(finished_at=long_ago))
            forgotten = str(uuid4())
            connection.execute(insert(ErasedJob).values(id=forgotten, erased_at=long_ago))
        check_problem(client.get(f"/jobs/{forgotten}"), 410, "gone")
        begin()
        wait_until(lambda: client.get(f"/jobs/{old}").status_code == 410 or None, seconds=90)
        check_problem(client.get(f"/jobs/{forgotten}"), 404, "not_found")
        assert holders(engine, [old, every]) == {}
        assert client.get(f"/jobs/{new}/result").status_code == 200

        def look() -> list[Any] | None:
            items = client.get("/logs/audit", params={"action": "job.erased", "actor": "retention"}).json()["items"]
            return items or None

        (entry, *_) = wait_until(look)
        assert entry["details"] == {"jobs": 2, "rows": 6, "older_than_days": 30.0}
        engine.dispose()


@pytest.mark.flow
@pytest.mark.parametrize("days", ["-1", "soon"])
def test_days_that_are_none_end_the_start(sync: Stack, days: str) -> None:
    ended = sync.run("api.check", check=False, JOB_DAYS=days)
    assert ended.returncode != 0
    assert "JOB_DAYS" in ended.stdout + ended.stderr
