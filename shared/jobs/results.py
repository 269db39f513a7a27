"""The end state of a job from the results of its rows, and the storage of results other than scores."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from sqlalchemy import Connection

from shared.faults import Fault
from shared.tables import JobState

Result = TypeVar("Result")

# Writes results (input id, result) of one model version, in the transaction that ends their jobs.
Store = Callable[[Connection, int, Sequence[tuple[int, Result]]], None]


class Outcome(NamedTuple):
    """How a job ends."""

    state: JobState
    error: dict[str, str] | None  # {code, message} of the first row, where no row has a result
    failed_count: int  # rows without a result


def outcome_of(results: Sequence[object]) -> Outcome:
    """Return the end state of a job from the results or faults of its computed rows (one or more).

    It has failed when every one of them failed, for the first one's reason.
    """
    faults = [result for result in results if isinstance(result, Fault)]
    if len(faults) < len(results):
        return Outcome(JobState.SUCCEEDED, None, len(faults))
    return Outcome(JobState.FAILED, {"code": faults[0].code, "message": faults[0].message}, len(faults))
