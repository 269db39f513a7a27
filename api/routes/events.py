"""Following a job: server-sent events."""

import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from api.deps import ReadCaller, ServicesDep
from api.routes.jobs import COMMON, JobId, find_own_job
from api.runtimes.followers import JobFollowers
from api.services import Services
from shared.jobs.csv_queries import StoredEvent
from shared.jobs.events import last_event, read_events
from shared.jobs.queries import StoredJob, find_jobs

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 15.0


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
        204: {"description": "The job has ended, and the caller knows: there is nothing more to come."},
        **COMMON,
    },
    openapi_extra={
        "parameters": [
            {
                "name": "Last-Event-ID",
                "in": "header",
                "schema": {"type": "string"},
                "description": "The last event that was received: the stream goes on after it",
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
    """Follow a job: what has happened to it, then what happens, until it ends.

    Server-sent events of the types `accepted`, `started`, `progress` (of CSV jobs, for every chunk) and `finished`.
    A break loses nothing: reconnect with `Last-Event-ID`, to any process of the service. A line `: keep-alive` comes
    every 15 seconds in which nothing happens.
    """
    job = await find_own_job(services, caller, job_id)
    given = request.headers.get("last-event-id", "").strip()
    after = int(given) if given.isascii() and given.isdigit() and len(given) < 10 else last_event_id or 0
    if job.is_terminal and after >= last_event(job):
        return Response(status_code=204)  # an EventSource takes this as: do not come back
    following = services.followers
    following.check_room()
    return StreamingResponse(
        _stream(services, following, job.id, min(after, last_event(job))),
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},  # nginx would hold events back
        media_type="text/event-stream",
    )


async def _stream(services: Services, following: JobFollowers, job_id: str, after: int) -> AsyncIterator[bytes]:
    yield b"retry: 1000\n\n"
    try:
        with following.follow(job_id) as follower:
            job, events = await run_in_threadpool(_read, services, job_id, after)
            while job is not None:
                for event in events:
                    yield _written(event)
                    after = event.seq
                if job.is_terminal and after >= last_event(job):
                    return
                change = await follower.next_change(HEARTBEAT_SECONDS)
                if following.is_closed:
                    return
                events = []
                if change is None:
                    yield b": keep-alive\n\n"
                elif change.job is None or last_event(change.job) >= after:  # else it was read before ours
                    job = change.job
                    events = [event for event in change.events if event.seq > after]
                    if job is not None and last_event(job) > after and (not events or events[0].seq > after + 1):
                        job, events = await run_in_threadpool(_read, services, job_id, after)
    except SQLAlchemyError as error:
        log.warning("a stream of events broke off (%s); its reader comes back", type(error).__name__)


def _read(services: Services, job_id: str, after: int) -> tuple[StoredJob | None, list[StoredEvent]]:
    with services.reader.connect() as connection:
        job = find_jobs(connection, [job_id]).get(job_id)
        return job, [] if job is None else read_events(connection, job, after=after)


def _written(event: StoredEvent) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.type.encode(), orjson.dumps(event.data))
