"""Add the view `lineage`: each row of a job with everything that led to its score, and what became of it.

Revision: 0012, after 0011.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# The request that made a job is the first of its X-Request-Id that ended after the job was accepted: a client may send
# one id several times. The clocks of the API and of the database may differ a little.
_VIEW = """
CREATE VIEW lineage AS
SELECT
    i.id AS input_id,
    i.job_id,
    i.row_index,
    j.request_id,
    j.owner AS caller,
    r.method AS request_method,
    r.route AS request_route,
    r.status AS request_status,
    r.input_hash AS request_input_hash,
    j.kind AS job_kind,
    j.lane AS job_lane,
    j.state AS job_state,
    j.attempt AS job_attempts,
    j.crash_count AS job_crashes,
    j.created_at AS accepted_at,
    j.started_at,
    j.finished_at,
    j.error AS job_error,
    v.name AS model,
    v.version AS model_version,
    v.sha256 AS model_sha256,
    v.uri AS model_uri,
    v.created_at AS model_registered_at,
    p.created_at AS model_promoted_at,
    p.actor AS model_promoted_by,
    i.features,
    i.faults,
    o.id AS output_id,
    o.prediction,
    o.label,
    o.probability,
    o.threshold,
    o.created_at AS scored_at,
    e.id AS explanation_id,
    e.method AS explanation_method,
    e.top AS explanation_top,
    c.actual AS outcome,
    c.label AS outcome_label,
    c.revision AS outcome_revision,
    c.observed_at AS outcome_observed_at,
    c.recorded_at AS outcome_recorded_at,
    c.recorded_by AS outcome_recorded_by
FROM model_inputs i
JOIN jobs j ON j.id = i.job_id
JOIN model_versions v ON v.id = j.model_version_id
LEFT JOIN model_outputs o ON o.input_id = i.id AND o.model_version_id = j.model_version_id
LEFT JOIN explanations e ON e.input_id = i.id AND e.model_version_id = j.model_version_id
LEFT JOIN outcomes c ON c.input_id = i.id AND c.replaced_at IS NULL
LEFT JOIN request_logs r ON r.id = (
    SELECT min(q.id) FROM request_logs q
    WHERE q.request_id = j.request_id AND q.method IN ('POST', 'PUT') AND q.created_at >= {accepted}
)
LEFT JOIN audit_logs p ON p.id = (
    SELECT max(a.id) FROM audit_logs a
    WHERE a.action = 'model.promoted' AND a.target = v.name || '@' || v.version AND a.created_at <= j.created_at
)
"""
_ACCEPTED = {"postgresql": "j.created_at - interval '5 seconds'", "sqlite": "j.created_at"}
_COMMENT = (
    "Each row of a job with its request, version, artefact, score, explanation and outcome: why somebody got an answer"
)


def upgrade() -> None:
    """Apply the change."""
    dialect = op.get_bind().dialect.name
    op.execute(_VIEW.format(accepted=_ACCEPTED[dialect]))
    if dialect == "postgresql":
        op.execute(f"COMMENT ON VIEW lineage IS '{_COMMENT}'")


def downgrade() -> None:
    """Take the change back."""
    op.execute("DROP VIEW lineage")
