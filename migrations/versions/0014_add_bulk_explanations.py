"""Add jobs that explain all rows of another job: they are done in chunks, like files.

A terminal one may be queued again for what is left of it, as a CSV job may: the guard lets that through.

Revision: 0014, after 0013.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_GUARD = """
DROP TRIGGER jobs_guard ON jobs;
CREATE TRIGGER jobs_guard BEFORE UPDATE OF state, claim_token ON jobs FOR EACH ROW WHEN (NOT (
    (OLD.state = 'queued' AND NEW.state IN ('queued', 'running', 'canceled', 'expired'))
    OR (OLD.state = 'running' AND NEW.state IN ('queued', 'succeeded', 'failed', 'canceled'))
    OR (OLD.state = 'running' AND NEW.state = 'running' AND OLD.claim_token = NEW.claim_token)
    OR (OLD.state NOT IN ('queued', 'running') AND NEW.state = OLD.state)
    OR (OLD.state NOT IN ('queued', 'running') AND NEW.state = 'queued' AND {resumable})
)) EXECUTE FUNCTION jobs_refuse_transition();
"""
_UUID_TEXT = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")
_COMMENTS = (
    (
        "jobs",
        "kind",
        sa.String(16),
        False,
        "What the job does: predict, batch, csv, explain",
        "What the job does: predict, batch, csv, explain, explain_batch",
    ),
    (
        "job_chunks",
        "payload",
        sa.LargeBinary(),
        False,
        "Its records as UTF-8 text, compressed by zstd",
        "Its records as UTF-8 text, compressed by zstd; empty where another job has its rows",
    ),
)


def upgrade() -> None:
    """Apply the change."""
    with op.batch_alter_table("csv_files") as table:
        table.add_column(
            sa.Column(
                "source_job_id",
                _UUID_TEXT,
                nullable=True,
                comment="Job whose rows are explained; null for a file of its own",
            )
        )
        table.create_foreign_key(
            op.f("fk_csv_files_source_job_id"), "jobs", ["source_job_id"], ["id"], ondelete="SET NULL"
        )
    op.create_index(
        "ix_csv_files_source_job_id",
        "csv_files",
        ["source_job_id"],
        postgresql_where=sa.text("source_job_id IS NOT NULL"),
        sqlite_where=sa.text("source_job_id IS NOT NULL"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_GUARD.format(resumable="OLD.kind IN ('csv', 'explain_batch')"))
        for table_name, column, kind, nullable, old, new in _COMMENTS:
            op.alter_column(
                table_name, column, existing_type=kind, existing_nullable=nullable, comment=new, existing_comment=old
            )


def downgrade() -> None:
    """Take the change back."""
    if op.get_bind().dialect.name == "postgresql":
        for table_name, column, kind, nullable, old, new in _COMMENTS:
            op.alter_column(
                table_name, column, existing_type=kind, existing_nullable=nullable, comment=old, existing_comment=new
            )
        op.execute(_GUARD.format(resumable="OLD.kind = 'csv'"))
    op.drop_index("ix_csv_files_source_job_id", table_name="csv_files")
    with op.batch_alter_table("csv_files") as table:
        table.drop_constraint(op.f("fk_csv_files_source_job_id"), type_="foreignkey")
        table.drop_column("source_job_id")
