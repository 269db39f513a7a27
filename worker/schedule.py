"""The recurring tasks, and their periods."""

from collections.abc import Callable
from dataclasses import dataclass

from shared.config.settings import Settings
from shared.observability.timed_tasks import CHECK_DRIFT, COUNT, ERASE, FORGET, RECOVER, SELF_AUDIT
from worker.maintenance.drift import check, count
from worker.maintenance.recovery import forget, recover, remove_models
from worker.maintenance.retention import erase
from worker.maintenance.self_audit import audit
from worker.runtime import Runtime

ERASE_SECONDS = 30.0
AUDIT_SECONDS = 2.0  # between two rounds of one process; those of two are half of it apart at least


@dataclass(frozen=True, slots=True)
class Timed:
    """A recurring task: one worker process at a time does it, every `seconds`."""

    name: str
    lock: int  # of PostgreSQL's advisory locks: any number that nobody else uses
    seconds: float
    run: Callable[[Runtime, bool], str]  # whether holders had no chance to renew their leases; what was done, in words


def schedule(settings: Settings, *, is_audited: bool = False) -> list[Timed]:
    """Return the recurring tasks of a worker process; with `is_audited`, the self-audit is one of them."""
    tasks = [
        Timed(RECOVER, 7_236_011, settings.recover_seconds, lambda runtime, spare: recover(runtime, spare=spare)),
        Timed(FORGET, 7_236_012, 3600.0, lambda runtime, _: f"{forget(runtime)}, {remove_models(runtime)}"),
    ]
    if settings.monitor_seconds:
        tasks += [
            Timed(COUNT, 7_236_013, settings.monitor_seconds, lambda runtime, _: count(runtime)),
            Timed(CHECK_DRIFT, 7_236_014, 3600.0, lambda runtime, _: check(runtime)),
        ]
    if settings.job_days:
        tasks.append(Timed(ERASE, 7_236_016, ERASE_SECONDS, lambda runtime, _: erase(runtime)))
    if is_audited and settings.self_audit_share:
        tasks.append(Timed(SELF_AUDIT, 7_236_015, AUDIT_SECONDS, lambda runtime, _: audit(runtime)))
    return tasks
