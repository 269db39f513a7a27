"""Jobs with their inputs and outputs.

Job ids are UUIDv7 (RFC 9562), which sort by time. Those of visitors, who may list none, are UUIDv4: random in every
bit. So lists go by the time of arrival, and by the id where two arrived in the same group.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
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
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.database.types import BigId, Json, JsonText, UtcDateTime, UuidText
from shared.tables.base import Table


class JobState(StrEnum):
    """The state of a job; shared/jobs/transitions.py draws the transitions."""

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
    EXPLAIN = "explain"  # why one row has its score
    EXPLAIN_BATCH = "explain_batch"  # why every row of another job has its score, chunk by chunk
    REPLAY = "replay"  # stored decisions, decided again by another version, chunk by chunk
    REGISTER = "register"  # an uploaded model, proved and made a version
    TRAIN = "train"  # a table of rows, from which a new version is trained
    REPRODUCE = "reproduce"  # past decisions of another job, made again from the artefact


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
        # A scrape of /metrics reads what ended lately: pages that are not summarized yet are read each time.
        Index("ix_jobs_finished_at", "finished_at", postgresql_using="brin", postgresql_with={"autosummarize": "on"}),
        # Lists, newest first: of everyone, of a key, of a model's version, and of what did not succeed, which is rare.
        Index("ix_jobs_arrival", "created_at", "id"),
        Index(
            "ix_jobs_owner",
            "owner",
            "created_at",
            "id",
            postgresql_where=text("owner IS NOT NULL"),
            sqlite_where=text("owner IS NOT NULL"),
        ),
        Index("ix_jobs_version", "model_version_id", "created_at", "id"),
        Index(
            "ix_jobs_unsuccessful",
            "state",
            "created_at",
            "id",
            postgresql_where=text("state IN ('failed', 'canceled', 'expired')"),
            sqlite_where=text("state IN ('failed', 'canceled', 'expired')"),
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
    kind: Mapped[str] = mapped_column(
        String(16),
        comment="What the job does: predict, batch, csv, explain, explain_batch, replay, register, train, reproduce",
    )
    lane: Mapped[str] = mapped_column(String(16), comment="Celery queue whose workers may claim it")
    state: Mapped[str] = mapped_column(String(16), comment="queued, running, or one of the four terminal states")
    model_version_id: Mapped[int | None] = mapped_column(
        ForeignKey("model_versions.id"), comment="The exact version that it runs on; null where it registers one"
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
    sha256: Mapped[bytes | None] = mapped_column(
        LargeBinary,
        comment="SHA-256 of the row when it was accepted; null where it did not fit the card, and in older releases",
    )


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


class ErasedJob(Table):
    """The id of a job that was erased. Nothing of its rows is here, and no id that a caller chose."""

    __tablename__ = "erased_jobs"
    __table_args__ = (
        Index("ix_erased_jobs_erased_at", "erased_at", postgresql_using="brin"),
        {"comment": "Ids of erased jobs, and nothing else of them: their owners are answered 410 instead of 404"},
    )

    id: Mapped[str] = mapped_column(UuidText, primary_key=True, comment="Id that the job had")
    owner: Mapped[str | None] = mapped_column(
        String(32), comment="Id of the API key that sent it, which may know of its erasure; null where AUTH=open"
    )
    erased_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.now(), comment="When it was erased")
