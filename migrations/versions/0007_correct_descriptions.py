"""Describe job ids as they are, and let a refused transition name a page instead of a file that may move.

Revision: 0007, after 0006.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_GUARD = """
CREATE OR REPLACE FUNCTION jobs_refuse_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'job %: illegal transition from % to %', OLD.id, OLD.state, NEW.state
        USING ERRCODE = 'check_violation', HINT = '{hint}';
END $$
"""
_NEW_ID = "UUIDv7, which sorts by time of arrival; UUIDv4 for callers without a key, whose only secret it is"
_OLD_ID = "UUIDv7: sorts by time of arrival"


def upgrade() -> None:
    """Apply the change."""
    _describe("docs/architecture.md shows the legal ones", _NEW_ID, _OLD_ID)


def downgrade() -> None:
    """Undo the change."""
    _describe("shared/jobs.py lists the legal ones", _OLD_ID, _NEW_ID)


def _describe(hint: str, comment: str, former: str) -> None:
    if op.get_bind().dialect.name == "postgresql":  # SQLite has neither functions nor comments
        op.execute(_GUARD.format(hint=hint))
        op.alter_column("jobs", "id", existing_type=sa.Uuid(), comment=comment, existing_comment=former)
