"""Notes every request for request_logs and the metrics; a thread stores the notes, beside the requests.

To note a request costs about a microsecond: it is put at the end of a queue. Everything else, to find its route's name,
to hash its input, to store it, is the thread's. A queue that is full drops notes, counts them, and says so in the log.

A table that anyone may fill is bounded as error_logs is: where callers need a key, refusals of those without one are
stored PER_MINUTE_UNKNOWN times a minute and only counted beyond it; entries that are old, or beyond so many, go.
"""

import hashlib
import hmac
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, insert
from sqlalchemy.exc import InterfaceError, OperationalError
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from api.logs.error_log import PATH_LENGTH
from api.logs.pruning import PRUNE_SECONDS, prune
from shared.background import Background
from shared.database.prepared import Statement, array
from shared.faults import storable
from shared.observability.metrics import (
    FLUSH_SECONDS,
    HTTP_REQUESTS,
    HTTP_SECONDS,
    LOST_LOG_ENTRIES,
    METRICS,
    Metrics,
)
from shared.observability.secret import shared_secret
from shared.tables import RequestLog

log = logging.getLogger(__name__)

MAX_WAITING = 50_000  # notes; beyond it they are dropped and counted
MAX_HELD_BYTES = 20_000_000  # of inputs that wait for their hash; beyond it an entry has none
MAX_GROUP = 1_000
PER_MINUTE_UNKNOWN = 100
NO_ROUTE = "(none)"
SECRET = "input_hash"  # noqa: S105 - the name of one

# And what is followed as long as a page is open, which would stand among the latencies.
_PROBES = frozenset({"/livez", "/readyz", "/health", "/metrics", "/console/live"})
_STORE_SECONDS = 1.0
_MAX_PATHS = 1_024

_STORE = Statement(
    "store_request_logs",
    (
        *("float8[]", "text[]", "text[]", "text[]", "text[]", "int[]", "float8[]", "float8[]"),
        *("text[]", "text[]", "text[]"),
    ),
    """
INSERT INTO request_logs (created_at, request_id, method, route, path, status, duration_ms, size, owner, model,
                          input_hash)
SELECT to_timestamp(at), request_id, method, route, path, status, duration_ms, size, owner, model, input_hash
FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
    AS t (at, request_id, method, route, path, status, duration_ms, size, owner, model, input_hash)
""",
)


@dataclass(slots=True)
class _Note:
    at: float
    request_id: str
    method: str
    path: str
    status: int
    seconds: float
    size: int
    owner: str | None
    model: str | None
    route: str | None
    input: bytes | None


