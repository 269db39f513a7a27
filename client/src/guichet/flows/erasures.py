"""Erasing jobs. Flows, as in calls.py."""

from dataclasses import dataclass
from typing import Any, Self

from guichet.flows.calls import find, job_path
from guichet.transport.exchange import exchange
from guichet.transport.wire import Flow, Request, check, read

GONE = 410


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was erased: the job, the ids of it and of the jobs that explained its rows, and its number of rows."""

    id: str
    erased: tuple[str, ...]
    rows: int

    @classmethod
    def read(cls, body: dict[str, Any]) -> Self:
        """Read it from JSON."""
        return cls(str(body["id"]), tuple(str(job_id) for job_id in body["erased"]), int(body["rows"]))


def erase(job_id: str, reason: str, *, retries: int) -> Flow[Erasure]:
    """Erase an ended job. Raises Refused for an unknown job, one that was erased before, and one that has not ended.

    A job that was there at first and then is gone was erased by the first attempt, whose answer was lost.
    """
    job = yield from find(job_id, retries=retries)
    answer = yield from exchange(Request("DELETE", job_path(job.id), {"reason": reason}), retries)
    if answer.status == GONE:
        return Erasure(job.id, (job.id,), job.counts.total)
    return read(check(answer), Erasure.read)
