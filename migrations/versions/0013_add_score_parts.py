"""Add score_parts, a packed copy of scores; every version's rows are counted anew, which fills it.

Revision: 0013, after 0012.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_PACKED = ("input_ids", "scores", "decisions")


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "score_parts",
        sa.Column("model_version_id", sa.Integer(), nullable=False, comment="The version that scored them"),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False, comment="Begin of the hour, in UTC"),
        sa.Column(
            "part",
            sa.Integer(),
            autoincrement=False,
            nullable=False,
            comment="Place among the parts of the hour, from 0",
        ),
        sa.Column("row_count", sa.Integer(), nullable=False, comment="Scores in it"),
        sa.Column("threshold", sa.Float(), nullable=True, comment="Binary: the threshold that decided all of them"),
        sa.Column("input_ids", sa.LargeBinary(), nullable=False, comment="Ids of model_inputs: int64, little-endian"),
        sa.Column(
            "scores",
            sa.LargeBinary(),
            nullable=False,
            comment="Probabilities, of a regression its numbers: float64, little-endian; NaN: none",
        ),
        sa.Column(
            "decisions",
            sa.LargeBinary(),
            nullable=False,
            comment="Class indexes: int16, little-endian; empty for a regression",
        ),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.id"],
            name=op.f("fk_score_parts_model_version_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("model_version_id", "starts_at", "part", name=op.f("pk_score_parts")),
        comment="Packed copy of scores by version and hour, for questions about many of them",
    )
    if op.get_bind().dialect.name == "postgresql":
        for name in _PACKED:  # numbers like these do not become smaller, and looking whether they do takes time
            op.execute(f"ALTER TABLE score_parts ALTER COLUMN {name} SET STORAGE EXTERNAL")
    # Lower than counted_through: the version is counted anew, from its first row on, which packs its scores.
    op.add_column(
        "feature_profiles",
        sa.Column(
            "packed_through",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="The same of score_parts; lower where an older release counted",
        ),
    )


def downgrade() -> None:
    """Take the change back."""
    op.drop_column("feature_profiles", "packed_through")
    op.drop_table("score_parts")
