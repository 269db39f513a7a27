"""What callers race, a thousand rounds each: two do the same at once, or one does what another undoes.

After each test the tables are asked whether they still agree with each other. FUZZ_ROUNDS sets the number of rounds.
"""

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from redis import Redis as Client
from sklearn.linear_model import LogisticRegression
from sqlalchemy import Engine, delete, func, insert, select, update

from api.auth.callers import hash_key
from shared.broker.names import Lane
from shared.database.engine import make_engine, reader, session_scope
from shared.jobs.queries.jobs import TERMINAL
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from shared.registry.aliases import promote
from shared.tables import ApiKey, CsvFile, Job, JobChunk, JobEvent, ModelInput, ModelOutput
from tests.contracts.helpers import apart, wait_until
from tests.fuzz.wire import CSV, JSON, Answer, Wire
from tests.support.brief import prove_briefly
from tests.support.csv_jobs import file_of
from tests.support.stack import Stack

pytestmark = pytest.mark.fuzz

ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "1000"))
PAIRS = 12  # of connections that race at the same time
SEED = 20260101
NO_WAIT = {"Prefer": "respond-async"}

Round = Callable[[int, Wire, Wire], Awaitable[str]]


def race(stack: Stack, name: str, play: Round, *, pairs: int = PAIRS, rounds: int = ROUNDS) -> Counter[str]:
    """Play so many rounds on pairs of connections; return how they ended, and tell it."""
    endings: Counter[str] = Counter()

    async def run(first: int) -> None:
        async with Wire(stack.port) as one, Wire(stack.port) as two:
            for number in range(first, rounds, pairs):
                endings[await play(number, one, two)] += 1

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            for first in range(pairs):
                group.create_task(run(first))

    asyncio.run(all_of_them())
    sums = ", ".join(f"{ending}: {count}" for ending, count in sorted(endings.items()))
    print(f"\nmake fuzz: {stack.runtime}, {rounds} races of {name}: {sums}", end="")
    assert endings.total() == rounds
    return endings


@pytest.fixture(autouse=True)
def _tables_agree(stack: Stack, engine: Engine) -> Iterator[None]:
    """Ask the tables after each test for what must hold of all jobs that it made."""
    began = datetime.now(UTC) - timedelta(seconds=1)
    yield
    check_tables(stack, engine, began)


def check_tables(stack: Stack, engine: Engine, began: datetime) -> None:
    """Wait until all jobs since `began` have ended; check that jobs, rows, outputs, chunks and events agree."""
    new = select(Job.id).where(Job.created_at >= began)

    def ended() -> bool | None:
        with reader(engine).connect() as connection:
            left = select(func.count()).select_from(Job).where(Job.id.in_(new), Job.state.not_in(TERMINAL))
            return connection.scalar(left) == 0 or None

    wait_until(ended, seconds=120)
    inputs = select(func.count()).where(ModelInput.job_id == Job.id).scalar_subquery()
    good = select(func.count()).where(ModelInput.job_id == Job.id, ModelInput.faults.is_(None)).scalar_subquery()
    joined = ModelOutput.__table__.join(ModelInput.__table__, ModelInput.id == ModelOutput.input_id)
    outputs = select(func.count()).select_from(joined).where(ModelInput.job_id == Job.id).scalar_subquery()
    events = select(func.count()).where(JobEvent.job_id == Job.id).scalar_subquery()
    last = select(func.max(JobEvent.seq)).where(JobEvent.job_id == Job.id).scalar_subquery()
    ends = select(func.count()).where(JobEvent.job_id == Job.id, JobEvent.type == "finished").scalar_subquery()
    done = (JobChunk.job_id == Job.id, JobChunk.state == "done")
    chunk_rows = select(func.coalesce(func.sum(JobChunk.row_count), 0)).where(*done).scalar_subquery()
    open_chunks = select(func.count()).where(JobChunk.job_id == Job.id, JobChunk.state.in_(("queued", "running")))
    of_new = Job.created_at >= began
    is_csv = Job.kind == "csv"
    files = select(Job.id).join(CsvFile, CsvFile.job_id == Job.id).where(of_new)
    never = {
        "rows that are not there": select(Job.id).where(of_new, ~is_csv, inputs != Job.row_count),
        "succeeded rows without exactly one output": select(Job.id).where(
            of_new, ~is_csv, Job.state == "succeeded", outputs + Job.failed_count != Job.row_count
        ),
        "outputs of rows with faults": select(Job.id).where(of_new, outputs > good),
        "outputs of jobs that gave none": select(Job.id).where(
            of_new, ~is_csv, Job.state.in_(("canceled", "expired")), outputs > 0
        ),
        "success without an attempt": select(Job.id).where(of_new, Job.state == "succeeded", Job.attempt < 1),
        "too many attempts": select(Job.id).where(of_new, Job.attempt > Job.max_attempts),
        "two jobs of one key": select(Job.idempotency_key)
        .where(of_new, Job.idempotency_key.is_not(None))
        .group_by(Job.idempotency_scope, Job.idempotency_key)
        .having(func.count() > 1),
        "CSV jobs without a file": select(Job.id).where(of_new, is_csv, Job.id.not_in(files)),
        "events with gaps": files.where((events != CsvFile.event_count) | (func.coalesce(last, 0) != events)),
        "ends that are not told once": files.where(ends != 1),
        "rows done that are in no chunk": files.where(CsvFile.rows_done != chunk_rows),
        "success with rows left": files.where(Job.state == "succeeded", CsvFile.rows_done != Job.row_count),
        "chunks that outlive their job": files.where(open_chunks.scalar_subquery() > 0),
    }
    with reader(engine).connect() as connection:
        wrong = {what: rows for what, query in never.items() if (rows := connection.execute(query.limit(3)).all())}
    assert wrong == {}
    if stack.redis is not None:
        with Client.from_url(stack.redis.url) as redis:
            lengths = {lane.value: redis.llen(lane.value) for lane in Lane}
        # A wake-up for each lane and version at most, and what the timer has sent.
        assert max(lengths.values()) <= 50, lengths


