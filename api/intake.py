"""Group commit: every submission that waits at this moment goes into one transaction.

There is no timer. While one commit runs, the next group gathers: alone, a request is committed at once; under load,
groups grow by themselves. One thread commits, so the event loop never waits for the database.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from shared.errors import GuichetError, Unavailable
from shared.job_queries import StoredJob
from shared.jobs import Submission

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Accepted:
    """A submission that is committed: its job as it stood then, or the id of the earlier job with the same key."""

    job: StoredJob | None
    earlier_id: str | None = None


Waiter = tuple[Submission, "asyncio.Future[Accepted]"]
Commit = Callable[[Sequence[Submission]], Sequence[Accepted | GuichetError]]


SMALL_ROWS = 20  # a submission of more rows is committed in a statement of its own
CHECK_SECONDS = 0.5
SILENT_SECONDS = 10.0  # a commit that takes longer is answered 503


class Intake:
    """Gathers submissions and commits them in groups, in a thread of its own."""

    def __init__(self, commit: Commit, *, max_group: int, max_waiting: int) -> None:
        self._commit = commit
        self._max_group = max_group
        self._max_waiting = max_waiting
        # Two queues, so that single rows never wait behind more than one large batch.
        self._small: deque[Waiter] = deque()
        self._large: deque[Waiter] = deque()
        self._group: list[Waiter] = []  # what is being committed, since when
        self._group_since = 0.0
        self._stuck = False
        self._wake = threading.Event()
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        """Begin to commit; call it on the event loop that submits."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        self._loop.call_later(CHECK_SECONDS, self._check)

    def stop(self) -> None:
        """Commit what waits, then stop."""
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout=10)

    async def submit(self, submission: Submission) -> Accepted:
        """Return when the submission is committed; raise Unavailable when it cannot be."""
        if self._stuck:
            raise _silence()
        if len(self._small) + len(self._large) >= self._max_waiting:
            raise Unavailable("Too many requests wait to be stored: try again in a moment.", retry_after=1)
        assert self._loop is not None
        future: asyncio.Future[Accepted] = self._loop.create_future()
        (self._small if len(submission.rows) <= SMALL_ROWS else self._large).append((submission, future))
        self._wake.set()
        # A caller that hangs up does not take its submission back: it may be in a transaction already.
        return await asyncio.shield(future)

    def _check(self) -> None:
        """Answer everyone when a commit takes too long: the database is silent, not gone."""
        assert self._loop is not None
        self._stuck = bool(self._group) and time.monotonic() - self._group_since > SILENT_SECONDS
        if self._stuck:
            waiters = list(self._group)
            for waiting in (self._small, self._large):
                while waiting:
                    waiters.append(waiting.popleft())
            for _, future in waiters:
                if not future.done():
                    future.set_exception(_silence())
        if not self._stopping:
            self._loop.call_later(CHECK_SECONDS, self._check)

    def _run(self) -> None:
        assert self._loop is not None
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._small or self._large:
                # Taken only when its turn comes: what waits for a silent database has to be found by _check.
                for waiting, most in ((self._small, self._max_group), (self._large, 1)):
                    if group := _take(waiting, most):
                        self._group_since, self._group = time.monotonic(), group
                        answers = self._commit_group([submission for submission, _ in group])
                        self._group = []
                        self._loop.call_soon_threadsafe(_resolve, [future for _, future in group], answers)
            if self._stopping:
                return

    def _commit_group(self, group: list[Submission]) -> Sequence[Accepted | GuichetError]:
        try:
            return self._commit(group)
        except GuichetError as error:
            return [error] * len(group)
        except SQLAlchemyError as error:
            log.error("a group of %d submissions was not committed: %s", len(group), type(error).__name__)
            refusal = Unavailable(
                "The database does not answer: the request was not accepted. Try again, with an Idempotency-Key.",
                retry_after=2,
            )
            return [refusal] * len(group)
        except Exception:
            log.exception("a group of %d submissions was not committed", len(group))
            return [GuichetError("The request was not accepted because of an internal error.")] * len(group)


def _resolve(futures: list["asyncio.Future[Accepted]"], answers: Sequence[Accepted | GuichetError]) -> None:
    for future, answer in zip(futures, answers, strict=True):
        if future.done():
            continue
        if isinstance(answer, GuichetError):
            future.set_exception(answer)
        else:
            future.set_result(answer)


def _take(waiting: deque[Waiter], most: int) -> list[Waiter]:
    group: list[Waiter] = []
    while len(group) < most:
        try:
            group.append(waiting.popleft())
        except IndexError:  # also when everyone was answered meanwhile
            break
    return group


def _silence() -> Unavailable:
    return Unavailable(
        "The database does not answer: the request may be stored or not. Try again with an Idempotency-Key, which "
        "makes the two one.",
        retry_after=5,
    )
