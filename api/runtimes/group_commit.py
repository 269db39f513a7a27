"""Group commit: all waiting submissions go into one transaction.

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

from shared.background import Background
from shared.errors import GuichetError, Unavailable
from shared.jobs.queries.jobs import StoredJob
from shared.jobs.submission import Submission
from shared.observability.metrics import GROUP_SIZE, METRICS
from shared.reasons import Reason

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Accepted:
    """A submission that is committed: its job as it stood then, or the id of the earlier job with the same key."""

    job: StoredJob | None
    existing_id: str | None = None


Waiter = tuple[Submission, "asyncio.Future[Accepted]"]
Commit = Callable[[Sequence[Submission]], Sequence[Accepted | GuichetError]]


SMALL_ROWS = 20  # a submission of more rows is committed in a statement of its own
CHECK_SECONDS = 0.5
SILENT_SECONDS = 10.0  # a commit that takes longer is answered 503
LATE_SECONDS = 3.0  # and one that takes so long is a reason to send no more requests


class Intake:
    """Gathers submissions and commits them in groups, in a thread of its own."""

    def __init__(
        self, commit: Commit, *, max_group: int, max_waiting: int, is_scoring: Callable[[], bool] = lambda: False
    ) -> None:
        self._commit = commit
        self._is_scoring = is_scoring  # whether a model works, which has a deadline of its own
        self._max_group = max_group
        self._max_waiting = max_waiting
        # Two queues, so that single rows never wait behind more than one large batch.
        self._small: deque[Waiter] = deque()
        self._large: deque[Waiter] = deque()
        self._group: list[Waiter] = []  # what is being committed, since when
        self._group_since = 0.0
        self._scoring_at = 0.0  # when a model was last seen at work
        self._stuck = False
        self._wake = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = Background(self._run, name="intake", wake=self._wake.set)

    def start(self) -> None:
        """Begin to commit; call it on the event loop that submits."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        self._loop.call_later(CHECK_SECONDS, self._check)

    def stop(self, *, timeout: float = 10.0) -> None:
        """Commit what waits, then stop; what takes longer is left behind."""
        self._thread.stop(timeout)

    def _silent_for(self) -> float:
        """Return the seconds since the database got the present commit."""
        return time.monotonic() - max(self._group_since, self._scoring_at) if self._group else 0.0

    def trouble(self) -> str | None:
        """Return the reason why nothing can be stored now, None otherwise."""
        if not self._thread.is_alive():
            return Reason("storing_ended")
        if self._silent_for() > LATE_SECONDS and not self._is_scoring():
            return Reason("storing_late", seconds=f"{LATE_SECONDS:g}")
        return None

    async def submit(self, submission: Submission) -> Accepted:
        """Return when the submission is committed; raise Unavailable when it cannot be."""
        if self._stuck:
            raise _database_silent()
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
        takes_long = bool(self._group) and time.monotonic() - self._group_since > SILENT_SECONDS
        is_scoring = bool(self._group) and self._is_scoring()
        if is_scoring:
            self._scoring_at = time.monotonic()
        self._stuck = self._silent_for() > SILENT_SECONDS
        if self._stuck:
            for submission, future in list(self._group):
                if not future.done():
                    future.set_exception(unsure(submission))
        if takes_long:
            for waiting in (self._small, self._large):
                for _, future in _take(waiting, len(waiting)):  # nothing of these was sent
                    if not future.done():
                        future.set_exception(_busy() if is_scoring else _database_silent())
        if not self._thread.is_stopping:
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
            if self._thread.is_stopping:
                return

    def _commit_group(self, group: list[Submission]) -> Sequence[Accepted | GuichetError]:
        """Commit a group; a database error that leaves `commit` means that nothing was stored."""
        METRICS.observe(GROUP_SIZE, len(group))
        try:
            return self._commit(group)
        except GuichetError as error:
            return [error] * len(group)
        except SQLAlchemyError as error:
            log.error("a group of submissions was not committed: %s", type(error).__name__)
            refusal = Unavailable(
                "The database does not answer: the request was not accepted. Try again, with an Idempotency-Key.",
                retry_after=2,
            )
            return [refusal] * len(group)
        except BaseException:  # whatever it is, this thread has to live
            log.exception("a group of submissions failed; some of them may have been committed")
            sentence = "The request failed because of an internal error."
            return [GuichetError(f"{sentence} {_ask(submission)}", job_id=submission.id) for submission in group]


class Intakes:
    """An intake for each model version, made when it is first needed: none waits for another's model."""

    def __init__(self, make: Callable[[int], Intake]) -> None:
        self._make = make
        self._intakes: dict[int, Intake] = {}

    def start(self) -> None:
        """Nothing is there to start yet."""

    def stop(self) -> None:
        """Commit what waits, then stop."""
        until = time.monotonic() + 10
        for intake in self._intakes.values():
            intake.stop(timeout=0)
        for intake in self._intakes.values():
            intake.stop(timeout=max(0.0, until - time.monotonic()))

    async def submit(self, submission: Submission) -> Accepted:
        """Return when the submission is committed; raise Unavailable when it cannot be."""
        intake = self._intakes.get(submission.model_version_id)
        if intake is None:
            intake = self._intakes[submission.model_version_id] = self._make(submission.model_version_id)
            intake.start()
        return await intake.submit(submission)

    def trouble(self) -> str | None:
        """Return the reason why nothing can be stored now, None otherwise."""
        return next((trouble for intake in list(self._intakes.values()) if (trouble := intake.trouble())), None)


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


def unsure(submission: Submission) -> Unavailable:
    """Return the answer to a request that may have been stored or not: nobody can find out now."""
    return Unavailable(f"The database does not answer. {_ask(submission)}", job_id=submission.id, retry_after=5)


def _ask(submission: Submission) -> str:
    if submission.idempotency_key is None:
        return f"The request may have been accepted: ask GET /jobs/{submission.id} before you send it again."
    return "The request may have been accepted: send it again with the same key or id, and the two are one."


def _busy() -> Unavailable:
    return Unavailable(
        "The model is being loaded, or a row of it takes long: the request was not accepted. Try again.", retry_after=5
    )


def _database_silent() -> Unavailable:
    return Unavailable(
        "The database does not answer: the request was not accepted. Try again, with an Idempotency-Key.",
        retry_after=5,
    )
