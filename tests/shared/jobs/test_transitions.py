"""The life of a job on a real PostgreSQL: every transition, every refusal, and all of it in any order."""

import math
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from scripts.servers.postgres import Postgres
from shared.jobs import transitions as jobs
from shared.jobs.recording import insert_finished
from shared.jobs.submission import COLUMNS
from shared.jobs.transitions import Claim, ClaimGroup, Output
from shared.tables import Job, JobState
from tests.support.databases import (
    FAULT,
    empty,
    end,
    good,
    job_row,
    outputs_of,
    postgres_engine,
    queue,
    sqlite_engine,
    submission,
    take,
)

STATES = [state.value for state in JobState]
TERMINAL = {"succeeded", "failed", "canceled", "expired"}


@pytest.fixture(scope="module")
def database(session_postgres: Postgres) -> Iterator[Engine]:
    with postgres_engine(session_postgres, "jobs") as engine:
        yield engine


@pytest.fixture
def connection(database: Engine) -> Iterator[Connection]:
    empty(database)
    with database.connect() as connection:
        yield connection


@pytest.fixture
def other(database: Engine) -> Iterator[Connection]:
    """A second worker's connection."""
    with database.connect() as connection:
        yield connection


def set_job(connection: Connection, job_id: str, assignments: str) -> None:
    connection.execute(text(f"UPDATE jobs SET {assignments} WHERE id = :id"), {"id": job_id})


def let_lease_run_out(connection: Connection, job_id: str) -> None:
    set_job(connection, job_id, "lease_expires_at = now() - interval '1 second'")


def make_ready(connection: Connection, job_id: str) -> None:
    set_job(connection, job_id, "run_after = now() - interval '1 second'")


def ids(claims: list[Claim]) -> list[str]:
    return [claim.job_id for claim in claims]


# ── submitted ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_submitted_job_is_queued_with_its_inputs_in_order(connection):
    job = submission(rows=[{"a": 1, "b": None}, {"a": 2, "b": "é"}], owner="key-1", traceparent="00-ab", priority=2)
    created = jobs.submit(connection, [job])
    row = job_row(connection, job.id)
    assert created == {job.id: row["created_at"]}
    assert (row["state"], row["attempt"], row["claim_token"], row["finished_at"]) == ("queued", 0, None, None)
    assert (row["owner"], row["traceparent"], row["priority"], row["row_count"]) == ("key-1", "00-ab", 2, 2)
    stored = connection.execute(
        text("SELECT row_index, features, faults FROM model_inputs WHERE job_id = :id ORDER BY row_index"),
        {"id": job.id},
    ).all()
    assert stored == [(0, {"a": 1, "b": None}, None), (1, {"a": 2, "b": "é"}, None)]


def test_group_is_stored_in_one_statement_and_every_id_is_answered(connection):
    group = [submission(rows=count) for count in (1, 3, 2)]
    assert set(jobs.submit(connection, group)) == {job.id for job in group}
    assert connection.scalar(text("SELECT count(*) FROM model_inputs")) == 6


def test_every_column_of_a_job_is_submitted_or_written_by_a_transition():
    written = {"state", "attempt", "crash_count", "claim_token", "leased_by", "lease_expires_at", "claimed_at", "error"}
    written |= {"run_after", "expires_at", "cancel_requested_at", "created_at", "started_at", "finished_at"}
    assert sorted([*COLUMNS, *written]) == sorted(Job.__table__.columns.keys())


def test_job_submitted_twice_is_stored_once(connection):
    job = submission()
    jobs.submit(connection, [job])
    assert jobs.submit(connection, [job]) == {}
    assert connection.scalar(text("SELECT count(*) FROM model_inputs")) == 1


def test_second_job_with_the_same_idempotency_key_stores_nothing(connection):
    first, second = (submission(idempotency_scope="k:/jobs", idempotency_key="once") for _ in range(2))
    other_scope = submission(idempotency_scope="other:/jobs", idempotency_key="once")
    assert set(jobs.submit(connection, [first])) == {first.id}
    assert set(jobs.submit(connection, [second, other_scope])) == {other_scope.id}
    assert connection.scalar(text("SELECT count(*) FROM model_inputs")) == 2


def test_same_idempotency_key_twice_in_one_group_makes_one_job(connection):
    group = [submission(idempotency_scope="k:/jobs", idempotency_key="once") for _ in range(3)]
    assert len(jobs.submit(connection, group)) == 1
    assert connection.scalar(text("SELECT count(*) FROM jobs")) == 1


def test_expiry_counts_from_the_time_of_the_database(connection):
    job_id = queue(connection, expires_in=90.0)
    row = job_row(connection, job_id)
    assert row["expires_at"] - row["created_at"] == timedelta(seconds=90)


def test_faults_of_a_row_are_kept_and_counted(connection):
    job = submission(rows=[{"x": 1.0}, {"x": "bad"}], faults=[None, [FAULT]])
    jobs.submit(connection, [job])
    assert job_row(connection, job.id)["failed_count"] == 1
    (claim,) = take(connection)
    assert claim.rows == [{"x": 1.0}]


# ── claimed ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_claimed_job_is_running_with_token_lease_and_attempt(connection):
    job_id = queue(connection, timeout_seconds=7.0, max_attempts=5)
    (claim,) = take(connection, worker="host:42", lease_seconds=20.0)
    row = job_row(connection, job_id)
    assert (row["state"], row["attempt"], row["leased_by"]) == ("running", 1, "host:42")
    assert row["claim_token"] == claim.token
    assert row["lease_expires_at"] - row["claimed_at"] == timedelta(seconds=20)
    assert row["started_at"] == row["claimed_at"]
    assert (claim.job_id, claim.attempt, claim.max_attempts, claim.timeout_seconds) == (job_id, 1, 5, 7.0)
    assert claim.rows == [{"x": 0.0}]


def test_lower_priority_number_is_claimed_first_then_the_older(connection):
    late = queue(connection, priority=5)
    first = queue(connection)
    second = queue(connection)
    urgent = queue(connection, priority=-1)
    order = [ids(take(connection, max_jobs=1))[0] for _ in range(4)]
    assert order == [urgent, first, second, late]


def test_claim_takes_no_more_jobs_than_asked(connection):
    expected = [queue(connection) for _ in range(5)]
    assert sorted(ids(take(connection, max_jobs=3))) == expected[:3]
    assert sorted(ids(take(connection, max_jobs=3))) == expected[3:]
    assert take(connection) == []


