"""The life of a chunk and of its job: claims, leases, deaths, cancellation, too many errors, taking up the rest."""

import json
import random
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import Engine, select, text

from scripts.servers.postgres import Postgres
from shared.csv.chunk_scoring import ScoredChunk
from shared.csv.format import CsvFormat
from shared.csv.packing import pack, unpack
from shared.database.engine import make_engine
from shared.faults import Fault
from shared.jobs import transitions as jobs
from shared.jobs.chunks import transitions as chunks
from shared.jobs.chunks.storage import Stale, store
from shared.jobs.chunks.transitions import ChunkClaim, CsvUpload, PackedChunk
from shared.jobs.kinds import CLAIMED_BY_JOB
from shared.jobs.queries.files import find_files, list_chunks, list_events, read_chunk
from shared.jobs.queries.jobs import find_jobs, list_ready
from shared.jobs.transitions import ClaimGroup
from shared.tables import ChunkState, JobChunk
from tests.support.databases import either_engine, empty, job_row, outputs_of, submission

FORMAT = CsvFormat(";", "cp1252", ",", ("id", "x"), "id", True)


@pytest.fixture(scope="module", params=["postgresql", "sqlite"])
def database(
    request: pytest.FixtureRequest, session_postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    with either_engine(request.param, "chunks", session_postgres, tmp_path_factory.mktemp("chunks")) as engine:
        yield engine


@pytest.fixture
def engine(database: Engine) -> Engine:
    empty(database)
    return database


def upload(engine: Engine, *sizes: int, max_error_rate: float | None = None, **changes: Any) -> str:
    """Submit a file of chunks of these sizes; return the job's id."""
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    packed = [
        PackedChunk(start, size, pack("".join(f"{row};1,5\n" for row in range(start, start + size)).encode()))
        for start, size in zip(starts, sizes, strict=True)
    ]
    job = submission(rows=0, kind="csv", lane="bulk", **changes)
    file = CsvUpload(FORMAT, sum(sizes), 1000, "rows.csv", max_error_rate)
    with engine.begin() as connection:
        assert chunks.submit(connection, job, file, packed) is not None
    return job.id


def take(engine: Engine, *, lease_seconds: float = 15, version: int = 1) -> ChunkClaim | None:
    with engine.begin() as connection:
        return chunks.claim(connection, model_version_id=version, worker="here:1", lease_seconds=lease_seconds)


def must_take(engine: Engine, **changes: Any) -> ChunkClaim:
    claim = take(engine, **changes)
    assert claim is not None
    return claim


def scored(claim: ChunkClaim, *, bad: Sequence[int] = ()) -> ScoredChunk:
    """Return what scoring makes of a chunk when the rows at these offsets are bad."""
    good = [offset for offset in range(claim.row_count) if offset not in bad]
    return ScoredChunk(
        row_count=claim.row_count,
        failed_count=len(bad),
        features=[f'{{"x":{claim.first_row + offset}.5,"t":"a\\\\b\\t\\"é"}}' for offset in range(claim.row_count)],
        faults={offset: [Fault("/x", "type", "must be a\tfinite \\ number")] for offset in bad},
        offsets=good,
        prediction=[1.0] * len(good),
        label=["Part\\t"] * len(good),
        probability=[0.75] * len(good),
        probabilities=[None] * len(good),
        task="binary",
        threshold=0.5,
        output=b"".join(b"%d;1\n" % (claim.first_row + offset + 1) for offset in range(claim.row_count)),
        errors=b"".join(b"%d;x\n" % (claim.first_row + offset + 1) for offset in bad),
    )


def row_of(engine: Engine, job_id: str) -> dict[str, Any]:
    with engine.begin() as connection:
        return job_row(connection, job_id)


def states(engine: Engine, job_id: str) -> list[str]:
    with engine.connect() as connection:
        return [chunk.state for chunk in list_chunks(connection, job_id)]


def events(engine: Engine, job_id: str) -> list[tuple[int, str, str, int]]:
    with engine.connect() as connection:
        listed = list_events(connection, job_id, after=0)
    return [(event.seq, event.type, event.data["status"], event.data["counts"]["pending"]) for event in listed]


def let_lease_run_out(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE job_chunks SET lease_expires_at = :long_ago WHERE state = 'running'"),
            {"long_ago": "2020-01-01 00:00:00.000000"},
        )


def recover(engine: Engine) -> tuple[int, list[str]]:
    with engine.begin() as connection:
        recovered = chunks.recover(connection)
        connection.execute(text("UPDATE job_chunks SET run_after = :now"), {"now": "2020-01-01 00:00:00.000000"})
    return recovered


# ── the good course ──────────────────────────────────────────────────────────────────────────────────────────────


def test_file_is_stored_as_queued_chunks_with_how_it_is_written(engine):
    job_id = upload(engine, 3, 2)
    with engine.connect() as connection:
        job = find_jobs(connection, [job_id])[job_id]
        places = list_chunks(connection, job_id)
        assert unpack(connection.scalar(select(JobChunk.payload).where(JobChunk.first_row == 3))) == b"3;1,5\n4;1,5\n"
        assert list_ready(connection) == [("bulk", 1)]
    assert (job.state, job.row_count, job.kind) == ("queued", 5, "csv")
    assert job.csv is not None
    assert (job.csv.format, job.csv.filename, job.csv.chunk_count, job.csv.rows_done) == (FORMAT, "rows.csv", 2, 0)
    assert [(place.first_row, place.row_count, place.state) for place in places] == [(0, 3, "queued"), (3, 2, "queued")]


def test_last_chunk_ends_the_job_and_every_row_is_stored_once(engine):
    job_id = upload(engine, 3, 2)
    first, second = must_take(engine), must_take(engine)
    assert row_of(engine, job_id)["state"] == "running"
    assert store(engine, second, scored(second, bad=[1])) is None
    assert store(engine, first, scored(first)) == "succeeded"
    row = row_of(engine, job_id)
    assert (row["state"], row["failed_count"], row["attempt"], row["claim_token"]) == ("succeeded", 1, 1, None)
    with engine.connect() as connection:
        assert outputs_of(connection, job_id) == [(index, 1.0, 0.75) for index in range(4)]
        stored = connection.execute(
            text("SELECT row_index, features, faults FROM model_inputs WHERE job_id = :id ORDER BY row_index"),
            {"id": job_id},
        ).all()
        labels = connection.execute(text("SELECT DISTINCT label FROM model_outputs")).scalars().all()
        assert read_chunk(connection, job_id, 3, "output") == b"4;1\n5;1\n"
        assert read_chunk(connection, job_id, 3, "errors") == b"5;x\n"
        assert read_chunk(connection, job_id, 0, "payload").startswith(b"0;1,5\n")
    assert [index for index, _, _ in stored] == list(range(5))
    features, faults = (
        json.loads(value) if isinstance(value, str) else value for value in (stored[2][1], stored[4][2])
    )
    assert features == {"x": 2.5, "t": 'a\\b\t"é'}
    assert faults == [{"pointer": "/x", "code": "type", "message": "must be a\tfinite \\ number"}]
    assert stored[0][2] is None
    assert labels == ["Part\\t"]
    assert events(engine, job_id) == [
        (1, "accepted", "queued", 5),
        (2, "started", "running", 5),
        (3, "progress", "running", 3),
        (4, "finished", "succeeded", 0),
    ]


def test_label_without_text_is_a_label(engine):
    job_id = upload(engine, 1)
    claim = must_take(engine)
    unnamed = scored(claim)
    unnamed.label = [""]
    store(engine, claim, unnamed)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT label FROM model_outputs")).scalars().all() == [""]
        assert len(outputs_of(connection, job_id)) == 1


def test_first_rows_of_every_file_come_first(engine):
    """A small file need not wait for the end of a large one."""
    large = upload(engine, 2, 2, 2)
    assert must_take(engine).job_id == large
    small = upload(engine, 2)
    assert must_take(engine).job_id == small
    assert must_take(engine).job_id == large


def test_chunks_of_another_version_are_left_alone(engine):
    upload(engine, 2, model_version_id=2)
    assert take(engine) is None
    assert take(engine, version=2) is not None


def test_job_whose_every_row_failed_has_failed(engine):
    job_id = upload(engine, 2)
    claim = must_take(engine)
    assert store(engine, claim, scored(claim, bad=[0, 1])) == "failed"
    row = row_of(engine, job_id)
    assert row["failed_count"] == 2
    assert "no_row_scored" in str(row["error"])


def test_same_idempotency_key_stores_nothing_more(engine):
    upload(engine, 2, idempotency_scope="a", idempotency_key="k", body_hash="h")
    again = submission(rows=0, kind="csv", lane="bulk", idempotency_scope="a", idempotency_key="k")
    with engine.begin() as connection:
        assert (
            chunks.submit(connection, again, CsvUpload(FORMAT, 2, 10), [PackedChunk(0, 2, pack(b"1;1\n2;2\n"))]) is None
        )
    assert states(engine, again.id) == []


def test_file_is_never_claimed_as_a_batch(engine):
    upload(engine, 2)
    if engine.dialect.name == "postgresql":
        own = make_engine(engine.url.render_as_string(hide_password=False), autocommit=True)
        with own.connect() as connection:
            batch = jobs.claim(
                connection,
                model_version_id=1,
                lane="bulk",
                worker="w",
                lease_seconds=15,
                max_jobs=10,
                groups=[ClaimGroup(CLAIMED_BY_JOB, 10)],
            )
        own.dispose()
        assert batch == []


# ── deaths ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_worker_that_lost_its_lease_stores_nothing(engine):
    job_id = upload(engine, 2, 1)
    late = must_take(engine)
    let_lease_run_out(engine)
    assert recover(engine) == (1, [])
    again = must_take(engine)
    assert (again.first_row, again.attempt, again.crash_count) == (0, 2, 1)
    with pytest.raises(Stale):
        store(engine, late, scored(late))
    with engine.connect() as connection:
        assert outputs_of(connection, job_id) == []
    store(engine, again, scored(again))
    with pytest.raises(Stale):
        store(engine, again, scored(again))
    with engine.connect() as connection:
        assert len(outputs_of(connection, job_id)) == 2


def test_lease_that_is_renewed_holds(engine):
    upload(engine, 2)
    claim = must_take(engine, lease_seconds=0.0)
    with engine.begin() as connection:
        chunks.heartbeat(connection, [claim], lease_seconds=60)
    assert recover(engine) == (0, [])


def test_restart_of_the_one_process_queues_everything_again(engine):
    upload(engine, 2)
    must_take(engine)
    with engine.begin() as connection:
        assert chunks.recover(connection, all_of_them=True)[0] == 1


def test_chunk_that_took_down_two_workers_is_cut_and_its_parts_are_counted(engine):
    job_id = upload(engine, 4)
    for _ in range(chunks.DEATHS):
        claim = must_take(engine)
        assert not claim.should_split
        let_lease_run_out(engine)
        recover(engine)
    claim = must_take(engine)
    assert claim.should_split
    parts = [PackedChunk(claim.first_row + place, 1, pack(b"1;1\n")) for place in range(4)]
    with engine.begin() as connection:
        assert chunks.split(connection, claim, parts)
        assert not chunks.split(connection, claim, parts)
    ended = [store(engine, part, scored(part)) for _ in range(4) if (part := must_take(engine))]
    assert ended == [None, None, None, "succeeded"]
    with engine.connect() as connection:
        assert len(outputs_of(connection, job_id)) == 4


def test_single_row_is_hopeless_after_as_many_deaths_as_its_job_may_have(engine):
    upload(engine, 1)
    for _ in range(3):
        claim = must_take(engine)
        assert not claim.is_out_of_attempts
        let_lease_run_out(engine)
        recover(engine)
    assert must_take(engine).is_out_of_attempts


def test_chunk_that_was_given_up_waits_a_moment(engine):
    upload(engine, 2)
    claim = must_take(engine)
    with engine.begin() as connection:
        chunks.requeue_after_crash(connection, claim)
    assert take(engine) is None


# ── the job's end from elsewhere ─────────────────────────────────────────────────────────────────────────────────


def cancel(engine: Engine, job_id: str) -> str | None:
    with engine.begin() as connection:
        return chunks.cancel(connection, job_id)


def test_job_that_nobody_holds_is_canceled_at_once(engine):
    job_id = upload(engine, 2, 2)
    assert cancel(engine, job_id) == "canceled"
    assert states(engine, job_id) == ["canceled", "canceled"]
    assert take(engine) is None
    assert cancel(engine, job_id) is None
    assert events(engine, job_id)[-1][1:3] == ("finished", "canceled")


def test_running_job_between_two_chunks_is_canceled_at_once_and_keeps_what_is_done(engine):
    job_id = upload(engine, 2, 2)
    first = must_take(engine)
    store(engine, first, scored(first))
    assert cancel(engine, job_id) == "canceled"
    assert states(engine, job_id) == ["done", "canceled"]
    row = row_of(engine, job_id)
    assert (row["state"], row["failed_count"]) == ("canceled", 2)
    with engine.connect() as connection:
        assert len(outputs_of(connection, job_id)) == 2


def test_running_job_ends_with_the_chunk_that_is_held_when_it_is_canceled(engine):
    job_id = upload(engine, 2, 2)
    held = must_take(engine)
    assert cancel(engine, job_id) == "running"
    assert states(engine, job_id) == ["running", "canceled"]
    assert take(engine) is None
    assert store(engine, held, scored(held)) == "canceled"
    assert states(engine, job_id) == ["done", "canceled"]


def test_canceled_job_whose_last_chunk_was_given_up_ends_with_the_next_look(engine):
    job_id = upload(engine, 3, 2)
    held = must_take(engine)
    cancel(engine, job_id)
    with engine.begin() as connection:
        chunks.requeue_after_crash(connection, held)
        connection.execute(text("UPDATE job_chunks SET run_after = :now"), {"now": "2020-01-01 00:00:00.000000"})
    assert take(engine) is None
    assert row_of(engine, job_id)["state"] == "canceled"
    assert events(engine, job_id)[-1][1] == "finished"


def test_canceled_job_whose_last_chunk_was_cut_ends_with_the_next_look(engine):
    job_id = upload(engine, 2)
    held = must_take(engine)
    cancel(engine, job_id)
    with engine.begin() as connection:
        chunks.split(connection, held, [PackedChunk(place, 1, pack(b"1;1\n")) for place in range(2)])
    assert take(engine) is None
    assert row_of(engine, job_id)["state"] == "canceled"


def test_file_that_nobody_claims_expires_all_the_same(engine):
    job_id = upload(engine, 2, expires_in=-1.0)
    with engine.begin() as connection:
        assert chunks.expire(connection) == [job_id]
        assert chunks.expire(connection) == []
    assert row_of(engine, job_id)["state"] == "expired"
    assert states(engine, job_id) == ["canceled"]


def test_canceled_job_whose_worker_died_ends_with_the_recovery(engine):
    job_id = upload(engine, 2, 2)
    must_take(engine)
    cancel(engine, job_id)
    let_lease_run_out(engine)
    assert recover(engine) == (1, [job_id])
    assert row_of(engine, job_id)["state"] == "canceled"
    assert take(engine) is None


def test_job_with_more_errors_than_it_allows_is_given_up(engine):
    job_id = upload(engine, 4, 4, 4, max_error_rate=0.25)
    first, second = must_take(engine), must_take(engine)
    assert store(engine, first, scored(first, bad=[0, 1, 2])) is None  # three of twelve are allowed
    assert store(engine, second, scored(second, bad=[0])) == "failed"
    assert states(engine, job_id) == ["done", "done", "canceled"]
    assert "too_many_errors" in str(row_of(engine, job_id)["error"])


def test_job_that_queued_too_long_expires_instead_of_starting(engine):
    job_id = upload(engine, 2, expires_in=-1.0)
    assert take(engine) is None
    row = row_of(engine, job_id)
    assert (row["state"], row["failed_count"]) == ("expired", 2)
    assert states(engine, job_id) == ["canceled"]
    assert events(engine, job_id)[-1][1:3] == ("finished", "expired")


# ── taking up the rest ───────────────────────────────────────────────────────────────────────────────────────────


def retry(engine: Engine, job_id: str) -> bool:
    with engine.begin() as connection:
        return chunks.reopen(connection, job_id)


def test_canceled_job_takes_up_the_rest_and_keeps_what_was_done(engine):
    job_id = upload(engine, 2, 2)
    first = must_take(engine)
    store(engine, first, scored(first))
    cancel(engine, job_id)
    assert retry(engine, job_id)
    assert row_of(engine, job_id)["state"] == "queued"
    second = must_take(engine)
    assert second.first_row == 2
    assert store(engine, second, scored(second)) == "succeeded"
    with engine.connect() as connection:
        assert len(outputs_of(connection, job_id)) == 4
        assert find_files(connection, [job_id])[job_id].rows_done == 4


def test_row_that_took_workers_down_is_tried_again_and_stored_once(engine):
    job_id = upload(engine, 1, 1)
    crashing, fine = must_take(engine), must_take(engine)
    store(engine, fine, scored(fine))
    assert store(engine, crashing, scored(crashing, bad=[0]), state=ChunkState.FAILED) == "succeeded"
    assert row_of(engine, job_id)["failed_count"] == 1
    assert retry(engine, job_id)
    again = must_take(engine)
    assert (again.first_row, again.crash_count) == (0, 0)
    assert store(engine, again, scored(again)) == "succeeded"
    assert row_of(engine, job_id)["failed_count"] == 0
    with engine.connect() as connection:
        assert [index for index, *_ in outputs_of(connection, job_id)] == [0, 1]


def test_job_that_had_too_many_errors_is_done_in_spite_of_them_when_its_rest_is_asked_for(engine):
    job_id = upload(engine, 2, 2, max_error_rate=0.0)
    first = must_take(engine)
    assert store(engine, first, scored(first, bad=[0])) == "failed"
    assert retry(engine, job_id)
    second = must_take(engine)
    assert store(engine, second, scored(second)) == "succeeded"


def test_nothing_is_taken_up_of_a_job_that_is_done_or_goes_on(engine):
    job_id = upload(engine, 2, 2)
    assert not retry(engine, job_id)
    first, second = must_take(engine), must_take(engine)
    assert not retry(engine, job_id)
    store(engine, first, scored(first, bad=[1]))
    store(engine, second, scored(second))
    assert not retry(engine, job_id)  # the row that failed does not fit the card, and would fail again
    assert row_of(engine, job_id)["state"] == "succeeded"


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)  # SQLite has one writer at a time
@pytest.mark.parametrize("seed", range(2))
def test_no_race_loses_a_job_or_a_row(database, seed):
    """Claims, stores, deaths, cancellations and retries at once: no deadlock, every job ends, the counts add up."""
    empty(database)
    ids = [upload(database, *[2] * 6) for _ in range(4)]
    stop = threading.Event()
    errors: list[BaseException] = []

    def run(step: Any, number: int) -> None:
        chance = random.Random(10 * seed + number)
        while not stop.is_set():
            try:
                step(chance)
            except Stale:
                pass
            except Exception as error:  # noqa: BLE001 - the test fails with whatever it was
                errors.append(error)
                return

    def work(chance: random.Random) -> None:
        claim = take(database)
        if claim is not None and chance.random() < 0.8:
            store(database, claim, scored(claim))
        elif claim is not None:
            with database.begin() as connection:
                chunks.requeue_after_crash(connection, claim)

    def meddle(chance: random.Random) -> None:
        job_id = chance.choice(ids)
        cancel(database, job_id) if chance.random() < 0.5 else retry(database, job_id)
        time.sleep(0.002)

    def mend(_: random.Random) -> None:
        with database.begin() as connection:
            chunks.recover(connection)
        time.sleep(0.005)

    threads = [
        threading.Thread(target=run, args=(step, number)) for number, step in enumerate([work] * 3 + [meddle, mend])
    ]
    for thread in threads:
        thread.start()
    time.sleep(2)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert errors == []
    let_lease_run_out(database)
    recover(database)
    for job_id in ids:  # what is left is done in peace
        retry(database, job_id)
    recover(database)
    while (claim := take(database)) is not None:
        store(database, claim, scored(claim))
        recover(database)
    for job_id in ids:
        assert row_of(database, job_id)["state"] == "succeeded"
        assert set(states(database, job_id)) == {"done"}
        with database.connect() as connection:
            assert [index for index, *_ in outputs_of(connection, job_id)] == list(range(12))
            file = find_files(connection, [job_id])[job_id]
        assert (file.rows_done, file.chunks_done, file.rows_failed) == (12, 6, 0)
        assert events(database, job_id)[-1][1:3] == ("finished", "succeeded")
