"""Lists of jobs, newest first, by filters: one page, or the ids of all that match. Read-only.

A page begins after a place in the list: the time and the id of a job, both in the indexes that the table has for this.
A page costs the same wherever it stands, and however few of the jobs match.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Connection, Select, literal, literal_column, select, text, tuple_, union_all

from shared.database.types import UtcDateTime, UuidText
from shared.jobs.kinds import RESUMABLE
from shared.jobs.queries.jobs import StoredJob, find_jobs
from shared.tables import ChunkState, CsvFile, Job, JobChunk, JobState

UNSUCCESSFUL = frozenset({JobState.FAILED, JobState.CANCELED, JobState.EXPIRED})  # few, beside those that succeed
# As ix_jobs_unsuccessful has it: SQLite takes a partial index only for a query that says the same.
_UNSUCCESSFUL = text("jobs.state IN ('failed', 'canceled', 'expired')")
# Written out, and not a parameter: else SQLite takes no partial index.
_IN_STATE = {state.value: text(f"state = '{state.value}'") for state in JobState}
_FEW = frozenset({JobState.QUEUED, JobState.RUNNING})  # which have partial indexes of their own
# Chunks that were never stored, or whose row took workers down: what `chunks.reopen` takes up.
_HAS_REST = (
    select(CsvFile.job_id).where(CsvFile.job_id == Job.id, CsvFile.chunks_done < CsvFile.chunk_count).exists()
    | select(JobChunk.job_id).where(JobChunk.job_id == Job.id, JobChunk.state == ChunkState.FAILED).exists()
)
Page = Select[*tuple[Any, ...]]  # of times of arrival and ids
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = 253_402_300_799_000  # milliseconds: the end of the year 9999


@dataclass(frozen=True, slots=True)
class ListPlace:
    """A place in the list: after the job with this time of arrival and this id."""

    at: datetime
    job_id: str

    @property
    def text(self) -> str:
        """The place as a cursor: microseconds since 1970, a point, the id."""
        return f"{(self.at - _EPOCH) // timedelta(microseconds=1)}.{self.job_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """Which jobs are listed; None filters nothing."""

    owner: str | None = None  # id of a key; None: everyone's
    states: list[str] | None = None
    model_version_ids: list[int] | None = None
    since: datetime | None = None  # inclusive
    until: datetime | None = None  # exclusive
    can_be: Literal["cancel", "retry"] | None = None  # only those of which this is possible


def read_place(cursor: str) -> ListPlace | UUID:
    """Return the place of a cursor, or the id of a job, which an older release gave; raise ValueError for neither."""
    number, point, job_id = cursor.partition(".")
    if not point:
        return UUID(cursor)
    if not (number.isascii() and number.isdigit() and len(number) < 18):
        raise ValueError("not a number of microseconds")
    return ListPlace(_EPOCH + timedelta(microseconds=int(number)), str(UUID(job_id)))


def find_place(connection: Connection, job_id: UUID) -> ListPlace | None:
    """Return the place of a job; None for one that is not there and whose id has no time.

    The id of a job that was erased stands where its own time says (UUIDv7, RFC 9562).
    """
    at = connection.scalar(select(Job.created_at).where(Job.id == str(job_id)))
    if at is None and job_id.version != 7 and job_id.int:
        return None
    return ListPlace(at or _EPOCH + timedelta(milliseconds=min((job_id.int >> 80) + 1, _LATEST)), str(job_id))


def list_jobs(connection: Connection, query: JobQuery, *, before: ListPlace | None, limit: int) -> list[StoredJob]:
    """Return a page of jobs, newest first: at most `limit` of those that arrived before a place."""
    ids = list_ids(connection, query, before=before, limit=limit)
    jobs = find_jobs(connection, ids)
    return [jobs[job_id] for job_id in ids if job_id in jobs]  # one may be erased meanwhile


def list_ids(connection: Connection, query: JobQuery, *, before: ListPlace | None, limit: int) -> list[str]:
    """Return the ids of a page of jobs, as `list_jobs` does."""
    if query.model_version_ids == [] or query.states == []:
        return []
    is_sqlite = connection.dialect.name == "sqlite"
    # Each version and state by its own stretch of an index: what is rare may stand behind all else.
    parts = [
        _part(query, before, version, state, limit, is_sqlite=is_sqlite)
        for version in query.model_version_ids or (None,)
        for state in query.states or (None,)
    ]
    page = parts[0]
    if len(parts) > 1:
        merged = union_all(*(select(part.subquery()) for part in parts)).subquery()
        page = _newest_first(select(merged.c.created_at, merged.c.id), merged.c.created_at, merged.c.id, limit)
    return [str(row.id) for row in connection.execute(page)]


def _part(
    query: JobQuery, before: ListPlace | None, version: int | None, state: str | None, limit: int, *, is_sqlite: bool
) -> Page:
    at: Any = Job.created_at
    if is_sqlite and state in _FEW:
        # SQLite keeps no statistics, and would walk through all jobs by their time: the sign keeps it from that.
        at = literal_column("+jobs.created_at", UtcDateTime())
    newest = _filtered(query, before, at)
    if version is not None:
        newest = newest.where(Job.model_version_id == version)
    if state is not None:
        newest = newest.where(_IN_STATE[state])
    if state in UNSUCCESSFUL:
        newest = newest.where(_UNSUCCESSFUL)
    return _newest_first(newest, at, Job.id, limit)


def _newest_first(page: Page, at: Any, job_id: Any, limit: int) -> Page:  # noqa: ANN401 - columns
    return page.order_by(at.desc(), job_id.desc()).limit(limit)


def _filtered(query: JobQuery, before: ListPlace | None, at: Any) -> Page:  # noqa: ANN401 - a column
    newest: Page = select(Job.created_at, Job.id)
    if query.owner is not None:
        newest = newest.where(Job.owner == query.owner)
    if query.since is not None:
        newest = newest.where(at >= query.since)
    if query.until is not None:
        newest = newest.where(at < query.until)
    if query.can_be == "cancel":
        newest = newest.where(Job.cancel_requested_at.is_(None), Job.finished_at.is_(None))
    elif query.can_be == "retry":
        newest = newest.where(Job.kind.in_(RESUMABLE), Job.finished_at.is_not(None), _HAS_REST)
    if before is not None:
        place = (literal(before.at, UtcDateTime()), literal(before.job_id, UuidText))
        newest = newest.where(tuple_(at, Job.id) < tuple_(*place))
    return newest
