"""The life of a job: every transition, each as one conditional statement.

                     submit
                       │
                       ▼   claim (attempt + 1, new token, lease)
         ┌────────▶ queued ─────────────────────────────▶ running
         │            │  │                                 │ │ │
         │   cancel ──┘  └── expire                        │ │ └── finish ──▶ succeeded | failed | canceled
         │      ▼              ▼                           │ └──── recover ─▶ failed (died too often) | canceled
         │   canceled       expired                        │
         └─────────────────────────────────────────────────┘
               recover (lease ran out), requeue (transient error), release (given back untouched)

A CSV job runs as long as its chunks do (shared/jobs/chunks/transitions.py): start_csv and end_csv are its claim and
finish, and when its caller asks for the rest of its rows, reopen_csv takes it from a terminal state back to queued.

Delivery is at least once, effect is exactly once: a claim's token fences late writers, and an output is unique for
its input and model version. Times are the database's. The sync runtime records whole lives (shared/jobs/recording.py).
Every function takes a connection in autocommit mode: one statement is one transaction.

A job has a token exactly while it runs (a CHECK says so): statements that compare the token need not ask for the state.
The LIMIT on an array is all of it; what it changes is the planner's guess, from ten rows to one, so that the array
comes first and each job is looked up by its key. Where a statement asks whether a row belongs to what it has just
written, it says `(x IN (SELECT ...)) IS TRUE`: that is a hashed look-up. As a join it would be a nested loop, because
these connections plan no hash joins (shared/database/engine.py).
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from shared.cards.seal import text_sha256
from shared.database.clock import clock
from shared.database.engine import dumps
from shared.database.prepared import Statement, array
from shared.faults import Fault
from shared.jobs.kinds import APART, CLAIMED_BY_JOB, RESUMABLE
from shared.jobs.results import Store, outcome_of
from shared.jobs.submission import COLUMNS, Submission
from shared.monitoring.suspensions import suspended_sql
from shared.scoring.outputs import Output
from shared.tables import Job, JobState

NO_CLAIM: dict[str, Any] = {"claim_token": None, "leased_by": None, "lease_expires_at": None}  # nobody holds it

# ── accepted ─────────────────────────────────────────────────────────────────────────────────────────────────────

_NAMES = ", ".join(COLUMNS)
_COUNT = len(COLUMNS)
_SUBMIT = Statement(
    "submit_jobs",
    (*(f"{kind}[]" for kind in COLUMNS.values()), "float8[]", "uuid[]", "int[]", "text[]", "jsonb", "jsonb"),
    f"""
