"""Lists of a caller's jobs by filters, page by page."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.auth.callers import Caller
from api.http.prefix import link
from api.jobs.requests import find_version
from api.jobs.submissions import describe_job
from api.services import Services
from shared.errors import InvalidRequest
from shared.faults import Fault
from shared.jobs.queries.jobs import StoredJob
from shared.jobs.queries.listing import JobQuery, ListPlace, find_place, list_jobs, read_place
from shared.tables import JobState

_ID = "[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
CURSOR = rf"^([0-9]{{1,17}}\.)?{_ID}$"


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs are meant: those in a state, of a model (`name`, `name@3` or `name@alias`), of a time."""

    status: JobState | None = None
    model: str | None = None
    since: datetime | None = None  # inclusive
    until: datetime | None = None  # exclusive

    @property
    def parameters(self) -> dict[str, str]:
        """The filter as parameters of a query; what filters nothing is left out."""
        values = {
            "status": None if self.status is None else self.status.value,
            "model": self.model,
            "from": None if self.since is None else self.since.isoformat().replace("+00:00", "Z"),
            "to": None if self.until is None else self.until.isoformat().replace("+00:00", "Z"),
        }
        return {name: value for name, value in values.items() if value is not None}


async def list_page(
    services: Services, request: Request, caller: Caller, chosen: JobFilter, *, limit: int, before: str | None
) -> dict[str, Any]:
    """Return a page of the jobs that a caller sees, newest first: its `items`, and where the `next` one is, or None.

    Raises NotFound for a model or version that there is not, and InvalidRequest for a cursor that is no place.
    """
    query = await query_of(services, caller, chosen)
    place = None if before is None else read_place(before)

    def read() -> list[StoredJob]:
        with services.reader.connect() as connection:
            begin = _begin(connection, place) if isinstance(place, UUID) else place
            return list_jobs(connection, query, before=begin, limit=limit + 1)

    jobs = await run_in_threadpool(read)
    page = jobs[:limit]
    following = None
    if len(jobs) > limit:
        last = ListPlace(page[-1].created_at, page[-1].id)
        parameters = {"limit": limit, "before": last.text, **chosen.parameters}
        following = link("/jobs?") + urlencode(parameters, safe="@")
    return {"items": [describe_job(services, request, job) for job in page], "next": following}


async def query_of(
    services: Services, caller: Caller, chosen: JobFilter, *, states: Sequence[str] | None = None
) -> JobQuery:
    """Return what is looked for in the table: the caller's jobs, as chosen, and of these those in some states.

    Raises NotFound for a model or version that there is not.
    """
    if chosen.status is not None:
        states = [chosen.status.value] if states is None or chosen.status in states else []
    return JobQuery(
        owner=caller.sees,
        states=None if states is None else list(states),
        model_version_ids=None if chosen.model is None else await _versions(services, chosen.model),
        since=_utc(chosen.since, "from"),
        until=_utc(chosen.until, "to"),
    )


def _begin(connection: Connection, job_id: UUID) -> ListPlace:
    place = find_place(connection, job_id)
    if place is None:
        message = "is the id of a job that is not there: begin with the first page, and follow its `next`"
        raise InvalidRequest(f"`before` {message}.", faults=[Fault("/query/before", "unknown_job", message)])
    return place


def _utc(moment: datetime | None, name: str) -> datetime | None:
    """Return a moment in UTC, which is what one without an offset is taken for."""
    try:
        return moment and (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC))
    except OverflowError:
        message = "lies outside the years 1 to 9999"
        raise InvalidRequest(f"`{name}` {message}.", faults=[Fault(f"/query/{name}", "range", message)]) from None


async def _versions(services: Services, reference: str) -> list[int]:
    """Return the ids of the versions of `name`: all of a model, or that of `name@3` or `name@alias`."""
    if "@" not in reference and (versions := services.catalog.versions_of(reference)):
        return [version.id for version in versions]
    named = await find_version(services, reference, None, archived=True)
    return [named.id] if "@" in reference else [version.id for version in services.catalog.versions_of(reference)]
