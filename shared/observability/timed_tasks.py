"""The recurring tasks of the workers, and the time of each last run, in a row that /health reads.

Every worker process keeps the clock itself (worker/timer.py); the row says whether any of them still does.
"""

import math

from sqlalchemy import Connection, Engine, extract, func, select, update
from sqlalchemy import insert as generic_insert
from sqlalchemy.dialects.postgresql import insert

from shared.config.settings import Settings
from shared.database.clock import clock
from shared.tables import TimedTask

RECOVER = "recover"  # takes back what dead workers held, and wakes the workers for whatever is ready
FORGET = "forget_idempotency_keys"  # frees the idempotency keys of old jobs
COUNT = "count_scored_rows"  # counts what was scored into the bins of its version
CHECK_DRIFT = "check_drift"  # raises and closes the alerts of drift
ERASE = "erase_old_jobs"  # erases jobs that ended JOB_DAYS ago
SELF_AUDIT = "self_audit"  # scores a share of the rows again by the pipeline

_LATE_ROUNDS = 3  # so many periods without a recovery, and it is late


def note_done(connection: Connection, name: str) -> None:
    """Write down that a timed task was done just now."""
    now = func.clock_timestamp()
    done = insert(TimedTask).values(name=name, done_at=now)
    connection.execute(done.on_conflict_do_update(index_elements=[TimedTask.name], set_={"done_at": now}))


def find_mark(connection: Connection, name: str) -> tuple[int | None, float]:
    """Return how far a timed task has come, None if it has not begun, and the seconds since it was done last."""
    row = connection.execute(
        select(TimedTask.mark, TimedTask.done_at, clock(connection)).where(TimedTask.name == name)
    ).one_or_none()
    return (None, math.inf) if row is None else (row[0], (row[2] - row[1]).total_seconds())


def move_mark(connection: Connection, name: str, before: int | None, after: int) -> bool:
    """Write down how far a timed task has come; return False, and change nothing, where it is not at `before` now."""
    values = {"mark": after, "done_at": clock(connection)}
    moved = update(TimedTask).where(TimedTask.name == name, TimedTask.mark.is_not_distinct_from(before))
    if connection.execute(moved.values(values)).rowcount:
        return True
    if before is None:
        connection.execute(generic_insert(TimedTask).values(name=name, **values))
    return before is None


def seconds_since(connection: Connection, name: str) -> float | None:
    """Return the seconds since the last run of a timed task by the database's clock, None before the first one."""
    age = extract("epoch", func.clock_timestamp() - TimedTask.done_at)
    seconds = connection.scalar(select(age).where(TimedTask.name == name))
    return None if seconds is None else float(seconds)


def recovery_age(engine: Engine) -> float | None:
    """Return the seconds since the last recovery, None before the first one (queue runtime only)."""
    with engine.connect() as connection:
        return seconds_since(connection, RECOVER)


def is_recovery_late(settings: Settings, age: float | None) -> bool:
    """Return whether recovery, last done `age` seconds ago, is overdue."""
    return age is None or age > _LATE_ROUNDS * settings.recover_seconds + 1