WITH accepted AS (
    INSERT INTO jobs ({_NAMES}, state, expires_at)
    SELECT {_NAMES}, 'queued', now() + expires_in * interval '1 second'
    FROM unnest({", ".join(f"${number}" for number in range(1, _COUNT + 2))}) AS t ({_NAMES}, expires_in)
    ON CONFLICT DO NOTHING
    RETURNING id, created_at
), stored AS (
    INSERT INTO model_inputs (job_id, row_index, sha256, features, faults)
    SELECT t.job_id, t.row_index, decode(t.sha256, 'hex'), t.features,
        nullif(${_COUNT + 6} -> (t.place - 1)::int, 'null')
    FROM ROWS FROM (
        unnest(${_COUNT + 2}), unnest(${_COUNT + 3}), unnest(${_COUNT + 4}), jsonb_array_elements(${_COUNT + 5})
    ) WITH ORDINALITY AS t (job_id, row_index, sha256, features, place)
    WHERE (t.job_id IN (SELECT id FROM accepted)) IS TRUE
)
SELECT id, created_at FROM accepted
""",  # noqa: S608 - built from constants
)


def submit(connection: Connection, group: Sequence[Submission]) -> dict[str, datetime]:
    """Store a group of submissions as queued jobs with their inputs; return id to time of those that are new.

    An id that is missing from the answer was there before, or its idempotency key was: nothing of it is stored.
    """
    faults = [fault for job in group for fault in job.faults]
    texts = [dumps(row) for job in group for row in job.rows]
    rows = _SUBMIT.run(
        connection,
        *(array(map(attrgetter(name), group)) for name in COLUMNS),
        array(job.expires_in for job in group),
        array(job.id for job in group for _ in job.rows),
        array(index for job in group for index in range(len(job.rows))),
        array(None if fault else text_sha256(text).hex() for text, fault in zip(texts, faults, strict=True)),
        f"[{','.join(texts)}]",
        dumps(faults) if any(faults) else None,
    )
    return {str(row[0]): row[1] for row in rows}


# ── claimed ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Claim:
    """A job that this worker holds: its token keeps earlier holders from storing."""

    job_id: str
    kind: str
    token: int
    attempt: int
    max_attempts: int
    crash_count: int
    timeout_seconds: float
    request_id: str = ""
    traceparent: str | None = None  # W3C trace context of the request
    by_pipeline: bool = False  # its version is suspended: only the pipeline may score it
    input_ids: list[int] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ClaimGroup:
    """Kinds whose jobs a worker may hold in one claim, because one handler computes them."""

    kinds: tuple[str, ...]
    max_rows: int  # of one claim, but for a single large job; 0: one job at a time


# The first job in the queue's order decides which group is claimed; the others of its group come along, as far as they
# are among the first `max_jobs`. A kind of a newer release is in no group, and is left to the workers that know it.
# {crashed}: jobs that took a worker down before are claimed alone, so that they harm no one else.
_CLAIM = """
WITH ready AS MATERIALIZED (
    SELECT id, kind, row_count, priority, run_after FROM jobs
    WHERE state = 'queued' AND model_version_id = $1 AND lane = $2 AND run_after <= now() AND kind = ANY ($6)
      AND crash_count {crashed} 0 AND (expires_at IS NULL OR expires_at > now())
    ORDER BY priority, run_after, id LIMIT $3 FOR UPDATE SKIP LOCKED
), bounded AS (
    SELECT id FROM (
        SELECT id, number, max_rows, first_value(number) OVER w AS first_number, row_number() OVER w AS place,
               sum(row_count) OVER (PARTITION BY number ORDER BY priority, run_after, id) AS upto
        FROM ready JOIN unnest($6, $7, $8) AS groups (kind, number, max_rows) USING (kind)
        WINDOW w AS (ORDER BY priority, run_after, id)
    ) AS counted WHERE place = 1 OR (number = first_number AND upto <= max_rows)
), claimed AS (
    UPDATE jobs SET state = 'running', attempt = attempt + 1, claim_token = nextval('claim_tokens'),
        leased_by = $4, lease_expires_at = now() + $5 * interval '1 second',
        claimed_at = now(), started_at = coalesce(started_at, now())
    FROM bounded WHERE jobs.id = bounded.id  -- locked above; to ask for the state again would invite a worse plan
    RETURNING jobs.id, kind, claim_token, attempt, max_attempts, crash_count, timeout_seconds, request_id, traceparent
)
SELECT claimed.*, {suspended}, input.id, input.features
FROM claimed JOIN model_inputs AS input ON input.job_id = claimed.id
WHERE input.faults IS NULL
"""
_CLAIM_TYPES = ("int", "text", "int", "text", "float8", "text[]", "int[]", "int[]")
_CLAIM_SOUND = Statement("claim_sound_jobs", _CLAIM_TYPES, _CLAIM.format(crashed="=", suspended=suspended_sql("$1")))
_CLAIM_CRASHED = Statement(
    "claim_crashed_jobs", _CLAIM_TYPES, _CLAIM.format(crashed=">", suspended=suspended_sql("$1"))
)


def claim(
    connection: Connection,
    *,
    model_version_id: int,
    lane: str,
    worker: str,
    lease_seconds: float,
    max_jobs: int,
    groups: Sequence[ClaimGroup],
    crashed: bool = False,
) -> list[Claim]:
    """Take queued jobs of one version and lane, at most `max_jobs`, all of one of these groups; others are left.

    With `crashed`, take one job that took its worker down before, alone; without, only sound ones.
    """
    statement = _CLAIM_CRASHED if crashed else _CLAIM_SOUND
    kinds = [(kind, number, group.max_rows) for number, group in enumerate(groups) for kind in group.kinds]
    rows = statement.run(
        connection,
        model_version_id,
        lane,
        1 if crashed else max_jobs,
        worker,
        lease_seconds,
        *(array(column) for column in zip(*kinds, strict=True)),
    )
    claims: dict[str, Claim] = {}
    for job_id, *columns, input_id, features in rows:
        held = claims.get(job_id)
        if held is None:
            held = claims[job_id] = Claim(str(job_id), *columns)
        held.input_ids.append(input_id)
        held.rows.append(features)
    return list(claims.values())


_HEARTBEAT = """
UPDATE jobs SET lease_expires_at = now() + %s * interval '1 second'
FROM unnest(%s::uuid[], %s::bigint[]) AS t (id, token)
WHERE jobs.id = t.id AND jobs.claim_token = t.token
"""


def heartbeat(connection: Connection, claims: Sequence[Claim], *, lease_seconds: float) -> int:
    """Renew the leases of claims that are still ours; return their number."""
    held = connection.exec_driver_sql(
        _HEARTBEAT, (lease_seconds, [held.job_id for held in claims], [held.token for held in claims])
    )
    return held.rowcount


# ── finished ─────────────────────────────────────────────────────────────────────────────────────────────────────


_FINISH = """
WITH done AS (
    UPDATE jobs SET state = CASE WHEN cancel_requested_at IS NULL THEN t.state ELSE 'canceled' END,
        failed_count = failed_count + t.failed, error = CASE WHEN cancel_requested_at IS NULL THEN t.error::jsonb END,
        finished_at = now(), claim_token = NULL, leased_by = NULL, lease_expires_at = NULL
    FROM (SELECT * FROM unnest($1, $2, $3, $4, $5) LIMIT cardinality($1)) AS t (id, token, state, failed, error)
    WHERE jobs.id = t.id AND jobs.claim_token = t.token AND ($15 OR NOT {suspended})
    RETURNING jobs.id, jobs.state
), scored AS (
    INSERT INTO model_outputs
        (input_id, model_version_id, task, prediction, label, probability, probabilities, threshold)
    SELECT t.input_id, $6, t.task, t.prediction, t.label, t.probability, t.probabilities::jsonb, t.threshold
    FROM unnest($7, $8, $9, $10, $11, $12, $13, $14)
        AS t (job_id, input_id, task, prediction, label, probability, probabilities, threshold)
    WHERE (t.job_id IN (SELECT id FROM done WHERE state = 'succeeded')) IS TRUE
){faulty}
SELECT id, state FROM done
"""
_FAULTY = """, faulty AS (
    UPDATE model_inputs SET faults = t.faults::jsonb
    FROM (SELECT * FROM unnest($16, $17, $18) LIMIT cardinality($16)) AS t (job_id, input_id, faults)
    WHERE model_inputs.id = t.input_id AND (t.job_id IN (SELECT id FROM done WHERE state <> 'canceled')) IS TRUE
)"""
_FINISH_TYPES = (
    *("uuid[]", "bigint[]", "text[]", "int[]", "text[]", "int"),
    *("uuid[]", "bigint[]", "text[]", "float8[]", "text[]", "float8[]", "text[]", "float8[]"),
    "bool",
)
_FINISH_ALL_GOOD = Statement(
    "finish_good_jobs", _FINISH_TYPES, _FINISH.format(faulty="", suspended=suspended_sql("$6"))
)
_FINISH_SOME_FAULTY = Statement(
    "finish_faulty_jobs",
    (*_FINISH_TYPES, "uuid[]", "bigint[]", "text[]"),
    _FINISH.format(faulty=_FAULTY, suspended=suspended_sql("$6")),
)


def finish(
    connection: Connection,
    claims: Sequence[Claim],
    results: Sequence[Sequence[object]],
    *,
    model_version_id: int,
    store: Store[Any] | None = None,
) -> list[str]:
    """Store the results and the terminal states of claims, fenced; return the ids that were ours.

    `results` holds, by claim and row, the result or the Fault that says why there is none. A job without any result
    has failed. A claim whose token is stale changes nothing and stores nothing; one whose cancellation was asked for
    becomes canceled. Scores of a version that was suspended since the claim, by any way but its pipeline, are not
    stored, and their jobs stay claimed. Scores (`Output`) are stored in the same statement; other results by `store`,
    which then needs a transaction around both.
    """
    ends = [outcome_of(rows) for rows in results]
    out_jobs: list[str] = []
    out_inputs: list[int] = []
    outputs: list[Output] = []
    faulty: list[tuple[str, int, str]] = []
    for held, rows in zip(claims, results, strict=True):
        for input_id, result in zip(held.input_ids, rows, strict=True):
            if isinstance(result, Output):
                out_jobs.append(held.job_id)
                out_inputs.append(input_id)
                outputs.append(result)
            elif isinstance(result, Fault):
                faulty.append((held.job_id, input_id, dumps([result])))
    parameters: list[object] = [
        array(held.job_id for held in claims),
        array(held.token for held in claims),
        array(end.state.value for end in ends),
        array(end.failed_count for end in ends),
        array(None if end.error is None else dumps(end.error) for end in ends),
        model_version_id,
        array(out_jobs),
        array(out_inputs),
        array(output.task for output in outputs),
        array(output.prediction for output in outputs),
        array(output.label for output in outputs),
        array(output.probability for output in outputs),
        array(None if output.probabilities is None else dumps(output.probabilities) for output in outputs),
        array(output.threshold for output in outputs),
        all(held.by_pipeline for held in claims),
    ]
    if faulty:
        parameters += [array(column) for column in zip(*faulty, strict=True)]
    statement = _FINISH_SOME_FAULTY if faulty else _FINISH_ALL_GOOD
    ended = {str(row[0]): row[1] for row in statement.run(connection, *parameters)}
    if store is not None:
        kept = [
            (input_id, result)
            for held, rows in zip(claims, results, strict=True)
            if ended.get(held.job_id) == JobState.SUCCEEDED
            for input_id, result in zip(held.input_ids, rows, strict=True)
            if not isinstance(result, Fault)
        ]
        if kept:
            store(connection, model_version_id, kept)
    return list(ended)


_FAIL = """
UPDATE jobs SET state = CASE WHEN cancel_requested_at IS NULL THEN 'failed' ELSE 'canceled' END,
    failed_count = row_count, error = CASE WHEN cancel_requested_at IS NULL THEN %s::jsonb END,
    finished_at = now(), claim_token = NULL, leased_by = NULL, lease_expires_at = NULL
