"""Add the incidents of the self-audit, and how far a timed task has come.

Revision: 0019, after 0018.
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_KINDS = ("What was checked: drift", "What was checked: drift, or self_audit")


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "incidents",
        sa.Column("id", BIG, sa.Identity(always=False), nullable=False, comment="Number of the incident"),
        sa.Column("alert_id", BIG, nullable=False, comment="Its alert, of the kind self_audit"),
        sa.Column("input_id", BIG, nullable=False, comment="The row"),
        sa.Column("prediction", sa.Float(), nullable=False, comment="What was stored, as in model_outputs"),
        sa.Column("probability", sa.Float(), nullable=True, comment="What was stored, as in model_outputs"),
        sa.Column(
            "expected_prediction",
            sa.Float(),
            nullable=True,
            comment="What the pipeline gives; null: it refuses the row",
        ),
        sa.Column("expected_probability", sa.Float(), nullable=True, comment="What the pipeline gives"),
        sa.Column(
            "difference",
            sa.Float(),
            nullable=True,
            comment="Largest distance of the numbers, relative for those beyond 1; null: it refuses the row",
        ),
        sa.Column("found_at", sa.DateTime(timezone=True), nullable=False, comment="When it was found"),
        sa.ForeignKeyConstraint(["alert_id"], ["alerts.id"], name=op.f("fk_incidents_alert_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["input_id"], ["model_inputs.id"], name=op.f("fk_incidents_input_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incidents")),
        comment="Rows that the self-audit scored otherwise: the first thousand of each alert",
    )
    op.create_index(op.f("ix_incidents_alert_id"), "incidents", ["alert_id"], unique=False)
    op.create_index(op.f("ix_incidents_input_id"), "incidents", ["input_id"], unique=False)
    op.add_column(
        "timed_tasks",
        sa.Column(
            "mark",
            sa.BigInteger(),
            nullable=True,
            comment="How far it had come then, where it goes on from there: an id of model_outputs",
        ),
    )
    _describe_kind(*_KINDS)


def downgrade() -> None:
    """Undo it."""
    _describe_kind(*reversed(_KINDS))
    op.drop_column("timed_tasks", "mark")
    op.drop_index(op.f("ix_incidents_input_id"), table_name="incidents")
    op.drop_index(op.f("ix_incidents_alert_id"), table_name="incidents")
    op.drop_table("incidents")


def _describe_kind(old: str, new: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column(
            "alerts",
            "kind",
            existing_type=sa.String(16),
            existing_nullable=False,
            comment=new,
            existing_comment=old,
        )