def test_claim_stops_before_the_row_that_would_be_too_many(connection):
    expected = [queue(connection, rows=4) for _ in range(3)]
    claims = take(connection, max_rows=9)
    assert sorted(ids(claims)) == expected[:2]
    assert [len(claim.rows) for claim in claims] == [4, 4]
    assert job_row(connection, expected[2])["state"] == "queued"


def test_job_larger_than_the_row_limit_is_claimed_alone(connection):
    large = queue(connection, rows=10)
    queue(connection)
    assert ids(take(connection, max_rows=3)) == [large]


def test_expired_job_is_not_claimed(connection):
    job_id = queue(connection, expires_in=60.0)
    set_job(connection, job_id, "expires_at = now() - interval '1 millisecond'")
    assert take(connection) == []
    assert take(connection, crashed=True) == []


def test_job_in_backoff_is_not_claimed(connection):
    job_id = queue(connection)
    set_job(connection, job_id, "run_after = now() + interval '1 minute'")
    assert take(connection) == []
    make_ready(connection, job_id)
    assert ids(take(connection)) == [job_id]


def test_claim_leaves_other_versions_and_lanes_alone(connection):
    queue(connection, model_version_id=2)
    queue(connection, lane="bulk")
    assert take(connection) == []
    assert len(take(connection, model_version_id=2)) == 1
    assert len(take(connection, lane="bulk")) == 1


def test_jobs_that_took_a_worker_down_are_claimed_alone(connection):
    crashed = [queue(connection) for _ in range(2)]
    sound = queue(connection)
    for job_id in crashed:
        set_job(connection, job_id, "crash_count = 1")
    assert ids(take(connection)) == [sound]
    assert take(connection) == []
    assert ids(take(connection, crashed=True, max_jobs=100)) == crashed[:1]
    assert ids(take(connection, crashed=True, max_jobs=100)) == crashed[1:]


def test_canceled_job_is_not_claimed(connection):
    job_id = queue(connection)
    assert jobs.cancel(connection, job_id) == "canceled"
    assert take(connection) == []


# Groups as a worker of a later release may have them: rows that are scored together, slow ones, and one at a time.
SCORED, SLOW, ALONE = (
    ClaimGroup(("predict", "batch"), 100),
    ClaimGroup(("slow",), 2),
    ClaimGroup(("alone",), 0),
)


def test_kind_that_the_worker_does_not_know_is_left_to_a_newer_one(connection):
    newer, older = queue(connection, kind="newer"), queue(connection)
    assert ids(take(connection)) == [older]
    assert take(connection) == []
    assert job_row(connection, newer)["state"] == "queued"
    set_job(connection, newer, "crash_count = 1, expires_at = now() + interval '1 hour'")
    assert take(connection, crashed=True) == []
    set_job(connection, newer, "expires_at = now() - interval '1 second'")
    assert jobs.expire(connection) == []
    assert ids(take(connection, groups=[ClaimGroup(("newer",), 5)])) == []  # too late now, for a newer worker too


def test_claim_holds_kinds_of_one_group_and_says_which(connection):
    order = ["batch", "slow", "predict", "alone", "slow", "batch", "slow", "alone"]
    queued = [(queue(connection, kind=kind), kind) for kind in order]
    claims = [take(connection, groups=[ALONE, SLOW, SCORED]) for _ in range(6)]
    kinds = [[(claim.job_id, claim.kind) for claim in group] for group in claims]
    places = [[0, 2, 5], [1, 4], [3], [6], [7], []]  # the first in the queue decides; two slow rows are enough
    assert kinds == [[queued[place] for place in group] for group in places]


def test_two_workers_never_claim_the_same_job(connection, database):
    expected = [queue(connection) for _ in range(200)]
    claimed: list[list[str]] = [[], []]

    def work(mine: list[str]) -> None:
        with database.connect() as own:
            while claims := take(own, max_jobs=7):
                mine.extend(ids(claims))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in claimed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed[0] + claimed[1]) == sorted(expected)


def test_job_locked_by_another_worker_is_skipped_not_waited_for(connection, other):
    locked = queue(connection)
    free = queue(connection)
    other.exec_driver_sql("BEGIN")
    other.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": locked})
    started = time.monotonic()
    assert ids(take(connection)) == [free]
    assert time.monotonic() - started < 1
    other.exec_driver_sql("ROLLBACK")
    assert ids(take(connection)) == [locked]


def test_no_two_claims_share_a_token_even_across_connections(connection, other):
    for _ in range(6):
        queue(connection)
    tokens = [claim.token for each in (connection, other, connection) for claim in take(each, max_jobs=2)]
    assert len(set(tokens)) == 6


def test_heartbeat_renews_own_leases_and_counts_them(connection):
    for _ in range(2):
        queue(connection)
    claims = take(connection, lease_seconds=5.0)
    assert jobs.heartbeat(connection, claims, lease_seconds=100.0) == 2
    row = job_row(connection, claims[0].job_id)
    assert row["lease_expires_at"] - row["claimed_at"] > timedelta(seconds=99)
    end(connection, claims[:1])
    assert jobs.heartbeat(connection, claims, lease_seconds=100.0) == 1


def test_heartbeat_of_a_lost_claim_renews_nothing(connection):
    job_id = queue(connection)
    stale = take(connection)
    let_lease_run_out(connection, job_id)
    jobs.recover(connection)
    make_ready(connection, job_id)
    (fresh,) = take(connection, crashed=True)
    before = job_row(connection, job_id)
    assert jobs.heartbeat(connection, stale, lease_seconds=100.0) == 0
    assert job_row(connection, job_id) == before
    assert jobs.heartbeat(connection, [fresh], lease_seconds=100.0) == 1


# ── finished ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_finished_job_has_its_outputs_and_no_claim(connection):
    job_id = queue(connection, rows=2)
    claims = take(connection)
    done = jobs.finish(connection, claims, [[good(0.75), good(0.125)]], model_version_id=1)
    row = job_row(connection, job_id)
    assert done == [job_id]
    assert (row["state"], row["failed_count"], row["error"]) == ("succeeded", 0, None)
    assert (row["claim_token"], row["leased_by"], row["lease_expires_at"]) == (None, None, None)
    assert row["finished_at"] >= row["started_at"]
    assert outputs_of(connection, job_id) == [(0, 1.0, 0.75), (1, 0.0, 0.125)]


