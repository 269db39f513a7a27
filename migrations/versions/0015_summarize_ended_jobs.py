"""Summarize pages of ended jobs in the index of /metrics as they fill, and not at the next vacuum.

Revision: 0015, after 0014.
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the change."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER INDEX ix_jobs_finished_at SET (autosummarize = on)")


def downgrade() -> None:
    """Take the change back."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER INDEX ix_jobs_finished_at RESET (autosummarize)")
