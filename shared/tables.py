"""Every table of the service; Alembic owns the schema and a test compares it with this file.

jobs 1-n model_inputs 1-n model_outputs; model_versions 1-n model_aliases; a CSV job has one csv_files and n
job_chunks and job_events; reference_sets 1-n reference_rows. Job ids are UUIDv7 (RFC 9562): they sort by time of
arrival, so that lists need no other index. Those of visitors, who may list none, are UUIDv4: random in every bit.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import orjson
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared.database.engine import dumps


class JobState(StrEnum):
    """Where a job stands; shared/jobs/transitions.py draws the arrows."""

    QUEUED = "queued"  # committed, and no worker holds it
    RUNNING = "running"  # a worker holds a claim with a lease
    SUCCEEDED = "succeeded"  # outputs are stored (batches: at least one row's)
    FAILED = "failed"  # no output: the model raised, the job timed out, or it died too often
    CANCELED = "canceled"  # its caller wanted it no longer
    EXPIRED = "expired"  # it queued longer than its caller allowed


class JobKind(StrEnum):
    """What a job does."""

    PREDICT = "predict"  # one row
    BATCH = "batch"  # several rows of one request
    CSV = "csv"  # a file of rows, scored chunk by chunk


class ChunkState(StrEnum):
    """Where a chunk of a CSV file stands; shared/jobs/chunks.py draws the arrows."""

    QUEUED = "queued"  # no worker holds it
    RUNNING = "running"  # a worker holds a claim with a lease
    DONE = "done"  # its rows are stored, each with its output or its faults
    FAILED = "failed"  # its row took down every worker that tried; stored with that fault
    CANCELED = "canceled"  # its job ended before it was scored


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time; UTC on both dialects (SQLite keeps none of it by itself)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the stored time as an aware one."""
        if value is not None and value.tzinfo is None:
            return value.replace(tzinfo=UTC)
        return value

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the time to store, in UTC."""
        return value.astimezone(UTC) if value is not None else None


class JsonText(TypeDecorator[Any]):
    """Any JSON value as text: SQLite would turn a bare number in a JSON column into one of its own."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: object, dialect: Dialect) -> str:
        """Return the text to store."""
        return dumps(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ANN401 - any JSON value
        """Return the stored value."""
        return None if value is None else orjson.loads(value)


Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
UuidText = Uuid(as_uuid=False).with_variant(String(36), "sqlite")
BigId = BigInteger().with_variant(Integer(), "sqlite")  # SQLite numbers only INTEGER keys by itself


class Table(DeclarativeBase):
    """Base of every table."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class ModelVersion(Table):
    """One immutable model version."""

    __tablename__ = "model_versions"
    __table_args__ = (
        UniqueConstraint("name", "version"),
        {"comment": "Immutable model versions, known by the sha256 of their artefact"},
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True, comment="Number that other tables refer to")
    name: Mapped[str] = mapped_column(String(63), comment="Model name, e.g. attrition")
    version: Mapped[int] = mapped_column(Integer, comment="Version number, counted per name from 1")
    sha256: Mapped[str] = mapped_column(String(64), comment="SHA-256 of model.joblib, checked before unpickling")
    uri: Mapped[str] = mapped_column(Text, comment="Where the package lies, relative to MODELS_DIR")
    card: Mapped[dict[str, Any]] = mapped_column(
        JSON, comment="The card: all that the code knows about the model (as text: labels keep their order)"
    )
    scorer: Mapped[dict[str, Any]] = mapped_column(
        Json,
        comment="How it is scored: the choice, its parity with the pipeline, its speed, the rejected ones",
    )
    created_at: Mapped[datetime] = mapped_column(
        UtcDateTime, server_default=func.now(), comment="When it was registered"
    )


class ModelAlias(Table):
    """A movable name for a version."""

    __tablename__ = "model_aliases"
    __table_args__ = (
        UniqueConstraint("name", "alias"),
        {"comment": "Movable names of versions: champion serves by default"},
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True, comment="Number of the alias")
    name: Mapped[str] = mapped_column(String(63), comment="Model name")
    alias: Mapped[str] = mapped_column(String(63), comment="Alias, e.g. champion")
    model_version_id: Mapped[int] = mapped_column(
        ForeignKey("model_versions.id"), comment="The version that it means now"
    )
    updated_at: Mapped[datetime] = mapped_column(
        UtcDateTime, server_default=func.now(), comment="When it was moved last"
    )


class Job(Table):
    """One accepted request."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed', 'canceled', 'expired')", name="state_known"
        ),
        CheckConstraint("(state = 'running') = (claim_token IS NOT NULL)", name="claimed_while_running"),
        CheckConstraint(
            "(finished_at IS NOT NULL) = (state NOT IN ('queued', 'running'))", name="finished_when_terminal"
        ),
        CheckConstraint("row_count >= 1", name="has_rows"),
        Index(
            "ix_jobs_ready",
            "model_version_id",
            "lane",
            "priority",
            "run_after",
            "id",
            postgresql_where=text("state = 'queued'"),
            sqlite_where=text("state = 'queued'"),
        ),
        Index(
            "ix_jobs_leases",
            "lease_expires_at",
            postgresql_where=text("state = 'running'"),
            sqlite_where=text("state = 'running'"),
        ),
        Index(
            "ix_jobs_expiring",
            "expires_at",
            postgresql_where=text("state = 'queued' AND expires_at IS NOT NULL"),
            sqlite_where=text("state = 'queued' AND expires_at IS NOT NULL"),
        ),
        Index(
            "uq_jobs_idempotency",
            "idempotency_scope",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
            sqlite_where=text("idempotency_key IS NOT NULL"),
        ),
        {
            "comment": "Accepted requests and where they stand",
            # Room for the new row version beside the old one: a job is updated twice.
            "postgresql_with": {"fillfactor": "70"},
        },
    )

    id: Mapped[str] = mapped_column(
        UuidText,
        primary_key=True,
        comment="UUIDv7, which sorts by time of arrival; UUIDv4 for callers without a key, whose only secret it is",
    )
    kind: Mapped[str] = mapped_column(String(16), comment="What the job does: predict, batch, csv")
    lane: Mapped[str] = mapped_column(String(16), comment="Celery queue whose workers may claim it")
    state: Mapped[str] = mapped_column(String(16), comment="queued, running, or one of the four terminal states")
    model_version_id: Mapped[int] = mapped_column(
        ForeignKey("model_versions.id"), comment="The exact version that it runs on"
    )
    owner: Mapped[str | None] = mapped_column(
        String(32), comment="Id of the API key that sent it; null where AUTH=open"
    )
    request_id: Mapped[str] = mapped_column(String(128), comment="X-Request-Id of the request that made it")
    traceparent: Mapped[str | None] = mapped_column(String(64), comment="W3C trace context of that request")
    priority: Mapped[int] = mapped_column(SmallInteger, default=0, server_default="0", comment="Lower runs earlier")
    row_count: Mapped[int] = mapped_column(Integer, comment="Rows in the request")
    failed_count: Mapped[int] = mapped_column(
        Integer, default=0, server_default="0", comment="Rows without an output in the end"
    )
    attempt: Mapped[int] = mapped_column(SmallInteger, default=0, server_default="0", comment="Claims so far")
    max_attempts: Mapped[int] = mapped_column(SmallInteger, comment="Claims after which a death is final")
    crash_count: Mapped[int] = mapped_column(
        SmallInteger, default=0, server_default="0", comment="Claims that died; above 0 it is claimed alone"
    )
    claim_token: Mapped[int | None] = mapped_column(
        BigInteger, comment="Fence: only the holder of this number may finish the job"
    )
    leased_by: Mapped[str | None] = mapped_column(String(128), comment="Worker that holds the claim")
    lease_expires_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime, comment="When the claim is given up unless it is renewed"
    )
    claimed_at: Mapped[datetime | None] = mapped_column(UtcDateTime, comment="When the present claim was taken")
    run_after: Mapped[datetime] = mapped_column(
        UtcDateTime, server_default=func.now(), comment="Not to be claimed before (backoff)"
    )
    expires_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime, comment="Not to be claimed after: expires_in of the request"
    )
    timeout_seconds: Mapped[float] = mapped_column(Float, comment="How long one run may take, in seconds")
    cancel_requested_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime, comment="When its caller asked to cancel it while it ran"
    )
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.now(), comment="When it was accepted")
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime, comment="When it was claimed first")
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime, comment="When it became terminal")
    error: Mapped[dict[str, Any] | None] = mapped_column(Json, comment="Why it failed: {code, message}")
    idempotency_scope: Mapped[str | None] = mapped_column(String(128), comment="Caller and route of the key")
    idempotency_key: Mapped[str | None] = mapped_column(String(255), comment="Idempotency-Key of the request")
    body_hash: Mapped[str | None] = mapped_column(
        String(64), comment="SHA-256 of the body, to tell a retry from another request with the same key"
    )


