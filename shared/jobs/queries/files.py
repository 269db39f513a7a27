"""Queries on CSV jobs: format, progress, chunks and events. Read-only."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, select

from shared.csv.format import CsvFormat
from shared.csv.packing import unpack
from shared.jobs.chunks.transitions import FORMAT, format_of
from shared.tables import CsvFile, Job, JobChunk, JobEvent

Part = Literal["payload", "output", "errors"]


@dataclass(slots=True)
class StoredCsv:
    """The file of a CSV job, and how far it is scored."""

    format: CsvFormat
    notices: list[str]  # what was read otherwise than it is written
    filename: str | None
    source_job_id: str | None  # the job whose rows are explained
    max_error_rate: float | None
    byte_count: int
    chunk_count: int
    chunks_done: int
    rows_done: int
    rows_failed: int
    rows_before: int  # stored before the present run began
    event_count: int
    running_since: datetime | None  # when its first chunk was claimed, in this run


@dataclass(slots=True)
class ChunkPlace:
    """A chunk without its contents; the sizes are those of its lines in the output files, None while it waits."""

    first_row: int
    row_count: int
    state: str
    failed_count: int
    output_bytes: int | None
    errors_bytes: int | None


@dataclass(slots=True)
class StoredEvent:
    """Something that happened to a CSV job."""

    seq: int
    type: str
    data: dict[str, Any]
    created_at: datetime


def find_files(connection: Connection, job_ids: Sequence[str]) -> dict[str, StoredCsv]:
    """Read the files of several CSV jobs."""
    rows = connection.execute(
        select(
            CsvFile.job_id,
            *FORMAT,
            CsvFile.notices,
            CsvFile.filename,
            CsvFile.source_job_id,
            CsvFile.max_error_rate,
            CsvFile.byte_count,
            CsvFile.chunk_count,
            CsvFile.chunks_done,
            CsvFile.rows_done,
            CsvFile.rows_failed,
            CsvFile.rows_before,
            CsvFile.event_count,
            Job.claimed_at,
        )
        .join(Job, Job.id == CsvFile.job_id)
        .where(CsvFile.job_id.in_(job_ids))
    ).mappings()
    return {
        row["job_id"]: StoredCsv(
            format=format_of(row),
            notices=row["notices"],
            filename=row["filename"],
            source_job_id=row["source_job_id"],
            max_error_rate=row["max_error_rate"],
            byte_count=row["byte_count"],
            chunk_count=row["chunk_count"],
            chunks_done=row["chunks_done"],
            rows_done=row["rows_done"],
            rows_failed=row["rows_failed"],
            rows_before=row["rows_before"],
            event_count=row["event_count"],
            running_since=row["claimed_at"],
        )
        for row in rows
    }


def list_chunks(connection: Connection, job_id: str) -> list[ChunkPlace]:
    """Return every chunk of a CSV job in the order of the file."""
    rows = connection.execute(
        select(
            JobChunk.first_row,
            JobChunk.row_count,
            JobChunk.state,
            JobChunk.failed_count,
            JobChunk.output_bytes,
            JobChunk.errors_bytes,
        )
        .where(JobChunk.job_id == job_id)
        .order_by(JobChunk.first_row)
    )
    return [ChunkPlace(*row) for row in rows]


def read_chunk(connection: Connection, job_id: str, first_row: int, part: Part) -> bytes:
    """Return a part of a chunk, uncompressed: its records, or its lines of output.csv or errors.csv."""
    packed = connection.scalar(
        select(getattr(JobChunk, part)).where(JobChunk.job_id == job_id, JobChunk.first_row == first_row)
    )
    return b"" if packed is None else unpack(packed)


def list_events(connection: Connection, job_id: str, *, after: int, limit: int = 1000) -> list[StoredEvent]:
    """Return the events of a CSV job after a sequence number, in order."""
    rows = connection.execute(
        select(JobEvent.seq, JobEvent.type, JobEvent.data, JobEvent.created_at)
        .where(JobEvent.job_id == job_id, JobEvent.seq > after)
        .order_by(JobEvent.seq)
        .limit(limit)
    )
    return [StoredEvent(*row) for row in rows]
