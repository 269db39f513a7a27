"""Add the scores of challengers, which go with the rows that they are of, and how far each challenger has come.

The pairs of replays lose the index that was meant for them.

Revision: 0021, after 0020.
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
_JOB = ("The replay; null: a challenger's shadow", "The replay")
_FIRST = (
    "Place of the chunk in the replay, from 0; of a shadow the first id of model_outputs",
    "Place of the chunk in the replay, from 0",
)
_TABLE = (
    "Rows that two versions scored: by a replay, or by a challenger in the shadow",
    "Rows that two versions scored, by the parts of a replay",
)


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "shadows",
        sa.Column(
            "model_version_id",
            sa.Integer(),
            autoincrement=False,
            nullable=False,
            comment="The version that is, or was, the challenger",
        ),
        sa.Column("alias_at", TIME, nullable=False, comment="When the alias was moved to it: a later move begins anew"),
        sa.Column(
            "mark",
            sa.BigInteger(),
            nullable=False,
            comment="Watermark: decisions up to this id of model_outputs are scored, refused or skipped",
        ),
        sa.Column("moved_at", TIME, nullable=False, comment="When the mark was moved last"),
        sa.Column(
            "lag_seconds",
            sa.Float(),
            nullable=False,
            comment="Age of the oldest decision that waited then, in seconds; 0: none was left",
        ),
        sa.Column("scored_count", sa.BigInteger(), nullable=False, comment="Rows that it has scored since alias_at"),
        sa.Column(
            "refused_count", sa.BigInteger(), nullable=False, comment="Rows that it refused since then, or failed on"
        ),
        sa.Column(
            "skipped_count",
            sa.BigInteger(),
            nullable=False,
            comment="Rows that were left out since then because it could not keep up",
        ),
        sa.Column(
            "failure_count",
            sa.SmallInteger(),
            nullable=False,
            comment="How often in a row it crashed, hung, ate its memory or could not be loaded",
        ),
        sa.Column("crash_count", sa.Integer(), nullable=False, comment="How often in all since alias_at"),
        sa.Column("reason", sa.Text(), nullable=True, comment="What happened the last time"),
        sa.Column(
            "stopped_at",
            TIME,
            nullable=True,
            comment="When it was left alone, until its alias is moved; null: it is scored",
        ),
        sa.Column("leased_by", sa.String(128), nullable=True, comment="Process that has it scored"),
        sa.Column("lease_expires_at", TIME, nullable=True, comment="When another process may go on with it"),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.id"],
            name=op.f("fk_shadows_model_version_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("model_version_id", name=op.f("pk_shadows")),
        comment="Challengers: how far each has scored what other versions decided, and its failures",
    )
    op.create_table(
        "shadow_scores",
        sa.Column(
            "output_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
            comment="The decision; its input is the row",
        ),
        sa.Column("model_version_id", sa.Integer(), autoincrement=False, nullable=False, comment="The challenger"),
        sa.Column("decided_at", TIME, nullable=False, comment="When it was decided, as in model_outputs"),
        sa.Column(
            "prediction",
            sa.Float(),
            nullable=True,
            comment="As in model_outputs; null: it refused the row, or failed on it",
        ),
        sa.Column("label", sa.Text(), nullable=True, comment="Name of the predicted class"),
        sa.Column("probability", sa.Float(), nullable=True, comment="As in model_outputs"),
        sa.Column("fault", sa.String(64), nullable=True, comment="Why there is no score: the code of the fault"),
        sa.ForeignKeyConstraint(
            ["output_id"], ["model_outputs.id"], name=op.f("fk_shadow_scores_output_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.id"],
            name=op.f("fk_shadow_scores_model_version_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("output_id", "model_version_id", name=op.f("pk_shadow_scores")),
        comment="Scores of challengers, which no caller gets; each goes with the row that it is of",
    )
    op.create_index("ix_shadow_scores_window", "shadow_scores", ["model_version_id", "decided_at"])
    op.drop_index("ix_score_pairs_shadow", table_name="score_pairs")
    _describe(_JOB, _FIRST, _TABLE)


def downgrade() -> None:
    """Undo it."""
    _describe(*(each[::-1] for each in (_JOB, _FIRST, _TABLE)))
    op.create_index(
        "ix_score_pairs_shadow",
        "score_pairs",
        ["model_version_id", "starts_at"],
        postgresql_where=sa.text("job_id IS NULL"),
        sqlite_where=sa.text("job_id IS NULL"),
    )
    op.drop_index("ix_shadow_scores_window", table_name="shadow_scores")
    op.drop_table("shadow_scores")
    op.drop_table("shadows")


def _describe(job: tuple[str, ...], first: tuple[str, ...], table: tuple[str, ...]) -> None:
    """Change what the table of pairs is said to hold, each from an old sentence to a new one."""
    if op.get_bind().dialect.name != "postgresql":
        return
    op.alter_column(
        "score_pairs",
        "job_id",
        existing_type=sa.Uuid(as_uuid=False),
        existing_nullable=True,
        comment=job[1],
        existing_comment=job[0],
    )
    op.alter_column(
        "score_pairs",
        "first_row",
        existing_type=sa.BigInteger(),
        existing_nullable=False,
        comment=first[1],
        existing_comment=first[0],
    )
    op.create_table_comment("score_pairs", table[1], existing_comment=table[0])