class ModelInput(Table):
    """One row of features, as it was accepted."""

    __tablename__ = "model_inputs"
    __table_args__ = (
        UniqueConstraint("job_id", "row_index"),
        {"comment": "Every row that was accepted, in canonical form"},
    )

    id: Mapped[int] = mapped_column(BigId, Identity(always=False), primary_key=True, comment="Number of the row")
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), comment="Its job")
    row_index: Mapped[int] = mapped_column(Integer, comment="Place in the request, from 0")
    features: Mapped[dict[str, Any]] = mapped_column(
        JsonText().with_variant(JSONB(), "postgresql"),
        comment="Feature name to value; the row as sent where it did not fit the card",
    )
    faults: Mapped[list[dict[str, Any]] | None] = mapped_column(
        Json, comment="Why the row has no output: [{pointer, code, message}]"
    )
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.now(), comment="When it was stored")


class ModelOutput(Table):
    """The score of one input by one model version."""

    __tablename__ = "model_outputs"
    __table_args__ = (
        UniqueConstraint("input_id", "model_version_id"),
        CheckConstraint("probability BETWEEN 0 AND 1", name="probability_is_one"),
        CheckConstraint("task IN ('binary', 'multiclass', 'regression')", name="task_known"),
        CheckConstraint(
            "CASE task WHEN 'binary' THEN prediction IN (0, 1) AND label IS NOT NULL "
            "WHEN 'multiclass' THEN prediction >= 0 AND label IS NOT NULL "
            "ELSE label IS NULL AND probability IS NULL AND threshold IS NULL END",
            name="prediction_fits_task",
        ),
        {"comment": "Scores: one for each input and model version"},
    )

    id: Mapped[int] = mapped_column(BigId, Identity(always=False), primary_key=True, comment="Number of the score")
    input_id: Mapped[int] = mapped_column(
        ForeignKey("model_inputs.id", ondelete="CASCADE"), comment="The input that was scored"
    )
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), comment="The version that scored it")
    task: Mapped[str] = mapped_column(String(16), comment="binary, multiclass or regression")
    prediction: Mapped[float] = mapped_column(
        Float, comment="Class index (binary: 0 or 1), or the number that regression predicts"
    )
    label: Mapped[str | None] = mapped_column(Text, comment="Name of the predicted class")
    probability: Mapped[float | None] = mapped_column(
        Float, comment="Binary: of the positive class; multiclass: of the predicted one"
    )
    probabilities: Mapped[list[float] | None] = mapped_column(
        Json, comment="Multiclass: of every class, in the card's order"
    )
    threshold: Mapped[float | None] = mapped_column(Float, comment="Binary: the threshold that decided")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.now(), comment="When it was stored")


