"""A watch over the parent of a worker process, which reads messages from Redis: it must live and still receive.

One acknowledgement that Redis answers late, or on a connection that breaks, leaves Celery's consumer with its only
place taken for ever; a connection that fell silent leaves it waiting for an answer that was lost. Neither shows in a
log that anyone reads, and Celery's own ping is answered all the same. A child can tell: messages wait in its lane, and
it has had nothing to do for some time. It then has its parent connect to Redis anew; children and models stay.
"""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from celery import bootsteps
from redis import Redis, RedisError

from shared.background import Background

log = logging.getLogger(__name__)

DEAF_SECONDS = 6.0  # that messages wait in the lane of a process that has nothing to do
FIRST_SECONDS = 30.0  # the same before the first one: the parent may still be about to listen
PATIENCE_SECONDS = 20.0  # for the parent to bring a message after all, before it is killed
LOOK_SECONDS = 1.0
RECONNECT_SIGNAL = signal.SIGUSR2  # Celery uses every other one, and this one for its debugger alone


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
        self._thread = Background(self._run, name="parent")

    def start(self) -> None:
        """Begin to look: this process can work."""
        self._idle_since = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._thread.stop(2)

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
        while not self._thread.wait(LOOK_SECONDS):
            if os.getppid() != self._pid:
                self._end_alone()
            elif self._is_deaf():
                self._have_it_connect_anew()

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

    def _have_it_connect_anew(self) -> None:
        log.error(
            "messages wait in %s for %g s, and none comes here: this worker connects to Redis anew",
            ",".join(self._lanes),
            self._deaf_seconds,
        )
        os.kill(self._pid, RECONNECT_SIGNAL)
        asked_at = time.monotonic()
        while self._idle_since < asked_at and not self._working and self._do_messages_wait():
            if time.monotonic() - asked_at > PATIENCE_SECONDS:
                log.error("this worker hears nothing: it is killed, and what started it has to start it again")
                os.kill(self._pid, signal.SIGKILL)
            if self._thread.wait(LOOK_SECONDS):
                return
        self._waits_since = None

    def _end_alone(self) -> None:
        """End this process after its present work: without a parent it gets no more."""
        while self._working or self._is_holding():
            if self._thread.wait(0.1):
                return
        log.error("the worker that this process belongs to was killed: it ends")
        os._exit(1)


class Reconnection(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """A step of Celery's consumer, in the parent: it drops its connection to Redis when a child asks for it.

    Celery then connects anew and forgets what it waited for, as after any connection that is lost.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)
    _is_asked = False  # one consumer in a process

    def start(self, consumer: Any) -> None:  # noqa: ANN401 - Celery's own object
        """Check twice a second, in Celery's own loop: a signal handler may not raise into the interrupted code."""
        type(self)._is_asked = False
        consumer.timer.call_repeatedly(0.5, self._look)

    @classmethod
    def ask(cls, *_: object) -> None:
        """Note the wish: a handler of RECONNECT_SIGNAL."""
        cls._is_asked = True

    def _look(self) -> None:
        if self._is_asked:
            raise ConnectionResetError("a child of this worker says that no message comes")
