"""Add the events of aliases, and which versions are archived.

Revision: 0016, after 0015.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "alias_events",
        sa.Column("id", BIG, sa.Identity(always=False), nullable=False, comment="Number of the event"),
        sa.Column("created_at", TIME, nullable=False, comment="When it was moved"),
        sa.Column("name", sa.String(length=63), nullable=False, comment="Model name"),
        sa.Column("alias", sa.String(length=63), nullable=False, comment="Alias, e.g. champion"),
        sa.Column("from_version", sa.Integer(), nullable=True, comment="Version that it meant; null: there was none"),
        sa.Column("to_version", sa.Integer(), nullable=True, comment="Version that it means; null: it was taken away"),
        sa.Column("reason", sa.Text(), nullable=True, comment="Why, in the words of who did it"),
        sa.Column(
            "actor",
            sa.String(length=200),
            nullable=False,
            comment="key:ID of an API key, anyone, or command:USER@HOST for who ran a command",
        ),
        sa.Column("request_id", sa.String(length=128), nullable=True, comment="X-Request-Id where it was a request"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alias_events")),
        comment="Every move of an alias: who, when, from, to, why; entries are never changed",
    )
    op.create_index("ix_alias_events_name_id", "alias_events", ["name", "id"], unique=False)
    op.create_table(
        "model_archives",
        sa.Column("model_version_id", sa.Integer(), autoincrement=False, nullable=False, comment="The version"),
        sa.Column("archived_at", TIME, nullable=False, comment="When it was archived"),
        sa.Column(
            "deleted_at",
            TIME,
            nullable=True,
            comment="When its files were deleted, which ends it; the number is not given again",
        ),
        sa.Column("reason", sa.Text(), nullable=True, comment="Why, in the words of who did it"),
        sa.Column("actor", sa.String(length=200), nullable=False, comment="Who did it, as in alias_events"),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_model_archives_model_version_id")
        ),
        sa.PrimaryKeyConstraint("model_version_id", name=op.f("pk_model_archives")),
        comment="Versions that are archived now: they score nothing until they are restored",
    )


def downgrade() -> None:
    """Undo it."""
    op.drop_table("model_archives")
    op.drop_index("ix_alias_events_name_id", table_name="alias_events")
    op.drop_table("alias_events")
