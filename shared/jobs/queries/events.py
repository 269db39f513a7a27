"""The events and the progress of jobs of every kind, as followers read them."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from shared.jobs.chunks.transitions import progress, row_counts
from shared.jobs.kinds import kind_of
from shared.jobs.queries.files import StoredEvent, list_events
from shared.jobs.queries.jobs import StoredJob
from shared.tables import JobState


def last_event(job: StoredJob) -> int:
    """Return the sequence number of the last event of a job."""
    return job.csv.event_count if job.csv is not None else _made_events(job)[-1].seq


def read_events(connection: Connection, job: StoredJob, *, after: int) -> list[StoredEvent]:
    """Return the events of a job of any kind after a sequence number, in order."""
    if kind_of(job.kind).logs_events:
        return list_events(connection, job.id, after=after)
    return [event for event in _made_events(job) if event.seq > after]


def _made_events(job: StoredJob) -> list[StoredEvent]:
    """Return the events of a job without a log, made from its row: accepted, started and finished."""
    total = job.row_count
    failed = 0 if job.is_terminal else job.failed_count  # rows that did not fit from the start
    before = {"total": total, "succeeded": 0, "failed": failed, "pending": total - failed}
    idle = {"rows_done": 0, "rows_per_second": None, "eta_seconds": None, "chunks_done": 0, "chunks_total": 1}

    def event(seq: int, kind: str, status: str, at: datetime, **more: Any) -> StoredEvent:  # noqa: ANN401 - JSON
        return StoredEvent(seq, kind, {"status": status, "counts": before, "progress": idle} | more, at)

    events = [event(1, "accepted", JobState.QUEUED.value, job.created_at)]
    if job.started_at is not None:
        events.append(event(2, "started", JobState.RUNNING.value, job.started_at))
    if job.finished_at is not None:
        end = {"counts": count_rows(job), "progress": progress_of(job)}
        events.append(event(3, "finished", job.state, job.finished_at, **end))
    return events


def count_rows(job: StoredJob) -> dict[str, int]:
    """Return the rows of a job by what became of them.

    Rows of a file that were never scored, because the job ended before, stay `pending`: a retry takes them up.
    """
    total = job.row_count
    if job.csv is not None:
        return row_counts(total, rows_done=job.csv.rows_done, rows_failed=job.csv.rows_failed)
    succeeded = total - job.failed_count if job.state == JobState.SUCCEEDED else 0
    failed = job.failed_count if job.state != JobState.FAILED else total
    pending = 0 if job.is_terminal else total - failed
    return {"total": total, "succeeded": succeeded, "failed": failed, "pending": pending}


def progress_of(job: StoredJob) -> dict[str, Any]:
    """Return the progress of a job; a job without chunks counts as one chunk."""
    file = job.csv
    if file is None:
        done = job.row_count if job.is_terminal else 0
        before, chunks_done, chunk_count, since = 0, int(job.is_terminal), 1, None
    else:
        done, before, chunks_done, chunk_count = file.rows_done, file.rows_before, file.chunks_done, file.chunk_count
        since = None if job.state == JobState.QUEUED else file.running_since  # a retry has not begun to run
    return progress(
        state=job.state,
        row_count=job.row_count,
        rows_done=done,
        rows_before=before,
        chunks_done=chunks_done,
        chunk_count=chunk_count,
        since=since,
        until=job.finished_at or datetime.now(UTC),
    )