def test_outputs_are_stored_exactly_as_scored(connection):
    probability = 0.1 + 0.2 - 0.05
    every = [1 / 3, 1 / 7, 1 - 1 / 3 - 1 / 7]
    queue(connection, rows=3)
    results: list[Output] = [
        Output("binary", 1.0, "Part", probability, None, 0.148),
        Output("multiclass", 2.0, "third", every[2], every),
        Output("regression", -1.2345678901234567e-300),
    ]
    claims = take(connection)
    jobs.finish(connection, claims, [results], model_version_id=1)
    stored = connection.execute(
        text("SELECT task, prediction, label, probability, probabilities, threshold FROM model_outputs ORDER BY id")
    ).all()
    assert [Output(*row) for row in stored] == results


def test_good_rows_of_a_claim_succeed_beside_a_faulty_one(connection):
    job_id = queue(connection, rows=3)
    claims = take(connection)
    jobs.finish(connection, claims, [[good(), FAULT, good()]], model_version_id=1)
    row = job_row(connection, job_id)
    assert (row["state"], row["failed_count"], row["error"]) == ("succeeded", 1, None)
    assert [index for index, _, _ in outputs_of(connection, job_id)] == [0, 2]
    faults = connection.scalars(text("SELECT faults FROM model_inputs ORDER BY row_index")).all()
    assert faults == [None, [{"pointer": "", "code": FAULT.code, "message": FAULT.message}], None]


def test_job_without_any_output_has_failed_with_the_first_reason(connection):
    job_id = queue(connection, rows=2)
    neighbour = queue(connection)
    claims = sorted(take(connection), key=lambda claim: claim.job_id)
    jobs.finish(connection, claims, [[FAULT, FAULT], [good()]], model_version_id=1)
    row = job_row(connection, job_id)
    assert (row["state"], row["failed_count"]) == ("failed", 2)
    assert row["error"] == {"code": FAULT.code, "message": FAULT.message}
    assert outputs_of(connection, job_id) == []
    assert job_row(connection, neighbour)["state"] == "succeeded"


def test_rows_refused_at_submission_count_among_the_failed_ones(connection):
    job = submission(rows=3, faults=[None, [FAULT], None])
    jobs.submit(connection, [job])
    jobs.finish(connection, take(connection), [[FAULT, good()]], model_version_id=1)
    row = job_row(connection, job.id)
    assert (row["state"], row["failed_count"], row["row_count"]) == ("succeeded", 2, 3)


def test_stale_token_changes_nothing_and_stores_nothing(connection, other):
    job_id = queue(connection)
    stale = take(connection)
    let_lease_run_out(connection, job_id)
    assert jobs.recover(connection) == {job_id: "queued"}
    before = job_row(connection, job_id)
    assert jobs.finish(connection, stale, [[good(0.9)]], model_version_id=1) == []  # while it is queued again
    assert job_row(connection, job_id) == before
    make_ready(connection, job_id)
    fresh = take(other, crashed=True)
    before = job_row(connection, job_id)
    assert jobs.finish(connection, stale, [[good(0.9)]], model_version_id=1) == []  # while another worker has it
    assert jobs.finish(connection, stale, [[FAULT]], model_version_id=1) == []
    assert not jobs.fail(connection, stale[0], code="timeout", message="too long")
    assert jobs.requeue(connection, stale, code="x", message="y") == {}
    assert jobs.release(connection, stale) == 0
    assert job_row(connection, job_id) == before
    assert outputs_of(connection, job_id) == []
    assert connection.scalar(text("SELECT count(*) FROM model_inputs WHERE faults IS NOT NULL")) == 0
    assert jobs.finish(other, fresh, [[good(0.6)]], model_version_id=1) == [job_id]
    assert jobs.finish(connection, stale, [[good(0.9)]], model_version_id=1) == []  # after another has ended it
    assert outputs_of(connection, job_id) == [(0, 1.0, 0.6)]


def test_stale_claim_does_not_spoil_the_claims_beside_it(connection):
    lost, kept = queue(connection), queue(connection)
    claims = sorted(take(connection), key=lambda claim: claim.job_id)
    let_lease_run_out(connection, lost)
    jobs.recover(connection)
    assert jobs.finish(connection, claims, [[good()], [good()]], model_version_id=1) == [kept]
    assert outputs_of(connection, lost) == []
    assert len(outputs_of(connection, kept)) == 1


def test_results_that_are_no_scores_are_stored_with_the_end_of_their_jobs(connection):
    """Only those of jobs that are still ours and were not canceled; and a `store` that fails ends none of them."""
    kept, canceled, stale, failed = (queue(connection, rows=2) for _ in range(4))
    claims = take(connection)
    jobs.cancel(connection, canceled)
    set_job(connection, stale, "state = 'queued', claim_token = NULL")
    results = [[FAULT, "why"], ["why", "why"], ["why", "why"], [FAULT, FAULT]]
    stored: list[Any] = []

    def store(_: Connection, version: int, results: Any) -> None:
        stored.extend((version, *pair) for pair in results)

    def refuse(*_: Any) -> None:
        raise ValueError("it cannot be stored")

    with connection.engine.connect().execution_options(isolation_level="READ COMMITTED") as transaction:
        with pytest.raises(ValueError, match="cannot be stored"), transaction.begin():
            jobs.finish(transaction, claims, results, model_version_id=1, store=refuse)
        assert job_row(connection, kept)["state"] == "running"
        with transaction.begin():
            ended = jobs.finish(transaction, claims, results, model_version_id=1, store=store)
    assert set(ended) == {kept, canceled, failed}
    assert stored == [(1, claims[0].input_ids[1], "why")]
    assert [job_row(connection, job_id)["state"] for job_id in (kept, canceled, failed)] == [
        "succeeded",
        "canceled",
        "failed",
    ]


def test_claim_finished_twice_keeps_its_first_outputs(connection):
    job_id = queue(connection)
    claims = take(connection)
    jobs.finish(connection, claims, [[good(0.6)]], model_version_id=1)
    before = job_row(connection, job_id)
    assert jobs.finish(connection, claims, [[good(0.9)]], model_version_id=1) == []
    assert jobs.finish(connection, claims, [[FAULT]], model_version_id=1) == []
    assert job_row(connection, job_id) == before
    assert outputs_of(connection, job_id) == [(0, 1.0, 0.6)]


