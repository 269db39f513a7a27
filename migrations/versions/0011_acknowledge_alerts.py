"""Let people acknowledge alerts: who, when, at which level, and why.

Revision: 0011, after 0010.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the change."""
    for column in (
        sa.Column(
            "acknowledged_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When somebody said that they know of it; null again when it has become worse",
        ),
        sa.Column(
            "acknowledged_by",
            sa.String(length=200),
            nullable=True,
            comment="Who: key:ID, or anyone where AUTH=open",
        ),
        sa.Column("acknowledged_level", sa.String(length=16), nullable=True, comment="Its level at that time"),
        sa.Column("reason", sa.Text(), nullable=True, comment="What they said: why it may stand, what is being done"),
    ):
        op.add_column("alerts", column)


def downgrade() -> None:
    """Take the change back."""
    for name in ("reason", "acknowledged_level", "acknowledged_by", "acknowledged_at"):
        op.drop_column("alerts", name)
