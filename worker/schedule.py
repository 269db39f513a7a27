"""What is done by the clock, and how often."""

from collections.abc import Callable
from dataclasses import dataclass

from shared.config.settings import Settings
from shared.observability.timed_tasks import FORGET, RECOVER
from worker.maintenance.recovery import forget, recover
from worker.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Timed:
    """Something that one worker process after the other does every so many seconds."""

    name: str
    lock: int  # of PostgreSQL's advisory locks: any number that nobody else uses
    seconds: float
    run: Callable[[Runtime, bool], str]  # whether holders had no chance to renew their leases; what was done, in words


def schedule(settings: Settings) -> list[Timed]:
    """Return what every worker process does by the clock."""
    return [
        Timed(RECOVER, 7_236_011, settings.recover_seconds, lambda runtime, spare: recover(runtime, spare=spare)),
        Timed(FORGET, 7_236_012, 3600.0, lambda runtime, _: forget(runtime)),
    ]
