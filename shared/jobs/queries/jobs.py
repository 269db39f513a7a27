"""Queries on jobs: one, several, and their results. Read-only; lists of them are in listing.py."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, func, literal, select, text, tuple_
from sqlalchemy.dialects import postgresql

from shared.database.clock import clock
from shared.database.prepared import Statement, array
from shared.jobs.kinds import SINGLE, Claiming, kind_of
from shared.jobs.queries.files import StoredCsv, find_files
from shared.jobs.registrations import StoredRegistration, find_registrations
from shared.jobs.submission import COLUMNS, NO_VERSION, Submission
from shared.tables import Job, JobState, ModelInput, ModelOutput

TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED, JobState.EXPIRED})


@dataclass(slots=True)
class StoredOutput:
    """The stored score of a row."""

    prediction: float
    label: str | None
    probability: float | None
    probabilities: list[float] | None
    threshold: float | None
    quality: Mapping[str, Any] | None = None  # of its row, set where a caller asks for it; empty: it is not known


@dataclass(slots=True)
class StoredJob:
    """A stored job: `output` is set for a single scored row, `csv` for a CSV job, `registration` for an upload."""

    id: str
    kind: str
    lane: str
    state: str
    model_version_id: int  # NO_VERSION where it registers one
    owner: str | None
    request_id: str
    priority: int
    row_count: int
    failed_count: int
    attempt: int
    run_after: datetime
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    crash_count: int = 0
    claimed_at: datetime | None = None
    error: dict[str, Any] | None = None
    output: StoredOutput | None = None
    csv: StoredCsv | None = None
    registration: StoredRegistration | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether the job can change no more."""
        return self.state in TERMINAL


@dataclass(slots=True)
class RowResult:
    """One row of a job: its place, and its output or its faults (both None while it is not scored)."""

    index: int
    output: StoredOutput | None
    faults: list[dict[str, Any]] | None


_BESIDE = ("output", "csv", "registration")
_JOB = tuple(getattr(Job, column.name) for column in fields(StoredJob) if column.name not in _BESIDE)
_SUBMITTED = tuple(column.name for column in fields(StoredJob) if column.name in COLUMNS)
_OUTPUT = (
    ModelOutput.prediction,
    ModelOutput.label,
    ModelOutput.probability,
    ModelOutput.probabilities,
    ModelOutput.threshold,
)
_WITH_OUTPUT = (
    select(*_JOB, *_OUTPUT)
    .outerjoin(ModelInput, and_(ModelInput.job_id == Job.id, ModelInput.row_index == 0, Job.kind.in_(SINGLE)))
    .outerjoin(
        ModelOutput,
        and_(ModelOutput.input_id == ModelInput.id, ModelOutput.model_version_id == Job.model_version_id),
    )
)


def _stored_job(row: Sequence[Any]) -> StoredJob:
    output = row[len(_JOB) :]
    job = StoredJob(str(row[0]), *row[1 : len(_JOB)])
    job.model_version_id = job.model_version_id or NO_VERSION
    job.output = None if output[0] is None else StoredOutput(*output)
    return job


def queued_job(submission: Submission, created_at: datetime, state: JobState = JobState.QUEUED) -> StoredJob:
    """Return a job in its state right after the commit of its submission."""
    return StoredJob(
        **{name: getattr(submission, name) for name in _SUBMITTED},
        state=state.value,
        attempt=0,
        run_after=created_at,
        created_at=created_at,
        expires_at=submission.expires_at(created_at),
    )


# Polls and waits are most of the reading: on PostgreSQL they are prepared.
_FIND = Statement(
    "find_jobs",
    ("uuid[]",),
    str(
        _WITH_OUTPUT.where(text("jobs.id = ANY ($1)")).compile(
            dialect=postgresql.dialect(),  # type: ignore[no-untyped-call]
            compile_kwargs={"literal_binds": True},
        )
    ),
)


def find_jobs(connection: Connection, job_ids: Sequence[str]) -> dict[str, StoredJob]:
    """Read several jobs at once; ids that do not exist are missing from the answer."""
    rows: Iterable[Sequence[Any]]
    if connection.dialect.name == "postgresql":
        rows = _FIND.run(connection, array(job_ids))
    else:
        rows = connection.execute(_WITH_OUTPUT.where(Job.id.in_(job_ids)))
    jobs = {str(row[0]): _stored_job(row) for row in rows}
    _attach(connection, jobs.values())
    return jobs