WHERE id = %s::uuid AND state = 'running' AND claim_token = %s
RETURNING id
"""


def fail(connection: Connection, held: Claim, *, code: str, message: str) -> bool:
    """End a claim as failed, e.g. because its own timeout ran out; return whether it was still ours."""
    error = dumps({"code": code, "message": message})
    return connection.exec_driver_sql(_FAIL, (error, held.job_id, held.token)).first() is not None


# ── back to the queue ────────────────────────────────────────────────────────────────────────────────────────────

# Full jitter (Brooker, "Exponential backoff and jitter", 2015): a random time up to min(60 s, 2^attempt s). The
# exponent is bounded too, or the interval would overflow.
_BACKOFF = "now() + random() * least(interval '60 seconds', interval '1 second' * power(2, least(jobs.attempt, 6)))"

_REQUEUE = f"""
UPDATE jobs SET
    state = CASE WHEN cancel_requested_at IS NOT NULL THEN 'canceled'
                 WHEN attempt >= max_attempts THEN 'failed' ELSE 'queued' END,
    finished_at = CASE WHEN cancel_requested_at IS NOT NULL OR attempt >= max_attempts THEN now() END,
    failed_count = CASE WHEN cancel_requested_at IS NULL AND attempt >= max_attempts
                        THEN row_count ELSE failed_count END,
    error = CASE WHEN cancel_requested_at IS NULL AND attempt >= max_attempts THEN %s::jsonb END,
    run_after = {_BACKOFF}, claim_token = NULL, leased_by = NULL, lease_expires_at = NULL