def test_nothing_of_a_claim_is_stored_when_one_output_is_refused(connection):
    job_id, neighbour = queue(connection), queue(connection)
    claims = take(connection)
    with pytest.raises(IntegrityError):
        jobs.finish(connection, claims, [[good()], [good(1.5)]], model_version_id=1)
    for each in (job_id, neighbour):
        assert job_row(connection, each)["state"] == "running"
        assert outputs_of(connection, each) == []


def test_failed_claim_ends_with_its_reason(connection):
    job_id = queue(connection, rows=3)
    (claim,) = take(connection)
    assert jobs.fail(connection, claim, code="timeout", message="it ran longer than 7 s")
    row = job_row(connection, job_id)
    assert (row["state"], row["failed_count"], row["claim_token"]) == ("failed", 3, None)
    assert row["error"] == {"code": "timeout", "message": "it ran longer than 7 s"}
    assert row["finished_at"] is not None


# ── canceled ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_queued_job_is_canceled_at_once(connection):
    job_id = queue(connection)
    assert jobs.cancel(connection, job_id) == "canceled"
    row = job_row(connection, job_id)
    assert row["state"] == "canceled"
    assert row["finished_at"] == row["cancel_requested_at"]


def test_running_job_is_asked_to_cancel_and_then_ends_canceled_without_outputs(connection):
    job_id = queue(connection, rows=2)
    claims = take(connection)
    assert jobs.cancel(connection, job_id) == "running"
    running = job_row(connection, job_id)
    assert (running["state"], running["claim_token"]) == ("running", claims[0].token)
    assert running["cancel_requested_at"] is not None
    assert jobs.cancel(connection, job_id) == "running"  # to ask twice is to ask once
    assert job_row(connection, job_id)["cancel_requested_at"] == running["cancel_requested_at"]
    assert jobs.finish(connection, claims, [[good(), FAULT]], model_version_id=1) == [job_id]
    row = job_row(connection, job_id)
    assert (row["state"], row["error"], row["claim_token"]) == ("canceled", None, None)
    assert outputs_of(connection, job_id) == []


@pytest.mark.parametrize("way", ["fail", "retry", "recover"])
def test_cancel_requested_job_ends_canceled_however_its_run_ends(connection, way):
    job_id = queue(connection)
    claims = take(connection)
    jobs.cancel(connection, job_id)
    if way == "fail":
        assert jobs.fail(connection, claims[0], code="timeout", message="too long")
    elif way == "retry":
        assert jobs.requeue(connection, claims, code="x", message="y") == {job_id: "canceled"}
    else:
        let_lease_run_out(connection, job_id)
        assert jobs.recover(connection) == {job_id: "canceled"}
    row = job_row(connection, job_id)
    assert (row["state"], row["error"], row["claim_token"]) == ("canceled", None, None)
    assert row["finished_at"] is not None


def test_cancel_requested_job_that_is_given_back_is_canceled_and_not_run_again(connection):
    job_id = queue(connection)
    claims = take(connection)
    jobs.cancel(connection, job_id)
    jobs.release(connection, claims, suspect=True)
    assert job_row(connection, job_id)["state"] == "canceled"


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_terminal_job_is_not_canceled(connection, state):
    job_id = queue(connection, expires_in=60.0)
    bring_to(connection, job_id, state)
    before = job_row(connection, job_id)
    assert jobs.cancel(connection, job_id) is None
    assert job_row(connection, job_id) == before


def test_unknown_job_is_not_canceled(connection):
    assert jobs.cancel(connection, submission().id) is None


def test_cancel_waits_for_a_finish_under_way_and_then_changes_nothing(connection, other):
    job_id = queue(connection)
    claims = take(connection)
    connection.exec_driver_sql("BEGIN")
    end(connection, claims)
    answers: list[str | None] = []
    canceling = threading.Thread(target=lambda: answers.append(jobs.cancel(other, job_id)))
    canceling.start()
    time.sleep(0.1)
    connection.exec_driver_sql("COMMIT")
    canceling.join()
    assert answers == [None]
    assert job_row(connection, job_id)["state"] == "succeeded"


@pytest.mark.parametrize("dialect", ["postgresql", "sqlite"])
def test_cancel_speaks_both_dialects(dialect, connection, sqlite):
    if dialect == "postgresql":
        job_id = queue(connection)
        assert [jobs.cancel(connection, job_id) for _ in range(2)] == ["canceled", None]
        return
    with sqlite.begin() as own:
        job = submission()
        insert_finished(own, [job], [[good()]], attempts=[1], started_at=datetime.now(UTC))
        assert jobs.cancel(own, job.id) is None
        assert job_row(own, job.id)["state"] == "succeeded"
        assert jobs.cancel(own, submission().id) is None


# ── back to the queue ────────────────────────────────────────────────────────────────────────────────────────────


def test_transient_error_gives_the_job_back_with_backoff(connection):
    job_id = queue(connection)
    claims = take(connection)
    assert jobs.requeue(connection, claims, code="out_of_memory", message="too many rows") == {job_id: "queued"}
    row = job_row(connection, job_id)
    assert (row["state"], row["attempt"], row["crash_count"], row["error"]) == ("queued", 1, 0, None)
    assert (row["claim_token"], row["leased_by"], row["lease_expires_at"], row["finished_at"]) == (None,) * 4


def test_backoff_is_random_and_grows_up_to_a_minute(connection):
    spread: dict[int, list[float]] = {}
    for attempt, bound in ((1, 2), (3, 8), (10, 60)):
        waits = spread.setdefault(attempt, [])
        group = [submission(max_attempts=20) for _ in range(40)]
        jobs.submit(connection, group)
        claims = take(connection)
        connection.execute(text("UPDATE jobs SET attempt = :attempt"), {"attempt": attempt})
        jobs.requeue(connection, claims, code="x", message="y")
        query = text("SELECT extract(epoch FROM run_after - now())::float8 FROM jobs")
        waits.extend(connection.scalars(query).all())
        assert -1 < min(waits) < max(waits) <= bound
        assert max(waits) - min(waits) > bound / 4  # full jitter: no two jobs come back together
        connection.exec_driver_sql("DELETE FROM jobs")


