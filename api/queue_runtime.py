"""The queue runtime: a group is committed as queued jobs, then workers are woken and heard of."""

import logging
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from api.backlog import Backlog
from api.idempotency import find_earlier
from api.intake import Accepted
from api.notifier import Notifier
from api.waiting import Waiting
from shared import jobs
from shared.config import Settings
from shared.db import run_again
from shared.errors import GuichetError, Unavailable
from shared.job_queries import StoredJob, find_jobs
from shared.jobs import Submission
from shared.queue import make_app, make_redis
from shared.tables import JobState

log = logging.getLogger(__name__)


class QueueRuntime:
    """Commits for workers elsewhere; wakes them, waits for them, knows how long they take."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._redis = make_redis()
        self.notifier = Notifier(self._redis, make_app(publisher=True))
        self.waiting = Waiting(engine, self._redis, poll_seconds=settings.poll_seconds)
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
        """Store a group as queued jobs in one statement, then note its wake-ups."""
        created = run_again(lambda: self._submit(group))  # ids decide: what the first try committed is not inserted
        for lane, version in {(job.lane, job.model_version_id) for job in group}:
            self.notifier.notify(lane, version)
        return [
            Accepted(queued_job(job, created[job.id])) if job.id in created else self._find_earlier(job)
            for job in group
        ]

    def _submit(self, group: Sequence[Submission]) -> dict[str, datetime]:
        with self._engine.connect() as connection:
            return jobs.submit(connection, group)

    def _find_earlier(self, submission: Submission) -> Accepted | GuichetError:
        """Return the job that was there before a submission: the same one, or another with its key."""
        try:
            with self._engine.connect() as connection:
                found = find_jobs(connection, [submission.id]).get(submission.id)
            earlier = Accepted(found) if found is not None else find_earlier(self._engine, submission)
        except SQLAlchemyError:  # the others of the group are stored, and have to hear so
            log.exception("the job that was there before %s could not be read", submission.id)
            earlier = None
        return earlier or Unavailable("The request was not stored: try again.", retry_after=1)


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
