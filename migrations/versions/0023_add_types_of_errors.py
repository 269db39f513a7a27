"""Add the type and a short stack of failures to error_logs.

Revision: 0023, after 0022.
"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_TYPE = "Of failures (5xx): the type of the exception; null for refusals"
_STACK = "Of failures: where it was raised, a line for each place; types and places, never values"


def upgrade() -> None:
    """Apply the change."""
    op.add_column("error_logs", sa.Column("type", sa.String(100), nullable=True, comment=_TYPE))
    op.add_column("error_logs", sa.Column("stack", sa.Text(), nullable=True, comment=_STACK))


def downgrade() -> None:
    """Take the change back."""
    op.drop_column("error_logs", "stack")
    op.drop_column("error_logs", "type")
