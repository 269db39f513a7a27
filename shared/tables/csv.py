"""Files and other jobs in chunks, their chunks and their events."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from shared.database.types import BigId, Json, UtcDateTime
from shared.tables.base import Table


class ChunkState(StrEnum):
    """The state of a chunk; shared/jobs/chunks/transitions.py draws the transitions."""

    QUEUED = "queued"  # no worker holds it
    RUNNING = "running"  # a worker holds a claim with a lease
    DONE = "done"  # its rows are stored, each with its output or its faults
    FAILED = "failed"  # its row took down every worker that tried; stored with that fault
    CANCELED = "canceled"  # its job ended before it was scored


class CsvFile(Table):
    """The file of a CSV job: how it is written, and how far it is scored."""

    __tablename__ = "csv_files"
    __table_args__ = (
        Index(
            "ix_csv_files_source_job_id",
            "source_job_id",
            postgresql_where=text("source_job_id IS NOT NULL"),
            sqlite_where=text("source_job_id IS NOT NULL"),
        ),
        {"comment": "Files of CSV jobs: how they are written, and how far they are scored"},
    )

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, comment="Its job")
    source_job_id: Mapped[str | None] = mapped_column(
        ForeignKey("jobs.id", ondelete="SET NULL"), comment="Job whose rows are explained; null for a file of its own"
    )
    filename: Mapped[str | None] = mapped_column(Text, comment="Name of the file at the caller's, if it was sent")
    delimiter: Mapped[str] = mapped_column(String(1), comment="Character between two cells")
    encoding: Mapped[str] = mapped_column(String(16), comment="Encoding of the file as it was sent")
    decimal: Mapped[str] = mapped_column(String(1), comment="Decimal mark: a point or a comma")
    thousands: Mapped[str] = mapped_column(
        String(1), default="", server_default="", comment="What separates thousands in numbers, if anything does"
    )
    currency: Mapped[str] = mapped_column(
        String(1), default="", server_default="", comment="Currency sign beside numbers, if they have one"
    )
    notices: Mapped[list[str]] = mapped_column(
        Json, default=list, server_default="[]", comment="What was read otherwise than it is written, as sentences"
    )
    bom: Mapped[bool] = mapped_column(Boolean, comment="Whether the output starts with a byte order mark, for Excel")
    columns: Mapped[list[str]] = mapped_column(Json, comment="Names in the header, in file order")
    id_column: Mapped[str | None] = mapped_column(Text, comment="Column that identifies rows for the caller")
    max_error_rate: Mapped[float | None] = mapped_column(
        Float, comment="Part of the rows that may fail before the job is given up; null: all of them"
    )
    byte_count: Mapped[int] = mapped_column(BigInteger, comment="Size of the file, in bytes, uncompressed")
    chunk_count: Mapped[int] = mapped_column(Integer, comment="Chunks that it was cut into")
    chunks_done: Mapped[int] = mapped_column(Integer, default=0, server_default="0", comment="Chunks that are stored")
    rows_done: Mapped[int] = mapped_column(Integer, default=0, server_default="0", comment="Rows that are stored")
    rows_failed: Mapped[int] = mapped_column(
        Integer, default=0, server_default="0", comment="Stored rows without an output"
    )
    rows_before: Mapped[int] = mapped_column(
        Integer,
        default=0,
        server_default="0",
        comment="Rows that were stored before the present run: it takes up the rest",
    )
    event_count: Mapped[int] = mapped_column(
        Integer, default=0, server_default="0", comment="Events so far: the last one's sequence number"
    )


class JobChunk(Table):
    """A run of whole records of a CSV file: one unit of work."""

    __tablename__ = "job_chunks"
    __table_args__ = (
        UniqueConstraint("job_id", "first_row"),
        CheckConstraint("state IN ('queued', 'running', 'done', 'failed', 'canceled')", name="state_known"),
        CheckConstraint("(state = 'running') = (claim_token IS NOT NULL)", name="claimed_while_running"),
        CheckConstraint("row_count >= 1", name="has_rows"),
        # First rows first, whosever they are: a small file need not wait for the end of a large one.
        Index(
            "ix_job_chunks_ready",
            "model_version_id",
            "first_row",
            "job_id",
            postgresql_where=text("state = 'queued'"),
            sqlite_where=text("state = 'queued'"),
        ),
        Index(
            "ix_job_chunks_leases",
            "lease_expires_at",
            postgresql_where=text("state = 'running'"),
            sqlite_where=text("state = 'running'"),
        ),
        {"comment": "Pieces of CSV files, each scored and stored in one transaction"},
    )

    id: Mapped[int] = mapped_column(BigId, Identity(always=False), primary_key=True, comment="Number of the chunk")
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), comment="Its job")
    model_version_id: Mapped[int] = mapped_column(
        ForeignKey("model_versions.id"), comment="The version that scores it: its job's"
    )
    first_row: Mapped[int] = mapped_column(Integer, comment="Place of its first row in the file, from 0")
    row_count: Mapped[int] = mapped_column(Integer, comment="Rows in it")
    state: Mapped[str] = mapped_column(String(16), comment="queued, running, done, failed or canceled")
    payload: Mapped[bytes] = mapped_column(
        LargeBinary,
        comment="Its records as UTF-8 text, of a replay the ids of its decisions, by zstd; empty where another job has "
        "them",
    )
    attempt: Mapped[int] = mapped_column(SmallInteger, default=0, server_default="0", comment="Claims so far")
    crash_count: Mapped[int] = mapped_column(
        SmallInteger, default=0, server_default="0", comment="Claims that died; above 1 it is cut into smaller chunks"
    )
    claim_token: Mapped[int | None] = mapped_column(
        BigInteger, comment="Fence: only the holder of this number may store the chunk"
    )
    leased_by: Mapped[str | None] = mapped_column(String(128), comment="Worker that holds the claim")
    lease_expires_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime, comment="When the claim is given up unless it is renewed"
    )
    run_after: Mapped[datetime] = mapped_column(
        UtcDateTime, server_default=func.now(), comment="Not to be claimed before (backoff)"
    )
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime, comment="When it was stored")
    failed_count: Mapped[int] = mapped_column(Integer, default=0, server_default="0", comment="Rows without an output")
    output: Mapped[bytes | None] = mapped_column(LargeBinary, comment="Its lines of output.csv, compressed by zstd")
    output_bytes: Mapped[int | None] = mapped_column(Integer, comment="Size of these lines, uncompressed")
    errors: Mapped[bytes | None] = mapped_column(LargeBinary, comment="Its lines of errors.csv, compressed by zstd")
    errors_bytes: Mapped[int | None] = mapped_column(Integer, comment="Size of these lines, uncompressed")


class JobEvent(Table):
    """Something that happened to a job of many rows: what followers are told, and told again after a break."""

    __tablename__ = "job_events"
    __table_args__ = (UniqueConstraint("job_id", "seq"), {"comment": "What followers of CSV jobs are told, in order"})

    id: Mapped[int] = mapped_column(BigId, Identity(always=False), primary_key=True, comment="Number of the event")
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), comment="Its job")
    seq: Mapped[int] = mapped_column(Integer, comment="Place among the job's events, from 1: the id that is streamed")
    type: Mapped[str] = mapped_column(String(16), comment="accepted, started, progress or finished")
    data: Mapped[dict[str, Any]] = mapped_column(Json, comment="State and counts at that moment")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.now(), comment="When it happened")
