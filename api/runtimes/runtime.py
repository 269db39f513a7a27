"""The protocol of a runtime; the queue runtime and the sync runtime both implement it."""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from api.auth.shared_buckets import SharedBuckets
from api.models.catalog import LiveWorker, Version
from api.runtimes.group_commit import Accepted
from shared.jobs.queries.jobs import StoredJob
from shared.jobs.submission import Submission

FARTHEST = 10_001  # places in a queue are counted so far and no farther, because counting takes time


class Place(NamedTuple):
    """The place of a queued job, as far as it is known."""

    position: int | None = None  # from 1, `FARTHEST` at most
    eta_seconds: float | None = None  # until the job is done
    retry_after: int = 1  # whole seconds after which it is worth polling


@dataclass(frozen=True, slots=True)
class ModelStates:
    """Which model versions, by `name@version`, the processes that score have loaded, and which they cannot load."""

    loaded: set[str]
    loading: set[str]
    refused: dict[str, str]  # why; also by the address of a store, or the name of a thread, that has a fault
    troubles: list[str]  # what else is wrong with models that are loaded, one sentence each
    has_worker: bool  # whether there is a process that scores
    jobs_wait: bool  # whether rows for a model that is not loaded are stored, and wait for it


@dataclass(frozen=True, slots=True)
class Condition:
    """The condition of a runtime's parts; None or none for a part that it does not have."""

    reasons: list[str] = field(default_factory=list)  # what is wrong, one sentence each
    broker: str | None = None  # ok, down
    recovery: str | None = None  # ok, late
    workers: list[LiveWorker] = field(default_factory=list)
    oldest_queued_seconds: float | None = None  # for how long the oldest queued job has been ready to start
    is_starting: bool = False  # the service has just started, and no worker has been heard of yet


class Runtime(Protocol):
    """Gets jobs done: stores them for workers, or scores them in this service at once."""

    @property
    def buckets(self) -> SharedBuckets | None:
        """Quotas shared by all API processes, None with only one process."""
        ...

    def start(self) -> None:
        """Start the threads; call it on the event loop."""
        ...

    def stop(self) -> None:
        """Commit and send what waits, stop the threads, close the connections."""
        ...

    async def submit(self, submission: Submission, *, wait: float) -> Accepted:
        """Commit a submission, and return its job at its end, or after `wait` seconds.

        A request that was sent before is not waited for: it is `Accepted.earlier_id`. Raises Conflict while the first
        request with the same key is being committed, IdempotencyMismatch for another body under a key, Unavailable
        when nothing can be committed.
        """
        ...

    async def wait_for_end(self, job_id: str, seconds: float) -> StoredJob | None:
        """Return a stored job as soon as it has ended; None if it does not end within `seconds`."""
        ...

    def check_room(self, lane: str, version: Version) -> None:
        """Raise Unavailable when the queue of a model version in a lane is full."""
        ...

    def estimate_place(self, job: StoredJob) -> Place:
        """Return the approximate place of a job in its queue, from memory."""
        ...

    async def count_place(self, job: StoredJob) -> Place:
        """Return the place of a job in its queue, counted in the table; unknown if that takes too long."""
        ...

    def notify_files(self, model_version_id: int) -> None:
        """Wake the threads or workers that score chunks of CSV files; safe from any thread, returns at once."""
        ...

    def notify_uploads(self) -> None:
        """Wake the threads or workers that register uploaded models; safe from any thread, returns at once."""
        ...

    def trouble(self) -> str | None:
        """Return the reason why no submission can be committed now, None otherwise."""
        ...

    def model_states(self) -> ModelStates:
        """Return the last states of the models in the scoring processes."""
        ...

    def examine(self, *, is_down: bool) -> Condition:
        """Return the condition of broker, workers and queues, for /health; it may take half a second.

        `is_down`: no request can be taken, so that the service is not merely starting.
        """
        ...
