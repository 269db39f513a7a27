"""Timed tasks: when any worker recovered last, so that /health can tell that none does.

Revision: 0004, after 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "timed_tasks",
        sa.Column("name", sa.String(length=32), nullable=False, comment="What is done, e.g. recover"),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=False, comment="When any worker did it last"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_timed_tasks")),
        comment="What the workers do by the clock, and when it was done last",
    )


def downgrade() -> None:
    """Take the change back."""
    op.drop_table("timed_tasks")
