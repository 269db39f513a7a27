"""The parent of a worker process, which takes messages from Redis: is it there, and does it hear?

One acknowledgement that Redis answers late, or on a connection that breaks, leaves Celery's consumer with its only
place taken for ever; a connection that fell silent leaves it waiting for an answer that was lost. Neither shows in a
log that anyone reads, and Celery's own ping is answered all the same. A child can tell: messages wait in its lane, and
it has had nothing to do for some time. It then has its parent begin again, as the same process.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from redis import Redis, RedisError

log = logging.getLogger(__name__)

DEAF_SECONDS = 6.0  # that messages wait in the lane of a process that has nothing to do
FIRST_SECONDS = 30.0  # the same before the first one: the parent may still be about to listen
PATIENCE_SECONDS = 12.0  # for the parent to end what it is at, before it is killed
LOOK_SECONDS = 1.0
RESTART_SIGNAL = signal.SIGUSR2  # Celery uses every other one, and this one for its debugger alone


class Parent:
    """A thread that looks after the parent of this process."""

    def __init__(self, redis: Redis, *, lanes: Sequence[str], is_holding: Callable[[], bool]) -> None:
        self._redis = redis
        self._lanes = lanes
        self._is_holding = is_holding
        self._pid = os.getppid()
        self._working = False
        self._deaf_seconds = FIRST_SECONDS
        self._idle_since = time.monotonic()
        self._waits_since: float | None = None  # since when messages wait that this process could have had
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="parent", daemon=True)

    def start(self) -> None:
        """Begin to look: this process can work."""
        self._idle_since = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Note that a task runs."""
        self._working = True
        try:
            yield
        finally:
            self._deaf_seconds = DEAF_SECONDS
            self._idle_since = time.monotonic()
            self._working = False

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            if os.getppid() != self._pid:
                self._end_alone()
            elif self._is_deaf():
                self._begin_again()

    def _is_deaf(self) -> bool:
        now = time.monotonic()
        if self._working or not self._do_messages_wait():
            self._waits_since = None
            return False
        if self._waits_since is None:
            self._waits_since = now
        return now - max(self._waits_since, self._idle_since) > self._deaf_seconds

    def _do_messages_wait(self) -> bool:
        try:
            waits = any(self._redis.llen(lane) for lane in self._lanes)
        except (RedisError, OSError):  # whoever takes messages hears nothing either
            return False
        return waits

    def _begin_again(self) -> None:
        log.error(
            "messages wait in %s for %g s, and none comes here: this worker begins again",
            ",".join(self._lanes),
            self._deaf_seconds,
        )
        os.kill(self._pid, RESTART_SIGNAL)
        if self._stopping.wait(PATIENCE_SECONDS):
            return
        log.error("this worker does not end what it is at: it is killed, and what started it has to start it again")
        os.kill(self._pid, signal.SIGKILL)

    def _end_alone(self) -> None:
        """End this process when it has stored what it holds: without a parent it gets no more work."""
        while self._working or self._is_holding():
            if self._stopping.wait(0.1):
                return
        log.error("the worker that this process belongs to was killed: it ends")
        os._exit(1)
