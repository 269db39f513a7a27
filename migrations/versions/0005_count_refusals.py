"""Count refusals of a flood instead of storing them one by one.

Revision: 0005, after 0004.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the change."""
    op.add_column(
        "error_logs",
        sa.Column(
            "times",
            sa.Integer(),
            server_default="1",
            nullable=False,
            comment="How many alike it stands for: floods are counted, not stored one by one",
        ),
    )


def downgrade() -> None:
    """Take the change back."""
    op.drop_column("error_logs", "times")
