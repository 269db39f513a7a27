"""Add replays: jobs that decide stored rows again by another version, and the pairs of scores that they come to.

A terminal one may be queued again for what is left of it, as a CSV job may: the guard lets that through.

Revision: 0018, after 0017.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_GUARD = """
DROP TRIGGER jobs_guard ON jobs;
CREATE TRIGGER jobs_guard BEFORE UPDATE OF state, claim_token ON jobs FOR EACH ROW WHEN (NOT (
    (OLD.state = 'queued' AND NEW.state IN ('queued', 'running', 'canceled', 'expired'))
    OR (OLD.state = 'running' AND NEW.state IN ('queued', 'succeeded', 'failed', 'canceled'))
    OR (OLD.state = 'running' AND NEW.state = 'running' AND OLD.claim_token = NEW.claim_token)
    OR (OLD.state NOT IN ('queued', 'running') AND NEW.state = OLD.state)
    OR (OLD.state NOT IN ('queued', 'running') AND NEW.state = 'queued' AND {resumable})
)) EXECUTE FUNCTION jobs_refuse_transition();
"""
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)
UUID_TEXT = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
_COMMENTS = (
    (
        "jobs",
        "kind",
        sa.String(16),
        "What the job does: predict, batch, csv, explain, explain_batch",
        "What the job does: predict, batch, csv, explain, explain_batch, replay",
    ),
    (
        "job_chunks",
        "payload",
        sa.LargeBinary(),
        "Its records as UTF-8 text, compressed by zstd; empty where another job has its rows",
        "Its records as UTF-8 text, of a replay the ids of its decisions, by zstd; empty where another job has them",
    ),
)


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "replays",
        sa.Column("job_id", UUID_TEXT, nullable=False, comment="Its job"),
        sa.Column("starts_at", TIME, nullable=False, comment="Begin of the window of decisions"),
        sa.Column("ends_at", TIME, nullable=False, comment="End of the window, which is not in it"),
        sa.Column(
            "filter",
            JSON,
            nullable=False,
            comment="Which of them: {version?, features?: name to the values that count}",
        ),
        sa.Column(
            "versions",
            JSON,
            nullable=False,
            comment="Versions that decided: [{id, version, fits}]; fits: their rows are those of the job's version",
        ),
        sa.Column("cost_fp", sa.Float(), nullable=False, comment="Cost of a false positive in the report"),
        sa.Column("cost_fn", sa.Float(), nullable=False, comment="Cost of a false negative in the report"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_replays_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_replays")),
        comment="Replays: which stored decisions a job decides again by its own version",
    )
    op.create_table(
        "score_pairs",
        sa.Column("id", BIG, sa.Identity(always=False), nullable=False, comment="Number of the part"),
        sa.Column("job_id", UUID_TEXT, nullable=True, comment="The replay; null: a challenger's shadow"),
        sa.Column("model_version_id", sa.Integer(), nullable=False, comment="The version that scored the rows again"),
        sa.Column("decided_by_id", sa.Integer(), nullable=False, comment="The version that decided them"),
        sa.Column("starts_at", TIME, nullable=False, comment="When the first of them was decided"),
        sa.Column(
            "first_row",
            sa.BigInteger(),
            nullable=False,
            comment="Place of the chunk in the replay, from 0; of a shadow the first id of model_outputs",
        ),
        sa.Column("row_count", sa.Integer(), nullable=False, comment="Pairs in it"),
        sa.Column(
            "tally",
            sa.LargeBinary(),
            nullable=False,
            comment="Flips, shift, segments, largest disagreements: JSON, compressed by zstd",
        ),
        sa.Column(
            "pairs",
            sa.LargeBinary(),
            nullable=False,
            comment="Count, input ids, scores before and after, classes before and after: "
            "zstd of int64, float64, int16",
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_score_pairs_job_id"), ondelete="CASCADE"),
        *(
            sa.ForeignKeyConstraint(
                [column], ["model_versions.id"], name=op.f(f"fk_score_pairs_{column}"), ondelete="CASCADE"
            )
            for column in ("model_version_id", "decided_by_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_score_pairs")),
        sa.UniqueConstraint(
            "job_id", "first_row", "decided_by_id", name=op.f("uq_score_pairs_job_id_first_row_decided_by_id")
        ),
        comment="Rows that two versions scored: by a replay, or by a challenger in the shadow",
    )
    op.create_index(
        "ix_score_pairs_shadow",
        "score_pairs",
        ["model_version_id", "starts_at"],
        postgresql_where=sa.text("job_id IS NULL"),
        sqlite_where=sa.text("job_id IS NULL"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_GUARD.format(resumable="OLD.kind IN ('csv', 'explain_batch', 'replay')"))
        for table, column, kind, old, new in _COMMENTS:
            op.alter_column(
                table, column, existing_type=kind, existing_nullable=False, comment=new, existing_comment=old
            )


def downgrade() -> None:
    """Take the change back."""
    if op.get_bind().dialect.name == "postgresql":
        for table, column, kind, old, new in _COMMENTS:
            op.alter_column(
                table, column, existing_type=kind, existing_nullable=False, comment=old, existing_comment=new
            )
        op.execute(_GUARD.format(resumable="OLD.kind IN ('csv', 'explain_batch')"))
    op.drop_index("ix_score_pairs_shadow", table_name="score_pairs")
    op.drop_table("score_pairs")
    op.drop_table("replays")
