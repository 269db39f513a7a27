"""Add trainings: jobs that train a version from a table of rows, with their progress and report.

Revision: 0022, after 0021.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

UUID_TEXT = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
_KINDS = (
    "What the job does: predict, batch, csv, explain, explain_batch, replay, register",
    "What the job does: predict, batch, csv, explain, explain_batch, replay, register, train",
)


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "trainings",
        sa.Column("job_id", UUID_TEXT, nullable=False, comment="Its job"),
        sa.Column(
            "progress",
            JSON,
            nullable=True,
            comment="{stage, done, total}: how far it has come; null before it begins",
        ),
        sa.Column(
            "report",
            JSON,
            nullable=True,
            comment="Data, search, metrics, threshold with its curve, importance; null until its job succeeds",
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["registrations.job_id"], name=op.f("fk_trainings_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_trainings")),
        comment="Trainings: how far each has come, and what the model card of its version is made of",
    )
    _describe_kind(*_KINDS)


def downgrade() -> None:
    """Take the change back; jobs that trained a model are forgotten, and their versions stay."""
    op.drop_table("trainings")
    op.execute("DELETE FROM jobs WHERE kind = 'train'")
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
