"""Remember the ids of erased jobs, which are answered 410; and add reproductions: past decisions that are made again.

Revision: 0025, after 0024.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

UUID_TEXT = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
_KINDS = (
    "What the job does: predict, batch, csv, explain, explain_batch, replay, register, train",
    "What the job does: predict, batch, csv, explain, explain_batch, replay, register, train, reproduce",
)


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "erased_jobs",
        sa.Column("id", UUID_TEXT, nullable=False, comment="Id that the job had"),
        sa.Column(
            "owner",
            sa.String(32),
            nullable=True,
            comment="Id of the API key that sent it, which may know of its erasure; null where AUTH=open",
        ),
        sa.Column(
            "erased_at",
            sa.DateTime(timezone=True),
            server_default=sa.func.now(),
            nullable=False,
            comment="When it was erased",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erased_jobs")),
        comment="Ids of erased jobs, and nothing else of them: their owners are answered 410 instead of 404",
    )
    op.create_index("ix_erased_jobs_erased_at", "erased_jobs", ["erased_at"], postgresql_using="brin")
    op.create_table(
        "reproductions",
        sa.Column("job_id", UUID_TEXT, nullable=False, comment="Its job"),
        sa.Column("source_job_id", UUID_TEXT, nullable=True, comment="Job whose rows are scored again"),
        sa.Column("row_index", sa.Integer(), nullable=True, comment="The only row, from 0; null for every row"),
        sa.Column(
            "report",
            JSON,
            nullable=True,
            comment="What decided, what has changed since, and rows that differ; null until its job succeeds",
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["registrations.job_id"], name=op.f("fk_reproductions_job_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["source_job_id"], ["jobs.id"], name=op.f("fk_reproductions_source_job_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_reproductions")),
        comment="Past decisions that were made again: of which job, and whether they came out the same",
    )
    op.create_index("ix_reproductions_source_job_id", "reproductions", ["source_job_id"])
    _describe_kind(*_KINDS)


def downgrade() -> None:
    """Take the change back: erased jobs are answered 404 again, and reproductions are forgotten."""
    op.drop_table("reproductions")
    op.execute("DELETE FROM jobs WHERE kind = 'reproduce'")
    op.drop_table("erased_jobs")
    _describe_kind(*reversed(_KINDS))


def _describe_kind(old: str, new: str) -> None:
    if op.get_bind().dialect.name == "postgresql":  # SQLite has no comments, and would copy the table
        op.alter_column(
            "jobs",
            "kind",
            existing_type=sa.String(16),
            existing_nullable=False,
            comment=new,
            existing_comment=old,
        )