class CsvFile(Table):
    """The file of a CSV job: how it is written, and how far it is scored."""

    __tablename__ = "csv_files"
    __table_args__ = ({"comment": "Files of CSV jobs: how they are written, and how far they are scored"},)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, comment="Its job")
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
    payload: Mapped[bytes] = mapped_column(LargeBinary, comment="Its records as UTF-8 text, compressed by zstd")
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


class ReferenceSet(Table):
    """The reference data of a model: rows like those that it was trained on, from one file."""

    __tablename__ = "reference_sets"
    __table_args__ = ({"comment": "Reference data: which file each model's rows came from, and how it was read"},)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, comment="Number of the set")
    model_name: Mapped[str] = mapped_column(String(63), unique=True, comment="The model; it has one set at a time")
    model_version_id: Mapped[int] = mapped_column(
        ForeignKey("model_versions.id"), comment="The version whose card the rows were checked against"
    )
    filename: Mapped[str] = mapped_column(Text, comment="Name of the file")
    sha256: Mapped[str] = mapped_column(String(64), comment="SHA-256 of the file, as it lay on disk")
    byte_count: Mapped[int] = mapped_column(BigInteger, comment="Size of the file, in bytes, uncompressed")
    delimiter: Mapped[str] = mapped_column(String(1), comment="Character between two cells")
    encoding: Mapped[str] = mapped_column(String(16), comment="Encoding of the file")
    decimal: Mapped[str] = mapped_column(String(1), comment="Decimal mark: a point or a comma")
    thousands: Mapped[str] = mapped_column(
        String(1), default="", server_default="", comment="What separates thousands in numbers, if anything does"
    )
    currency: Mapped[str] = mapped_column(
        String(1), default="", server_default="", comment="Currency sign beside numbers, if they have one"
    )
    options: Mapped[dict[str, Any] | None] = mapped_column(
        Json, comment="What was said about the file when it was loaded; the rest was detected"
    )
    target: Mapped[str | None] = mapped_column(Text, comment="Column that holds the answers, if the file has them")
    row_count: Mapped[int] = mapped_column(Integer, comment="Rows that were loaded")
    skipped_count: Mapped[int] = mapped_column(
        Integer, comment="Rows of the file that did not fit and were left out, as was asked"
    )
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.now(), comment="When it was loaded")


