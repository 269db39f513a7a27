"""Add the logs of requests and of what was done, the samples of the metrics, and an index of when jobs ended.

Revision: 0009, after 0008.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "audit_logs",
        sa.Column("id", BIG, sa.Identity(always=False), nullable=False, comment="Number of the entry"),
        sa.Column("created_at", TIME, server_default=sa.func.now(), nullable=False, comment="When it was done"),
        sa.Column(
            "actor",
            sa.String(length=200),
            nullable=False,
            comment="key:ID of an API key, or command:USER@HOST for who ran a command",
        ),
        sa.Column("action", sa.String(length=64), nullable=False, comment="What was done, e.g. key.created"),
        sa.Column("target", sa.String(length=200), nullable=False, comment="To what, e.g. attrition@2"),
        sa.Column("details", JSON, nullable=True, comment="More of it, never values of rows"),
        sa.Column("request_id", sa.String(length=128), nullable=True, comment="X-Request-Id where it was a request"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_logs")),
        comment="What was done to keys and models: by whom, when, to what",
    )
    op.create_index(op.f("ix_audit_logs_action"), "audit_logs", ["action"], unique=False)
    op.create_index(op.f("ix_audit_logs_created_at"), "audit_logs", ["created_at"], unique=False)
    op.create_table(
        "metric_samples",
        sa.Column("name", sa.String(length=64), nullable=False, comment="Metric, without the prefix guichet_"),
        sa.Column("labels", sa.String(length=400), nullable=False, comment="Values of its labels, a JSON list"),
        sa.Column(
            "part",
            sa.String(length=24),
            nullable=False,
            comment="count, sum, or the upper bound of a bucket of a histogram",
        ),
        sa.Column("value", sa.Float(), nullable=False, comment="The number so far"),
        sa.PrimaryKeyConstraint("name", "labels", "part", name=op.f("pk_metric_samples")),
        comment="Counters and histograms, summed over all processes that there have been",
    )
    op.create_table(
        "request_logs",
        sa.Column("id", BIG, sa.Identity(always=False), nullable=False, comment="Number of the entry"),
        sa.Column("created_at", TIME, nullable=False, comment="When the answer ended, by the API's clock"),
        sa.Column("request_id", sa.String(length=128), nullable=False, comment="X-Request-Id of the request"),
        sa.Column("method", sa.String(length=8), nullable=False, comment="HTTP method"),
        sa.Column(
            "route",
            sa.String(length=200),
            nullable=False,
            comment="Path of the route, e.g. /jobs/{id}; `(none)` without one",
        ),
        sa.Column("path", sa.Text(), nullable=False, comment="Path as it was sent, without the query"),
        sa.Column(
            "status", sa.SmallInteger(), nullable=False, comment="HTTP status; 499 where the caller left before it"
        ),
        sa.Column(
            "duration_ms", sa.Float(), nullable=False, comment="Milliseconds from the headers to the answer's end"
        ),
        sa.Column("size", BIG, nullable=False, comment="Bytes of the answer's body"),
        sa.Column("owner", sa.String(length=32), nullable=True, comment="Id of the API key, if one was known"),
        sa.Column("model", sa.String(length=140), nullable=True, comment="name@version that was asked for a score"),
        sa.Column(
            "input_hash",
            sa.String(length=64),
            nullable=True,
            comment="HMAC-SHA-256 of the body: the same input has the same hash, which nobody can guess",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_request_logs")),
        comment="Every request but successful probes: who asked for what, and when; never the values",
    )
    op.create_index("ix_request_logs_created_at", "request_logs", ["created_at"], unique=False, postgresql_using="brin")
    op.create_index(op.f("ix_request_logs_request_id"), "request_logs", ["request_id"], unique=False)
    op.create_table(
        "service_secrets",
        sa.Column("name", sa.String(length=64), nullable=False, comment="What it is for"),
        sa.Column("value", sa.Text(), nullable=False, comment="Hexadecimal digits"),
        sa.Column("created_at", TIME, server_default=sa.func.now(), nullable=False, comment="When it was made"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_service_secrets")),
        comment="Random secrets that the processes share; no view shows them",
    )
    op.create_index("ix_jobs_finished_at", "jobs", ["finished_at"], unique=False, postgresql_using="brin")


def downgrade() -> None:
    """Take the change back."""
    op.drop_index("ix_jobs_finished_at", table_name="jobs", postgresql_using="brin")
    op.drop_table("service_secrets")
    op.drop_index(op.f("ix_request_logs_request_id"), table_name="request_logs")
    op.drop_index("ix_request_logs_created_at", table_name="request_logs", postgresql_using="brin")
    op.drop_table("request_logs")
    op.drop_table("metric_samples")
    op.drop_index(op.f("ix_audit_logs_created_at"), table_name="audit_logs")
    op.drop_index(op.f("ix_audit_logs_action"), table_name="audit_logs")
    op.drop_table("audit_logs")
