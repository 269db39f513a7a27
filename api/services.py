"""What one API process holds, and how the two runtimes differ: in how a group is committed and who is waited for."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from redis import Redis
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from starlette.requests import HTTPConnection

from api.backlog import Backlog
from api.catalog import Catalog
from api.intake import Accepted, Intake
from api.notifier import Notifier
from api.refusals import Refusals
from api.waiting import Waiting
from shared import jobs
from shared.config import Settings
from shared.db import is_sqlite, make_engine, reader
from shared.errors import Conflict, Fault, GuichetError, IdempotencyMismatch, ModelError, Unavailable
from shared.job_queries import StoredJob, StoredOutput, find_by_idempotency_key, find_jobs
from shared.jobs import Output, Submission
from shared.models import Models
from shared.queue import make_app
from shared.scoring import score_rows
from shared.tables import JobKind, JobState

log = logging.getLogger(__name__)


@dataclass(slots=True)
class QueueSide:
    """What the queue runtime has on top: a way to wake workers, to hear of them, and to know how long they take."""

    notifier: Notifier
    waiting: Waiting
    backlog: Backlog


class Services:
    """Everything that the routes need; opened and closed with the process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.started_at = time.time()
        self.engine: Engine = make_engine(settings.database)
        self.reader = reader(self.engine)  # on PostgreSQL every statement of it commits by itself
        self.catalog = Catalog(self.reader, settings)
        self.refusals = Refusals(self.engine)
        self.queue: QueueSide | None = None
        self.models: Models | None = None
        self._redis: Redis | None = None
        self._keys_in_flight: set[tuple[str | None, str]] = set()
        if settings.runtime == "queue":
            # Timeouts for a publisher; the listener's reads are bounded by its own poll.
            self._redis = Redis.from_url(settings.broker, socket_timeout=0.5, socket_connect_timeout=0.5)
            self.queue = QueueSide(
                Notifier(self._redis, make_app(publisher=True)),
                Waiting(self.reader, self._redis, poll_seconds=settings.poll_seconds),
                Backlog(self.reader, self._redis, max_queued=settings.max_queued),
            )
        else:
            self.models = Models(self.reader, settings.models)
        self.intake = Intake(
            self._enqueue if settings.runtime == "queue" else self._score,
            max_group=settings.max_group,
            max_waiting=settings.max_waiting,
        )

    def start(self) -> None:
        """Start every thread; call it on the event loop."""
        self.catalog.start()
        self.refusals.start()
        if self.queue is not None:
            self.queue.notifier.start()
            self.queue.waiting.start()
            self.queue.backlog.start()
        if self.models is not None:
            self.models.preload()
        self.intake.start()

    def stop(self) -> None:
        """Commit and store what waits, then stop every thread."""
        self.intake.stop()
        self.catalog.stop()
        if self.queue is not None:
            self.queue.notifier.stop()
            self.queue.waiting.stop()
            self.queue.backlog.stop()
        self.refusals.stop()
        self.engine.dispose()
        if self._redis is not None:
            self._redis.close()

    @contextmanager
    def in_flight(self, submission: Submission) -> Iterator[None]:
        """Hold a submission's Idempotency-Key while it is committed; raise Conflict when another one holds it."""
        if submission.idempotency_key is None:
            yield
            return
        key = (submission.idempotency_scope, submission.idempotency_key)
        if key in self._keys_in_flight:
            raise Conflict(
                "The first request with this Idempotency-Key is still being stored: send it again.", retry_after=1
            )
        self._keys_in_flight.add(key)
        try:
            yield
        finally:
            self._keys_in_flight.discard(key)

    @contextmanager
    def writer(self) -> Iterator[Connection]:
        """Yield a connection whose statements are each committed (PostgreSQL), or all at the end (SQLite)."""
        if is_sqlite(self.engine):
            with self.engine.begin() as connection:
                yield connection
        else:
            with self.reader.connect() as connection:
                yield connection

    # ── how a group is committed ─────────────────────────────────────────────────────────────────────────────────

    def _enqueue(self, group: Sequence[Submission]) -> Sequence[Accepted | GuichetError]:
        """Commit a group as queued jobs, then note the wake-ups."""
        assert self.queue is not None
        try:
            with self.reader.connect() as connection:
                created = jobs.submit(connection, group)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            # The server closed our connection, e.g. because it restarted. Ids decide: what the first try
            # committed is not inserted again.
            with self.reader.connect() as connection:
                created = jobs.submit(connection, group)
        for lane, version in {(job.lane, job.model_version_id) for job in group}:
            self.queue.notifier.notify(lane, version)
        return [
            Accepted(_queued(job, created[job.id])) if job.id in created else self._find_earlier(job) for job in group
        ]

    def _find_earlier(self, submission: Submission) -> Accepted | GuichetError:
        """Return the job that was there before a submission: the same one, or another with its key."""
        with self.reader.connect() as connection:
            found = find_jobs(connection, [submission.id]).get(submission.id)
            if found is not None:
                return Accepted(found)
        return self._find_same_key(submission) or Unavailable("The request was not stored: try again.", retry_after=1)

    def _find_same_key(self, submission: Submission) -> Accepted | GuichetError | None:
        """Return what an earlier request with the same Idempotency-Key means for this one."""
        if submission.idempotency_scope is None or submission.idempotency_key is None:
            return None
        with self.reader.connect() as connection:
            earlier = find_by_idempotency_key(connection, submission.idempotency_scope, submission.idempotency_key)
        return None if earlier is None else _same_body(submission, *earlier)

    def _score(self, group: Sequence[Submission]) -> Sequence[Accepted | GuichetError]:
        """Score a group and commit jobs, inputs and outputs at once: the sync runtime."""
        assert self.models is not None
        started_at = datetime.now(UTC)
        answers: dict[str, Accepted | GuichetError] = {}
        by_version: dict[int, list[Submission]] = {}
        for submission in group:
            earlier = self._find_same_key(submission)
            if earlier is not None:
                answers[submission.id] = earlier
            else:
                by_version.setdefault(submission.model_version_id, []).append(submission)
        scored: list[tuple[Submission, list[Output | Fault]]] = []
        for version, members in by_version.items():
            try:
                model = self.models.get(version)
            except ModelError as error:
                refusal = Unavailable(f"The model cannot be loaded now: {error.detail}", retry_after=10)
                answers.update((member.id, refusal) for member in members)
                continue
            rows = [
                row
                for member in members
                for row, fault in zip(member.rows, member.faults, strict=True)
                if fault is None
            ]
            results = score_rows(model, rows)
            start = 0
            for member in members:
                count = len(member.rows) - member.failed_count
                scored.append((member, results[start : start + count]))
                start += count
        if scored:
            members_only, results_only = zip(*scored, strict=True)
            # No transaction is open while the model works; SQLite has one writer, and it should not wait for a model.
            with self.engine.begin() as connection:
                finished_at = jobs.record(connection, members_only, results_only, started_at=started_at)
        for member, outcomes in scored:
            answers[member.id] = Accepted(_recorded(member, outcomes, started_at, finished_at))
        return [answers[submission.id] for submission in group]


