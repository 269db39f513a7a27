"""Followers of jobs: one thread reads changes twice a second, for all of them in one statement.

It looks only while somebody follows. A follower holds no connection, only the newest change that it has not taken;
what it missed meanwhile it reads itself. The table is the truth, so a follower can come back to any process.
"""

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from sqlalchemy import Engine, select

from shared.background import Background
from shared.errors import Unavailable
from shared.jobs.kinds import kind_of
from shared.jobs.queries.events import read_events
from shared.jobs.queries.files import StoredEvent
from shared.jobs.queries.jobs import StoredJob, find_jobs
from shared.tables import CsvFile, Job

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
MAX_FOLLOWERS = 1000

Seen = tuple[str, int | None]  # state, number of events


@dataclass(frozen=True, slots=True)
class Change:
    """The present state of a job and its latest events, which may be fewer than a follower has missed."""

    job: StoredJob | None  # None: it was erased
    events: list[StoredEvent]


class Follower:
    """A caller that waits for changes of a job."""

    def __init__(self, following: "JobFollowers") -> None:
        self._following = following
        self._change: Change | None = None
        self._woken = asyncio.Event()

    def tell(self, change: Change | None) -> None:
        """Take a change in place of one that was not taken yet; None: look whether following is closed."""
        self._change = change or self._change
        self._woken.set()

    async def next_change(self, seconds: float) -> Change | None:
        """Return the newest change; None without one within `seconds`, or after the end of following."""
        if not self._following.is_closed:
            try:
                # Not wait_for: before Python 3.12 it can swallow a cancellation that comes with the change.
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
            except TimeoutError:
                return None
        self._woken.clear()
        change, self._change = self._change, None
        return change


class JobFollowers:
    """The followers of this process, and the thread that looks for them."""

    def __init__(
        self, engine: Engine, *, poll_seconds: float = POLL_SECONDS, max_followers: int = MAX_FOLLOWERS
    ) -> None:
        self._engine = engine
        self._poll_seconds = poll_seconds
        self._max_followers = max_followers
        self._followers: dict[str, list[Follower]] = {}  # changed on the event loop only
        self._seen: dict[str, Seen] = {}
        self._answered = True
        self._somebody = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = Background(self._run, name="following", wake=self._somebody.set)
        self.is_closed = False

    def start(self) -> None:
        """Begin to look; call it on the event loop of the followers."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def close(self) -> None:
        """Send every follower away, because the process stops; call it on the event loop."""
        self.is_closed = True
        for followers in self._followers.values():
            for follower in followers:
                follower.tell(None)

    def stop(self) -> None:
        """Stop looking; for a thread."""
        self._thread.stop(3)

    def check_room(self) -> None:
        """Raise Unavailable when the process takes no more followers."""
        if self.is_closed or sum(map(len, self._followers.values())) >= self._max_followers:
            raise Unavailable("Too many callers follow jobs here: try again, or poll the job.", retry_after=5)

    @contextmanager
    def follow(self, job_id: str) -> Iterator[Follower]:
        """Follow a job: report its present state once, and every change after this call."""
        follower = Follower(self)
        self._followers.setdefault(job_id, []).append(follower)
        self._seen.pop(job_id, None)
        self._somebody.set()
        try:
            yield follower
        finally:
            followers = self._followers[job_id]
            followers.remove(follower)
            if not followers:
                del self._followers[job_id]

    async def wait_for_end(self, job_id: str, seconds: float) -> StoredJob | None:
        """Return a job as soon as it has ended; None if it does not end within `seconds`."""
        assert self._loop is not None
        deadline = self._loop.time() + seconds
        with self.follow(job_id) as follower:
            while (left := deadline - self._loop.time()) > 0 and not self.is_closed:
                change = await follower.next_change(left)
                if change is not None and (change.job is None or change.job.is_terminal):
                    return change.job
        return None

    def _run(self) -> None:
        while not self._thread.wait(self._poll_seconds):
            if not self._followers:
                self._seen.clear()
                self._somebody.clear()
                # Nobody came, and nothing was stopped, between the question and the answer.
                if not self._followers and not self._thread.is_stopping:
                    self._somebody.wait()
                continue
            try:
                changes = self._look(list(self._followers))
            except Exception as error:  # noqa: BLE001 - whatever it is, this thread has to live, and looks again
                if self._answered:
                    log.warning("followed jobs could not be read (%r); it is tried again", error)
                self._answered = False
                continue
            self._answered = True
            if changes:
                assert self._loop is not None
                self._loop.call_soon_threadsafe(self._tell, changes)

    def _look(self, job_ids: list[str]) -> dict[str, Change]:
        with self._engine.connect() as connection:
            rows = connection.execute(
                select(Job.id, Job.state, CsvFile.event_count)
                .outerjoin(CsvFile, CsvFile.job_id == Job.id)
                .where(Job.id.in_(job_ids))
            )
            now: dict[str, Seen] = {row[0]: (row[1], row[2]) for row in rows}
            before = {job_id: self._seen.get(job_id) for job_id in job_ids}
            changed = [job_id for job_id in job_ids if before[job_id] is None or before[job_id] != now.get(job_id)]
            if not changed:
                return {}
            jobs = find_jobs(connection, changed)
            changes = {}
            for job_id in changed:
                job, seen = jobs.get(job_id), before[job_id]
                is_followed = job is not None and (seen is not None or not kind_of(job.kind).logs_events)
                after = 0 if seen is None else seen[1] or 0
                events = read_events(connection, job, after=after) if job is not None and is_followed else []
                changes[job_id] = Change(job, events)
        for job_id in [gone for gone in self._seen if gone not in before]:
            del self._seen[job_id]
        self._seen |= {job_id: now.get(job_id, ("", None)) for job_id in changed}
        return changes

    def _tell(self, changes: dict[str, Change]) -> None:
        for job_id, change in changes.items():
            for follower in self._followers.get(job_id, ()):
                follower.tell(change)


@contextmanager
def on_shutdown(call: Callable[[], object]) -> Iterator[None]:
    """Have `call` run on this event loop as soon as the process gets SIGTERM or SIGINT.

    The server waits for open answers before it ends the lifespan: without this, a stream would hold it up until it
    loses patience. Its own handlers do their work first.
    """
    loop = asyncio.get_running_loop()
    before: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(call)
        before[number](number, frame)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = handler
                signal.signal(number, handle)
    try:
        yield
    finally:
        for which, handler in before.items():
            if signal.getsignal(which) is handle:
                signal.signal(which, handler)
