"""The events of a job as a stream: first the past ones, then each new one."""

import logging
from collections.abc import AsyncIterator

import orjson
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from api.runtimes.followers import JobFollowers
from api.services import Services
from shared.jobs.queries.events import last_event, read_events
from shared.jobs.queries.files import StoredEvent
from shared.jobs.queries.jobs import StoredJob, find_jobs

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 15.0


async def stream_events(services: Services, following: JobFollowers, job_id: str, after: int) -> AsyncIterator[bytes]:
    """Yield the events of a job after a number, as server-sent events, until it ends or following is closed."""
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
