"""The lengths of the queues and their rates, for positions and ETAs.

Sampled once a second by a thread. The rate is measured while there is a backlog (otherwise it would only mirror how
fast jobs arrive): what the workers counted in Redis as drained, smoothed over about ten seconds.
"""

import logging
import math
import time
from dataclasses import dataclass, field

from redis import Redis, RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from api.runtimes.runtime import Place
from shared.background import Background
from shared.broker.app import drained_key
from shared.jobs.queries.jobs import count_queued, oldest_waits

log = logging.getLogger(__name__)

SAMPLE_SECONDS = 1.0
STALLED_SECONDS = 30.0
SMOOTHING = 0.2  # weight of the newest sample

Queue = tuple[str, int]  # lane, model version id


@dataclass(slots=True)
class Drain:
    """Measurements of one queue."""

    queued: int = 0
    drained: int | None = None  # the workers' counter at the last sample
    sampled_at: float = 0.0
    rate: float | None = None  # jobs per second under backlog
    moved_at: float = field(default_factory=time.monotonic)  # when it was empty, or drained, last


class Backlog:
    """Samples every queue; answers from memory."""

    def __init__(self, engine: Engine, redis: Redis, *, max_queued: int) -> None:
        self._engine = engine
        self._redis = redis
        self._max_queued = max_queued
        self._drains: dict[Queue, Drain] = {}
        self._oldest = 0.0
        self._thread = Background(self._run, name="backlog")

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def stop(self) -> None:
        """Stop sampling."""
        self._thread.stop(3)

    def queued(self, lane: str, model_version_id: int) -> int:
        """Return the number of waiting jobs of a queue at the last sample."""
        drain = self._drains.get((lane, model_version_id))
        return 0 if drain is None else drain.queued

    def waiting(self, lane: str | None = None) -> int:
        """Return the number of waiting jobs at the last sample, in one lane or in all."""
        return sum(drain.queued for (of, _), drain in list(self._drains.items()) if lane is None or of == lane)

    def oldest_seconds(self) -> float:
        """Return for how many seconds, at the last sample, the job that has waited longest had been ready to start."""
        return self._oldest

    def is_full(self, lane: str, model_version_id: int) -> bool:
        """Return whether a queue has reached MAX_QUEUED."""
        return self.queued(lane, model_version_id) >= self._max_queued

    def stalled_lanes(self) -> list[str]:
        """Return the lanes where jobs wait and none finished for 30 seconds, even if workers report to be alive."""
        horizon = time.monotonic() - STALLED_SECONDS
        return sorted({lane for (lane, _), drain in list(self._drains.items()) if drain.moved_at < horizon})

    def place(self, lane: str, model_version_id: int, *, position: int | None = None) -> Place:
        """Return the place of a job at `position` (from 1; None: behind all others), and the delay until the next poll.

        No ETA is known before a rate is. It is polled after 1 to 60 seconds.
        """
        drain = self._drains.get((lane, model_version_id))
        if position is None:
            position = 1 if drain is None else drain.queued + 1
        if drain is None or drain.rate is None or drain.rate <= 0:
            return Place(position)
        eta = round(position / drain.rate, 1)
        return Place(position, eta, min(max(math.ceil(eta), 1), 60))

    def _run(self) -> None:
        while not self._thread.wait(SAMPLE_SECONDS):
            try:
                self._sample()
            except (RedisError, OSError) as error:
                # The workers' counters cannot be read, so nobody can say that nothing was finished.
                for drain in self._drains.values():
                    drain.moved_at = time.monotonic()
                log.debug("the queues were not sampled: %s", type(error).__name__)
            except SQLAlchemyError as error:
                # A position or an ETA is a hint: the last one stays.
                log.debug("the queues were not sampled: %s", type(error).__name__)

    def _sample(self) -> None:
        with self._engine.connect() as connection:
            counts = count_queued(connection, limit=self._max_queued)
            self._oldest = max(oldest_waits(connection, counts).values(), default=0.0)
        now = time.monotonic()
        was_queued = {queue: drain.queued for queue, drain in self._drains.items()}
        for queue in counts.keys() | self._drains.keys():
            # Before Redis is asked: a full queue is seen also while Redis is down.
            drain = self._drains.setdefault(queue, Drain())
            if counts.get(queue, 0) == 0 or counts.get(queue, 0) < drain.queued:
                drain.moved_at = now
            drain.queued = counts.get(queue, 0)
        for queue in list(self._drains):
            drain = self._drains[queue]
            busy = was_queued.get(queue, 0) > 0 and drain.queued > 0
            value = self._redis.get(drained_key(*queue))
            drained = int(value) if isinstance(value, bytes) else 0
            if busy and drain.drained is not None and drained >= drain.drained:
                measured = (drained - drain.drained) / (now - drain.sampled_at)
                drain.rate = measured if drain.rate is None else drain.rate + SMOOTHING * (measured - drain.rate)
            if drain.queued == 0 or drained != drain.drained:
                drain.moved_at = now
            drain.drained, drain.sampled_at = drained, now