FROM unnest(%s::uuid[], %s::bigint[]) AS t (id, token)
WHERE jobs.id = t.id AND jobs.claim_token = t.token
RETURNING jobs.id, jobs.state
"""  # noqa: S608 - built from a constant


def requeue(connection: Connection, claims: Sequence[Claim], *, code: str, message: str) -> dict[str, str]:
    """Give claims back after a transient error, with backoff; return id to state of those that were ours.

    The last attempt's error is final: the job has failed with `code` and `message`.
    """
    error = dumps({"code": code, "message": message})
    rows = connection.exec_driver_sql(
        _REQUEUE, (error, [held.job_id for held in claims], [held.token for held in claims])
    )
    return {str(row[0]): row[1] for row in rows}


_RELEASE = """
UPDATE jobs SET state = CASE WHEN cancel_requested_at IS NULL THEN 'queued' ELSE 'canceled' END,
    finished_at = CASE WHEN cancel_requested_at IS NOT NULL THEN now() END,
    attempt = attempt - 1, crash_count = crash_count + %s, claim_token = NULL, leased_by = NULL, lease_expires_at = NULL
FROM unnest(%s::uuid[], %s::bigint[]) AS t (id, token)
WHERE jobs.id = t.id AND jobs.claim_token = t.token
"""


def release(connection: Connection, claims: Sequence[Claim], *, suspect: bool = False) -> int:
    """Give claims back at once, without using up an attempt; return the number of those that were ours.

    Those whose cancellation was asked for become canceled instead.

    `suspect` jobs were together in a claim that got stuck: from now on each is claimed alone, until the guilty one
    is found.
    """
    rows = connection.exec_driver_sql(
        _RELEASE, (int(suspect), [held.job_id for held in claims], [held.token for held in claims])
    )
    return rows.rowcount


_RELEASE_UNHELD = """
UPDATE jobs SET state = CASE WHEN cancel_requested_at IS NULL THEN 'queued' ELSE 'canceled' END,
    finished_at = CASE WHEN cancel_requested_at IS NOT NULL THEN now() END,
    attempt = attempt - 1, claim_token = NULL, leased_by = NULL, lease_expires_at = NULL
