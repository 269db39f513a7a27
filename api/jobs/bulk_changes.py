"""Cancel, or take up again, all jobs of a caller that match a filter: counted first, and changed when it is confirmed.

A confirmation names the filter and the moment of the count: it does not reach jobs that arrive later.
"""

import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from starlette.concurrency import run_in_threadpool

from api.auth.callers import Caller
from api.jobs.changing import cancel, take_up
from api.jobs.queries.listing import JobFilter, query_of
from api.services import Services
from shared.errors import Conflict, Gone, NotFound
from shared.jobs.queries.listing import UNSUCCESSFUL, JobQuery, list_ids
from shared.tables import JobState

MOST = 500  # jobs that one request changes
COUNTED = 10_000  # jobs at most
CONFIRM_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one job, and of which jobs it is possible."""

    name: Literal["cancel", "retry"]
    states: tuple[JobState, ...]
    apply: Callable[[Services, Caller, str], Awaitable[object]]


CANCEL = Change("cancel", (JobState.QUEUED, JobState.RUNNING), cancel)
RETRY = Change("retry", tuple(sorted(UNSUCCESSFUL)), take_up)


async def count_matching(services: Services, caller: Caller, change: Change, chosen: JobFilter) -> dict[str, Any]:
    """Return how many jobs the change is possible of, 10,000 at most, and what confirms it."""
    at = time.time()
    query = await _query(services, caller, change, chosen, at)
    count = len(await _ids(services, query, COUNTED + 1))
    confirm = f"{at:.6f}.{_digest(change, chosen, at)}" if count else None
    return {"count": min(count, COUNTED), "is_lower_bound": count > COUNTED, "confirm": confirm}


async def change_matching(
    services: Services, caller: Caller, change: Change, chosen: JobFilter, confirm: str
) -> dict[str, Any]:
    """Change the newest of the jobs that were counted, 500 at most; return how many, and whether more are left.

    Raises Conflict for a confirmation of another filter, or one that is 15 minutes old.
    """
    at = _moment(change, chosen, confirm)
    query = await _query(services, caller, change, chosen, at)
    ids = await _ids(services, query, MOST + 1)
    changed = refused = 0
    for job_id in ids[:MOST]:
        try:
            await change.apply(services, caller, job_id)
            changed += 1
        except (Conflict, Gone, NotFound):  # it has ended, was taken up, or was erased, since it was listed
            refused += 1
    return {"changed": changed, "refused": refused, "has_more": len(ids) > MOST}


async def _query(services: Services, caller: Caller, change: Change, chosen: JobFilter, at: float) -> JobQuery:
    query = await query_of(services, caller, chosen, states=change.states)
    counted_at = datetime.fromtimestamp(at, UTC) + timedelta(microseconds=1)
    until = counted_at if query.until is None else min(counted_at, query.until)
    return replace(query, until=until, can_be=change.name)


async def _ids(services: Services, query: JobQuery, limit: int) -> list[str]:
    def read() -> list[str]:
        with services.reader.connect() as connection:
            return list_ids(connection, query, before=None, limit=limit)

    return await run_in_threadpool(read)


def _moment(change: Change, chosen: JobFilter, confirm: str) -> float:
    text, _, digest = confirm.rpartition(".")
    try:
        at = float(text)
    except ValueError:
        at = 0.0
    if not 0 <= time.time() - at < CONFIRM_SECONDS or digest != _digest(change, chosen, at):
        raise Conflict(
            "This confirms another filter, or it is older than 15 minutes: leave `confirm` out to have the jobs "
            "counted again."
        )
    return at


def _digest(change: Change, chosen: JobFilter, at: float) -> str:
    """Return what binds a confirmation to its filter: it guards against mistakes, and is no secret."""
    text = json.dumps([change.name, chosen.parameters, f"{at:.6f}"], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
