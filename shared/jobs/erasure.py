"""Erasing jobs: rows, scores, explanations and outcomes, and every copy of them.

What belongs to a job goes with its line of `jobs`. Besides, there are copies: jobs that explain its rows or score them
again, counters of drift, packed scores, and the hash of its body in the request log. Reports of replays keep their
counts of scores, which name no row any more. The id of an erased job is kept with its owner: it is answered 410.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Engine, delete, insert, or_, select, update
from sqlalchemy.orm import aliased

from shared.cards.seal import text_sha256
from shared.database.clock import clock
from shared.database.engine import dumps, take_time
from shared.jobs.figures import find_ended, keep_counted
from shared.jobs.queries.jobs import TERMINAL
from shared.monitoring.forgetting import forget_rows
from shared.observability.audit import JOB_ERASED, JOB_READ, audit
from shared.tables import AuditLog, CsvFile, ErasedJob, Job, JobKind, ModelInput, Reproduction, RequestLog

_AT_ONCE = 100  # jobs of one transaction
_ROWS_AT_ONCE = 1_000  # rows of it, but for a single larger job
RETENTION = "retention"  # who erases jobs by their age, in the audit log


@dataclass(frozen=True, slots=True)
class Copy:
    """A job that is to be erased: one that was named, or one that explains rows of it."""

    id: str
    state: str
    row_count: int
    kind: str

    @property
    def has_ended(self) -> bool:
        """Whether nothing is written to it any more."""
        return self.state in TERMINAL


def lock_copies(connection: Connection, job_id: str) -> list[Copy]:
    """Return a job and those that explain its rows or score them again, the job first, and hold them.

    Empty where it is not there.

    A row that was explained alone is a job with a copy of the row: it is found by its seal, among the jobs of the same
    version and owner, and among those that an administrator had explained. An equal row that the owner had explained
    as a row of its own is such a copy, too.
    """
    columns = (Job.id, Job.state, Job.row_count, Job.kind)
    held = select(*columns, Job.model_version_id, Job.owner).where(Job.id == job_id).with_for_update()
    job = connection.execute(held).one_or_none()
    if job is None:
        return []
    ids = set(connection.scalars(select(CsvFile.job_id).where(CsvFile.source_job_id == job_id)))
    ids |= set(connection.scalars(select(Reproduction.job_id).where(Reproduction.source_job_id == job_id)))
    if job.kind != JobKind.EXPLAIN_BATCH:
        reads = select(AuditLog.request_id).where(AuditLog.action == JOB_READ, AuditLog.target == f"job:{job_id}")
        ids |= _explained_alone(
            connection,
            job_id,
            Job.model_version_id == job.model_version_id,
            or_(Job.owner.is_not_distinct_from(job.owner), Job.request_id.in_(reads)),
        )
    others = connection.execute(select(*columns).where(Job.id.in_(sorted(ids))).order_by(Job.id).with_for_update())
    return [Copy(*job[:4]), *(Copy(*other) for other in others)]


def _explained_alone(connection: Connection, job_id: str, *which: ColumnElement[bool]) -> set[str]:
    """Return the jobs among `which` that explain one row, which is equal to a row of this job."""
    explained = connection.execute(
        select(Job.id, ModelInput.sha256)
        .join(ModelInput, ModelInput.job_id == Job.id)
        .where(Job.kind == JobKind.EXPLAIN, Job.id != job_id, ModelInput.sha256.is_not(None), *which)
    ).all()
    if not explained:
        return set()
    seals: set[bytes] = set()
    rows = select(ModelInput.sha256, ModelInput.features).where(
        ModelInput.job_id == job_id, ModelInput.faults.is_(None)
    )
    for sha256, features in connection.execute(rows):
        seals.add(text_sha256(dumps(features)))  # as it was read from its job
        if sha256 is not None:
            seals.add(bytes(sha256))
    return {each.id for each in explained if bytes(each.sha256) in seals}


def erase(connection: Connection, job_ids: Sequence[str]) -> None:
    """Delete jobs with all that is made of their rows, in the transaction that is open; they have ended."""
    ended = find_ended(connection, job_ids)
    forget_rows(connection, job_ids)
    requests = select(Job.request_id).where(Job.id.in_(job_ids))
    connection.execute(update(RequestLog).where(RequestLog.request_id.in_(requests)).values(input_hash=None))
    of_jobs = select(Job.id, Job.owner).where(Job.id.in_(job_ids))
    connection.execute(insert(ErasedJob).from_select(["id", "owner"], of_jobs))
    connection.execute(delete(Job).where(Job.id.in_(job_ids)))
    keep_counted(connection, ended)


def find_erased(connection: Connection, job_id: str) -> tuple[str | None, datetime] | None:
    """Return the owner of a job that was erased, and when that was; None where the id is of no erased job."""
    erased = connection.execute(select(ErasedJob.owner, ErasedJob.erased_at).where(ErasedJob.id == job_id))
    row = erased.one_or_none()
    return None if row is None else (row.owner, row.erased_at)


def erase_old(
    engine: Engine, days: float, *, seconds: float, is_stopping: Callable[[], bool] = lambda: False
) -> tuple[int, int]:
    """Erase jobs that ended so many days ago, with the batches of explanations of them; for so many seconds at most.

    Return the numbers of jobs and of their rows. A job whose explanation still runs waits for the next time. The ids of
    jobs that were erased so many days ago are forgotten. Raises SQLAlchemyError when the database cannot be asked; what
    is erased then stays so.
    """
    deadline = time.monotonic() + seconds
    jobs = rows = 0
    with engine.begin() as connection:
        connection.execute(delete(ErasedJob).where(ErasedJob.erased_at < clock(connection, -86_400 * days)))
    while not is_stopping() and time.monotonic() < deadline:
        with engine.begin() as connection:
            take_time(connection)  # a large file goes in one piece
            job_count, row_count = _erase_some(connection, days)
        jobs, rows = jobs + job_count, rows + row_count
        if not job_count:
            break
    return jobs, rows


def _erase_some(connection: Connection, days: float) -> tuple[int, int]:
    is_old = Job.finished_at < clock(connection, -86_400 * days)
    first = connection.scalar(select(Job.model_version_id).where(is_old, ~_is_being_copied()).limit(1))
    of_version = Job.model_version_id.is_not_distinct_from(first)  # counters of one version are held at a time
    old = connection.execute(
        select(Job.id, Job.row_count)
        .where(is_old, of_version, ~_is_being_copied())
        .limit(_AT_ONCE)
        .with_for_update(skip_locked=True)
    ).all()
    chosen: dict[str, int] = {}
    for job_id, row_count in old:
        if not chosen or sum(chosen.values()) + row_count <= _ROWS_AT_ONCE:
            chosen[str(job_id)] = row_count
    if not chosen:
        return 0, 0
    old_ids = list(chosen)
    for copies in (CsvFile, Reproduction):
        of_them = select(Job.id, Job.row_count).join(copies, copies.job_id == Job.id)
        for job_id, row_count in connection.execute(of_them.where(copies.source_job_id.in_(old_ids))):
            chosen[str(job_id)] = row_count
    erase(connection, list(chosen))
    rows = sum(chosen.values())
    details = {"jobs": len(chosen), "rows": rows, "older_than_days": days}
    audit(connection, JOB_ERASED, f"{len(chosen)} old jobs", actor=RETENTION, details=details)
    return len(chosen), rows


def _is_being_copied() -> ColumnElement[bool]:
    copy = aliased(Job)
    return or_(
        *(
            select(copies.job_id)
            .join(copy, copy.id == copies.job_id)
            .where(copies.source_job_id == Job.id, copy.finished_at.is_(None))
            .exists()
            for copies in (CsvFile, Reproduction)
        )
    )
