"""The self-audit by the clock of the workers of the maintenance lane: no process that only answers requests does it."""

from typing import TYPE_CHECKING, Any

from worker.runtime import Runtime

if TYPE_CHECKING:
    from shared.faults import Fault
    from shared.scoring.outputs import Output


def audit(runtime: Runtime) -> str:
    """Score a share of what was stored since the last round again; raise SQLAlchemyError without a database."""
    # Imported here, and pandas with it where a pipeline needs it: one worker process at a time audits.
    from shared.rescoring.self_audit import SelfAudit

    if runtime.self_audit is None:
        settings = runtime.settings
        runtime.self_audit = SelfAudit(
            runtime.bulk_engine,
            lambda version, rows: _score(runtime, version, rows),
            share=settings.self_audit_share,
            rows_per_second=settings.self_audit_rows_per_second,
        )
    done = runtime.self_audit.check()
    if done is None:
        return "nothing was scored"
    runtime.self_audit.store(done)
    return f"{done.row_count} rows scored again"


def _score(runtime: Runtime, version: int, rows: "list[dict[str, Any]]") -> "list[Output | Fault] | None":
    from shared.rescoring.self_audit import score_by_pipeline

    model = runtime.models.find(version)
    if model is None:
        runtime.models.requested.add(version)  # a thread loads it (shared/registry/watcher.py) for the next rows
        return None
    return score_by_pipeline(model, rows)