class RequestLogWriter:
    """A queue of notes and the thread that stores them.

    `days` and `rows` are how long and how many entries are kept; with 0 rows none is, and only the metrics count.
    `is_open` is whether callers need no key. `routes` are those of the application.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        days: float,
        rows: int,
        is_open: bool,
        routes: Sequence[BaseRoute],
        metrics: Metrics = METRICS,
    ) -> None:
        self._engine = engine
        self._days = days
        self._rows = rows
        self._is_open = is_open
        self._routes = RouteNames(routes)
        self._metrics = metrics
        self._notes: deque[_Note] = deque()
        self._held = 0  # bytes of inputs; the event loop adds, the thread takes away
        self._lock = threading.Lock()
        self._lost = 0
        self._minute = 0
        self._unknown = 0  # refusals of unknown callers that were stored this minute
        self._secret: bytes | None = None
        self._flushed_at = time.monotonic()
        self._pruned_at = time.monotonic() - PRUNE_SECONDS
        self._thread = Background(self._run, name="request-log")

    def start(self) -> None:
        """Begin to store."""
        self._thread.start()

    def stop(self) -> None:
        """Store what waits, then stop; wait 5 s at most."""
        self._thread.stop(5)

    def note(self, scope: Scope, method: str, path: str, status: int, size: int, seconds: float) -> None:
        """Take note of an answered request; returns at once. Call it on the event loop."""
        if len(self._notes) >= MAX_WAITING:
            self._lost += 1
            return
        body = scope.get("input") if self._rows else None
        if body is not None:
            if self._held > MAX_HELD_BYTES:
                body = None
            else:
                with self._lock:
                    self._held += len(body)
        route = scope.get("route")
        self._notes.append(
            _Note(
                time.time(),
                scope["request_id"],
                method,
                path,
                status,
                seconds,
                size,
                scope.get("owner"),
                scope.get("served"),
                None if route is None else route.path,
                body,
            )
        )

    def _run(self) -> None:
        while True:
            is_last = self._thread.wait(_STORE_SECONDS)
            while group := self._take():
                if notes := [note for note in group if self._is_stored(note)]:
                    self._store(notes)
            self._tell_lost()
            if is_last or time.monotonic() - self._flushed_at > FLUSH_SECONDS:
                self._flushed_at = time.monotonic()
                self._flush()
            if is_last:
                return
            if self._rows and time.monotonic() - self._pruned_at > PRUNE_SECONDS:
                self._prune()

    def _take(self) -> list[_Note]:
        group: list[_Note] = []
        with suppress(IndexError):
            while len(group) < MAX_GROUP:
                note = self._notes.popleft()
                note.route = note.route or self._routes.of(note.method, note.path)
                self._metrics.count(HTTP_REQUESTS, (note.method[:8], note.route, str(note.status)))
                self._metrics.observe(HTTP_SECONDS, note.seconds, (note.method[:8], note.route))
                group.append(note)
        with self._lock:
            self._held -= sum(len(note.input) for note in group if note.input is not None)
        return group

    def _store(self, notes: list[_Note]) -> None:
        try:
            with self._engine.begin() as connection:
                if self._secret is None:
                    self._secret = shared_secret(connection, SECRET)
                self._insert(connection, [self._row(note) for note in notes])
        except (OperationalError, InterfaceError) as error:  # the database is away
            self._lose(len(notes), type(error).__name__)
        except Exception as error:  # noqa: BLE001 - one entry that cannot be written must not cost the others
            if len(notes) == 1:
                self._lose(1, type(error).__name__)
                return
            for note in notes:
                self._store([note])

    def _is_stored(self, note: _Note) -> bool:
        if not self._rows or (note.path in _PROBES and note.status < 400):
            return False
        if note.owner is not None or self._is_open or note.status < 400:
            return True
        minute = int(note.at // 60)
        if minute != self._minute:
            self._minute, self._unknown = minute, 0
        self._unknown += 1
        return self._unknown <= PER_MINUTE_UNKNOWN

    def _row(self, note: _Note) -> tuple[Any, ...]:
        hashed = None
        if note.input is not None:
            assert self._secret is not None
            hashed = hmac.digest(self._secret, hashlib.sha256(note.input).digest(), "sha256").hex()
        return (
            note.at,
            note.request_id,
            storable(note.method, 8),
            note.route,
            storable(note.path, PATH_LENGTH),
            int(note.status),  # not the name that an HTTPStatus has beside it
            round(note.seconds * 1_000, 3),
            note.size,
            note.owner,
            note.model,
            hashed,
        )

    @staticmethod
    def _insert(connection: Connection, rows: list[tuple[Any, ...]]) -> None:
        if connection.dialect.name == "postgresql":
            _STORE.run(connection, *(array(column) for column in zip(*rows, strict=True)))
            return
        names = [column.name for column in RequestLog.__table__.columns if column.name != "id"]
        connection.execute(
            insert(RequestLog),
            [dict(zip(names, (datetime.fromtimestamp(row[0], UTC), *row[1:]), strict=True)) for row in rows],
        )

    def _lose(self, count: int, why: str) -> None:
        self._metrics.count(LOST_LOG_ENTRIES, ("request_logs",), count)
        log.error("%d requests were not stored in request_logs: %s", count, why)

    def _tell_lost(self) -> None:
        lost, self._lost = self._lost, 0
        if lost:
            self._lose(lost, "they came faster than the database took them")

    def _flush(self) -> None:
        try:
            with self._engine.begin() as connection:
                self._metrics.flush(connection)
        except Exception as error:  # noqa: BLE001 - the numbers wait for the next round
            log.error("metrics were not stored: %s", type(error).__name__)

    def _prune(self) -> None:
        self._pruned_at = time.monotonic()
        prune(
            self._engine,
            RequestLog,
            days=self._days,
            rows=self._rows,
            is_stopping=lambda: self._thread.is_stopping,
        )


class RouteNames:
    """Finds the path of a route, `/jobs/{id}`, for a request that did not go through the router."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._routes = routes
        self._cache: OrderedDict[tuple[str, str], str] = OrderedDict()

    def of(self, method: str, path: str) -> str:
        """Return the path of the route of a request, NO_ROUTE without one."""
        key = (method, path)
        if (name := self._cache.get(key)) is not None:
            self._cache.move_to_end(key)
            return name
        scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
        route_name = NO_ROUTE
        for route in self._routes:
            match, _ = route.matches(scope)
            if match != Match.NONE:
                route_name = str(getattr(route, "path", NO_ROUTE))
                if match == Match.FULL:
                    break
        self._cache[key] = route_name
        if len(self._cache) > _MAX_PATHS:
            self._cache.popitem(last=False)
        return route_name
