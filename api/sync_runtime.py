"""The sync runtime: a group is scored as soon as it comes, and committed with its outputs. No broker, no worker."""

import logging
import threading
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Engine

from api.chunk_thread import ChunkThread
from api.idempotency import find_earlier
from api.intake import Accepted
from api.queue_runtime import queued_job
from shared.arrivals import Arrivals
from shared.config import Settings
from shared.db import reader
from shared.errors import Fault, GuichetError, ModelError, Unavailable
from shared.job_queries import StoredJob, StoredOutput
from shared.jobs import Output, Submission
from shared.models import Models
from shared.recording import record
from shared.registry import LoadedModel
from shared.scoring import score_rows, split_results
from shared.tables import JobKind, JobState

log = logging.getLogger(__name__)

Scored = tuple[Submission, list[Output | Fault]]


class SyncRuntime:
    """Holds the models itself; scores with the same code as a worker."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._reader = reader(engine)
        self.models = Models(self._reader, settings.models, settings.models_uri)
        self.arrivals = Arrivals(self.models, settings, engine=engine)
        self.chunks = ChunkThread(engine, self.models, settings)

    def start(self) -> None:
        """Load the champions, so that the first row need not wait; go on with files that were being scored."""
        self.models.preload()
        self.arrivals.start()
        self.chunks.start()

    def stop(self) -> None:
        """Let the chunk that is being scored end."""
        self.arrivals.stop()
        self.chunks.stop()

    def commit(self, group: Sequence[Submission]) -> Sequence[Accepted | GuichetError]:
        """Score a group, then store jobs, inputs and outputs in one transaction."""
        started_at = datetime.now(UTC)
        answers: dict[str, Accepted | GuichetError] = {}
        by_version: dict[int, list[Submission]] = {}
        for submission in group:
            earlier = find_earlier(self._reader, submission)
            if earlier is not None:
                answers[submission.id] = earlier
            else:
                by_version.setdefault(submission.model_version_id, []).append(submission)
        scored: list[Scored] = []
        for version, members in by_version.items():
            try:
                scored += self._score(version, members)
            except ModelError as error:
                refusal = Unavailable(f"The model cannot be loaded now: {error.detail}", retry_after=10)
                answers.update((member.id, refusal) for member in members)
        if scored:
            # No transaction is open while the model works; SQLite has one writer, who should not wait for a model.
            with self._engine.begin() as connection:
                finished_at = record(
                    connection, [job for job, _ in scored], [outcomes for _, outcomes in scored], started_at=started_at
                )
            for member, outcomes in scored:
                answers[member.id] = Accepted(_recorded(member, outcomes, started_at, finished_at))
        return [answers[submission.id] for submission in group]

    def _score(self, version: int, members: Sequence[Submission]) -> list[Scored]:
        return _score_in_time(self.models.get(version), members)


def _score_in_time(model: LoadedModel, members: Sequence[Submission]) -> list[Scored]:
    """Score the rows of a group; when it takes longer than a member's timeout, score each member alone.

    A model that never returns cannot be interrupted: its thread is left behind, and its job has failed.
    """
    rows = [row for member in members for row, fault in zip(member.rows, member.faults, strict=True) if fault is None]
    results: list[Output | Fault] = []
    thread = threading.Thread(target=lambda: results.extend(score_rows(model, rows)), name="scoring", daemon=True)
    thread.start()
    thread.join(min(member.timeout_seconds for member in members))
    if thread.is_alive():
        if len(members) > 1:
            return [scored for member in members for scored in _score_in_time(model, [member])]
        log.error("%s@%s is stuck on a row past its timeout", model.card.name, model.card.version)
        message = f"the job ran longer than its timeout of {members[0].timeout_seconds:g} s"
        return [(members[0], [Fault("", "timeout", message)] * len(rows))]
    if len(results) < len(rows):
        raise Unavailable("The process ran out of memory: send fewer rows at once.", retry_after=5)
    counts = (len(member.rows) - member.failed_count for member in members)
    return list(zip(members, split_results(results, counts), strict=True))


def _recorded(
    submission: Submission, outcomes: Sequence[Output | Fault], started_at: datetime, finished_at: datetime
) -> StoredJob:
    faults = [outcome for outcome in outcomes if isinstance(outcome, Fault)]
    failed = len(faults) == len(outcomes)
    job = queued_job(submission, started_at, JobState.FAILED if failed else JobState.SUCCEEDED)
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
