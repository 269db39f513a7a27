"""The queue runtime: a group is committed as queued jobs, then workers are woken and their results awaited."""

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from api.auth.shared_buckets import SharedBuckets
from api.models.catalog import Catalog, Version
from api.runtimes.group_commit import Accepted, Intake, unsure
from api.runtimes.idempotency import KeysInFlight, find_earlier
from api.runtimes.queue.backlog import Backlog
from api.runtimes.queue.completions import Completions
from api.runtimes.queue.wakeup_sender import Notifier
from api.runtimes.runtime import FARTHEST, Condition, ModelStates, Place
from shared.broker.app import NEW_MODELS, make_app, make_redis
from shared.broker.names import Lane
from shared.config.settings import Settings
from shared.database.engine import reader
from shared.errors import GuichetError, Unavailable
from shared.jobs import transitions as jobs
from shared.jobs.kinds import kind_of
from shared.jobs.queries.jobs import StoredJob, count_ahead, find_jobs, queued_job
from shared.jobs.submission import NO_VERSION, Submission
from shared.observability.timed_tasks import is_recovery_late
from shared.reasons import Reason
from shared.tables import JobState

log = logging.getLogger(__name__)

ASK_AGAIN_SECONDS = 4.0  # how long it is tried to find out what became of a COMMIT whose answer was lost
ASK_AGAIN_PAUSE = 0.2
POSITION_SECONDS = 2.0  # how long a place may take to be read
STARTING_SECONDS = 30.0  # so long may the workers take to be heard of for the first time


class OutcomeUnknown(Exception):
    """The outcome of a commit is unknown: the group was sent to the database, and the answer was lost."""