def test_last_attempts_error_is_final(connection):
    job_id = queue(connection, rows=2, max_attempts=1)
    claims = take(connection)
    assert jobs.requeue(connection, claims, code="out_of_memory", message="too many rows") == {job_id: "failed"}
    row = job_row(connection, job_id)
    assert (row["state"], row["error"]) == ("failed", {"code": "out_of_memory", "message": "too many rows"})
    assert row["finished_at"] is not None
    assert row["failed_count"] == 2  # rows without an output in the end


def test_released_job_has_its_attempt_back(connection):
    job_id = queue(connection)
    claims = take(connection)
    assert jobs.release(connection, claims) == 1
    row = job_row(connection, job_id)
    assert (row["state"], row["attempt"], row["crash_count"], row["claim_token"]) == ("queued", 0, 0, None)
    assert ids(take(connection)) == [job_id]


def test_job_that_is_claimed_again_keeps_the_time_of_its_first_start(connection):
    job_id = queue(connection)
    first = take(connection)
    started = job_row(connection, job_id)["started_at"]
    jobs.release(connection, first)
    take(connection)
    row = job_row(connection, job_id)
    assert row["started_at"] == started
    assert row["claimed_at"] > started


def test_suspect_jobs_come_back_one_at_a_time(connection):
    expected = [queue(connection) for _ in range(3)]
    assert jobs.release(connection, take(connection), suspect=True) == 3
    assert take(connection) == []
    assert [ids(take(connection, crashed=True)) for _ in range(3)] == [[job_id] for job_id in expected]


def test_job_of_a_dead_worker_is_queued_again_with_backoff(connection):
    job_id = queue(connection)
    take(connection)
    let_lease_run_out(connection, job_id)
    assert jobs.recover(connection) == {job_id: "queued"}
    row = job_row(connection, job_id)
    assert (row["state"], row["attempt"], row["crash_count"]) == ("queued", 1, 1)
    assert (row["claim_token"], row["leased_by"], row["lease_expires_at"], row["error"]) == (None,) * 4
    wait = row["run_after"] - datetime.now(UTC)
    assert wait <= timedelta(seconds=2)


def test_job_that_died_too_often_has_failed(connection):
    job_id = queue(connection, rows=2, max_attempts=2)
    for state in ("queued", "failed"):
        make_ready(connection, job_id)
        assert ids(take(connection, crashed=state == "failed")) == [job_id]
        let_lease_run_out(connection, job_id)
        assert jobs.recover(connection) == {job_id: state}
    row = job_row(connection, job_id)
    assert (row["attempt"], row["crash_count"], row["failed_count"]) == (2, 2, 2)
    assert row["error"]["code"] == "worker_lost"
    assert row["finished_at"] is not None
    assert jobs.recover(connection) == {}


def test_job_whose_lease_holds_is_not_recovered(connection):
    queue(connection)
    claims = take(connection)
    assert jobs.recover(connection) == {}
    assert end(connection, claims) == ids(claims)


def test_recovery_comes_back_for_what_one_run_does_not_take(connection):
    jobs.submit(connection, [submission() for _ in range(520)])
    take(connection, max_jobs=1000)
    connection.exec_driver_sql("UPDATE jobs SET lease_expires_at = now() - interval '1 second'")
    assert len(jobs.recover(connection)) == 500
    assert len(jobs.recover(connection)) == 20


@pytest.mark.parametrize("attempt", [40, 60])
def test_job_with_many_attempts_is_recovered_like_any_other(connection, attempt):
    """One job must not stop the recovery of all: 2^60 seconds is more than an interval holds."""
    job_id = queue(connection, max_attempts=30_000)
    take(connection)
    set_job(connection, job_id, f"attempt = {attempt}, lease_expires_at = now() - interval '1 second'")
    assert jobs.recover(connection) == {job_id: "queued"}
    assert job_row(connection, job_id)["run_after"] - datetime.now(UTC) <= timedelta(seconds=60)


def test_job_that_finishes_while_recovery_looks_stays_finished(connection, other):
    """The finish holds the row: recovery passes it by."""
    job_id = queue(connection)
    claims = take(connection)
    let_lease_run_out(connection, job_id)
    connection.exec_driver_sql("BEGIN")
    assert end(connection, claims) == [job_id]
    assert jobs.recover(other) == {}
    connection.exec_driver_sql("COMMIT")
    assert jobs.recover(other) == {}
    assert job_row(connection, job_id)["state"] == "succeeded"
    assert len(outputs_of(connection, job_id)) == 1


def test_job_that_finishes_between_recoverys_look_and_its_update_stays_finished(connection, other, monkeypatch):
    """Without the repeated condition, the update would overwrite the terminal state: here it comes a second late."""
    slow = jobs._RECOVER.replace("FOR UPDATE SKIP LOCKED", "").replace(
        "UPDATE jobs SET", ", late AS MATERIALIZED (SELECT id FROM dead, pg_sleep(0.4)) UPDATE jobs SET", 1
    )
    slow = slow.replace("FROM dead WHERE jobs.id = dead.id", "FROM late WHERE jobs.id = late.id")
    assert slow != jobs._RECOVER
    monkeypatch.setattr(jobs, "_RECOVER", slow)
    job_id = queue(connection)
    claims = take(connection)
    let_lease_run_out(connection, job_id)
    answers: list[dict[str, str]] = []
    recovering = threading.Thread(target=lambda: answers.append(jobs.recover(other)))
    connection.exec_driver_sql("BEGIN")
    connection.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": job_id})
    recovering.start()
    time.sleep(0.2)
    assert end(connection, claims) == [job_id]
    time.sleep(0.4)
    connection.exec_driver_sql("COMMIT")
    recovering.join()
    assert answers == [{}]
    assert job_row(connection, job_id)["state"] == "succeeded"


def test_finish_that_comes_while_recovery_takes_the_job_stores_nothing(connection, other):
    job_id = queue(connection)
    claims = take(connection)
    let_lease_run_out(connection, job_id)
    other.exec_driver_sql("BEGIN")
    assert jobs.recover(other) == {job_id: "queued"}
    done: list[list[str]] = []
    finishing = threading.Thread(target=lambda: done.append(end(connection, claims)))
    finishing.start()
    time.sleep(0.1)
    other.exec_driver_sql("COMMIT")
    finishing.join()
    assert done == [[]]
    assert job_row(connection, job_id)["state"] == "queued"
    assert outputs_of(connection, job_id) == []


