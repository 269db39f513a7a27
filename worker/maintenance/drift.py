"""Recurring tasks for drift: count scored rows, open and close alerts."""

from typing import TYPE_CHECKING, Any

from worker.runtime import Runtime

if TYPE_CHECKING:
    from shared.faults import Fault
    from shared.scoring.outputs import Output

PART = 0.4  # of the time between two recoveries, for one run: the same thread does both
PAUSE_SECONDS = 0.02  # after each thousand rows: whoever scores in this process comes first


def count(runtime: Runtime) -> str:
    """Count the rows scored since the last run, for about two seconds; raise SQLAlchemyError without a database."""
    # Imported here: one worker process at a time counts, and the others can do without.
    from shared.monitoring.counting import Counting

    if runtime.counting is None:
        settings = runtime.settings
        runtime.counting = Counting(
            runtime.bulk_engine,
            settings.models,
            settings.models_uri,
            lambda version, rows: _score(runtime, version, rows),
        )
    rows = runtime.counting.run(seconds=PART * runtime.settings.recover_seconds, pause=PAUSE_SECONDS)
    return f"{rows} rows counted"


def check(runtime: Runtime) -> str:
    """Compare each version's last day with its reference; raise and close alerts."""
    from shared.monitoring.drift.alerts import update_drift_alerts

    return update_drift_alerts(runtime.bulk_engine)


def _score(runtime: Runtime, version: int, rows: "list[dict[str, Any]]") -> "list[Output | Fault] | None":
    from shared.scoring.batch import score_rows

    model = runtime.models.find(version)
    return None if model is None else score_rows(model, rows)
