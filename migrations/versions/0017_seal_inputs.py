"""Add the SHA-256 of each row when it was accepted, so that a later change of it shows.

Revision: 0017, after 0016.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the change."""
    op.add_column(
        "model_inputs",
        sa.Column(
            "sha256",
            sa.LargeBinary(),
            nullable=True,
            comment="SHA-256 of the row when it was accepted; null where it did not fit the card, and in older "
            "releases",
        ),
    )


def downgrade() -> None:
    """Undo it."""
    op.drop_column("model_inputs", "sha256")
