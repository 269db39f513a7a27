"""Sends wake-ups from its own thread, so that neither the event loop nor a commit waits for Redis.

A circuit breaker keeps a dead Redis from costing anything: after three failures it waits five seconds. What could
not be sent stays noted and is sent when Redis is back; should this process die first, recovery does it.
"""

import logging
import threading
from collections.abc import Callable

from celery import Celery
from redis import Redis, RedisError

from shared.background import Background
from shared.broker.wakeups import send_wakeup

log = logging.getLogger(__name__)

FAILURES = 3
OPEN_SECONDS = 5.0


class Notifier:
    """Wakes workers for (lane, model version id) pairs; repeated requests for a pair wake them once.

    `title_of` gives the name of the task that Flower shows for a model version id.
    """

    def __init__(self, redis: Redis, app: Celery, title_of: Callable[[int], str | None]) -> None:
        self._redis = redis
        self._app = app
        self._title_of = title_of
        self._pending: set[tuple[str, int]] = set()
        self._wake = threading.Event()
        self._failures = 0
        self._thread = Background(self._run, name="notifier", wake=self._wake.set)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send the noted wake-ups, then stop."""
        self._thread.stop(3)

    def notify(self, lane: str, model_version_id: int) -> None:
        """Note a wake-up for new work; safe from any thread, returns at once."""
        self._pending.add((lane, model_version_id))
        self._wake.set()

    def is_broker_up(self) -> bool:
        """Return whether Redis answers within half a second."""
        if self._failures >= FAILURES:
            return False  # the circuit is open: do not wait for it again
        try:
            return bool(self._redis.ping())
        except (RedisError, OSError):
            return False

    def _run(self) -> None:
        while not (self._thread.is_stopping and not self._pending):
            self._wake.wait()
            self._wake.clear()
            while self._pending:
                pair = self._pending.pop()
                if self._send(*pair):
                    continue
                self._pending.add(pair)
                if self._thread.is_stopping:
                    return  # recovery sends it
                if self._failures >= FAILURES:
                    self._pause()

    def _pause(self) -> None:
        self._thread.wait(OPEN_SECONDS)

    def _send(self, lane: str, model_version_id: int) -> bool:
        try:
            title = self._title_of(model_version_id)
            send_wakeup(self._redis, self._app, lane=lane, model_version_id=model_version_id, title=title)
        except Exception as error:  # noqa: BLE001 - whatever it is, this thread has to live, and tries again
            self._failures += 1
            if self._failures == FAILURES:
                log.warning("Redis does not answer (%r): jobs are kept, and workers are woken when it is back", error)
            return False
        if self._failures >= FAILURES:
            log.info("Redis answers again")
        self._failures = 0
        return True
