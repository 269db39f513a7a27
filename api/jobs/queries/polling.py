"""Polling of one job."""

import hashlib

from starlette.requests import Request
from starlette.responses import Response

from api.http.conditional import etag_matches
from api.http.prefer import Preference
from api.http.responses import json_response
from api.jobs.submissions import describe_job
from api.services import Services
from shared.jobs.queries.jobs import StoredJob


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
