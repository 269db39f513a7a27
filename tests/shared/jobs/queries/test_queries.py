"""Reading jobs: what is found, in which order, and for whom."""

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, text

from scripts.servers.postgres import Postgres
from shared.jobs import transitions as jobs
from shared.jobs.queries.jobs import (
    RowResult,
    StoredOutput,
    count_ahead,
    count_queued,
    find_by_idempotency_key,
    find_finished,
    find_jobs,
    list_ready,
    list_rows,
)
from shared.jobs.queries.listing import JobQuery, ListPlace, find_place, list_jobs, read_place
from shared.jobs.recording import insert_finished
from shared.scoring.outputs import Output
from tests.support.databases import FAULT, empty, end, good, postgres_engine, queue, sqlite_engine, submission, take


@pytest.fixture(scope="module")
def postgres(session_postgres: Postgres) -> Iterator[Engine]:
    with postgres_engine(session_postgres, "job_queries") as engine:
        yield engine


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with sqlite_engine(tmp_path_factory.mktemp("sqlite")) as engine:
        yield engine


@pytest.fixture
def connection(postgres: Engine) -> Iterator[Connection]:
    empty(postgres)
    with postgres.connect() as connection:
        yield connection


@pytest.fixture(params=["postgresql", "sqlite"])
def either(request: pytest.FixtureRequest, postgres: Engine, sqlite: Engine) -> Iterator[Connection]:
    engine = postgres if request.param == "postgresql" else sqlite
    empty(engine)
    with engine.begin() as connection:
        yield connection


def recorded(connection: Connection, results=None, **changes) -> str:
    job = submission(**changes)
    outcomes = results or [good() for fault in job.faults if fault is None]
    insert_finished(connection, [job], [outcomes], attempts=[1], started_at=datetime.now(UTC))
    return job.id


def test_finished_single_row_comes_with_its_output(either):
    job_id = recorded(either, [good(0.75)], owner="key-1", request_id="r-9", expires_in=60.0)
    job = find_jobs(either, [job_id])[job_id]
    assert (job.id, job.kind, job.state, job.owner, job.request_id) == (job_id, "predict", "succeeded", "key-1", "r-9")
    assert job.output == StoredOutput(1.0, "Part", 0.75, None, 0.5)
    assert job.is_terminal
    for moment in (job.created_at, job.started_at, job.finished_at, job.expires_at, job.run_after):
        assert moment is not None
        assert moment.utcoffset() is not None  # an aware time on both dialects
        assert abs((moment - datetime.now(UTC)).total_seconds()) < 120


def test_batch_comes_without_an_output_of_its_own(either):
    job_id = recorded(either, rows=3)
    job = find_jobs(either, [job_id])[job_id]
    assert (job.kind, job.row_count, job.output) == ("batch", 3, None)


def test_batch_of_one_row_is_still_a_batch(either):
    job_id = recorded(either, kind="batch")
    assert find_jobs(either, [job_id])[job_id].output is None


def test_failed_single_row_comes_with_its_error(either):
    job_id = recorded(either, [FAULT])
    job = find_jobs(either, [job_id])[job_id]
    assert (job.state, job.output) == ("failed", None)
    assert job.error == {"code": FAULT.code, "message": FAULT.message}


def test_output_of_another_version_is_not_the_jobs_own(either):
    job_id = recorded(either, [FAULT])
    either.execute(
        text(
            "INSERT INTO model_outputs (input_id, model_version_id, task, prediction) "
            "SELECT id, 2, 'regression', 9 FROM model_inputs"
        )
    )
    job = find_jobs(either, [job_id])[job_id]
    assert job.output is None
    assert list_rows(either, job)[0].output is None


def test_several_jobs_are_read_at_once_and_unknown_ones_are_missing(either):
    ids = {recorded(either) for _ in range(3)}
    assert set(find_jobs(either, [*ids, submission().id])) == ids
    assert find_jobs(either, []) == {}


def test_only_ended_jobs_are_found_finished(connection):
    queued, running, done = queue(connection, lane="bulk"), queue(connection), queue(connection, model_version_id=2)
    take(connection)
    end(connection, take(connection, model_version_id=2), model_version_id=2)
    finished = find_finished(connection, [queued, running, done])
    assert list(finished) == [done]
    assert finished[done].output is not None


@pytest.mark.parametrize("state", ["canceled", "expired"])
def test_jobs_that_ended_without_running_are_found_finished(connection, state):
    job_id = queue(connection, expires_in=60.0)
    if state == "canceled":
        jobs.cancel(connection, job_id)
    else:
        connection.exec_driver_sql("UPDATE jobs SET expires_at = now()")
        jobs.expire(connection)
    assert find_finished(connection, [job_id])[job_id].state == state


def test_idempotency_key_is_found_in_its_scope_only(either):
    job_id = recorded(either, idempotency_scope="k:/jobs", idempotency_key="once", body_hash="a" * 64)
    assert find_by_idempotency_key(either, "k:/jobs", "once") == (job_id, "a" * 64)
    assert find_by_idempotency_key(either, "k:/predict", "once") is None
    assert find_by_idempotency_key(either, "k:/jobs", "twice") is None


def test_pages_go_from_newest_to_oldest_without_gap_or_repeat(either):
    ids = [recorded(either) for _ in range(7)]
    pages: list[list[str]] = []
    before = None
    while page := list_jobs(either, JobQuery(), before=before, limit=3):
        pages.append([job.id for job in page])
        before = read_place(ListPlace(page[-1].created_at, page[-1].id).text)
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [job_id for page in pages for job_id in page] == ids[::-1]


@pytest.mark.parametrize("versions", [None, [1], [1, 2]])
def test_random_id_stands_where_its_job_arrived(either, versions):
    """Ids of visitors have no time in them: those of one moment go by id, all others by their time."""
    ids = []
    for number, letter in enumerate("f0a"):
        job_id = str(UUID(letter * 8 + "-0000-4000-8000-000000000000"))
        recorded(either, id=job_id, model_version_id=1 + number % 2)
        either.execute(text("UPDATE jobs SET created_at = :at WHERE id = :id"), {"at": moment(number), "id": job_id})
        ids.append(job_id)
    query = JobQuery(model_version_ids=versions)
    expected = ids[::-1] if versions != [1] else [ids[2], ids[0]]
    assert [job.id for job in list_jobs(either, query, before=None, limit=5)] == expected
    last = find_place(either, UUID(expected[0]))
    assert [job.id for job in list_jobs(either, query, before=last, limit=5)] == expected[1:]
    between = JobQuery(since=datetime(2026, 1, 2, tzinfo=UTC), until=datetime(2026, 1, 3, tzinfo=UTC))
    assert [job.id for job in list_jobs(either, between, before=None, limit=5)] == [ids[1]]


def moment(day: int) -> str:
    """Return a moment of 2026 as either dialect stores it."""
    return f"2026-01-0{day + 1} 00:00:00.000000"


def test_cursor_of_an_older_release_is_the_place_of_its_job(either):
    first, second = recorded(either), recorded(either)
    place = find_place(either, UUID(second))
    assert [job.id for job in list_jobs(either, JobQuery(), before=place, limit=5)] == [first]
    either.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": second})
    place = find_place(either, UUID(second))  # by the time in the id
    assert [job.id for job in list_jobs(either, JobQuery(), before=place, limit=5)] == [first]
    assert find_place(either, uuid4()) is None
    far = find_place(either, UUID("ffffffff-ffff-7fff-bfff-ffffffffffff"))
    assert far is not None
    assert far.at.year == 9999
    for cursor in ("x", "1.x", "x." + first, "1" * 18 + "." + first):
        with pytest.raises(ValueError, match=r"badly formed|not a number"):
            read_place(cursor)