def _same_body(submission: Submission, earlier_id: str, body_hash: str | None) -> Accepted | GuichetError:
    if body_hash == submission.body_hash:
        return Accepted(None, earlier_id)
    return IdempotencyMismatch(
        "This Idempotency-Key was used with another body: take a new key for a new request.", job_id=earlier_id
    )


def _queued(submission: Submission, created_at: datetime) -> StoredJob:
    return _stored(submission, JobState.QUEUED, created_at)


def _stored(submission: Submission, state: JobState, created_at: datetime) -> StoredJob:
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


def _recorded(
    submission: Submission, outcomes: Sequence[Output | Fault], started_at: datetime, finished_at: datetime
) -> StoredJob:
    faults = [outcome for outcome in outcomes if isinstance(outcome, Fault)]
    failed = len(faults) == len(outcomes)
    job = _stored(submission, JobState.FAILED if failed else JobState.SUCCEEDED, started_at)
    job.attempt = 1
    job.started_at, job.finished_at = started_at, finished_at
    job.failed_count += len(faults)
    if failed:
        job.error = {"code": faults[0].code, "message": faults[0].message}
    elif submission.kind == JobKind.PREDICT:
        output = outcomes[0]
        assert isinstance(output, Output)
        job.output = StoredOutput(
            output.prediction, output.label, output.probability, output.probabilities, output.threshold
        )
    return job


def services_of(connection: HTTPConnection) -> Services:
    """Return the services of the process that handles this request."""
    services: Services = connection.app.state.services
    return services