class QueueRuntime:
    """Commits for workers elsewhere; wakes them, waits for them, knows how long they take."""

    def __init__(self, engine: Engine, settings: Settings, catalog: Catalog, keys: KeysInFlight) -> None:
        self._engine = engine
        self._reader = reader(engine)
        self._settings = settings
        self._catalog = catalog
        self._keys = keys
        self._started_at = time.monotonic()
        self._redis = make_redis()
        self._buckets = SharedBuckets(self._redis)
        self._notifier = Notifier(self._redis, make_app(publisher=True), self._title_of)
        self._completions = Completions(engine, self._redis, poll_seconds=settings.poll_seconds)
        self._backlog = Backlog(engine, self._redis, max_queued=settings.max_queued)
        self._intake = Intake(self.commit, max_group=settings.max_group, max_waiting=settings.max_waiting)

    @property
    def buckets(self) -> SharedBuckets:
        """Quotas that all API processes share, in Redis."""
        return self._buckets

    def start(self) -> None:
        """Start the threads; call it on the event loop."""
        self._notifier.start()
        self._completions.start()
        self._backlog.start()
        self._intake.start()

    def stop(self) -> None:
        """Commit what waits, send the wake-ups that are noted, stop the threads, close the connections."""
        self._intake.stop()
        self._notifier.stop()
        self._completions.stop()
        self._backlog.stop()
        self._redis.close()

    def _title_of(self, model_version_id: int) -> str | None:
        """Return the title of a wake-up: name and version of the model."""
        if model_version_id == NO_VERSION:
            return NEW_MODELS
        version = self._catalog.snapshot.by_id.get(model_version_id)
        return None if version is None else version.label

    # ── submitting and waiting ───────────────────────────────────────────────────────────────────────────────────

    async def submit(self, submission: Submission, *, wait: float) -> Accepted:
        """Commit a submission, and return its job at its end, or after `wait` seconds."""
        if wait <= 0:
            return await self._store(submission)
        ended = self._completions.expect(submission.id)  # before the commit: its worker may be quicker than we are
        try:
            accepted = await self._store(submission)
            if accepted.job is not None:
                accepted.job = await self._completions.ended(ended, wait) or accepted.job
            return accepted
        finally:
            self._completions.forget(submission.id, ended)

    async def _store(self, submission: Submission) -> Accepted:
        if submission.idempotency_key is None:
            return await self._intake.submit(submission)
        with self._keys.hold(submission):
            return await self._intake.submit(submission)

    async def wait_for_end(self, job_id: str, seconds: float) -> StoredJob | None:
        """Return a stored job as soon as it has ended; None if it does not end within `seconds`."""
        return await self._completions.wait(job_id, seconds)

    def trouble(self) -> str | None:
        """Return the reason why no submission can be committed now, None otherwise."""
        return self._intake.trouble()

    # ── places in the queues ─────────────────────────────────────────────────────────────────────────────────────

    def check_room(self, lane: str, version: Version) -> None:
        """Raise Unavailable when the queue of a model version in a lane is full."""
        if self._backlog.is_full(lane, version.id):
            limit = self._settings.max_queued
            raise Unavailable(
                f"The queue of {version.label} is full ({limit} jobs): try again later.",
                retry_after=self._backlog.place(lane, version.id, position=limit // 10).retry_after,
            )

    def estimate_place(self, job: StoredJob) -> Place:
        """Return the approximate place of a job in its queue, from the last sample."""
        if job.state != JobState.QUEUED:
            return Place()
        return self._backlog.place(job.lane, job.model_version_id)

    async def count_place(self, job: StoredJob) -> Place:
        """Return the place of a job in its queue, counted in the table; unknown if that takes too long.

        A file has no ETA: the queue's rate counts jobs, and a file may take any time.
        """

        def count() -> int:
            with self._reader.connect() as connection:
                return count_ahead(connection, job, limit=FARTHEST - 1) + 1

        if job.state != JobState.QUEUED:
            return Place()
        try:
            position = await asyncio.wait_for(run_in_threadpool(count), POSITION_SECONDS)
        except (SQLAlchemyError, TimeoutError) as error:
            log.warning("the place of a job in its queue could not be read: %s", type(error).__name__)
            return Place()
        if kind_of(job.kind).is_chunked or job.model_version_id == NO_VERSION:
            return Place(position)
        return self._backlog.place(job.lane, job.model_version_id, position=position)

    # ── workers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def notify_files(self, model_version_id: int) -> None:
        """Wake a worker of the bulk lane; safe from any thread, returns at once."""
        self._notifier.notify(Lane.BULK, model_version_id)

    def notify_uploads(self) -> None:
        """Wake a worker of the bulk lane; safe from any thread, returns at once."""
        self._notifier.notify(Lane.BULK, NO_VERSION)

    def model_states(self) -> ModelStates:
        """Return the last states of the models in the workers."""
        workers = self._catalog.live_workers()
        return ModelStates(
            loaded={label for worker in workers for label in worker.models},
            loading=set(),
            refused={label: why for worker in workers for label, why in worker.refused.items()},
            troubles=[],
            has_worker=bool(workers),
            jobs_wait=True,
        )

    def examine(self, *, is_down: bool) -> Condition:
        """Return the condition of Redis, workers and queues; it asks Redis, which may take half a second."""
        workers = self._catalog.live_workers()
        backlog = self._backlog
        uptime = time.monotonic() - self._started_at
        reasons: list[str] = []
        broker = "ok" if self._notifier.is_broker_up() else "down"
        if broker == "down":
            reasons.append(Reason("broker_silent", waiting=backlog.waiting()))
        is_starting = not is_down and not workers and uptime < STARTING_SECONDS
        if is_starting:
            reasons.append(Reason("starting", waiting=backlog.waiting()))
        elif not workers:
            reasons.append(Reason("no_worker", waiting=backlog.waiting()))
        else:
            missing = [lane.value for lane in Lane if not any(lane.value in worker.lanes for worker in workers)]
            reasons += [Reason("no_worker_of_lane", lane=lane, waiting=backlog.waiting(lane)) for lane in missing]
        age = self._catalog.recovery_age()
        is_new = uptime < STARTING_SECONDS and age is None
        recovery = "late" if is_recovery_late(self._settings, age) and not is_new else "ok"
        if recovery == "late":
            reasons.append(Reason("recovery_never") if age is None else Reason("recovery_late", seconds=round(age)))
        reasons += [Reason("lane_stalled", lane=lane) for lane in backlog.stalled_lanes()]
        return Condition(reasons, broker, recovery, workers, backlog.oldest_seconds(), is_starting)

    # ── the tables ───────────────────────────────────────────────────────────────────────────────────────────────

    def commit(self, group: Sequence[Submission]) -> Sequence[Accepted | GuichetError]:
        """Store a group as queued jobs in one statement, then send its wake-ups.

        Raises SQLAlchemyError if nothing was stored. If the outcome is unknown, each answer reports that.
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
            self._notifier.notify(lane, version)

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
                job = find_jobs(connection, [submission.id]).get(submission.id)
            earlier = Accepted(job) if job is not None else find_earlier(self._engine, submission)
        except SQLAlchemyError as error:  # the others of the group are stored, and have to hear so
            log.error("the job that was there before a submission could not be read: %s", type(error).__name__)
            if submission.idempotency_key is None:  # only the job itself can have been in the way
                return Accepted(queued_job(submission, datetime.now(UTC)))
            return unsure(submission)
        # The earlier job may have lost its key, or ended its life, at this moment.
        return earlier or Unavailable("The request was not accepted: try again.", retry_after=1)
