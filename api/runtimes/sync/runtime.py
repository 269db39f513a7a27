"""The sync runtime: each group is scored at once, and committed with its outputs. No broker, no worker.

Each model version has an intake, and a process that scores (api/runtimes/sync/model_process.py): whatever one model
does, the others go on.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from api.models.catalog import Version
from api.runtimes.followers import JobFollowers
from api.runtimes.group_commit import Accepted, Intake, Intakes, unsure
from api.runtimes.idempotency import KeysInFlight, find_earlier
from api.runtimes.runtime import Condition, ModelStates, Place
from api.runtimes.sync.counting_thread import CountingThread
from api.runtimes.sync.csv_thread import ChunkThread
from api.runtimes.sync.model_process import ModelProcess, ModelProcesses, ProcessLost, TooLate
from api.runtimes.sync.registration_thread import RegistrationThread
from api.runtimes.sync.retention_thread import RetentionThread
from api.runtimes.sync.self_audit_thread import SelfAuditThread
from shared.config.settings import Settings
from shared.database.engine import reader
from shared.errors import GuichetError, ModelError, Unavailable
from shared.faults import Fault
from shared.handlers.table import GROUPS
from shared.jobs.kinds import Claiming, kind_of
from shared.jobs.queries.jobs import StoredJob, StoredOutput, find_jobs, queued_job
from shared.jobs.recording import insert_finished
from shared.jobs.results import outcome_of
from shared.jobs.submission import Submission, time_of
from shared.observability import tracing
from shared.observability.metrics import METRICS, SCORE_SECONDS, SCORED_ROWS
from shared.reasons import Reason
from shared.registry.watcher import ModelWatcher
from shared.rescoring.shadow_thread import ShadowThread
from shared.scoring.batch import split_results
from shared.scoring.outputs import Output
from shared.tables import JobState

log = logging.getLogger(__name__)

Result = TypeVar("Result")

START_SECONDS = 15.0  # how long a start waits for the champions
LOADING_SECONDS = 8.0  # how long a request waits for a model that is being loaded
SLOW_SECONDS = 5.0  # a call that takes longer is told of in /health
LOST_SECONDS = 600.0  # and a row that took its process down, for so long


@dataclass(slots=True)
class Computed:
    """A submission with the results of its rows without faults, and the number of attempts."""

    submission: Submission
    results: list[Any]  # by row: what its handler returns, or a Fault
    attempt: int = 1


class SyncRuntime:
    """Holds a process for each model; they score with the same code as a worker."""

    def __init__(self, engine: Engine, settings: Settings, keys: KeysInFlight, followers: JobFollowers) -> None:
        self._engine = engine
        self._settings = settings
        self._keys = keys
        self._followers = followers
        self._reader = reader(engine)
        self.models = ModelProcesses(self._reader, settings.models, settings.models_uri)
        self._arrivals = ModelWatcher(self.models, settings, engine=engine)
        self._chunks = ChunkThread(engine, self.models, settings)
        self._counting = CountingThread(engine, self.models, settings)
        self._retention = RetentionThread(engine, settings)
        self._self_audit = SelfAuditThread(engine, self.models, settings)
        self._registrations = RegistrationThread(engine, settings)
        self._shadow = ShadowThread(engine, settings, holder="sync")  # the one process of its database
        self._intakes = Intakes(self._make_intake)
        self._loading: dict[int, Future[ModelProcess]] = {}
        self._lock = threading.Lock()
        self._writing = threading.Lock()  # SQLite has one writer, and lets the others sleep for too long

    def _make_intake(self, model_version_id: int) -> Intake:
        return Intake(
            self.commit,
            max_group=self._settings.max_group,
            max_waiting=self._settings.max_waiting,
            is_scoring=lambda: self.is_busy(model_version_id),
        )

    @property
    def buckets(self) -> None:
        """There is one process: it counts by itself."""
        return None

    def start(self) -> None:
        """Load the champions, so that the first row need not wait; go on with files that were being scored."""
        self._self_audit.start()
        self._preload()
        self._arrivals.start()
        self._chunks.start()
        self._registrations.start()
        self._counting.start()
        self._retention.start()
        self._shadow.start()
        self._intakes.start()

    def stop(self) -> None:
        """Commit what waits, and let the chunk that is being scored end."""
        self._intakes.stop()
        self._arrivals.stop()
        self._chunks.stop()
        self._registrations.stop()
        self._counting.stop()
        self._retention.stop()
        self._self_audit.stop()
        self._shadow.stop()
        self.models.close()

    # ── submitting and waiting ───────────────────────────────────────────────────────────────────────────────────

    async def submit(self, submission: Submission, *, wait: float) -> Accepted:
        """Score a submission and commit it with its outputs; return its job, which has ended, whatever `wait` is."""
        if submission.idempotency_key is None:
            return await self._intakes.submit(submission)
        with self._keys.hold(submission):
            return await self._intakes.submit(submission)

    async def wait_for_end(self, job_id: str, seconds: float) -> StoredJob | None:
        """Return a stored job, always of a file, as soon as it has ended; None if it does not end within `seconds`."""
        return await self._followers.wait_for_end(job_id, seconds)

    def trouble(self) -> str | None:
        """Return the reason why no submission can be committed now, None otherwise."""
        return self._intakes.trouble()

    def check_room(self, lane: str, version: Version) -> None:
        """Do nothing: rows do not queue, and files may."""

    def estimate_place(self, job: StoredJob) -> Place:
        """Nothing is known of a queue."""
        return Place()

    async def count_place(self, job: StoredJob) -> Place:
        """Nothing is known of a queue."""
        return Place()

    def notify_files(self, model_version_id: int) -> None:
        """Wake the thread that scores files; safe from any thread, returns at once."""
        self._chunks.wake()

    def notify_uploads(self) -> None:
        """Wake the thread that registers uploads; safe from any thread, returns at once."""
        self._registrations.wake()

    # ── the models' condition ────────────────────────────────────────────────────────────────────────────────────

    def model_states(self) -> ModelStates:
        """Return the states of this process' models."""
        return ModelStates(
            loaded=set(self.models.names()),
            loading=self.models.loading.copy(),
            refused=self.models.refused.copy(),
            troubles=self.troubles(),
            has_worker=True,
            jobs_wait=False,
        )

    def examine(self, *, is_down: bool) -> Condition:
        """Return only the state of the models: this runtime has no broker and no worker."""
        return Condition()

    def troubles(self) -> list[str]:
        """Return the problems of loaded models, one sentence each."""
        now = time.monotonic()
        troubles: list[str] = []
        for model in self.models.loaded():
            since = model.busy_since
            if since is not None and now - since > SLOW_SECONDS:
                troubles.append(Reason("model_busy", model=model.label, seconds=round(now - since)))
            lost = sum(now - at < LOST_SECONDS for at in model.lost_at)
            if lost:
                troubles.append(Reason("model_lost", model=model.label, times=lost, minutes=round(LOST_SECONDS / 60)))
        troubles += [Reason("model_loading", model=label) for label in sorted(self.models.loading)]
        return troubles

    def is_busy(self, model_version_id: int) -> bool:
        """Return whether a model is loading or scoring a row: both have deadlines of their own."""
        model = self.models.find(model_version_id)
        loading = self._loading.get(model_version_id)
        return (model is not None and model.busy_since is not None) or (loading is not None and not loading.done())

    def commit(self, group: Sequence[Submission]) -> Sequence[Accepted | GuichetError]:
        """Score a group of one model version, then store jobs, inputs and outputs in one transaction."""
        started_at = datetime.now(UTC)
        answers: dict[str, Accepted | GuichetError] = {}
        members = []
        for submission in group:
            earlier = find_earlier(self._reader, submission)
            if earlier is not None:
                answers[submission.id] = earlier
            else:
                members.append(submission)
        if members:
            try:
                model = self._get(members[0].model_version_id)
                began = time.monotonic()
                computed = self._compute_as_allowed(model, members)
            except ModelError as error:
                refusal = Unavailable(f"The model cannot be loaded now: {error.detail}", retry_after=10)
                answers.update((member.id, refusal) for member in members)
            else:
                scored = time.monotonic()
                _measure(model, members, scored - began)
                answers.update(self._store(computed, started_at))
                if (traced := tracing.current()) is not None:
                    _trace(traced, model, computed, began=began, scored=scored)
        return [answers[submission.id] for submission in group]

    # ── the model ────────────────────────────────────────────────────────────────────────────────────────────────

    def _preload(self) -> None:
        try:
            loading = [self._load(model_version_id) for model_version_id in self.models.champion_ids()]
        except SQLAlchemyError:
            log.exception("the registry could not be read; models are loaded when they are needed")
            return
        until = time.monotonic() + START_SECONDS
        for future in loading:
            try:
                future.result(timeout=max(0.0, until - time.monotonic()))
            except TimeoutError:
                log.warning("a model is still being loaded; the service starts without it")
            except Exception as error:  # noqa: BLE001 - whatever it is, the process has to start for the other models
                log.warning("a model was not loaded; it is tried again: %s", error)

    def _get(self, model_version_id: int) -> ModelProcess:
        """Return a loaded model; raise ModelError when it cannot be loaded, Unavailable when that takes long."""
        model = self.models.find(model_version_id)
        if model is not None:
            return model
        try:
            return self._load(model_version_id).result(timeout=LOADING_SECONDS)
        except TimeoutError:
            message = "The model is being loaded: the request was not accepted. Try again."
            raise Unavailable(message, retry_after=5) from None

    def _load(self, model_version_id: int) -> "Future[ModelProcess]":
        with self._lock:
            future = self._loading.get(model_version_id)
            if future is None or future.done():
                future = in_thread(lambda: self.models.get(model_version_id), name="loading")
                self._loading[model_version_id] = future
            return future

    def _compute_as_allowed(self, model: ModelProcess, members: Sequence[Submission]) -> list[Computed]:
        """Compute the rows of a group, by the pipeline where the version is suspended, or was while it computed."""
        version = members[0].model_version_id
        if version not in self._self_audit.suspended:
            computed = self._compute(model, members, by_pipeline=False)
            if version not in self._self_audit.suspended:
                return computed
        return self._compute(model, members, by_pipeline=True)

    def _compute(self, model: ModelProcess, members: Sequence[Submission], *, by_pipeline: bool) -> list[Computed]:
        """Compute the rows of a group, with one call for those that a worker would claim together."""
        computed: list[Computed] = []
        for _, claiming, kinds in GROUPS:
            group = [member for member in members if member.kind in kinds]
            if claiming == Claiming.ALONE:
                computed += [self._compute_alone(model, member, by_pipeline=by_pipeline) for member in group]
            elif group:
                computed += self._compute_together(model, group, by_pipeline=by_pipeline)
        return computed

    def _compute_together(
        self, model: ModelProcess, members: Sequence[Submission], *, by_pipeline: bool
    ) -> list[Computed]:
        """Compute the rows of one handler in one call; after a crash, those of each member alone."""
        if len(members) == 1:
            return [self._compute_alone(model, members[0], by_pipeline=by_pipeline)]
        rows = [row for member in members for row in _good_rows(member)]
        try:
            seconds = min(member.timeout_seconds for member in members)
            results = model.compute(members[0].kind, rows, seconds, by_pipeline=by_pipeline)
        except (TooLate, ProcessLost, MemoryError):
            return [self._compute_alone(model, member, by_pipeline=by_pipeline) for member in members]
        counts = (len(member.rows) - member.failed_count for member in members)
        return [Computed(*pair) for pair in zip(members, split_results(results, counts), strict=True)]

    def _compute_alone(self, model: ModelProcess, member: Submission, *, by_pipeline: bool) -> Computed:
        """Compute one member, again if its process is lost, as often as a job may be tried."""
        rows = _good_rows(member)
        for attempt in range(1, member.max_attempts + 1):
            try:
                results = model.compute(member.kind, rows, member.timeout_seconds, by_pipeline=by_pipeline)
                return Computed(member, results, attempt)
            except ProcessLost:
                continue
            except TooLate:
                message = f"the job ran longer than its timeout of {member.timeout_seconds:g} s"
                return Computed(member, [Fault("", "timeout", message)] * len(rows), attempt)
            except MemoryError:
                message = "the model ran out of memory; send fewer rows at once"
                return Computed(member, [Fault("", "out_of_memory", message)] * len(rows), attempt)
        message = "every process that ran this job died; the row may crash the model"
        return Computed(member, [Fault("", "worker_lost", message)] * len(rows), member.max_attempts)

    # ── the tables ───────────────────────────────────────────────────────────────────────────────────────────────

    def _store(self, computed: Sequence[Computed], started_at: datetime) -> dict[str, Accepted | GuichetError]:
        """Record a computed group; raise SQLAlchemyError if nothing of it was stored."""
        try:
            finished_at = self._record(computed, started_at)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            log.warning("the database closed the connection; asking on a new one what it has stored")
            try:
                finished_at = self._record(computed, started_at)
            except IntegrityError:
                return self._find_stored(computed)
            except SQLAlchemyError:
                return {one.submission.id: unsure(one.submission) for one in computed}
        return {
            one.submission.id: Accepted(_recorded(one, started_at, finished_at[one.submission.id])) for one in computed
        }

    def _record(self, computed: Sequence[Computed], started_at: datetime) -> dict[str, datetime]:
        """Record a computed group in one transaction; return job id to when it finished."""
        finished_at: dict[str, datetime] = {}
        # No transaction is open while the model works; SQLite has one writer, who should not wait for a model.
        with self._writing, self._engine.begin() as connection:
            for handler, _, kinds in GROUPS:
                group = [one for one in computed if one.submission.kind in kinds]
                if group:
                    now = insert_finished(
                        connection,
                        [one.submission for one in group],
                        [one.results for one in group],
                        attempts=[one.attempt for one in group],
                        started_at=started_at,
                        store=handler.store,
                    )
                    finished_at |= {one.submission.id: now for one in group}
        return finished_at

    def _find_stored(self, computed: Sequence[Computed]) -> dict[str, Accepted | GuichetError]:
        """Return the stored jobs of a group whose COMMIT was not answered."""
        try:
            with self._reader.connect() as connection:
                jobs = find_jobs(connection, [one.submission.id for one in computed])
        except SQLAlchemyError:
            jobs = {}
        return {
            one.submission.id: Accepted(jobs[one.submission.id])
            if one.submission.id in jobs
            else unsure(one.submission)
            for one in computed
        }


