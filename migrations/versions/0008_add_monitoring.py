"""Outcomes of scored rows, the counters of drift and their alerts: four new tables, which earlier code does not know.

Revision: 0008, after 0007.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

TIME = sa.DateTime(timezone=True)
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "alerts",
        sa.Column("id", BIG_ID, sa.Identity(always=False), nullable=False, comment="Number of the alert"),
        sa.Column("model_version_id", sa.Integer(), nullable=False, comment="The version that it is about"),
        sa.Column("kind", sa.String(length=16), nullable=False, comment="What was checked: drift"),
        sa.Column("subject", sa.String(length=200), nullable=False, comment="The feature, `score` or `decision`"),
        sa.Column("level", sa.String(length=16), nullable=False, comment="low, moderate or high, as it was found last"),
        sa.Column(
            "details",
            sa.JSON(none_as_null=True).with_variant(
                postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), "postgresql"
            ),
            nullable=False,
            comment="The figures behind the level: window, PSI, p-value",
        ),
        sa.Column("opened_at", TIME, server_default=sa.text("now()"), nullable=False, comment="When it was raised"),
        sa.Column(
            "seen_at", TIME, server_default=sa.text("now()"), nullable=False, comment="When the check found it last"
        ),
        sa.Column("closed_at", TIME, nullable=True, comment="When the check found it no longer"),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_alerts_model_version_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
        comment="Alerts of the timed checks: one open alert for each version, kind and subject",
    )
    op.create_index(
        "uq_alerts_open",
        "alerts",
        ["model_version_id", "kind", "subject"],
        unique=True,
        postgresql_where=sa.text("closed_at IS NULL"),
        sqlite_where=sa.text("closed_at IS NULL"),
    )
    op.create_table(
        "feature_counts",
        sa.Column("model_version_id", sa.Integer(), nullable=False, comment="The version that scored them"),
        sa.Column("span", sa.String(length=4), nullable=False, comment="hour, or day: the sum of its hours"),
        sa.Column("starts_at", TIME, nullable=False, comment="Begin of the period, in UTC"),
        sa.Column("row_count", sa.Integer(), nullable=False, comment="Rows that were scored in it"),
        sa.Column(
            "counts",
            sa.Text(),
            nullable=False,
            comment="Rows by bin: one number for each bin of the profile, in its order",
        ),
        sa.CheckConstraint("span IN ('hour', 'day')", name=op.f("ck_feature_counts_span_known")),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.id"],
            name=op.f("fk_feature_counts_model_version_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("model_version_id", "span", "starts_at", name=op.f("pk_feature_counts")),
        comment="Counters of drift: scored rows by version, period and bin; no value of a row",
    )
    op.create_table(
        "feature_profiles",
        sa.Column("model_version_id", sa.Integer(), nullable=False, comment="The version"),
        sa.Column(
            "profile",
            sa.Text(),
            nullable=False,
            comment="Bins of each feature, of the score and of the decision, with the counts of the reference",
        ),
        sa.Column(
            "source",
            sa.String(length=64),
            nullable=False,
            comment="sample: the rows of the package; else the SHA-256 of the loaded reference data",
        ),
        sa.Column("row_count", sa.Integer(), nullable=False, comment="Rows of the reference"),
        sa.Column(
            "counted_through",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="Watermark: model_outputs up to this id are counted",
        ),
        sa.Column("made_at", TIME, server_default=sa.text("now()"), nullable=False, comment="When it was made"),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.id"],
            name=op.f("fk_feature_profiles_model_version_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("model_version_id", name=op.f("pk_feature_profiles")),
        comment="Bins and reference counts of each model version, and how far its rows are counted",
    )
    op.create_table(
        "outcomes",
        sa.Column("id", BIG_ID, sa.Identity(always=False), nullable=False, comment="Number of the outcome"),
        sa.Column("input_id", BIG_ID, nullable=False, comment="The row that it is the truth of"),
        sa.Column(
            "revision", sa.SmallInteger(), nullable=False, comment="1 for the first value of a row, then 2, 3, ..."
        ),
        sa.Column(
            "actual",
            sa.Float(),
            nullable=False,
            comment="Class index as in model_outputs.prediction (binary: 0 or 1), or the number of a regression",
        ),
        sa.Column("label", sa.Text(), nullable=True, comment="Name of the class; null for a regression"),
        sa.Column("observed_at", TIME, nullable=True, comment="When it was observed, if the caller said"),
        sa.Column("recorded_at", TIME, server_default=sa.text("now()"), nullable=False, comment="When it was stored"),
        sa.Column(
            "recorded_by",
            sa.String(length=32),
            nullable=True,
            comment="Id of the API key that sent it; null where AUTH=open",
        ),
        sa.Column(
            "request_id", sa.String(length=128), nullable=False, comment="X-Request-Id of the request that brought it"
        ),
        sa.Column(
            "replaced_at", TIME, nullable=True, comment="When a revision took its place; null for the value in force"
        ),
        sa.CheckConstraint("revision >= 1", name=op.f("ck_outcomes_revision_from_one")),
        sa.ForeignKeyConstraint(
            ["input_id"], ["model_inputs.id"], name=op.f("fk_outcomes_input_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outcomes")),
        sa.UniqueConstraint("input_id", "revision", name=op.f("uq_outcomes_input_id_revision")),
        comment="Ground truth of scored rows, with every earlier value",
    )
    op.create_index(
        "uq_outcomes_current",
        "outcomes",
        ["input_id"],
        unique=True,
        postgresql_where=sa.text("replaced_at IS NULL"),
        sqlite_where=sa.text("replaced_at IS NULL"),
    )


def downgrade() -> None:
    """Take the change back."""
    op.drop_index(
        "uq_outcomes_current",
        table_name="outcomes",
        postgresql_where=sa.text("replaced_at IS NULL"),
        sqlite_where=sa.text("replaced_at IS NULL"),
    )
    op.drop_table("outcomes")
    op.drop_table("feature_profiles")
    op.drop_table("feature_counts")
    op.drop_index(
        "uq_alerts_open",
        table_name="alerts",
        postgresql_where=sa.text("closed_at IS NULL"),
        sqlite_where=sa.text("closed_at IS NULL"),
    )
    op.drop_table("alerts")
