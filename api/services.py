"""What one API process holds; opened and closed with it."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from api.auth.rate_limit import Quota
from api.http.held_bodies import HeldBodies
from api.logs.error_log import ErrorLogWriter
from api.models.catalog import Catalog
from api.runtimes.acceptance import Acceptance
from api.runtimes.group_commit import Commit, Intake, Intakes
from api.runtimes.idempotency import KeysInFlight
from shared.broker.names import Lane
from shared.config.settings import Settings
from shared.database.engine import make_engine, reader

if TYPE_CHECKING:
    from api.runtimes.queue import QueueRuntime
    from api.runtimes.sync import SyncRuntime


class Services:
    """Everything that the routes need: `queue` or `sync` is set, by the runtime."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.started_at = time.monotonic()
        self.engine = make_engine(settings.database, autocommit=settings.runtime == "queue")
        self.reader = reader(self.engine)
        # CSV files are stored, canceled and read in transactions of several statements; it connects when it is used.
        self.bulk_engine = make_engine(settings.database, pool_size=4) if settings.runtime == "queue" else self.engine
        self.catalog = Catalog(self.reader, settings)
        self.acceptance = Acceptance(self.engine, every=settings.refresh_seconds)
        self.refusals = ErrorLogWriter(
            self.engine,
            days=settings.error_log_days,
            rows=settings.error_log_rows,
            is_open=settings.auth == "open",
        )
        self.keys_in_flight = KeysInFlight()
        of_one = max(settings.max_bodies_bytes // 2, settings.max_body_bytes)
        self.held_bodies = HeldBodies(settings.max_bodies_bytes, of_one=of_one)
        self.queue: QueueRuntime | None = None
        self.sync: SyncRuntime | None = None
        # Imported here: each runtime needs libraries that the other can do without, and memory counts.
        if settings.runtime == "queue":
            from api.runtimes import queue

            self.queue = queue.QueueRuntime(self.engine, settings)
            self.quota = Quota(settings.rate_per_minute, settings.rate_burst, shared=self.queue.buckets)
            self.intake: Intake | Intakes = self._intake(self.queue.commit)
        else:
            from api.runtimes import sync as sync_runtime

            self.quota = Quota(settings.rate_per_minute, settings.rate_burst)
            sync = self.sync = sync_runtime.SyncRuntime(self.engine, settings)
            self.intake = Intakes(lambda version: self._intake(sync.commit, is_scoring=lambda: sync.is_busy(version)))

    def _intake(self, commit: Commit, *, is_scoring: Callable[[], bool] = lambda: False) -> Intake:
        settings = self.settings
        return Intake(commit, max_group=settings.max_group, max_waiting=settings.max_waiting, is_scoring=is_scoring)

    def start(self) -> None:
        """Start every thread; call it on the event loop."""
        self.catalog.start()
        self.refusals.start()
        self.acceptance.start()
        if self.queue is not None:
            self.queue.start()
        if self.sync is not None:
            self.sync.start()
        self.intake.start()

    def stop(self) -> None:
        """Commit and store what waits, then stop every thread."""
        self.intake.stop()
        self.acceptance.stop()
        self.catalog.stop()
        if self.queue is not None:
            self.queue.stop()
        if self.sync is not None:
            self.sync.stop()
        self.refusals.stop()
        self.bulk_engine.dispose()
        self.engine.dispose()

    def notify_bulk(self, model_version_id: int) -> None:
        """Wake whoever scores the chunks of CSV files; safe from any thread, returns at once."""
        if self.queue is not None:
            self.queue.notifier.notify(Lane.BULK, model_version_id)
        if self.sync is not None:
            self.sync.chunks.wake()


def services_of(connection: HTTPConnection) -> Services:
    """Return the services of the process that handles this request."""
    services: Services = connection.app.state.services
    return services
