"""Group commit: every submission that waits at this moment goes into one transaction.

There is no timer. While one commit runs, the next group gathers: alone, a request is committed at once; under load,
groups grow by themselves. One thread commits, so the event loop never waits for the database.
"""

import asyncio
import logging
import threading
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


Commit = Callable[[Sequence[Submission]], Sequence[Accepted | GuichetError]]


class Intake:
    """Gathers submissions and commits them in groups, in a thread of its own."""

    def __init__(self, commit: Commit, *, max_group: int, max_waiting: int) -> None:
        self._commit = commit
        self._max_group = max_group
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[Submission, asyncio.Future[Accepted]]] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        """Begin to commit; call it on the event loop that submits."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Commit what waits, then stop."""
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout=10)

    async def submit(self, submission: Submission) -> Accepted:
        """Return when the submission is committed; raise Unavailable when it cannot be."""
        if len(self._waiting) >= self._max_waiting:
            raise Unavailable("Too many requests wait to be stored: try again in a moment.", retry_after=1)
        assert self._loop is not None
        future: asyncio.Future[Accepted] = self._loop.create_future()
        self._waiting.append((submission, future))
        self._wake.set()
        # A caller that hangs up does not take its submission back: it may be in a transaction already.
        return await asyncio.shield(future)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._waiting:
                group = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_group))]
                answers = self._commit_group([submission for submission, _ in group])
                assert self._loop is not None
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
        if future.cancelled():
            continue
        if isinstance(answer, GuichetError):
            future.set_exception(answer)
        else:
            future.set_result(answer)
