"""CSV jobs: files, their chunks, and the events that followers are told.

A terminal CSV job may be queued again when its caller asks for the rest of its rows: the guard lets that through.
Upgrade the workers before the API: older workers do not know what to do with a job of kind csv.

Revision: 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
UUID_TEXT = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)

GUARD = """
DROP TRIGGER jobs_guard ON jobs;
CREATE TRIGGER jobs_guard BEFORE UPDATE OF state, claim_token ON jobs FOR EACH ROW WHEN (NOT (
    (OLD.state = 'queued' AND NEW.state IN ('queued', 'running', 'canceled', 'expired'))
    OR (OLD.state = 'running' AND NEW.state IN ('queued', 'succeeded', 'failed', 'canceled'))
    OR (OLD.state = 'running' AND NEW.state = 'running' AND OLD.claim_token = NEW.claim_token)
    OR (OLD.state NOT IN ('queued', 'running') AND NEW.state = OLD.state){more}
)) EXECUTE FUNCTION jobs_refuse_transition();
"""
AGAIN = """
    OR (OLD.state NOT IN ('queued', 'running') AND NEW.state = 'queued' AND OLD.kind = 'csv')"""

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "csv_files",
        sa.Column("job_id", UUID_TEXT, nullable=False, comment="Its job"),
        sa.Column("filename", sa.Text(), nullable=True, comment="Name of the file at the caller's, if it was sent"),
        sa.Column("delimiter", sa.String(length=1), nullable=False, comment="Character between two cells"),
        sa.Column("encoding", sa.String(length=16), nullable=False, comment="Encoding of the file as it was sent"),
        sa.Column("decimal", sa.String(length=1), nullable=False, comment="Decimal mark: a point or a comma"),
        sa.Column(
            "bom", sa.Boolean(), nullable=False, comment="Whether the output starts with a byte order mark, for Excel"
        ),
        sa.Column("columns", JSON, nullable=False, comment="Names in the header, in file order"),
        sa.Column("id_column", sa.Text(), nullable=True, comment="Column that identifies rows for the caller"),
        sa.Column(
            "max_error_rate",
            sa.Float(),
            nullable=True,
            comment="Part of the rows that may fail before the job is given up; null: all of them",
        ),
        sa.Column("byte_count", sa.BigInteger(), nullable=False, comment="Size of the file, in bytes, uncompressed"),
        sa.Column("chunk_count", sa.Integer(), nullable=False, comment="Chunks that it was cut into"),
        sa.Column("chunks_done", sa.Integer(), server_default="0", nullable=False, comment="Chunks that are stored"),
        sa.Column("rows_done", sa.Integer(), server_default="0", nullable=False, comment="Rows that are stored"),
        sa.Column(
            "rows_failed", sa.Integer(), server_default="0", nullable=False, comment="Stored rows without an output"
        ),
        sa.Column(
            "rows_before",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="Rows that were stored before the present run: it takes up the rest",
        ),
        sa.Column(
            "event_count",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="Events so far: the last one's sequence number",
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_csv_files_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_csv_files")),
        comment="Files of CSV jobs: how they are written, and how far they are scored",
    )
    op.create_table(
        "job_chunks",
        sa.Column("id", BIG_ID, sa.Identity(always=False), nullable=False, comment="Number of the chunk"),
        sa.Column("job_id", UUID_TEXT, nullable=False, comment="Its job"),
        sa.Column("model_version_id", sa.Integer(), nullable=False, comment="The version that scores it: its job's"),
        sa.Column("first_row", sa.Integer(), nullable=False, comment="Place of its first row in the file, from 0"),
        sa.Column("row_count", sa.Integer(), nullable=False, comment="Rows in it"),
        sa.Column("state", sa.String(length=16), nullable=False, comment="queued, running, done, failed or canceled"),
        sa.Column("payload", sa.LargeBinary(), nullable=False, comment="Its records as UTF-8 text, compressed by zstd"),
        sa.Column("attempt", sa.SmallInteger(), server_default="0", nullable=False, comment="Claims so far"),
        sa.Column(
            "crash_count",
            sa.SmallInteger(),
            server_default="0",
            nullable=False,
            comment="Claims that died; above 1 it is cut into smaller chunks",
        ),
        sa.Column(
            "claim_token",
            sa.BigInteger(),
            nullable=True,
            comment="Fence: only the holder of this number may store the chunk",
        ),
        sa.Column("leased_by", sa.String(length=128), nullable=True, comment="Worker that holds the claim"),
        sa.Column("lease_expires_at", TIME, nullable=True, comment="When the claim is given up unless it is renewed"),
        sa.Column(
            "run_after",
            TIME,
            server_default=sa.func.now(),
            nullable=False,
            comment="Not to be claimed before (backoff)",
        ),
        sa.Column("finished_at", TIME, nullable=True, comment="When it was stored"),
        sa.Column("failed_count", sa.Integer(), server_default="0", nullable=False, comment="Rows without an output"),
        sa.Column("output", sa.LargeBinary(), nullable=True, comment="Its lines of output.csv, compressed by zstd"),
        sa.Column("output_bytes", sa.Integer(), nullable=True, comment="Size of these lines, uncompressed"),
        sa.Column("errors", sa.LargeBinary(), nullable=True, comment="Its lines of errors.csv, compressed by zstd"),
        sa.Column("errors_bytes", sa.Integer(), nullable=True, comment="Size of these lines, uncompressed"),
        sa.CheckConstraint(
            "(state = 'running') = (claim_token IS NOT NULL)", name=op.f("ck_job_chunks_claimed_while_running")
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'done', 'failed', 'canceled')", name=op.f("ck_job_chunks_state_known")
        ),
        sa.CheckConstraint("row_count >= 1", name=op.f("ck_job_chunks_has_rows")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_chunks_job_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_job_chunks_model_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_chunks")),
        sa.UniqueConstraint("job_id", "first_row", name=op.f("uq_job_chunks_job_id_first_row")),
        comment="Pieces of CSV files, each scored and stored in one transaction",
    )
    op.create_index(
        "ix_job_chunks_leases",
        "job_chunks",
        ["lease_expires_at"],
        unique=False,
        postgresql_where=sa.text("state = 'running'"),
        sqlite_where=sa.text("state = 'running'"),
    )
    op.create_index(
        "ix_job_chunks_ready",
        "job_chunks",
        ["model_version_id", "first_row", "job_id"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
        sqlite_where=sa.text("state = 'queued'"),
    )
    op.create_table(
        "job_events",
        sa.Column("id", BIG_ID, sa.Identity(always=False), nullable=False, comment="Number of the event"),
        sa.Column("job_id", UUID_TEXT, nullable=False, comment="Its job"),
        sa.Column(
            "seq", sa.Integer(), nullable=False, comment="Place among the job's events, from 1: the id that is streamed"
        ),
        sa.Column("type", sa.String(length=16), nullable=False, comment="accepted, started, progress or finished"),
        sa.Column("data", JSON, nullable=False, comment="State and counts at that moment"),
        sa.Column("created_at", TIME, server_default=sa.func.now(), nullable=False, comment="When it happened"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_events_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_events")),
        sa.UniqueConstraint("job_id", "seq", name=op.f("uq_job_events_job_id_seq")),
        comment="What followers of CSV jobs are told, in order",
    )
    if op.get_bind().dialect.name == "postgresql":
        # They are compressed already: PostgreSQL need not try.
        for column in ("payload", "output", "errors"):
            op.execute(f"ALTER TABLE job_chunks ALTER COLUMN {column} SET STORAGE EXTERNAL")
        op.execute("COMMENT ON COLUMN jobs.kind IS 'What the job does: predict, batch, csv'")
        op.execute(GUARD.format(more=AGAIN))


def downgrade() -> None:
    """Take the change back."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(GUARD.format(more=""))
        op.execute("COMMENT ON COLUMN jobs.kind IS 'What the job does: predict, batch'")
    op.drop_table("job_events")
    op.drop_table("job_chunks")
    op.drop_table("csv_files")