def _measure(model: ModelProcess, members: Sequence[Submission], seconds: float) -> None:
    """Count a group that was computed in the metrics."""
    labels = (model.label, members[0].lane)
    METRICS.observe(SCORE_SECONDS, seconds, labels)
    METRICS.count(SCORED_ROWS, labels, sum(len(member.rows) - member.failed_count for member in members))


def _trace(
    traced: tracing.Tracing, model: ModelProcess, computed: Sequence[Computed], *, began: float, scored: float
) -> None:
    """Add a group that was stored to the traces of its requests."""
    stored = time.monotonic()
    for one in computed:
        member = one.submission
        about = {
            "guichet.job_id": member.id,
            "guichet.request_id": member.request_id,
            "guichet.model": model.label,
            "guichet.lane": member.lane,
            "guichet.attempt": one.attempt,
            "guichet.rows": len(member.rows),
            "guichet.jobs_in_claim": len(computed),
        }
        times = {"began": began, "scored": scored, "stored": stored}
        traced.add_job(member.traceparent, about, accepted_at=time_of(member.id), **times)


def in_thread(call: Callable[[], Result], *, name: str) -> "Future[Result]":
    """Run a call in a thread of its own, which does not hold up the end of the process."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is raised again where the result is waited for
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def _good_rows(member: Submission) -> list[dict[str, object]]:
    return [row for row, fault in zip(member.rows, member.faults, strict=True) if fault is None]


def _recorded(computed: Computed, started_at: datetime, finished_at: datetime) -> StoredJob:
    submission, end = computed.submission, outcome_of(computed.results)
    job = queued_job(submission, started_at, end.state)
    job.attempt = computed.attempt
    job.started_at, job.finished_at = started_at, finished_at
    job.failed_count += end.failed_count
    job.error = end.error
    if end.state == JobState.SUCCEEDED and kind_of(submission.kind).is_single:
        output = computed.results[0]
        assert isinstance(output, Output)
        job.output = StoredOutput(
            output.prediction, output.label, output.probability, output.probabilities, output.threshold
        )
    return job