WHERE state = 'running' AND leased_by = %s AND claim_token <> ALL (%s::bigint[])
"""


def release_unheld(connection: Connection, *, worker: str, held: Sequence[int]) -> int:
    """Give back the claims of a worker for other tokens than these; return their number.

    The answer to a claim was lost on its way: the worker does not know what it took, and nobody died of it.
    """
    return connection.exec_driver_sql(_RELEASE_UNHELD, (worker, list(held))).rowcount


_LOST = "every worker that ran this job died or went silent; the row may crash the model"
_WORKER_LOST = {"code": "worker_lost", "message": _LOST}
# The condition is repeated in the UPDATE: without it, a job that finishes at this moment would be overwritten.
_RECOVER = f"""
WITH dead AS MATERIALIZED (
    SELECT id FROM jobs WHERE state = 'running' AND lease_expires_at < now()
    ORDER BY lease_expires_at LIMIT 500 FOR UPDATE SKIP LOCKED
)
UPDATE jobs SET
    state = CASE WHEN cancel_requested_at IS NOT NULL THEN 'canceled'
                 WHEN attempt >= max_attempts THEN 'failed' ELSE 'queued' END,
    finished_at = CASE WHEN cancel_requested_at IS NOT NULL OR attempt >= max_attempts THEN now() END,
    failed_count = CASE WHEN cancel_requested_at IS NULL AND attempt >= max_attempts
                        THEN row_count ELSE failed_count END,
    error = CASE WHEN cancel_requested_at IS NULL AND attempt >= max_attempts THEN %s::jsonb END,
    crash_count = crash_count + 1,
    run_after = {_BACKOFF}, claim_token = NULL, leased_by = NULL, lease_expires_at = NULL