def test_renewed_lease_is_not_recovered(connection, other):
    job_id = queue(connection)
    claims = take(connection)
    let_lease_run_out(connection, job_id)
    connection.exec_driver_sql("BEGIN")
    jobs.heartbeat(connection, claims, lease_seconds=15.0)
    assert jobs.recover(other) == {}
    connection.exec_driver_sql("COMMIT")
    assert jobs.recover(other) == {}


# ── expired ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_job_that_queued_too_long_expires(connection):
    late, patient = queue(connection, rows=2, expires_in=60.0), queue(connection)
    set_job(connection, late, "expires_at = now()")
    assert jobs.expire(connection) == [late]
    row = job_row(connection, late)
    assert (row["state"], row["failed_count"], row["error"]["code"]) == ("expired", 2, "expired")
    assert row["finished_at"] is not None
    assert job_row(connection, patient)["state"] == "queued"
    assert jobs.expire(connection) == []


def test_running_job_does_not_expire(connection):
    job_id = queue(connection, expires_in=60.0)
    claims = take(connection)
    set_job(connection, job_id, "expires_at = now()")
    assert jobs.expire(connection) == []
    assert end(connection, claims) == [job_id]


def test_job_that_is_being_claimed_does_not_expire(connection, other):
    job_id = queue(connection, expires_in=60.0)
    connection.exec_driver_sql("BEGIN")
    claims = take(connection)
    set_job(connection, job_id, "expires_at = now()")
    assert jobs.expire(other) == []
    connection.exec_driver_sql("COMMIT")
    assert end(connection, claims) == [job_id]


# ── recorded: the whole life at once ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with sqlite_engine(tmp_path_factory.mktemp("sqlite")) as engine:
        yield engine


@pytest.fixture(params=["postgresql", "sqlite"])
def either(request: pytest.FixtureRequest, database: Engine, sqlite: Engine) -> Engine:
    engine = database if request.param == "postgresql" else sqlite
    empty(engine)
    return engine


def test_recorded_jobs_have_what_the_queue_would_have_given_them(either):
    started = datetime.now(UTC)
    one = submission(owner="key-1", idempotency_scope="k:/predict", idempotency_key="once", body_hash="0" * 64)
    mixed = submission(rows=3, faults=[None, [FAULT], None], expires_in=60.0, model_version_id=2)
    bad = submission()
    with either.begin() as connection:
        finished = insert_finished(
            connection,
            [one, mixed, bad],
            [[good(0.9)], [FAULT, good(0.25)], [FAULT]],
            attempts=[1, 1, 1],
            started_at=started,
        )
    with either.connect() as connection:
        outputs = {job.id: outputs_of(connection, job.id) for job in (one, mixed, bad)}
        columns = "state, attempt, row_count, failed_count, error, claim_token, owner, model_version_id"
        rows = {
            job.id: connection.execute(text(f"SELECT {columns} FROM jobs WHERE id = :id"), {"id": job.id}).one()
            for job in (one, mixed, bad)
        }
        versions = connection.scalars(text("SELECT model_version_id FROM model_outputs ORDER BY id")).all()
        faults = connection.scalars(text("SELECT count(*) FROM model_inputs WHERE faults IS NOT NULL")).one()
    assert finished >= started
    assert tuple(rows[one.id])[:4] == ("succeeded", 1, 1, 0)
    assert rows[one.id].owner == "key-1"
    assert tuple(rows[mixed.id])[:4] == ("succeeded", 1, 3, 2)
    assert tuple(rows[bad.id])[:4] == ("failed", 1, 1, 1)
    assert FAULT.code in str(rows[bad.id].error)
    assert all(row.claim_token is None for row in rows.values())
    assert outputs[one.id] == [(0, 1.0, 0.9)]
    assert outputs[mixed.id] == [(2, 0.0, 0.25)]
    assert outputs[bad.id] == []
    assert list(versions) == [1, 2]
    assert faults == 3


def test_recorded_group_is_stored_wholly_or_not_at_all(either):
    bad = submission()
    with pytest.raises(IntegrityError), either.begin() as connection:  # noqa: PT012 - the block is the transaction
        connection.exec_driver_sql("SELECT 1")
        if either.dialect.name == "postgresql":
            connection.exec_driver_sql("BEGIN")  # the engine commits statement by statement
        try:
            insert_finished(
                connection, [submission(), bad], [[good()], [good(2.0)]], attempts=[1, 1], started_at=datetime.now(UTC)
            )
        finally:
            if either.dialect.name == "postgresql":
                connection.exec_driver_sql("ROLLBACK")
    with either.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM jobs")) == 0
        assert connection.scalar(text("SELECT count(*) FROM model_inputs")) == 0


def test_outputs_of_many_rows_belong_to_their_own_inputs(either):
    group = [submission(rows=7) for _ in range(150)]
    results = [[good(round((job * 7 + row) / 1050, 6)) for row in range(7)] for job in range(150)]
    with either.begin() as connection:
        insert_finished(connection, group, results, attempts=[1] * len(group), started_at=datetime.now(UTC))
    with either.connect() as connection:
        for job, expected in zip(group, results, strict=True):
            assert outputs_of(connection, job.id) == [
                (index, output.prediction, output.probability) for index, output in enumerate(expected)
            ]


# ── what the database itself refuses ─────────────────────────────────────────────────────────────────────────────

LEGAL = {
    ("queued", "queued"),
    ("queued", "running"),
    ("queued", "canceled"),
    ("queued", "expired"),
    ("running", "queued"),
    ("running", "running"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "canceled"),
    *((state, state) for state in TERMINAL),
}


def bring_to(connection: Connection, job_id: str, state: str) -> None:
    """Lead a queued job to a state by its own functions."""
    if state in ("running", "succeeded", "failed"):
        claims = take(connection)
        assert ids(claims) == [job_id]
        if state != "running":
            result = good() if state == "succeeded" else FAULT
            jobs.finish(connection, claims, [[result for _ in claims[0].rows]], model_version_id=1)
    elif state == "canceled":
        jobs.cancel(connection, job_id)
    elif state == "expired":
        set_job(connection, job_id, "expires_at = now()")
        jobs.expire(connection)
    assert job_row(connection, job_id)["state"] == state


