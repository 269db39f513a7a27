"""Writes refusals and failures to error_logs, in groups and beside the request: logging never delays an answer.

A table that anyone may fill is bounded three ways. Of each caller, and of all unknown callers together, so many entries
a minute are stored; what exceeds them is counted, and stored as one entry for each kind. Texts are cut. Entries that
are old, or beyond so many, are deleted once an hour. Entries that are lost are counted in the metrics, and the process
log says so.
"""

import logging
import queue
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any

from sqlalchemy import Engine, insert
from sqlalchemy.exc import InterfaceError, OperationalError

from api.logs.pruning import PRUNE_SECONDS, prune
from shared.background import Background
from shared.faults import Fault, storable
from shared.observability.metrics import LOST_LOG_ENTRIES, METRICS, Metrics
from shared.tables import ErrorLog

log = logging.getLogger(__name__)

MAX_WAITING = 10_000  # beyond it, entries are dropped and counted in the log: an attack must not fill the memory
MAX_GROUP = 500
PER_MINUTE = 1_000  # entries of one known caller; everyone is known where no key is asked for
PER_MINUTE_UNKNOWN = 100  # entries of all callers together whose key is missing or unknown
MAX_KINDS = 500  # of refusals that are counted at a time
PATH_LENGTH = 200
DETAIL_LENGTH = 2_000
FAULT_LENGTH = 300
STACK_LENGTH = 4_000
COUNTED = "Refusals of this kind, counted and not stored one by one."
MANY_PATHS = "(many)"

_FLUSH_SECONDS = 5.0

EntryKind = tuple[str, int, str, str | None]  # method, status, code, owner


class ErrorLogWriter:
    """A queue of entries and the thread that stores them.

    `days` and `rows` are how long and how many entries are kept. `is_open` is whether callers need no key.
    """

    def __init__(self, engine: Engine, *, days: float, rows: int, is_open: bool, metrics: Metrics = METRICS) -> None:
        self._engine = engine
        self._metrics = metrics
        self._days = days
        self._rows = rows
        self._is_open = is_open
        self._entries: queue.Queue[dict[str, Any] | None] = queue.Queue(MAX_WAITING)
        self._lock = threading.Lock()
        self._minute = 0
        self._stored: Counter[str | None] = Counter()  # entries of this minute, by owner
        self._counted: Counter[EntryKind] = Counter()  # refusals since the last flush that are only counted
        self._dropped = 0
        self._pruned_at = time.monotonic() - PRUNE_SECONDS
        self._thread = Background(self._run, name="refusals", wake=self._wake)

    @property
    def is_alive(self) -> bool:
        """Return whether entries are being stored."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to store."""
        self._thread.start()

    def stop(self) -> None:
        """Store what waits, then stop; wait 5 s at most."""
        self._thread.stop(5)

    def _wake(self) -> None:
        with suppress(queue.Full):  # a full queue means that the thread is awake
            self._entries.put_nowait(None)

    def add(self, entry: dict[str, Any]) -> None:
        """Take an entry (columns of error_logs) to be stored; returns at once."""
        owner = entry["owner"]
        with self._lock:
            minute = int(time.monotonic() // 60)
            if minute != self._minute:
                self._minute = minute
                self._stored.clear()
            limit = PER_MINUTE if owner is not None or self._is_open else PER_MINUTE_UNKNOWN
            if self._stored[owner] >= limit:
                kind = (storable(entry["method"], 8), entry["status"], entry["code"], owner)
                if kind not in self._counted and len(self._counted) >= MAX_KINDS:
                    kind = ("*", entry["status"], entry["code"], None)
                self._counted[kind] += 1
                return
            self._stored[owner] += 1
        try:
            self._entries.put_nowait(entry)
        except queue.Full:
            self._dropped += 1

    def _run(self) -> None:
        flushed_at = time.monotonic()
        while True:
            group: list[dict[str, Any]] = []
            with suppress(queue.Empty):
                entry = self._entries.get(timeout=_FLUSH_SECONDS)
                while entry is not None:
                    group.append(entry)
                    entry = self._entries.get_nowait() if len(group) < MAX_GROUP else None
            is_last = self._thread.is_stopping and self._entries.empty()
            if is_last or time.monotonic() - flushed_at > 60:
                flushed_at = time.monotonic()
                group += self._take_counted()
            try:
                if group:
                    self._store([clean(entry) for entry in group])
                if time.monotonic() - self._pruned_at > PRUNE_SECONDS:
                    self._prune()
            except Exception as error:  # noqa: BLE001 - whatever it is, this thread has to live
                log.error("refusals were not stored: %s", type(error).__name__)
            if is_last:
                return

    def _take_counted(self) -> list[dict[str, Any]]:
        with self._lock:
            counted, self._counted = self._counted, Counter()
        return [
            {
                "request_id": "",
                "method": method,
                "path": MANY_PATHS,
                "status": status,
                "code": code,
                "detail": COUNTED,
                "faults": None,
                "job_id": None,
                "owner": owner,
                "times": count,
            }
            for (method, status, code, owner), count in counted.items()
        ]

    def _store(self, entries: list[dict[str, Any]]) -> None:
        dropped, self._dropped = self._dropped, 0
        if dropped:
            self._lose(dropped, "they came faster than the database took them")
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(ErrorLog), entries)
        except (OperationalError, InterfaceError) as error:  # the database is away
            self._lose(len(entries), type(error).__name__)
        except Exception:  # noqa: BLE001 - one entry that the driver cannot write must not cost the others
            if len(entries) == 1:
                self._lose(1, "its text cannot be written")
                return
            for entry in entries:
                self._store([entry])

    def _lose(self, count: int, why: str) -> None:
        self._metrics.count(LOST_LOG_ENTRIES, ("error_logs",), count)
        log.error("%s not stored: %s", "a refusal was" if count == 1 else f"{count} refusals were", why)

    def _prune(self) -> None:
        self._pruned_at = time.monotonic()
        prune(
            self._engine,
            ErrorLog,
            days=self._days,
            rows=self._rows,
            is_stopping=lambda: self._thread.is_stopping,
        )


def clean(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry with short texts that the database can store."""
    faults = entry["faults"]
    if faults is not None:
        faults = [
            Fault(storable(fault.pointer, FAULT_LENGTH), fault.code, storable(fault.message, FAULT_LENGTH))
            for fault in faults
        ]
    kind, stack = entry.get("type"), entry.get("stack")
    return {
        "times": 1,
        **entry,
        "method": storable(entry["method"], 8),
        "path": storable(entry["path"], PATH_LENGTH),
        "detail": storable(entry["detail"], DETAIL_LENGTH),
        "faults": faults,
        "type": None if kind is None else storable(kind, 100),
        "stack": None if stack is None else storable(stack, STACK_LENGTH),
    }
