"""How numbers of files are written, what was said about a file of reference data, and what had to be told of a file.

Revision: 0006, after 0005.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_THOUSANDS = "What separates thousands in numbers, if anything does"
_CURRENCY = "Currency sign beside numbers, if they have one"


def upgrade() -> None:
    """Apply the change."""
    for table in ("csv_files", "reference_sets"):
        op.add_column(
            table, sa.Column("thousands", sa.String(length=1), server_default="", nullable=False, comment=_THOUSANDS)
        )
        op.add_column(
            table, sa.Column("currency", sa.String(length=1), server_default="", nullable=False, comment=_CURRENCY)
        )
    notices_comment = "What was read otherwise than it is written, as sentences"
    op.add_column("csv_files", sa.Column("notices", JSON, server_default="[]", nullable=False, comment=notices_comment))
    options_comment = "What was said about the file when it was loaded; the rest was detected"
    op.add_column("reference_sets", sa.Column("options", JSON, nullable=True, comment=options_comment))


def downgrade() -> None:
    """Undo the change."""
    op.drop_column("reference_sets", "options")
    op.drop_column("csv_files", "notices")
    for table in ("reference_sets", "csv_files"):
        op.drop_column(table, "currency")
        op.drop_column(table, "thousands")
