"""The clock of a worker process: it runs recovery and the other recurring tasks.

Every worker process keeps it, whatever its lanes, by its own monotonic clock: no process is the only one, nothing
waits for Redis, and no clock on a wall is asked. A lock of PostgreSQL lets one of them do a thing at a time; the
others find it done and wait for the next time.
"""

import logging
import math
import random
import time
from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from shared.background import Background
from shared.observability.timed_tasks import note_done, seconds_since
from worker.runtime import Runtime
from worker.schedule import Timed

log = logging.getLogger(__name__)

SLOW_SECONDS = 1.0  # a database that takes longer to answer may have let nobody renew a lease
_TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(:number)")


class Timer:
    """A thread that does each timed task when its time has come."""

    def __init__(self, runtime: Runtime, tasks: Sequence[Timed]) -> None:
        self._runtime = runtime
        self._tasks = tasks
        self._spare_until = -math.inf
        self._answers = True
        self._thread = Background(self._run, name="timer")

    def start(self) -> None:
        """Begin; processes that start together do not all ask at the same moment."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the present task."""
        self._thread.stop(2)

    def _run(self) -> None:
        due = {task.name: time.monotonic() + random.random() * min(task.seconds, 5.0) for task in self._tasks}  # noqa: S311 - no secret
        while not self._thread.wait(max(0.0, min(due.values()) - time.monotonic())):
            for task in self._tasks:
                if time.monotonic() >= due[task.name]:
                    self._try(task)
                    due[task.name] = time.monotonic() + task.seconds

    def _try(self, task: Timed) -> None:
        try:
            summary = self.do(task)
        except SQLAlchemyError as error:
            self._spare()
            if self._answers:
                log.warning("%s failed (%s); it is tried every %g s", task.name, type(error).__name__, task.seconds)
            self._answers = False
        except Exception:  # whatever it is, the next time may be a better one
            log.exception("%s failed; it is tried again in %g s", task.name, task.seconds)
        else:
            self._answers = True
            log.debug("%s: %s", task.name, summary)

    def do(self, task: Timed) -> str:
        """Do a task now, unless another process does it or has just done it; return a summary.

        Raises SQLAlchemyError if the database does not answer.
        """
        began = time.monotonic()
        with self._runtime.bulk_engine.begin() as connection:
            if not connection.scalar(_TRY_LOCK, {"number": task.lock}):
                return "another process does it"
            age = seconds_since(connection, task.name)
            if time.monotonic() - began > SLOW_SECONDS:
                self._spare()
            if age is not None and 0 <= age < task.seconds / 2:  # less than nothing: the database's clock went back
                return "another process has just done it"
            summary = task.run(self._runtime, time.monotonic() < self._spare_until)
            note_done(connection, task.name)
        return summary

    def _spare(self) -> None:
        # While the database was away, nobody could renew a lease: whoever lives gets the time to do it.
        self._spare_until = time.monotonic() + 2 * self._runtime.settings.heartbeat_seconds
