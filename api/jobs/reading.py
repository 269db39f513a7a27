"""Reading jobs: pages of a caller's jobs, and polling of one job."""

import hashlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from api.auth.callers import Caller
from api.http.conditional import etag_matches
from api.http.prefer import Preference
from api.http.prefix import link
from api.http.responses import json_response
from api.jobs.submissions import describe_job
from api.services import Services
from shared.jobs.queries import StoredJob, list_jobs
from shared.tables import JobState


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs a page holds: those in a state, of a model (`name`, `name@3` or `name@alias`), older than one."""

    status: JobState | None
    model: str | None
    before: str | None  # the id of a job
    limit: int  # jobs on a page


async def list_page(services: Services, request: Request, caller: Caller, chosen: JobFilter) -> dict[str, Any]:
    """Return a page of the jobs that a caller sees, newest first: its `items`, and where the `next` one is, or None."""
    versions = None if chosen.model is None else _versions(services, chosen.model)

    def read() -> list[StoredJob]:
        with services.reader.connect() as connection:
            return list_jobs(
                connection,
                owner=caller.sees,
                before=chosen.before,
                limit=chosen.limit + 1,
                state=None if chosen.status is None else chosen.status.value,
                model_version_ids=versions,
            )

    jobs = await run_in_threadpool(read)
    page = jobs[: chosen.limit]
    following = None
    if len(jobs) > chosen.limit:
        status = chosen.status and chosen.status.value
        place = {"limit": chosen.limit, "before": page[-1].id, "status": status, "model": chosen.model}
        following = link("/jobs?") + urlencode(
            {name: value for name, value in place.items() if value is not None}, safe="@"
        )
    return {"items": [describe_job(services, request, job) for job in page], "next": following}


def _versions(services: Services, reference: str) -> list[int]:
    """Return the ids of the versions of `name`: all of a model, or that of `name@3` or `name@alias`."""
    if "@" not in reference:
        return [version.id for version in services.catalog.versions_of(reference)]
    version = services.catalog.find(reference, None, archived=True)
    return [] if version is None else [version.id]


async def poll_response(services: Services, request: Request, job: StoredJob, preference: Preference) -> Response:
    """Return 200 with a job and when to ask again, or 304 where the caller has it already, by its ETag (RFC 9110)."""
    place = await services.runtime.count_place(job)
    headers = {} if job.is_terminal else {"Retry-After": str(place.retry_after)}
    if preference.applied is not None:
        headers["Preference-Applied"] = preference.applied
    body = describe_job(services, request, job, position=place.position, eta_seconds=place.eta_seconds)
    response = json_response(body, headers=headers)
    etag = f'"{hashlib.sha256(bytes(response.body)).hexdigest()[:32]}"'
    if etag_matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers={"ETag": etag, **headers})
    response.headers["ETag"] = etag
    return response
