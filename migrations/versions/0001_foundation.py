"""The tables of the foundation: models, jobs, inputs, outputs, workers, keys, refusals.

Revision: 0001, the first.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
UUID_TEXT = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)

# Only illegal transitions reach the function: the WHEN clause is all that a legal one costs.
GUARD = """
CREATE FUNCTION jobs_refuse_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'job %: illegal transition from % to %', OLD.id, OLD.state, NEW.state
        USING ERRCODE = 'check_violation', HINT = 'shared/jobs.py lists the legal ones';
END $$;
CREATE TRIGGER jobs_guard BEFORE UPDATE OF state, claim_token ON jobs FOR EACH ROW WHEN (NOT (
    (OLD.state = 'queued' AND NEW.state IN ('queued', 'running', 'canceled', 'expired'))
    OR (OLD.state = 'running' AND NEW.state IN ('queued', 'succeeded', 'failed', 'canceled'))
    OR (OLD.state = 'running' AND NEW.state = 'running' AND OLD.claim_token = NEW.claim_token)
    OR (OLD.state NOT IN ('queued', 'running') AND NEW.state = OLD.state)
)) EXECUTE FUNCTION jobs_refuse_transition();
CREATE SEQUENCE claim_tokens AS bigint CACHE 64;
COMMENT ON SEQUENCE claim_tokens IS 'Fences: no two claims ever share a token';
"""

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=32), nullable=False, comment="Public part of the key"),
        sa.Column("name", sa.String(length=100), nullable=False, comment="Whose it is, in the operator's words"),
        sa.Column("sha256", sa.String(length=64), nullable=False, comment="SHA-256 of the 32 random bytes"),
        sa.Column("scopes", sa.String(length=100), nullable=False, comment="Comma-separated: predict, read, admin"),
        sa.Column("created_at", TIME, server_default=sa.func.now(), nullable=False, comment="When it was made"),
        sa.Column("revoked_at", TIME, nullable=True, comment="When it stopped to be valid"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("sha256", name=op.f("uq_api_keys_sha256")),
        comment="API keys, hashed, with their scopes",
    )
    op.create_table(
        "error_logs",
        sa.Column("id", BIG_ID, sa.Identity(always=False), nullable=False, comment="Number of the entry"),
        sa.Column("created_at", TIME, server_default=sa.func.now(), nullable=False, comment="When it happened"),
        sa.Column("request_id", sa.String(length=128), nullable=False, comment="X-Request-Id of the request"),
        sa.Column("method", sa.String(length=8), nullable=False, comment="HTTP method"),
        sa.Column("path", sa.Text(), nullable=False, comment="Path, without the query"),
        sa.Column("status", sa.SmallInteger(), nullable=False, comment="HTTP status of the answer"),
        sa.Column("code", sa.String(length=64), nullable=False, comment="Stable error code"),
        sa.Column("detail", sa.Text(), nullable=False, comment="The sentence that the caller was told"),
        sa.Column("faults", JSON, nullable=True, comment="Every fault of the rows: [{pointer, code, message}]"),
        sa.Column("job_id", UUID_TEXT, nullable=True, comment="The job that it was about, if any"),
        sa.Column("owner", sa.String(length=32), nullable=True, comment="Id of the API key, if one was known"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_error_logs")),
        comment="Refusals and failures: what was wrong, never the values",
    )
    op.create_index(op.f("ix_error_logs_request_id"), "error_logs", ["request_id"], unique=False)
    op.create_table(
        "model_versions",
        sa.Column("id", sa.Integer(), nullable=False, comment="Number that other tables refer to"),
        sa.Column("name", sa.String(length=63), nullable=False, comment="Model name, e.g. attrition"),
        sa.Column("version", sa.Integer(), nullable=False, comment="Version number, counted per name from 1"),
        sa.Column(
            "sha256",
            sa.String(length=64),
            nullable=False,
            comment="SHA-256 of model.joblib, checked before unpickling",
        ),
        sa.Column("uri", sa.Text(), nullable=False, comment="Where the package lies, relative to MODELS_DIR"),
        sa.Column(
            "card",
            sa.JSON(),
            nullable=False,
            comment="The card: all that the code knows about the model (as text: labels keep their order)",
        ),
        sa.Column(
            "scorer",
            JSON,
            nullable=False,
            comment="How it is scored: the choice, its parity with the pipeline, its speed, the rejected ones",
        ),
        sa.Column("created_at", TIME, server_default=sa.func.now(), nullable=False, comment="When it was registered"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_versions")),
        sa.UniqueConstraint("name", "version", name=op.f("uq_model_versions_name_version")),
        comment="Immutable model versions, known by the sha256 of their artefact",
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(length=128), nullable=False, comment="host:pid"),
        sa.Column("lanes", sa.String(length=128), nullable=False, comment="Lanes that it consumes, comma-separated"),
        sa.Column("models", JSON, nullable=False, comment="Loaded versions, e.g. attrition@1"),
        sa.Column("refused", JSON, nullable=False, comment="Versions that could not be loaded, and why"),
        sa.Column(
            "started_at",
            TIME,
            server_default=sa.func.now(),
            nullable=False,
            comment="When the process started",
        ),
        sa.Column("seen_at", TIME, server_default=sa.func.now(), nullable=False, comment="When it was heard of last"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
        comment="Worker processes, by their last heartbeat",
    )
    op.create_table(
        "jobs",
        sa.Column("id", UUID_TEXT, nullable=False, comment="UUIDv7: sorts by time of arrival"),
        sa.Column("kind", sa.String(length=16), nullable=False, comment="What the job does: predict, batch"),
        sa.Column("lane", sa.String(length=16), nullable=False, comment="Celery queue whose workers may claim it"),
        sa.Column(
            "state",
            sa.String(length=16),
            nullable=False,
            comment="queued, running, or one of the four terminal states",
        ),
        sa.Column("model_version_id", sa.Integer(), nullable=False, comment="The exact version that it runs on"),
        sa.Column(
            "owner",
            sa.String(length=32),
            nullable=True,
            comment="Id of the API key that sent it; null where AUTH=open",
        ),
        sa.Column(
            "request_id",
            sa.String(length=128),
            nullable=False,
            comment="X-Request-Id of the request that made it",
        ),
        sa.Column("traceparent", sa.String(length=64), nullable=True, comment="W3C trace context of that request"),
        sa.Column("priority", sa.SmallInteger(), server_default="0", nullable=False, comment="Lower runs earlier"),
        sa.Column("row_count", sa.Integer(), nullable=False, comment="Rows in the request"),
        sa.Column(
            "failed_count",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="Rows without an output in the end",
        ),
        sa.Column("attempt", sa.SmallInteger(), server_default="0", nullable=False, comment="Claims so far"),
        sa.Column("max_attempts", sa.SmallInteger(), nullable=False, comment="Claims after which a death is final"),
        sa.Column(
            "crash_count",
            sa.SmallInteger(),
            server_default="0",
            nullable=False,
            comment="Claims that died; above 0 it is claimed alone",
        ),
        sa.Column(
            "claim_token",
            sa.BigInteger(),
            nullable=True,
            comment="Fence: only the holder of this number may finish the job",
        ),
        sa.Column("leased_by", sa.String(length=128), nullable=True, comment="Worker that holds the claim"),
        sa.Column("lease_expires_at", TIME, nullable=True, comment="When the claim is given up unless it is renewed"),
        sa.Column("claimed_at", TIME, nullable=True, comment="When the present claim was taken"),
        sa.Column(
            "run_after",
            TIME,
            server_default=sa.func.now(),
            nullable=False,
            comment="Not to be claimed before (backoff)",
        ),
        sa.Column("expires_at", TIME, nullable=True, comment="Not to be claimed after: expires_in of the request"),
        sa.Column("timeout_seconds", sa.Float(), nullable=False, comment="How long one run may take, in seconds"),
        sa.Column(
            "cancel_requested_at",
            TIME,
            nullable=True,
            comment="When its caller asked to cancel it while it ran",
        ),
        sa.Column("created_at", TIME, server_default=sa.func.now(), nullable=False, comment="When it was accepted"),
        sa.Column("started_at", TIME, nullable=True, comment="When it was claimed first"),
        sa.Column("finished_at", TIME, nullable=True, comment="When it became terminal"),
        sa.Column("error", JSON, nullable=True, comment="Why it failed: {code, message}"),
        sa.Column("idempotency_scope", sa.String(length=128), nullable=True, comment="Caller and route of the key"),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True, comment="Idempotency-Key of the request"),
        sa.Column(
            "body_hash",
            sa.String(length=64),
            nullable=True,
            comment="SHA-256 of the body, to tell a retry from another request with the same key",
        ),
        sa.CheckConstraint(
            "(finished_at IS NOT NULL) = (state NOT IN ('queued', 'running'))",
            name=op.f("ck_jobs_finished_when_terminal"),
        ),
        sa.CheckConstraint(
            "(state = 'running') = (claim_token IS NOT NULL)", name=op.f("ck_jobs_claimed_while_running")
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed', 'canceled', 'expired')",
            name=op.f("ck_jobs_state_known"),
        ),
        sa.CheckConstraint("row_count >= 1", name=op.f("ck_jobs_has_rows")),
        sa.ForeignKeyConstraint(["model_version_id"], ["model_versions.id"], name=op.f("fk_jobs_model_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        comment="Accepted requests and where they stand",
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(
        "ix_jobs_expiring",
        "jobs",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("state = 'queued' AND expires_at IS NOT NULL"),
        sqlite_where=sa.text("state = 'queued' AND expires_at IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_leases",
        "jobs",
        ["lease_expires_at"],
        unique=False,
        postgresql_where=sa.text("state = 'running'"),
        sqlite_where=sa.text("state = 'running'"),
    )
    op.create_index(
        "ix_jobs_ready",
        "jobs",
        ["model_version_id", "lane", "priority", "run_after", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
        sqlite_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "uq_jobs_idempotency",
        "jobs",
        ["idempotency_scope", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
        sqlite_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_table(
        "model_aliases",
        sa.Column("id", sa.Integer(), nullable=False, comment="Number of the alias"),
        sa.Column("name", sa.String(length=63), nullable=False, comment="Model name"),
        sa.Column("alias", sa.String(length=63), nullable=False, comment="Alias, e.g. champion"),
        sa.Column("model_version_id", sa.Integer(), nullable=False, comment="The version that it means now"),
        sa.Column("updated_at", TIME, server_default=sa.func.now(), nullable=False, comment="When it was moved last"),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_model_aliases_model_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_aliases")),
        sa.UniqueConstraint("name", "alias", name=op.f("uq_model_aliases_name_alias")),
        comment="Movable names of versions: champion serves by default",
    )
    op.create_table(
        "model_inputs",
        sa.Column("id", BIG_ID, sa.Identity(always=False), nullable=False, comment="Number of the row"),
        sa.Column("job_id", UUID_TEXT, nullable=False, comment="Its job"),
        sa.Column("row_index", sa.Integer(), nullable=False, comment="Place in the request, from 0"),
        sa.Column(
            "features",
            sa.Text().with_variant(postgresql.JSONB(), "postgresql"),
            nullable=False,
            comment="Feature name to value; the row as sent where it did not fit the card",
        ),
        sa.Column("faults", JSON, nullable=True, comment="Why the row has no output: [{pointer, code, message}]"),
        sa.Column("created_at", TIME, server_default=sa.func.now(), nullable=False, comment="When it was stored"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_model_inputs_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_inputs")),
        sa.UniqueConstraint("job_id", "row_index", name=op.f("uq_model_inputs_job_id_row_index")),
        comment="Every row that was accepted, in canonical form",
    )
    op.create_table(
        "model_outputs",
        sa.Column("id", BIG_ID, sa.Identity(always=False), nullable=False, comment="Number of the score"),
        sa.Column("input_id", BIG_ID, nullable=False, comment="The input that was scored"),
        sa.Column("model_version_id", sa.Integer(), nullable=False, comment="The version that scored it"),
        sa.Column("task", sa.String(length=16), nullable=False, comment="binary, multiclass or regression"),
        sa.Column(
            "prediction",
            sa.Float(),
            nullable=False,
            comment="Class index (binary: 0 or 1), or the number that regression predicts",
        ),
        sa.Column("label", sa.Text(), nullable=True, comment="Name of the predicted class"),
        sa.Column(
            "probability",
            sa.Float(),
            nullable=True,
            comment="Binary: of the positive class; multiclass: of the predicted one",
        ),
        sa.Column("probabilities", JSON, nullable=True, comment="Multiclass: of every class, in the card's order"),
        sa.Column("threshold", sa.Float(), nullable=True, comment="Binary: the threshold that decided"),
        sa.Column("created_at", TIME, server_default=sa.func.now(), nullable=False, comment="When it was stored"),
        sa.CheckConstraint(
            "CASE task WHEN 'binary' THEN prediction IN (0, 1) AND label IS NOT NULL "
            "WHEN 'multiclass' THEN prediction >= 0 AND label IS NOT NULL "
            "ELSE label IS NULL AND probability IS NULL AND threshold IS NULL END",
            name=op.f("ck_model_outputs_prediction_fits_task"),
        ),
        sa.CheckConstraint("task IN ('binary', 'multiclass', 'regression')", name=op.f("ck_model_outputs_task_known")),
        sa.CheckConstraint("probability BETWEEN 0 AND 1", name=op.f("ck_model_outputs_probability_is_one")),
        sa.ForeignKeyConstraint(
            ["input_id"], ["model_inputs.id"], name=op.f("fk_model_outputs_input_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_model_outputs_model_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_outputs")),
        sa.UniqueConstraint("input_id", "model_version_id", name=op.f("uq_model_outputs_input_id_model_version_id")),
        comment="Scores: one for each input and model version",
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(GUARD)


def downgrade() -> None:
    """Take the change back."""
    for table in (
        "model_outputs",
        "model_inputs",
        "model_aliases",
        "jobs",
        "workers",
        "model_versions",
        "error_logs",
        "api_keys",
    ):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION jobs_refuse_transition")
        op.execute("DROP SEQUENCE claim_tokens")