class ReferenceRow(Table):
    """One row of a model's reference data."""

    __tablename__ = "reference_rows"
    __table_args__ = ({"comment": "Rows of reference data, in canonical form"},)

    set_id: Mapped[int] = mapped_column(
        ForeignKey("reference_sets.id", ondelete="CASCADE"), primary_key=True, comment="Its set"
    )
    row_no: Mapped[int] = mapped_column(
        Integer, primary_key=True, comment="Place among the set's rows, from 1 and without gaps"
    )
    features: Mapped[dict[str, Any]] = mapped_column(
        JsonText().with_variant(JSONB(), "postgresql"), comment="Feature name to value"
    )
    target: Mapped[Any | None] = mapped_column(
        JsonText().with_variant(JSONB(), "postgresql"),
        comment="The answer that was true: the model's class, or a number; null where the file has none",
    )


class Worker(Table):
    """A worker process that has been seen."""

    __tablename__ = "workers"
    __table_args__ = ({"comment": "Worker processes, by their last heartbeat"},)

    id: Mapped[str] = mapped_column(String(128), primary_key=True, comment="host:pid")
    lanes: Mapped[str] = mapped_column(String(128), comment="Lanes that it consumes, comma-separated")
    models: Mapped[list[str]] = mapped_column(Json, comment="Loaded versions, e.g. attrition@1")
    refused: Mapped[dict[str, str]] = mapped_column(Json, comment="Versions that could not be loaded, and why")
    started_at: Mapped[datetime] = mapped_column(
        UtcDateTime, server_default=func.now(), comment="When the process started"
    )
    seen_at: Mapped[datetime] = mapped_column(
        UtcDateTime, server_default=func.now(), comment="When it was heard of last"
    )


class TimedTask(Table):
    """Something that the workers do by the clock."""

    __tablename__ = "timed_tasks"
    __table_args__ = ({"comment": "What the workers do by the clock, and when it was done last"},)

    name: Mapped[str] = mapped_column(String(32), primary_key=True, comment="What is done, e.g. recover")
    done_at: Mapped[datetime] = mapped_column(UtcDateTime, comment="When any worker did it last")


class ApiKey(Table):
    """A key of a client program; only its hash is kept."""

    __tablename__ = "api_keys"
    __table_args__ = ({"comment": "API keys, hashed, with their scopes"},)

    id: Mapped[str] = mapped_column(String(32), primary_key=True, comment="Public part of the key")
    name: Mapped[str] = mapped_column(String(100), comment="Whose it is, in the operator's words")
    sha256: Mapped[str] = mapped_column(String(64), unique=True, comment="SHA-256 of the 32 random bytes")
    scopes: Mapped[str] = mapped_column(String(100), comment="Comma-separated: predict, read, admin")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.now(), comment="When it was made")
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime, comment="When it stopped to be valid")


class ErrorLog(Table):
    """A request that was refused or failed."""

    __tablename__ = "error_logs"
    __table_args__ = ({"comment": "Refusals and failures: what was wrong, never the values"},)

    id: Mapped[int] = mapped_column(BigId, Identity(always=False), primary_key=True, comment="Number of the entry")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.now(), comment="When it happened")
    request_id: Mapped[str] = mapped_column(String(128), index=True, comment="X-Request-Id of the request")
    method: Mapped[str] = mapped_column(String(8), comment="HTTP method")
    path: Mapped[str] = mapped_column(Text, comment="Path, without the query")
    status: Mapped[int] = mapped_column(SmallInteger, comment="HTTP status of the answer")
    code: Mapped[str] = mapped_column(String(64), comment="Stable error code")
    detail: Mapped[str] = mapped_column(Text, comment="The sentence that the caller was told")
    faults: Mapped[list[dict[str, Any]] | None] = mapped_column(
        Json, comment="Every fault of the rows: [{pointer, code, message}]"
    )
    job_id: Mapped[str | None] = mapped_column(UuidText, comment="The job that it was about, if any")
    owner: Mapped[str | None] = mapped_column(String(32), comment="Id of the API key, if one was known")
    times: Mapped[int] = mapped_column(
        Integer, server_default="1", comment="How many alike it stands for: floods are counted, not stored one by one"
    )
