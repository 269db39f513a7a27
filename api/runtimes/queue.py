"""The queue runtime: a group is committed as queued jobs, then workers are woken and heard of."""

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from api.auth.shared_buckets import SharedBuckets
from api.runtimes.backlog import Backlog
from api.runtimes.completions import Completions
from api.runtimes.group_commit import Accepted, unsure
from api.runtimes.idempotency import find_earlier
from api.runtimes.wakeup_sender import Notifier
from shared.broker.app import make_app, make_redis
from shared.config.settings import Settings
from shared.errors import GuichetError, Unavailable
from shared.jobs import transitions as jobs
from shared.jobs.queries import StoredJob, find_jobs
from shared.jobs.submission import Submission
from shared.tables import JobState

log = logging.getLogger(__name__)

ASK_AGAIN_SECONDS = 4.0  # how long it is tried to find out what became of a COMMIT whose answer was lost
ASK_AGAIN_PAUSE = 0.2


class OutcomeUnknown(Exception):
    """A group was sent to the database, and nobody can tell now whether it was stored."""


class QueueRuntime:
    """Commits for workers elsewhere; wakes them, waits for them, knows how long they take."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._redis = make_redis()
        self.buckets = SharedBuckets(self._redis)
        self.notifier = Notifier(self._redis, make_app(publisher=True))
        self.waiting = Completions(engine, self._redis, poll_seconds=settings.poll_seconds)
        self.backlog = Backlog(engine, self._redis, max_queued=settings.max_queued)

    def start(self) -> None:
        """Start the threads; call it on the event loop."""
        self.notifier.start()
        self.waiting.start()
        self.backlog.start()

    def stop(self) -> None:
        """Send the wake-ups that are noted, stop the threads, close the connections."""
        self.notifier.stop()
        self.waiting.stop()
        self.backlog.stop()
        self._redis.close()

    def commit(self, group: Sequence[Submission]) -> Sequence[Accepted | GuichetError]:
        """Store a group as queued jobs in one statement, then note its wake-ups.

        Raises SQLAlchemyError where nothing was stored. Where that cannot be found out, each answer says so.
        """
        try:
            created = self._submit(group)
        except OutcomeUnknown:
            log.error("the answer to a COMMIT was lost, and the database does not tell what became of it")
            self._wake(group)
            return [unsure(submission) for submission in group]
        self._wake(group)
        return [
            Accepted(queued_job(job, created[job.id])) if job.id in created else self._find_earlier(job)
            for job in group
        ]

    def _wake(self, group: Sequence[Submission]) -> None:
        for lane, version in {(job.lane, job.model_version_id) for job in group}:
            self.notifier.notify(lane, version)

    def _submit(self, group: Sequence[Submission]) -> dict[str, datetime]:
        """Store a group; return id to time of those that are new.

        A statement whose answer was lost is sent again: ids decide, so that what was committed is not inserted twice,
        and PostgreSQL lets the second wait for the first, should that still run.
        """
        until = time.monotonic() + ASK_AGAIN_SECONDS
        was_sent = False
        while True:
            is_sent = False
            try:
                with self._engine.connect() as connection:
                    is_sent = True
                    return jobs.submit(connection, group)
            except SQLAlchemyError as error:
                is_lost = isinstance(error, DBAPIError) and error.connection_invalidated
                if not was_sent and not (is_sent and is_lost):
                    raise  # it was never sent, or refused: nothing was stored
                was_sent = True
                if time.monotonic() > until:
                    raise OutcomeUnknown from error
                log.warning("the database closed the connection; asking on a new one what it has stored")
                time.sleep(ASK_AGAIN_PAUSE)

    def _find_earlier(self, submission: Submission) -> Accepted | GuichetError:
        """Return the job that was there before a submission: the same one, or another with its key."""
        try:
            with self._engine.connect() as connection:
                found = find_jobs(connection, [submission.id]).get(submission.id)
            earlier = Accepted(found) if found is not None else find_earlier(self._engine, submission)
        except SQLAlchemyError as error:  # the others of the group are stored, and have to hear so
            log.error("the job that was there before a submission could not be read: %s", type(error).__name__)
            if submission.idempotency_key is None:  # only the job itself can have been in the way
                return Accepted(queued_job(submission, datetime.now(UTC)))
            return unsure(submission)
        # The earlier job may have lost its key, or ended its life, at this moment.
        return earlier or Unavailable("The request was not accepted: try again.", retry_after=1)


def queued_job(submission: Submission, created_at: datetime, state: JobState = JobState.QUEUED) -> StoredJob:
    """Return a job as it stands right after its submission was committed."""
    return StoredJob(
        id=submission.id,
        kind=submission.kind,
        lane=submission.lane,
        state=state.value,
        model_version_id=submission.model_version_id,
        owner=submission.owner,
        request_id=submission.request_id,
        priority=submission.priority,
        row_count=len(submission.rows),
        failed_count=submission.failed_count,
        attempt=0,
        run_after=created_at,
        created_at=created_at,
        started_at=None,
        finished_at=None,
        expires_at=submission.expires_at(created_at),
        cancel_requested_at=None,
        error=None,
    )
