"""List jobs by their time of arrival: indexes for lists of everyone, of a key, of a version, and of what failed.

Revision: 0024, after 0023.
"""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_KEYED = sa.text("owner IS NOT NULL")
_UNSUCCESSFUL = sa.text("state IN ('failed', 'canceled', 'expired')")


def upgrade() -> None:
    """Apply the change."""
    op.create_index("ix_jobs_arrival", "jobs", ["created_at", "id"])
    op.create_index(
        "ix_jobs_owner", "jobs", ["owner", "created_at", "id"], postgresql_where=_KEYED, sqlite_where=_KEYED
    )
    op.create_index("ix_jobs_version", "jobs", ["model_version_id", "created_at", "id"])
    op.create_index(
        "ix_jobs_unsuccessful",
        "jobs",
        ["state", "created_at", "id"],
        postgresql_where=_UNSUCCESSFUL,
        sqlite_where=_UNSUCCESSFUL,
    )


def downgrade() -> None:
    """Take the change back."""
    for name in ("ix_jobs_unsuccessful", "ix_jobs_version", "ix_jobs_owner", "ix_jobs_arrival"):
        op.drop_index(name, table_name="jobs")