FROM dead WHERE jobs.id = dead.id AND jobs.state = 'running' AND jobs.lease_expires_at < now()
RETURNING jobs.id, jobs.state
"""  # noqa: S608 - built from a constant


def recover(connection: Connection) -> dict[str, str]:
    """Take jobs back whose lease ran out (500 at most); return id to new state."""
    rows = connection.exec_driver_sql(_RECOVER, (dumps(_WORKER_LOST),))
    return {str(row[0]): row[1] for row in rows}


# ── ended while queued ───────────────────────────────────────────────────────────────────────────────────────────

_EXPIRE = """
WITH late AS MATERIALIZED (
    SELECT id FROM jobs WHERE state = 'queued' AND expires_at <= now() AND kind = ANY (%s)
    ORDER BY expires_at LIMIT 500 FOR UPDATE SKIP LOCKED
)
UPDATE jobs SET state = 'expired', finished_at = now(), failed_count = row_count,
    error = '{"code": "expired", "message": "it queued longer than its expires_in allowed"}'
FROM late WHERE jobs.id = late.id AND jobs.state = 'queued'
RETURNING jobs.id
"""


def expire(connection: Connection) -> list[str]:
    """End queued jobs after their time limit (500 at most, no files, no unknown kinds); return their ids."""
    return [str(row[0]) for row in connection.exec_driver_sql(_EXPIRE, (list(CLAIMED_BY_JOB),))]


_CANCEL = """
UPDATE jobs SET cancel_requested_at = coalesce(cancel_requested_at, CURRENT_TIMESTAMP),
    finished_at = CASE WHEN state = 'queued' THEN CURRENT_TIMESTAMP END,
    state = CASE WHEN state = 'queued' THEN 'canceled' ELSE state END
