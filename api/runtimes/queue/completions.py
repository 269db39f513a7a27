"""Requests that wait for their job to end.

Workers publish the ids of finished jobs on Redis; one thread listens, reads the rows of those that somebody here
waits for in one statement, and wakes them. When Redis is silent or gone, it looks for all of them every
`poll_seconds`, again in one statement: the row is the truth.
"""

import asyncio
import logging
import time
from collections.abc import Iterable

import orjson
from redis import Redis, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy import Engine

from shared.background import Background
from shared.broker.app import DONE_CHANNEL
from shared.jobs.queries.jobs import StoredJob, find_finished

log = logging.getLogger(__name__)

PING_SECONDS = 3.0  # how often Redis is asked for a sign of life, and how long it may take to give one


class Completions:
    """Wakes requests that wait for jobs of workers."""

    def __init__(self, engine: Engine, redis: Redis, *, poll_seconds: float) -> None:
        self._engine = engine
        self._redis = redis
        self._poll_seconds = poll_seconds
        self._waiters: dict[str, list[asyncio.Future[StoredJob]]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = Background(self._run, name="waiting")

    def start(self) -> None:
        """Begin to listen; call it on the event loop of the waiters."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._thread.stop(3)

    def expect(self, job_id: str) -> "asyncio.Future[StoredJob]":
        """Return a future of the ended job; call it before the job is committed, and `forget` it in the end."""
        assert self._loop is not None
        future: asyncio.Future[StoredJob] = self._loop.create_future()
        self._waiters.setdefault(job_id, []).append(future)
        return future

    def forget(self, job_id: str, future: "asyncio.Future[StoredJob]") -> None:
        """Stop waiting for a job."""
        waiters = self._waiters.get(job_id)
        if waiters is not None:
            waiters.remove(future)
            if not waiters:
                del self._waiters[job_id]
        future.cancel()

    async def ended(self, future: "asyncio.Future[StoredJob]", seconds: float) -> StoredJob | None:
        """Return the ended job, or None when the wait is over first."""
        try:
            return await asyncio.wait_for(asyncio.shield(future), seconds)
        except (TimeoutError, asyncio.CancelledError):
            return None  # canceled: the server shuts down, and the caller is told where to poll

    async def wait(self, job_id: str, seconds: float) -> StoredJob | None:
        """Wait for a job that is stored already; the next poll finds it even if it ended a moment ago."""
        future = self.expect(job_id)
        try:
            return await self.ended(future, seconds)
        finally:
            self.forget(job_id, future)

    def _run(self) -> None:
        subscriber = self._redis.pubsub(ignore_subscribe_messages=True)
        next_poll = time.monotonic() + self._poll_seconds
        heard_at = asked_at = time.monotonic()
        while not self._thread.is_stopping:
            now = time.monotonic()
            left = min(max(next_poll - now, 0.001), PING_SECONDS)
            try:
                if not subscriber.subscribed:
                    subscriber.subscribe(DONE_CHANNEL)
                    heard_at = asked_at = now
                # A connection that was lost without a word says nothing, just like one on which nothing happens.
                if asked_at > heard_at and now - asked_at > PING_SECONDS:
                    raise RedisTimeoutError("a ping was not answered")
                if now - max(heard_at, asked_at) > PING_SECONDS:
                    asked_at = now
                    subscriber.ping()
                message = subscriber.get_message(timeout=left)
            except (RedisError, OSError):
                # Polling goes on, and the subscription is tried again with it.
                subscriber.close()
                subscriber = self._redis.pubsub(ignore_subscribe_messages=True)
                time.sleep(left)
                message = None
            if message is not None:
                heard_at = time.monotonic()
            if message is not None and message["type"] == "message":
                self._wake(self._waiters.keys() & _ids_in(message["data"]))
            if time.monotonic() >= next_poll:
                next_poll = time.monotonic() + self._poll_seconds
                self._wake(list(self._waiters))
        subscriber.close()

    def _wake(self, job_ids: Iterable[str]) -> None:
        ids = list(job_ids)
        if not ids:
            return
        try:
            with self._engine.connect() as connection:
                finished = find_finished(connection, ids)
        except Exception as error:  # noqa: BLE001 - whatever it is, this thread has to live, and polls again
            log.warning("finished jobs could not be read (%r); the next poll tries again", error)
            return
        if finished:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._resolve, finished)

    def _resolve(self, finished: dict[str, StoredJob]) -> None:
        for job_id, job in finished.items():
            for future in self._waiters.get(job_id, ()):
                if not future.done():
                    future.set_result(job)


def _ids_in(data: bytes) -> list[str]:
    """Return the job ids of a message; a strange one holds none, and polling finds the jobs."""
    try:
        ids = orjson.loads(data)
    except orjson.JSONDecodeError:
        ids = None
    if not isinstance(ids, list):
        log.warning("a message on %s is not a list of job ids", DONE_CHANNEL)
        return []
    return [job_id for job_id in ids if isinstance(job_id, str)]
