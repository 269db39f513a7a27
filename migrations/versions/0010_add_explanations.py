"""Add explanations: what each feature of a row adds to its score.

Revision: 0010, after 0009.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_NEW_KIND = "What the job does: predict, batch, csv, explain"
_OLD_KIND = "What the job does: predict, batch, csv"


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "explanations",
        sa.Column("id", _BIG_ID, sa.Identity(always=False), nullable=False, comment="Number of the explanation"),
        sa.Column("input_id", _BIG_ID, nullable=False, comment="The input that was explained"),
        sa.Column("model_version_id", sa.Integer(), nullable=False, comment="The version whose score was explained"),
        sa.Column(
            "row_sha256",
            sa.String(length=64),
            nullable=False,
            comment="SHA-256 of the row in canonical form: the same row of another job is found by it",
        ),
        sa.Column(
            "method",
            sa.String(length=32),
            nullable=False,
            comment="tree_interventional, tree_path_dependent, linear, enumeration or permutation_sampling",
        ),
        sa.Column(
            "scale", sa.String(length=16), nullable=False, comment="log_odds, probability, target, log_target or margin"
        ),
        sa.Column(
            "label", sa.Text(), nullable=True, comment="The class whose score was explained; null for regression"
        ),
        sa.Column("base_value", sa.Float(), nullable=False, comment="Value without knowing the row"),
        sa.Column("value", sa.Float(), nullable=False, comment="Value of the row: base_value and all contributions"),
        sa.Column(
            "prediction", sa.Float(), nullable=False, comment="The score that was explained, as in model_outputs"
        ),
        sa.Column("probability", sa.Float(), nullable=True, comment="Its probability, as in model_outputs"),
        sa.Column(
            "reference", _JSON, nullable=False, comment="The population it was compared with: {rows, source, seed}"
        ),
        sa.Column(
            "contributions",
            _JSON,
            nullable=False,
            comment="By feature, the largest first: {feature, value, contribution, reference, text, standard_error?}",
        ),
        sa.Column("top", _JSON, nullable=False, comment="The largest of them in words"),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was stored",
        ),
        sa.CheckConstraint(
            "scale IN ('log_odds', 'probability', 'target', 'log_target', 'margin')",
            name=op.f("ck_explanations_scale_known"),
        ),
        sa.ForeignKeyConstraint(
            ["input_id"], ["model_inputs.id"], name=op.f("fk_explanations_input_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_explanations_model_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_explanations")),
        sa.UniqueConstraint("input_id", "model_version_id", name=op.f("uq_explanations_input_id_model_version_id")),
        comment="What each feature of a row adds to its score: one for each input and model version",
    )
    op.create_index("ix_explanations_row", "explanations", ["model_version_id", "row_sha256"], unique=False)
    _describe_kind(_NEW_KIND, _OLD_KIND)


def downgrade() -> None:
    """Take the change back."""
    _describe_kind(_OLD_KIND, _NEW_KIND)
    op.drop_index("ix_explanations_row", table_name="explanations")
    op.drop_table("explanations")


def _describe_kind(comment: str, former: str) -> None:
    if op.get_bind().dialect.name == "postgresql":  # SQLite has no comments
        op.alter_column("jobs", "kind", existing_type=sa.String(16), comment=comment, existing_comment=former)