@pytest.mark.parametrize(("old", "new"), list(product(STATES, STATES)))
def test_guard_lets_exactly_the_legal_transitions_pass(connection, old, new):
    job_id = queue(connection, expires_in=60.0)
    bring_to(connection, job_id, old)
    token = {("running", "running"): "claim_token", ("queued", "running"): "7"}.get((old, new), "NULL")
    finished = "NULL" if new in ("queued", "running") else "now()"
    change = f"state = '{new}', claim_token = {token}, finished_at = {finished}"
    if (old, new) in LEGAL:
        set_job(connection, job_id, change)
        assert job_row(connection, job_id)["state"] == new
        return
    before = job_row(connection, job_id)
    with pytest.raises(IntegrityError, match=f"illegal transition from {old} to {new}"):
        set_job(connection, job_id, change)
    assert job_row(connection, job_id) == before


def test_guard_refuses_to_change_the_token_of_a_claim(connection):
    job_id = queue(connection)
    take(connection)
    with pytest.raises(IntegrityError, match="illegal transition from running to running"):
        set_job(connection, job_id, "claim_token = claim_token + 1")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("claimed_while_running", "claim_token = 5"),
        ("claimed_while_running", "state = 'running'"),
        ("finished_when_terminal", "finished_at = now()"),
        ("finished_when_terminal", "state = 'canceled'"),
        ("has_rows", "row_count = 0"),
        ("state_known", "state = 'lost', finished_at = now()"),
    ],
)
def test_job_that_contradicts_itself_is_refused(connection, name, change):
    job_id = queue(connection)
    with pytest.raises(IntegrityError, match=f"ck_jobs_{name}|illegal transition"):
        set_job(connection, job_id, change)


BINARY: dict[str, Any] = {"task": "binary", "prediction": 1, "label": "Part", "probability": 0.5, "threshold": 0.5}
BAD_OUTPUTS = {
    "probability above 1": BINARY | {"probability": 1.0000001},
    "probability below 0": BINARY | {"probability": -1e-9},
    "probability NaN": BINARY | {"probability": float("nan")},
    "probability infinite": BINARY | {"probability": float("inf")},
    "binary prediction 2": BINARY | {"prediction": 2},
    "binary prediction 0.5": BINARY | {"prediction": 0.5},
    "binary prediction NaN": BINARY | {"prediction": float("nan")},
    "binary without label": BINARY | {"label": None},
    "multiclass below 0": BINARY | {"task": "multiclass", "prediction": -1, "threshold": None},
    "multiclass without label": BINARY | {"task": "multiclass", "label": None, "threshold": None},
    "regression with label": {"task": "regression", "prediction": 3.5, "label": "x"},
    "regression with probability": {"task": "regression", "prediction": 3.5, "probability": 0.5},
    "regression with threshold": {"task": "regression", "prediction": 3.5, "threshold": 0.5},
    "unknown task": BINARY | {"task": "ranking"},
    "no prediction": BINARY | {"prediction": None},
}


@pytest.mark.parametrize("case", BAD_OUTPUTS)
def test_output_that_cannot_be_is_refused(either, case):
    values = {"label": None, "probability": None, "threshold": None} | BAD_OUTPUTS[case]
    job = submission()
    with either.begin() as connection:
        insert_finished(connection, [job], [[FAULT]], attempts=[1], started_at=datetime.now(UTC))
    insert = text(
        "INSERT INTO model_outputs (input_id, model_version_id, task, prediction, label, probability, threshold) "
        "SELECT id, 1, :task, :prediction, :label, :probability, :threshold FROM model_inputs WHERE job_id = :job"
    )
    if (
        either.dialect.name == "sqlite"
        and isinstance(values["probability"], float)
        and math.isnan(values["probability"])
    ):
        with either.begin() as connection:
            connection.execute(insert, values | {"job": job.id})
            # SQLite has no NaN: it stores NULL, which says the same, that there is no probability.
            assert connection.scalar(text("SELECT count(*) FROM model_outputs WHERE probability IS NOT NULL")) == 0
            connection.execute(text("DELETE FROM model_outputs"))
        return
    with pytest.raises(IntegrityError), either.begin() as connection:
        connection.execute(insert, values | {"job": job.id})


def test_second_output_for_one_input_and_version_is_refused(either):
    job = submission()
    again = text(
        "INSERT INTO model_outputs (input_id, model_version_id, task, prediction) "
        "SELECT id, :version, 'regression', 1 FROM model_inputs WHERE job_id = :job"
    )
    with either.begin() as connection:
        insert_finished(connection, [job], [[good()]], attempts=[1], started_at=datetime.now(UTC))
        connection.execute(again, {"job": job.id, "version": 2})  # another version may score the same row
    with pytest.raises(IntegrityError), either.begin() as connection:
        connection.execute(again, {"job": job.id, "version": 1})


def test_inputs_and_outputs_go_with_their_job(either):
    job = submission(rows=2)
    with either.begin() as connection:
        insert_finished(connection, [job], [[good(), good()]], attempts=[1], started_at=datetime.now(UTC))
        connection.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": job.id})
        assert connection.scalar(text("SELECT count(*) FROM model_inputs")) == 0
        assert connection.scalar(text("SELECT count(*) FROM model_outputs")) == 0


# ── all of it, in any order ──────────────────────────────────────────────────────────────────────────────────────