def test_list_keeps_to_owner_state_and_version(either):
    mine = recorded(either, owner="me")
    recorded(either, owner="you")
    failed = recorded(either, [FAULT], owner="me", model_version_id=2)

    def listed(**filters) -> list[str]:
        options = {"owner": "me"} | filters
        return [job.id for job in list_jobs(either, JobQuery(**options), before=None, limit=10)]

    assert listed() == [failed, mine]
    assert listed(owner="nobody") == []
    assert len(listed(owner=None)) == 3
    assert listed(states=["failed"]) == [failed]
    assert listed(states=["failed", "canceled"]) == [failed]
    assert listed(states=["succeeded", "failed"]) == [failed, mine]
    assert listed(states=[]) == []
    assert listed(can_be="cancel") == listed(can_be="retry") == []
    assert listed(model_version_ids=[1]) == [mine]
    assert listed(model_version_ids=[1, 2]) == [failed, mine]
    assert listed(model_version_ids=[]) == []


def test_rows_of_a_batch_come_in_input_order_with_output_or_faults(either):
    every = [0.25, 0.125, 0.625]
    outcomes = [Output("multiclass", 2.0, "c", 0.625, every), FAULT]
    job_id = recorded(either, outcomes, rows=3, faults=[None, [FAULT], None])
    rows = list_rows(either, find_jobs(either, [job_id])[job_id])
    stored_fault = [{"pointer": "", "code": FAULT.code, "message": FAULT.message}]
    assert rows == [
        RowResult(0, StoredOutput(2.0, "c", 0.625, every, None), None),
        RowResult(1, None, stored_fault),
        RowResult(2, None, stored_fault),
    ]


def test_rows_that_are_not_scored_yet_have_neither_output_nor_faults(connection):
    job_id = queue(connection, rows=2)
    rows = list_rows(connection, find_jobs(connection, [job_id])[job_id])
    assert rows == [RowResult(0, None, None), RowResult(1, None, None)]


def test_place_in_the_queue_counts_what_runs_before(connection):
    first, second = queue(connection), queue(connection)
    queue(connection, lane="bulk")
    queue(connection, model_version_id=2)
    urgent = queue(connection, priority=-1)
    jobs = find_jobs(connection, [first, second, urgent])
    assert [count_ahead(connection, jobs[job_id]) for job_id in (urgent, first, second)] == [0, 1, 2]
    assert count_ahead(connection, jobs[second], limit=1) == 1
    take(connection, max_jobs=1)
    assert count_ahead(connection, jobs[second]) == 1


def test_place_of_jobs_of_one_group_differs(connection):
    """One transaction has one time: the ids decide."""
    group = [submission() for _ in range(5)]
    jobs.submit(connection, group)
    placed = find_jobs(connection, [job.id for job in group])
    assert [count_ahead(connection, placed[job.id]) for job in group] == [0, 1, 2, 3, 4]


def test_queues_are_counted_by_lane_and_version_up_to_a_limit(connection):
    for _ in range(3):
        queue(connection)
    queue(connection, lane="bulk")
    queue(connection, model_version_id=2)
    assert count_queued(connection, limit=100) == {("interactive", 1): 3, ("bulk", 1): 1, ("interactive", 2): 1}
    assert count_queued(connection, limit=2)["interactive", 1] == 2
    take(connection)
    assert count_queued(connection, limit=100) == {("bulk", 1): 1, ("interactive", 2): 1}


def test_every_queue_with_jobs_is_listed_once(either):
    if either.dialect.name == "postgresql":
        for lane, version in (("interactive", 2), ("bulk", 1), ("interactive", 1), ("interactive", 1)):
            queue(either, lane=lane, model_version_id=version)
        assert list_ready(either) == [("bulk", 1), ("interactive", 1), ("interactive", 2)]
    else:
        recorded(either)
        assert list_ready(either) == []  # the sync runtime leaves nothing queued
