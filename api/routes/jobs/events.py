"""Following a job: server-sent events."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from api.deps import JobId, ReadCaller, ServicesDep
from api.jobs.finding import find_own_job
from api.jobs.queries.events import stream_events
from api.schemas.answers import OF_JOBS
from shared.jobs.queries.events import last_event

router = APIRouter(tags=["jobs"], default_response_class=Response)


# Of each event of the stream.
EVENT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "The event's number."},
        "event": {"enum": ["accepted", "started", "progress", "finished"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["id", "event", "data"],
}
# OpenAPI 3.1 does not say whether a schema is that of a stream or of its events: testers take it for the one, generated
# clients for the other.
STREAM: dict[str, Any] = {"anyOf": [EVENT, {"type": "string", "description": "The whole stream."}]}


@router.get(
    "/jobs/{id}/events",
    responses={
        200: {
            "description": "The stream: `id` is the event's number, `event` its type, `data` the job's status, counts "
            "and progress as JSON.",
            "content": {"text/event-stream": {"schema": STREAM}},
        },
        204: {"description": "The job has ended and the caller has its last event: no further events follow."},
        **OF_JOBS,
    },
    openapi_extra={
        "parameters": [
            {
                "name": "Last-Event-ID",
                "in": "header",
                "schema": {"type": "string"},
                "description": "Number of the last received event: the stream resumes after it",
            }
        ]
    },
    response_model=None,
)
async def get_events(
    request: Request,
    services: ServicesDep,
    caller: ReadCaller,
    job_id: JobId,
    last_event_id: Annotated[
        int | None, Query(ge=0, description="The same as `Last-Event-ID`, for a browser's first request")
    ] = None,
) -> Response:
    """Follow a job until it ends: first its past events, then each new one.

    Server-sent events of the types `accepted`, `started`, `progress` (of CSV jobs, for every chunk) and `finished`.
    A break loses nothing: reconnect with `Last-Event-ID`, to any process of the service. A line `: keep-alive` comes
    every 15 seconds in which nothing happens.
    """
    job = await find_own_job(services, caller, job_id)
    last_id = request.headers.get("last-event-id", "").strip()
    after = int(last_id) if last_id.isascii() and last_id.isdigit() and len(last_id) < 10 else last_event_id or 0
    if job.is_terminal and after >= last_event(job):
        return Response(status_code=204)  # an EventSource takes this as: do not come back
    following = services.followers
    following.check_room()
    return StreamingResponse(
        stream_events(services, following, job.id, min(after, last_event(job))),
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},  # nginx would hold events back
        media_type="text/event-stream",
    )