def body_of(row: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"features": row, **more}).encode()


async def until_stored(wire: Wire, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
    """Ask, and again while the first request with this key is being stored, as its 409 says."""
    while True:
        answer = await wire.ask(method, path, body, headers)
        if answer.status != 409:
            return answer
        assert answer.headers["retry-after"] == "1"
        assert b"is still being" in answer.body
        await asyncio.sleep(0.01)


async def same_twice(
    one: Wire, two: Wire, method: str, path: str, bodies: tuple[bytes, bytes], headers: dict[str, str]
) -> str:
    """Send two requests of one key, or one id, at once; check that one job comes of it. Return how it ended."""
    answers = await asyncio.gather(
        *(until_stored(wire, method, path, body, headers) for wire, body in zip((one, two), bodies, strict=True))
    )
    if bodies[0] == bodies[1]:
        assert [answer.status for answer in answers] == [202, 202], answers
        assert answers[0].json()["id"] == answers[1].json()["id"], answers
        return "one job"
    first, second = sorted(answers, key=lambda answer: answer.status)
    assert (first.status, second.status) == (202, 422), answers
    assert second.json()["type"] == "urn:guichet:error:idempotency_mismatch"
    assert second.json()["job_id"] == first.json()["id"]
    return "one job, the other body refused"


def test_a_key_sent_twice_at_once_makes_one_job(stack: Stack, attrition_row: dict[str, Any]) -> None:
    bodies = body_of(attrition_row), body_of(attrition_row | {"poste": "Manager"})

    async def play(number: int, one: Wire, two: Wire) -> str:
        other = bodies[number % 4 == 0]
        headers = JSON | {"Idempotency-Key": f"race-{time.monotonic_ns()}-{number}"}
        return await same_twice(one, two, "POST", "/jobs", (bodies[0], other), headers)

    race(stack, "one Idempotency-Key", play)


def test_an_own_id_put_twice_at_once_makes_one_job(stack: Stack, attrition_row: dict[str, Any]) -> None:
    bodies = body_of(attrition_row), body_of(attrition_row | {"poste": "Manager"})

    async def play(number: int, one: Wire, two: Wire) -> str:
        other = bodies[number % 4 == 0]
        path = f"/jobs/race-{time.monotonic_ns()}-{number}"
        return await same_twice(one, two, "PUT", path, (bodies[0], other), JSON)

    race(stack, "one id of the caller's", play)


def test_a_file_sent_twice_at_once_with_one_key_makes_one_job(stack: Stack, attrition_row: dict[str, Any]) -> None:
    files = file_of([attrition_row] * 3), file_of([attrition_row] * 4)

    async def play(number: int, one: Wire, two: Wire) -> str:
        other = files[number % 4 == 0]
        headers = CSV | {"Idempotency-Key": f"race-{time.monotonic_ns()}-{number}"}
        return await same_twice(one, two, "POST", "/predict_csv", (files[0], other), headers)

    race(stack, "one file and key", play, pairs=4)  # eight files are received at a time


def test_a_job_that_is_canceled_while_it_is_accepted_or_ends_ends_once(
    stack: Stack, attrition_row: dict[str, Any]
) -> None:
    body, chance = body_of(attrition_row), random.Random(SEED)
    batch = json.dumps({"rows": [attrition_row] * 200}).encode()

    async def play(number: int, one: Wire, two: Wire) -> str:
        if number % 2:  # known by its own id, before its answer has come
            job = f"race-{time.monotonic_ns()}-{number}"
            accepting = asyncio.create_task(one.ask("PUT", f"/jobs/{job}", body, JSON))
        else:
            accepting = asyncio.create_task(one.ask("POST", "/predict_batch", batch, JSON | NO_WAIT))
            job = (await accepting).json()["id"]
        await asyncio.sleep(chance.random() * 0.02)
        canceled = await two.ask("POST", f"/jobs/{job}/cancel")
        assert (await accepting).status == 202
        if canceled.status == 404:
            assert number % 2  # it was not there yet
        seen = (await two.ask("GET", f"/jobs/{job}", headers={"Prefer": "wait=20"})).json()
        assert seen["status"] in TERMINAL
        return await check_end(one, job, seen["status"], [canceled.status])

    race(stack, "cancel, acceptance and completion", play)


async def check_end(wire: Wire, job: str, status: str, cancels: list[int]) -> str:
    """Check that a job's end, its result and the answers to whoever canceled it agree; return how it ended."""
    assert set(cancels) <= {200, 202, 404, 409}
    assert cancels.count(200) <= 1, cancels  # what was queued is canceled once
    final = (await wire.ask("GET", f"/jobs/{job}")).json()
    result = await wire.ask("GET", f"/jobs/{job}/result")
    assert final["status"] == status
    assert result.status == (200 if status == "succeeded" else 409)
    if 200 in cancels:
        assert status == "canceled"
    if set(cancels) <= {404, 409}:
        assert status == "succeeded"
    return f"{status} after {'/'.join(map(str, sorted(cancels)))}"


def test_a_job_canceled_twice_at_once_is_canceled_once(stack: Stack, attrition_row: dict[str, Any]) -> None:
    body, chance = body_of(attrition_row), random.Random(SEED)

    async def play(number: int, one: Wire, two: Wire) -> str:
        job = (await one.ask("POST", "/jobs", body, JSON)).json()["id"]
        await asyncio.sleep(chance.random() * 0.01)
        answers = await asyncio.gather(*(wire.ask("POST", f"/jobs/{job}/cancel") for wire in (one, two)))
        seen = (await one.ask("GET", f"/jobs/{job}", headers={"Prefer": "wait=20"})).json()
        return await check_end(one, job, seen["status"], [answer.status for answer in answers])

    race(stack, "two cancels", play)


def test_files_downloaded_while_their_job_is_canceled_are_whole_lines(
    stack: Stack, attrition_row: dict[str, Any]
) -> None:
    content, chance = file_of([attrition_row] * 50), random.Random(SEED)

    async def play(number: int, one: Wire, two: Wire) -> str:
        answer = await one.ask("POST", "/predict_csv", content, CSV)
        assert answer.status == 202, answer
        job = answer.json()["id"]

        async def cancel() -> Answer:
            await asyncio.sleep(chance.random() * 0.05)
            return await two.ask("POST", f"/jobs/{job}/cancel")

        canceling = asyncio.create_task(cancel())
        for place in ("output.csv?partial=true", "output.csv", "errors.csv?partial=true"):
            check_file(await one.ask("GET", f"/jobs/{job}/{place}"), place, rows=50)
        canceled = await canceling
        status = (await one.ask("GET", f"/jobs/{job}", headers={"Prefer": "wait=20"})).json()["status"]
        ending = await check_end(one, job, status, [canceled.status])
        whole = await one.ask("GET", f"/jobs/{job}/output.csv")
        assert whole.status == (200 if status == "succeeded" else 409)
        part = await one.ask("GET", f"/jobs/{job}/output.csv?partial=true")
        assert part.body.count(b"\n") == 1 + int(part.headers["x-rows-done"])
        return ending

    race(stack, "downloads and cancel", play, pairs=4)


def check_file(answer: Answer, place: str, *, rows: int) -> None:
    """Check that a file is 409, because its job goes on, or a header and whole lines."""
    if answer.status == 409:
        assert "partial" not in place
        return
    assert answer.status == 200, (place, answer)
    assert answer.body.endswith(b"\n")
    assert answer.body.startswith(b"row_no,")
    assert answer.body.count(b"\n") <= 1 + rows


# ── what operators change meanwhile ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def racing(stack: Stack, engine: Engine, models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a model with two versions, whose thresholds are 0.3 and 0.6."""
    prove_briefly(monkeypatch)
    values = np.linspace(-1, 1, 40)
    (tmp_path / "rows.csv").write_text("x0\n" + "\n".join(f"{value:.6f}" for value in values) + "\n")
    with stack.client() as client:
        for version, threshold in THRESHOLDS.items():
            if client.get(f"/models/racing/versions/{version}").status_code == 404:
                estimator = LogisticRegression(C=version).fit(values[:, None], values > 0)
                joblib.dump(estimator, tmp_path / "model.joblib")
                with session_scope(engine) as session:
                    add(
                        session,
                        tmp_path / "model.joblib",
                        AddOptions(reference=tmp_path / "rows.csv", name="racing", threshold=threshold),
                        models_dir=models_dir,
                    )
            path = f"/v2/models/racing/versions/{version}/ready"
            wait_until(lambda path=path: client.get(path).status_code == 200 or None, seconds=60)  # type: ignore[misc]
        return "racing"


THRESHOLDS = {1: 0.3, 2: 0.6}


def test_answers_while_a_model_is_promoted_are_one_versions_and_say_which(
    stack: Stack, engine: Engine, racing: str
) -> None:
    with stack.client() as client:
        feature = client.get(f"/models/{racing}").json()["card"]["features"][0]["name"]
        shas = {n: client.get(f"/models/{racing}/versions/{n}").json()["model_sha256"] for n in THRESHOLDS}
    body = body_of({feature: 0.0})
    is_over = False

    def move() -> None:
        version = 1
        while not is_over:
            version = 3 - version
            with session_scope(engine) as session:
                promote(session, racing, version)
            time.sleep(0.1)

    async def play(number: int, one: Wire, two: Wire) -> str:
        answers = await asyncio.gather(
            *(wire.ask("POST", f"/models/{racing}/predict", body, JSON) for wire in (one, two))
        )
        for answer in answers:
            assert answer.status == 200, answer
            result = answer.json()
            version = result["model_version"]
            assert result["threshold"] == THRESHOLDS[version]
            assert result["prediction"] == int(result["probability"] >= THRESHOLDS[version])
            job = (await one.ask("GET", f"/jobs/{result['job_id']}")).json()
            assert (job["model"], job["model_version"], job["model_sha256"]) == (racing, version, shas[version])
        return " and ".join(sorted(str(answer.json()["model_version"]) for answer in answers))

    with Beside(move):
        try:
            endings = race(stack, "promotion and predict", play)
        finally:
            is_over = True
    assert {"1 and 1", "2 and 2"} <= endings.keys() or ROUNDS < 100


class Beside:
    """Runs something in a thread while the block runs, and raises what it raised."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._work = self._pool.submit(work)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._work.result(60)
        self._pool.shutdown()


def test_a_key_that_is_revoked_while_it_is_used_is_known_or_not(
    stack: Stack, attrition_row: dict[str, Any], tmp_path: Path
) -> None:
    body = body_of(attrition_row)
    with apart(stack, tmp_path, AUTH="keys") as guarded:
        engine = make_engine(guarded.database_url)
        keys = [(f"race{number}", f"guichet_{number:043d}") for number in range(ROUNDS)]
        rows = [{"id": name, "name": name, "sha256": hash_key(key), "scopes": "predict,read"} for name, key in keys]
        with engine.begin() as connection:
            connection.execute(insert(ApiKey), rows)
        with guarded.client(authorization=f"Bearer {keys[-1][1]}") as client:
            wait_until(lambda: client.get("/jobs").status_code == 200 or None)

        def revoke(number: int) -> None:
            name = keys[number][0]
            with engine.begin() as connection:
                connection.execute(update(ApiKey).where(ApiKey.id == name).values(revoked_at=func.now()))

        async def play(number: int, one: Wire, two: Wire) -> str:
            _, key = keys[number]
            headers = JSON | {"Authorization": f"Bearer {key}"}
            first = await one.ask("POST", "/jobs", body, headers)
            assert first.status == 202, first
            revoking = asyncio.create_task(asyncio.to_thread(revoke, number))
            seen: list[int] = []
            job = first.json()["id"]
            while not seen or seen[-1] != 401:  # at the latest when the keys are read again
                answers = await asyncio.gather(
                    two.ask("POST", "/jobs", body, headers), one.ask("GET", f"/jobs/{job}", headers=headers)
                )
                assert answers[0].status in (202, 401), answers
                assert answers[1].status in (200, 401), answers
                assert len(seen) < 10_000
                seen.append(max(answer.status for answer in answers))
            await revoking
            for method, path in (("GET", f"/jobs/{job}"), ("POST", "/jobs"), ("POST", f"/jobs/{job}/cancel")):
                answer = await one.ask(method, path, body if method == "POST" else b"", headers)
                assert answer.status == 401, answer
            return "known, then not"

        try:
            race(guarded, "revocation and use", play)
            with reader(engine).connect() as connection:
                owners = set(connection.scalars(select(Job.owner).where(Job.owner.like("race%"))))
            assert owners == {name for name, _ in keys}
        finally:
            with engine.begin() as connection:
                connection.execute(delete(ApiKey).where(ApiKey.id.like("race%")))
            engine.dispose()