def _attach(connection: Connection, jobs: Iterable[StoredJob]) -> None:
    csv_jobs = {job.id: job for job in jobs if kind_of(job.kind).is_chunked}
    if csv_jobs:
        for job_id, file in find_files(connection, list(csv_jobs)).items():
            csv_jobs[job_id].csv = file
    uploads = {job.id: job for job in jobs if kind_of(job.kind).claiming == Claiming.APART}
    if uploads:
        for job_id, registration in find_registrations(connection, list(uploads)).items():
            uploads[job_id].registration = registration


def find_finished(connection: Connection, job_ids: Sequence[str]) -> dict[str, StoredJob]:
    """Read those of several jobs that are terminal."""
    return {job_id: job for job_id, job in find_jobs(connection, job_ids).items() if job.is_terminal}


def find_by_idempotency_key(connection: Connection, scope: str, key: str) -> tuple[str, str | None] | None:
    """Return (job id, body hash) of the job that holds an Idempotency-Key, if any."""
    row = connection.execute(
        select(Job.id, Job.body_hash).where(Job.idempotency_scope == scope, Job.idempotency_key == key)
    ).first()
    return None if row is None else (row[0], row[1])


def list_rows(connection: Connection, job: StoredJob) -> list[RowResult]:
    """Return every row of a job in input order, with its output or its faults."""
    rows = connection.execute(
        select(ModelInput.row_index, ModelInput.faults, *_OUTPUT)
        .outerjoin(
            ModelOutput,
            and_(ModelOutput.input_id == ModelInput.id, ModelOutput.model_version_id == job.model_version_id),
        )
        .where(ModelInput.job_id == job.id)
        .order_by(ModelInput.row_index)
    )
    return [RowResult(row[0], None if row[2] is None else StoredOutput(*row[2:]), row[1]) for row in rows]


def count_ahead(connection: Connection, job: StoredJob, *, limit: int = 10_000) -> int:
    """Count the queued jobs of the same version and lane that run before this one, `limit` at most."""
    ahead = (
        select(literal(1))
        .where(
            Job.state == JobState.QUEUED,
            Job.model_version_id == job.model_version_id if job.model_version_id else Job.model_version_id.is_(None),
            Job.lane == job.lane,
            tuple_(Job.priority, Job.run_after, Job.id) < tuple_(job.priority, job.run_after, job.id),
        )
        .limit(limit)
    )
    return connection.scalar(select(func.count()).select_from(ahead.subquery())) or 0


def count_queued(connection: Connection, *, limit: int) -> dict[tuple[str, int], int]:
    """Count the queued jobs by (lane, model version id), each `limit` at most."""
    # A loose scan over the partial index: never more than `limit` entries a group, however long the queue is.
    counts: dict[tuple[str, int], int] = {}
    for lane, version in list_ready(connection):
        queued = (
            select(literal(1))
            .where(Job.state == JobState.QUEUED, Job.model_version_id == version, Job.lane == lane)
            .limit(limit)
        )
        counts[lane, version] = connection.scalar(select(func.count()).select_from(queued.subquery())) or 0
    return counts


def oldest_waits(connection: Connection, queues: Iterable[tuple[str, int]]) -> dict[tuple[str, int], float]:
    """Return for how many seconds the next job of each (lane, model version id) has been ready to start."""
    waits: dict[tuple[str, int], float] = {}
    for lane, version in queues:
        first = (
            select(Job.run_after, clock(connection).label("now"))
            .where(Job.state == JobState.QUEUED, Job.model_version_id == version, Job.lane == lane)
            .order_by(Job.priority, Job.run_after)
            .limit(1)
        )
        if (row := connection.execute(first).first()) is not None:
            waits[lane, version] = max((row.now - row.run_after).total_seconds(), 0.0)
    return waits


_NEXT_READY = """
SELECT model_version_id, lane FROM jobs
WHERE state = 'queued' AND (model_version_id, lane) > (%s, %s)
ORDER BY model_version_id, lane LIMIT 1
"""
_NEXT_CHUNK = """
SELECT model_version_id, 'bulk' FROM job_chunks
WHERE state = 'queued' AND model_version_id > %s
ORDER BY model_version_id LIMIT 1
"""


def list_ready(connection: Connection) -> list[tuple[str, int]]:
    """Return the (lane, model version id) pairs that have queued jobs or chunks, by one index step each."""
    jobs_ready = _steps(connection, _NEXT_READY, (0, ""))
    chunks_ready = _steps(connection, _NEXT_CHUNK, (0,))
    return list(dict.fromkeys([*jobs_ready, *chunks_ready]))


def _steps(connection: Connection, sql: str, last: tuple[Any, ...]) -> Iterator[tuple[str, int]]:
    sql = sql.replace("%s", "?") if connection.dialect.name == "sqlite" else sql
    while (row := connection.exec_driver_sql(sql, last).first()) is not None:
        last = tuple(row)[: len(last)]
        yield row[1], row[0]
