"""Writes refusals and failures to error_logs, in groups and beside the request: logging never delays an answer."""

import logging
import queue
import threading
from typing import Any

from sqlalchemy import Engine, insert
from sqlalchemy.exc import SQLAlchemyError

from shared.tables import ErrorLog

log = logging.getLogger(__name__)

MAX_WAITING = 10_000  # beyond it, entries are dropped and counted in the log: an attack must not fill the memory
MAX_GROUP = 500


class Refusals:
    """A queue of entries and the thread that stores them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._entries: queue.Queue[dict[str, Any] | None] = queue.Queue(MAX_WAITING)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="refusals", daemon=True)

    def start(self) -> None:
        """Begin to store."""
        self._thread.start()

    def stop(self) -> None:
        """Store what waits, then stop."""
        self._entries.put(None)
        self._thread.join(timeout=5)

    def add(self, entry: dict[str, Any]) -> None:
        """Take an entry (columns of error_logs) to be stored; returns at once."""
        try:
            self._entries.put_nowait(entry)
        except queue.Full:
            self._dropped += 1

    def _run(self) -> None:
        while True:
            group = [self._entries.get()]
            while len(group) < MAX_GROUP and not self._entries.empty():
                group.append(self._entries.get_nowait())
            entries = [entry for entry in group if entry is not None]
            if entries:
                self._store(entries)
            if len(entries) < len(group):
                return

    def _store(self, entries: list[dict[str, Any]]) -> None:
        dropped, self._dropped = self._dropped, 0
        if dropped:
            log.error("%d refusals were not stored: they came faster than the database took them", dropped)
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(ErrorLog), entries)
        except SQLAlchemyError as error:
            log.error("%d refusals were not stored: %s", len(entries), type(error).__name__)