WHERE id = {id} AND state IN ('queued', 'running')
RETURNING state
"""


def cancel(connection: Connection, job_id: str) -> str | None:
    """Cancel a queued job, or ask for the cancellation of a running one; return its state, None if terminal."""
    marker = "?" if connection.dialect.name == "sqlite" else "%s::uuid"
    row = connection.exec_driver_sql(_CANCEL.format(id=marker), (job_id,)).first()
    return None if row is None else str(row[0])


# ── jobs of no version: each is claimed alone, on both dialects (shared/jobs/registrations.py) ───────────────────────


def claim_apart(connection: Connection, *, worker: str, lease_seconds: float) -> Claim | None:
    """Take the first queued job of no version; None without one. Needs a transaction."""
    now, token = clock(connection), secrets.randbits(62)
    ready = (
        select(Job.id)
        .where(Job.state == JobState.QUEUED, Job.model_version_id.is_(None), Job.kind.in_(APART), Job.run_after <= now)
        .order_by(Job.priority, Job.run_after, Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    values = {
        "state": JobState.RUNNING.value,
        "attempt": Job.attempt + 1,
        "claim_token": token,
        "leased_by": worker,
        "lease_expires_at": clock(connection, lease_seconds),
        "claimed_at": now,
        "started_at": func.coalesce(Job.started_at, now),
    }
    fields = (Job.attempt, Job.max_attempts, Job.crash_count, Job.timeout_seconds, Job.request_id, Job.traceparent)
    if (job_id := connection.scalar(ready)) is None:
        return None
    row = connection.execute(update(Job).where(Job.id == job_id).values(values).returning(Job.kind, *fields)).one()
    return Claim(str(job_id), row[0], token, *row[1:])


def end_apart(connection: Connection, held: Claim, *, state: JobState, error: dict[str, str] | None = None) -> bool:
    """End a claimed job of no version, whose only row is its upload; return whether it was still ours."""
    ended = update(Job).where(Job.id == held.job_id, Job.claim_token == held.token)
    values = {"state": state.value, "error": error, "failed_count": int(state == JobState.FAILED)}
    return connection.execute(ended.values(values | NO_CLAIM | {"finished_at": clock(connection)})).rowcount > 0


def recover_apart(connection: Connection) -> int:
    """Queue again what the one process of the sync runtime held when it ended, or end it as `recover` does."""
    lost = update(Job).where(Job.state == JobState.RUNNING, Job.kind.in_(APART))
    ends = NO_CLAIM | {"finished_at": clock(connection)}
    connection.execute(lost.where(Job.cancel_requested_at.is_not(None)).values(ends | {"state": "canceled"}))
    failed = ends | {"state": "failed", "failed_count": 1, "error": _WORKER_LOST}
    connection.execute(lost.where(Job.attempt >= Job.max_attempts).values(failed))
    queued = NO_CLAIM | {"state": "queued", "crash_count": Job.crash_count + 1}
    return connection.execute(lost.values(queued)).rowcount


# ── CSV files: chunks are claimed and stored, and the job goes along (shared/jobs/chunks/transitions.py) ───────────


def submit_csv(connection: Connection, job: Submission, *, row_count: int) -> datetime | None:
    """Store a CSV job as queued; return when, None if the job or its idempotency key was there before."""
    stored = postgresql.insert(Job) if connection.dialect.name == "postgresql" else sqlite.insert(Job)
    now = clock(connection)
    return connection.scalar(
        stored.values(
            job.columns()
            | {
                "row_count": row_count,
                "state": JobState.QUEUED.value,
                "created_at": now,
                "run_after": now,
                "expires_at": None if job.expires_in is None else clock(connection, job.expires_in),
            }
        )
        .on_conflict_do_nothing()
        .returning(Job.created_at)
    )


def start_csv(connection: Connection, job_id: str, *, token: int) -> bool | None:
    """Let a chunk of a CSV job run: True when the job starts with it, False when it runs already, None if it must not.

    The job holds a token as long as it runs, and no lease: its chunks have theirs.
    """
    now = clock(connection)
    started = connection.execute(
        update(Job)
        .where(Job.id == job_id, Job.state == JobState.QUEUED, (Job.expires_at > now) | Job.expires_at.is_(None))
        .values(
            state=JobState.RUNNING.value,
            attempt=Job.attempt + 1,
            claim_token=token,
            claimed_at=now,
            started_at=func.coalesce(Job.started_at, now),
        )
    )
    if started.rowcount:
        return True
    runs = select(Job.id).where(Job.id == job_id, Job.state == JobState.RUNNING, Job.cancel_requested_at.is_(None))
    return None if connection.scalar(runs) is None else False


def expire_csv(connection: Connection, job_id: str) -> bool:
    """End a CSV job that is still queued and may no longer start; return whether it was so."""
    now = clock(connection)
    late = update(Job).where(Job.id == job_id, Job.state == JobState.QUEUED, Job.expires_at <= now)
    error = {"code": "expired", "message": "it queued longer than its expires_in allowed"}
    values = {"state": JobState.EXPIRED.value, "finished_at": now, "failed_count": Job.row_count, "error": error}
    return connection.execute(late.values(values)).rowcount > 0


def end_csv(
    connection: Connection, job_id: str, *, state: JobState, failed_count: int, error: dict[str, Any] | None
) -> None:
    """End a CSV job that has nothing left to do; the caller holds its lock and knows its state."""
    values = {"state": state.value, "failed_count": failed_count, "error": error, "claim_token": None}
    unfinished = update(Job).where(Job.id == job_id, Job.state.in_([JobState.QUEUED, JobState.RUNNING]))
    connection.execute(unfinished.values(values | {"finished_at": clock(connection)}))


def reopen_csv(connection: Connection, job_id: str) -> bool:
    """Queue an ended CSV job again, for its remaining rows; return whether it had ended."""
    now = clock(connection)
    return bool(
        connection.execute(
            update(Job)
            .where(Job.id == job_id, Job.kind.in_(RESUMABLE), Job.finished_at.is_not(None))
            .values(
                state=JobState.QUEUED.value,
                failed_count=0,
                error=None,
                finished_at=None,
                cancel_requested_at=None,
                expires_at=None,
                run_after=now,
            )
        ).rowcount
    )
