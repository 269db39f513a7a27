"""The services of one API process, opened and closed with it."""

import asyncio
from collections.abc import Sequence

from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

from api.auth.rate_limit import Quota
from api.http.held_bodies import HeldBodies
from api.logs.error_log import ErrorLogWriter
from api.logs.request_log import RequestLogWriter
from api.models.catalog import Catalog
from api.runtimes.acceptance import Acceptance
from api.runtimes.followers import JobFollowers
from api.runtimes.idempotency import KeysInFlight
from api.runtimes.runtime import Runtime
from shared.config.settings import Settings
from shared.database.engine import make_engine, reader
from shared.observability import tracing


class Services:
    """Everything that the routes need."""

    def __init__(self, settings: Settings, *, routes: Sequence[BaseRoute] = ()) -> None:
        self.settings = settings
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
        self.request_log = RequestLogWriter(
            self.engine,
            days=settings.request_log_days,
            rows=settings.request_log_rows,
            is_open=settings.auth == "open",
            routes=routes,
        )
        self.keys_in_flight = KeysInFlight()
        self.followers = JobFollowers(self.reader)
        self.closing = asyncio.Event()  # the process is about to stop: what would go on for ever ends
        of_one = max(settings.max_bodies_bytes // 2, settings.max_body_bytes)
        self.held_bodies = HeldBodies(settings.max_bodies_bytes, of_one=of_one)
        self.runtime = self._make_runtime()
        self.quota = Quota(settings.rate_per_minute, settings.rate_burst, shared=self.runtime.buckets)

    def _make_runtime(self) -> Runtime:
        # Imported here: each runtime needs libraries that the other can do without, and memory counts.
        if self.settings.runtime == "queue":
            from api.runtimes.queue.runtime import QueueRuntime

            return QueueRuntime(self.engine, self.settings, self.catalog, self.keys_in_flight)
        from api.runtimes.sync.runtime import SyncRuntime

        return SyncRuntime(self.engine, self.settings, self.keys_in_flight, self.followers)

    def start(self) -> None:
        """Start every thread; call it on the event loop."""
        self.catalog.start()
        self.refusals.start()
        self.request_log.start()
        self.acceptance.start()
        self.runtime.start()
        self.followers.start()

    def close(self) -> None:
        """End what would go on for ever, because the process is about to stop; call it on the event loop."""
        self.followers.close()
        self.closing.set()

    def stop(self) -> None:
        """Commit and store what waits, then stop every thread; for a thread."""
        self.followers.stop()
        self.runtime.stop()
        self.acceptance.stop()
        self.catalog.stop()
        self.refusals.stop()
        self.request_log.stop()
        if (traced := tracing.current()) is not None:
            traced.stop()
        self.bulk_engine.dispose()
        self.engine.dispose()


def services_of(connection: HTTPConnection) -> Services:
    """Return the services of the process that handles this request."""
    services: Services = connection.app.state.services
    return services