class LifeOfJobs(RuleBasedStateMachine):
    """Submits, claims, kills, loses and finishes jobs as a hostile world would, and looks at the tables after each."""

    engine: Engine  # set by the test
    jobs_ = Bundle("jobs")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        empty(self.engine)
        self.connection = self.engine.connect()
        self.states: dict[str, str] = {}
        self.tokens: dict[str, int] = {}  # job -> the token that may end it
        self.rows: dict[str, int] = {}
        self.frozen: dict[str, dict[str, Any]] = {}  # terminal jobs, as they were first seen

    def teardown(self) -> None:
        self.connection.close()

    def is_ours(self, claim: Claim) -> bool:
        return self.tokens.get(claim.job_id) == claim.token

    def leaves(self, job_id: str, state: str) -> None:
        self.states[job_id] = state
        self.tokens.pop(job_id, None)

    @rule(
        target=jobs_,
        sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4),
        priority=st.integers(0, 2),
        max_attempts=st.integers(1, 3),
    )
    def submit(self, sizes, priority, max_attempts):
        group = [
            submission(rows=size, priority=priority, max_attempts=max_attempts, expires_in=3600.0) for size in sizes
        ]
        assert set(jobs.submit(self.connection, group)) == {job.id for job in group}
        assert jobs.submit(self.connection, group) == {}
        for job in group:
            self.states[job.id] = "queued"
            self.rows[job.id] = len(job.rows)
        return multiple(*(job.id for job in group))

    @rule(target=claims, max_jobs=st.integers(1, 5), max_rows=st.integers(1, 6), crashed=st.booleans())
    def claim(self, max_jobs, max_rows, crashed):
        claims = take(self.connection, max_jobs=max_jobs, max_rows=max_rows, crashed=crashed)
        assert len(claims) <= (1 if crashed else max_jobs)
        assert len(claims) <= 1 or sum(len(each.rows) for each in claims) <= max_rows
        for each in claims:
            assert self.states[each.job_id] == "queued"
            assert (each.crash_count > 0) == crashed
            assert len(each.rows) == self.rows[each.job_id]
            assert 1 <= each.attempt <= each.max_attempts
            self.states[each.job_id] = "running"
            self.tokens[each.job_id] = each.token
        return multiple(*claims)

    # A claim stays in its bundle after it was used: late writers come with tokens of any age.

    @rule(group=st.lists(claims, min_size=1, max_size=4, unique_by=lambda claim: claim.job_id), data=st.data())
    def finish(self, group, data):
        results = [[FAULT if data.draw(st.integers(0, 3)) == 0 else good() for _ in claim.input_ids] for claim in group]
        ours = [claim for claim in group if self.is_ours(claim)]
        done = jobs.finish(self.connection, group, results, model_version_id=1)
        assert sorted(done) == sorted(claim.job_id for claim in ours)
        for claim, rows in zip(group, results, strict=True):
            if claim in ours:
                failed = all(result is FAULT for result in rows)
                self.leaves(claim.job_id, self._ended(claim.job_id, "failed" if failed else "succeeded"))

    @rule(claim=claims)
    def fail(self, claim):
        ours = self.is_ours(claim)
        assert jobs.fail(self.connection, claim, code="timeout", message="too long") == ours
        if ours:
            self.leaves(claim.job_id, self._ended(claim.job_id, "failed"))

    @rule(claim=claims)
    def retry(self, claim):
        ours = self.is_ours(claim)
        again = "failed" if claim.attempt >= claim.max_attempts else "queued"
        expected = {claim.job_id: self._ended(claim.job_id, again)} if ours else {}
        assert jobs.requeue(self.connection, [claim], code="x", message="y") == expected
        if ours:
            self.leaves(claim.job_id, expected[claim.job_id])

    @rule(claim=consumes(claims), suspect=st.booleans())
    def release(self, claim, suspect):
        ours = self.is_ours(claim)
        assert jobs.release(self.connection, [claim], suspect=suspect) == int(ours)
        if ours:
            self.leaves(claim.job_id, job_row(self.connection, claim.job_id)["state"])

    @rule(claim=claims)
    def heartbeat(self, claim):
        assert jobs.heartbeat(self.connection, [claim], lease_seconds=15.0) == int(self.is_ours(claim))

    @rule(dead=st.lists(jobs_, max_size=3))
    def recover(self, dead):
        lost = {job_id for job_id in dead if self.states[job_id] == "running"}
        before = {job_id: job_row(self.connection, job_id) for job_id in lost}
        for job_id in lost:
            let_lease_run_out(self.connection, job_id)
        recovered = jobs.recover(self.connection)
        assert set(recovered) == lost
        for job_id, state in recovered.items():
            final = before[job_id]["attempt"] >= before[job_id]["max_attempts"]
            assert state == self._ended(job_id, "failed" if final else "queued")
            assert job_row(self.connection, job_id)["crash_count"] == before[job_id]["crash_count"] + 1
            self.leaves(job_id, state)

    @rule(job_id=jobs_)
    def backoff_passes(self, job_id):
        make_ready(self.connection, job_id)
        if job_id in self.frozen:
            self.frozen[job_id] = job_row(self.connection, job_id)

    @rule(job_id=jobs_)
    def expire(self, job_id):
        late = self.states[job_id] == "queued"
        if late:
            set_job(self.connection, job_id, "expires_at = now()")
        assert jobs.expire(self.connection) == ([job_id] if late else [])
        if late:
            self.leaves(job_id, "expired")

    @rule(job_id=jobs_)
    def cancel(self, job_id):
        state = self.states[job_id]
        expected = {"queued": "canceled", "running": "running"}.get(state)
        assert jobs.cancel(self.connection, job_id) == expected
        if state == "queued":
            self.leaves(job_id, "canceled")

    def _ended(self, job_id: str, state: str) -> str:
        """Return where a run leads: to canceled, whatever it was about to be, if that was asked for."""
        row = job_row(self.connection, job_id)
        is_canceled = row["cancel_requested_at"] is not None
        return "canceled" if is_canceled else state

    @invariant()
    def tables_agree(self):
        rows = self.connection.execute(
            text(
                "SELECT jobs.*, inputs, outputs, most, faulty FROM jobs JOIN ("
                "  SELECT job_id, count(*) AS inputs, coalesce(sum(scored), 0) AS outputs,"
                "         coalesce(max(scored), 0) AS most, count(*) FILTER (WHERE faults IS NOT NULL) AS faulty"
                "  FROM model_inputs LEFT JOIN (SELECT input_id, count(*) AS scored FROM model_outputs GROUP BY 1) o"
                "    ON o.input_id = model_inputs.id GROUP BY job_id) i ON i.job_id = jobs.id"
            )
        ).mappings()
        seen = 0
        for stored in rows:
            seen += 1
            row = dict(stored)
            job_id, state = row["id"], row["state"]
            job_id = str(job_id)
            assert state == self.states[job_id]
            assert row["inputs"] == self.rows[job_id]
            assert row["most"] <= 1
            if state == "succeeded":
                # exactly one output for every row that has no fault
                assert row["outputs"] == row["inputs"] - row["faulty"] > 0
                assert row["failed_count"] == row["faulty"]
            else:
                assert row["outputs"] == 0
            assert row["attempt"] <= row["max_attempts"]
            if state in TERMINAL:
                if job_id not in self.frozen:
                    self.frozen[job_id] = job_row(self.connection, job_id)
                assert job_row(self.connection, job_id) == self.frozen[job_id]
            else:
                assert job_id not in self.frozen
        assert seen == len(self.states)


def test_no_order_of_events_breaks_the_life_of_jobs(database: Engine) -> None:
    LifeOfJobs.engine = database
    run_state_machine_as_test(
        LifeOfJobs,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            # A step that needs a claim is thrown away where there is none yet: by chance those may be many at first.
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )
