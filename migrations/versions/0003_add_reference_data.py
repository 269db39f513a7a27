"""Reference data: rows like those that a model was trained on, and the file that they came from.

Revision: 0003, after 0002.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.marked_views import drop_marked_views

JSON_TEXT = sa.Text().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "reference_sets",
        sa.Column("id", sa.Integer(), nullable=False, comment="Number of the set"),
        sa.Column("model_name", sa.String(length=63), nullable=False, comment="The model; it has one set at a time"),
        sa.Column(
            "model_version_id",
            sa.Integer(),
            nullable=False,
            comment="The version whose card the rows were checked against",
        ),
        sa.Column("filename", sa.Text(), nullable=False, comment="Name of the file"),
        sa.Column("sha256", sa.String(length=64), nullable=False, comment="SHA-256 of the file, as it lay on disk"),
        sa.Column("byte_count", sa.BigInteger(), nullable=False, comment="Size of the file, in bytes, uncompressed"),
        sa.Column("delimiter", sa.String(length=1), nullable=False, comment="Character between two cells"),
        sa.Column("encoding", sa.String(length=16), nullable=False, comment="Encoding of the file"),
        sa.Column("decimal", sa.String(length=1), nullable=False, comment="Decimal mark: a point or a comma"),
        sa.Column("target", sa.Text(), nullable=True, comment="Column that holds the answers, if the file has them"),
        sa.Column("row_count", sa.Integer(), nullable=False, comment="Rows that were loaded"),
        sa.Column(
            "skipped_count",
            sa.Integer(),
            nullable=False,
            comment="Rows of the file that did not fit and were left out, as was asked",
        ),
        sa.Column("created_at", TIME, server_default=sa.func.now(), nullable=False, comment="When it was loaded"),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_reference_sets_model_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reference_sets")),
        sa.UniqueConstraint("model_name", name=op.f("uq_reference_sets_model_name")),
        comment="Reference data: which file each model's rows came from, and how it was read",
    )
    op.create_table(
        "reference_rows",
        sa.Column("set_id", sa.Integer(), nullable=False, comment="Its set"),
        sa.Column(
            "row_no", sa.Integer(), nullable=False, comment="Place among the set's rows, from 1 and without gaps"
        ),
        sa.Column("features", JSON_TEXT, nullable=False, comment="Feature name to value"),
        sa.Column(
            "target",
            JSON_TEXT,
            nullable=True,
            comment="The answer that was true: the model's class, or a number; null where the file has none",
        ),
        sa.ForeignKeyConstraint(
            ["set_id"], ["reference_sets.id"], name=op.f("fk_reference_rows_set_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("set_id", "row_no", name=op.f("pk_reference_rows")),
        comment="Rows of reference data, in canonical form",
    )


def downgrade() -> None:
    """Take the change back; the views of the models go first, since some are made of these tables."""
    drop_marked_views(op.get_bind())
    op.drop_table("reference_rows")
    op.drop_table("reference_sets")
