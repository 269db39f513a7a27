"""From a checked request to a committed job and its answer: build, commit, wait up to the caller's preference."""

import hashlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from typing import Any
from uuid import uuid4

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from uuid_utils import uuid7

from api.auth.callers import Caller
from api.auth.rate_limit import payer
from api.http.prefer import Preference, read_preference
from api.http.prefix import link, route_path
from api.http.responses import json_response, request_id_of
from api.http.wording import response_names
from api.jobs.include import QUALITY
from api.jobs.requests import SubmitOptions, Submitted
from api.jobs.serializers import job_body, registration_job_body, result_form
from api.runtimes.idempotency import client_scope
from api.runtimes.runtime import Place
from api.services import Services
from shared.broker.names import Lane
from shared.errors import (
    Conflict,
    GuichetError,
    InvalidRequest,
    JobTimeout,
    MalformedBody,
    ModelFailed,
    NotExplainable,
    NotFound,
    RowRefused,
)
from shared.faults import Fault
from shared.jobs.kinds import kind_of, lane_of
from shared.jobs.queries.jobs import RowResult, StoredJob, StoredOutput, find_jobs, list_rows
from shared.jobs.submission import Submission
from shared.monitoring.row_quality import find_row_quality
from shared.observability.logs import bind
from shared.tables import JobKind, JobState

log = logging.getLogger(__name__)

MAX_KEY_LENGTH = 255
MIN_VISITOR_KEY_LENGTH = 16
CLIENT_ID = r"^[A-Za-z0-9][A-Za-z0-9._:~@+=-]{0,199}$"

Render = Callable[[StoredJob], Awaitable[Response]]  # what a succeeded job is answered with
RenderScores = Callable[[StoredJob, list[StoredOutput]], Awaitable[Response]]  # the same, of a job that has every score


# ── submitting ───────────────────────────────────────────────────────────────────────────────────────────────────


async def submit(
    services: Services, request: Request, caller: Caller, submitted: Submitted, preference: Preference
) -> Response:
    """Commit one job and answer: 200 with its result if it ends within the wait, else 202 with the job."""
    job = await submit_and_wait(services, request, caller, submitted, preference)
    return await job_response(services, request, job, preference)


async def submit_for_scores(
    services: Services, request: Request, caller: Caller, submitted: Submitted, *, render: RenderScores
) -> Response:
    """Commit good rows as one job for a client of another protocol, and answer with all their scores.

    Such a client knows no job to come back for: it waits as long as anyone may. And it has no place for a row without
    a score: raises RowRefused where the model refused one, ModelFailed where it failed on one.
    """
    cap = services.settings.wait_cap_seconds
    preference = read_preference(request, default=cap, cap=cap)
    job = await submit_and_wait(services, request, caller, submitted, preference)

    async def render_scores(job: StoredJob) -> Response:
        rows = await rows_of(services, job)
        failed = [row.index for row in rows if row.output is None]
        if failed:
            indices = ", ".join(map(str, failed[:10])) + (" and others" if len(failed) > 10 else "")
            if all(_is_refused(row) for row in rows if row.output is None):
                raise RowRefused(f"The model refuses row {indices} of this request: correct it.", job_id=job.id)
            raise ModelFailed(f"The model failed on row {indices} of this request: leave it out.", job_id=job.id)
        return await render(job, [row.output for row in rows if row.output is not None])

    return await job_response(services, request, job, preference, render=render_scores)


async def submit_and_wait(
    services: Services, request: Request, caller: Caller, submitted: Submitted, preference: Preference
) -> StoredJob:
    """Commit one job, wait up to the caller's preference, and return its current state.

    With an id of the caller's own, or an Idempotency-Key, the same body again is the same job.
    """
    options, rows = submitted.options, submitted.rows
    interactive_rows = services.settings.interactive_rows
    lane = lane_of(submitted.kind, row_count=len(rows), interactive_rows=interactive_rows)
    services.runtime.check_room(lane, options.version)
    await owe_rows(services, request, caller, len(rows) - 1)
    submission = new_submission(services, request, caller, options, kind=submitted.kind, lane=lane)
    submission.rows, submission.faults = rows, submitted.faults
    if submitted.client_id is None:
        set_idempotency_key(submission, request, caller)
    else:
        submission.idempotency_scope, submission.idempotency_key = client_scope(caller.id), submitted.client_id
    if submission.idempotency_key is not None:
        submission.body_hash = hashlib.sha256(submitted.raw).hexdigest()
    accepted = await services.runtime.submit(submission, wait=preference.wait)
    if accepted.job is not None:
        return accepted.job
    assert accepted.existing_id is not None
    job = await find_job(services, accepted.existing_id)
    if preference.wait > 0 and not job.is_terminal:
        return await services.runtime.wait_for_end(job.id, preference.wait) or job
    return job


async def owe_rows(services: Services, request: Request, caller: Caller, count: int) -> None:
    """Count the rows of a submission beyond the first, which was counted when the request came."""
    settings = services.settings
    if settings.rate_per_minute:
        await services.quota.owe_rows(payer(request, caller.id, proxy_hops=settings.proxy_hops), count)


def new_submission(
    services: Services, request: Request, caller: Caller, options: SubmitOptions, *, kind: JobKind, lane: Lane
) -> Submission:
    """Return a job for this request, without rows yet."""
    # A visitor's job is read by whoever knows its id, and ids that follow each other share most of their bits.
    job_id = str(uuid4() if caller.is_visitor else uuid7())
    bind(job_id=job_id, model=options.version.label)
    request.scope["served"] = options.version.label  # for request_logs
    return Submission(
        id=job_id,
        kind=kind.value,
        lane=lane.value,
        model_version_id=options.version.id,
        request_id=request_id_of(request),
        rows=[],
        faults=[],
        timeout_seconds=options.timeout,
        max_attempts=services.settings.max_attempts,
        owner=caller.id,
        traceparent=request.scope.get("traceparent"),
        expires_in=options.expires_in,
    )


def set_idempotency_key(submission: Submission, request: Request, caller: Caller) -> None:
    """Set the idempotency key of the request, if it has one; the hash of the body is added later."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return
    if not key or len(key) > MAX_KEY_LENGTH or not key.isprintable():
        raise MalformedBody(f"Idempotency-Key must be 1 to {MAX_KEY_LENGTH} printable characters.")
    if caller.is_visitor and len(key) < MIN_VISITOR_KEY_LENGTH:  # all visitors share one scope
        raise MalformedBody(
            f"Without an API key, an Idempotency-Key must have {MIN_VISITOR_KEY_LENGTH} characters or more that nobody "
            "else would choose: take a random UUID."
        )
    submission.idempotency_scope = f"{caller.id or '-'}:{route_path(request.scope)}"[:128]
    submission.idempotency_key = key


async def find_job(services: Services, job_id: str) -> StoredJob:
    """Read a job that is known to exist."""

    def read() -> StoredJob:
        with services.reader.connect() as connection:
            return find_jobs(connection, [job_id])[job_id]

    return await run_in_threadpool(read)


# ── answering ────────────────────────────────────────────────────────────────────────────────────────────────────


async def job_response(
    services: Services, request: Request, job: StoredJob, preference: Preference, *, render: Render | None = None
) -> Response:
    """Return 200 with the result of an ended job (as `render` writes it), raise its error, or return 202 with it."""
    applied = {} if preference.applied is None else {"Preference-Applied": preference.applied}
    if not job.is_terminal or preference.wait <= 0:
        waited = preference.wait > 0 and job.state == JobState.QUEUED
        if not waited:
            return accepted_response(services, request, job, applied)
        # The job is stored, whatever happens from here on: a place that cannot be read is left out.
        place = await services.runtime.count_place(job)
        return accepted_response(services, request, job, applied, place=place)
    if job.state != JobState.SUCCEEDED:
        raise error_of(job)
    try:
        response = json_response(await result_of(services, request, job)) if render is None else await render(job)
    except SQLAlchemyError as error:
        log.warning("the result of a job could not be read: %s", type(error).__name__)
        return accepted_response(services, request, job, applied)
    response.headers.update({"Content-Location": link(f"/jobs/{job.id}"), **applied})
    return response


def accepted_response(
    services: Services, request: Request, job: StoredJob, headers: dict[str, str], *, place: Place | None = None
) -> Response:
    """Return 202 with the job, where to find it, and when to ask; its place is estimated unless it was counted."""
    position, eta, retry_after = place or services.runtime.estimate_place(job)
    return json_response(
        describe_job(services, request, job, position=position, eta_seconds=eta),
        status=202,
        headers={"Location": link(f"/jobs/{job.id}"), "Retry-After": str(retry_after), **headers},
    )


def ticket_response(services: Services, request: Request, job: StoredJob) -> Response:
    """Return 202 with a job that nobody waits for; of the caller's preferences, `respond-async` was applied."""
    preference = preference_of(services, request).applied or ""
    applied = {"Preference-Applied": "respond-async"} if "respond-async" in preference else {}
    return accepted_response(services, request, job, applied)


def describe_job(
    services: Services,
    request: Request,
    job: StoredJob,
    *,
    position: int | None = None,
    eta_seconds: float | None = None,
) -> dict[str, Any]:
    """Return a job in the words of its model's card, or in those that the request asks for."""
    if job.registration is not None:
        return registration_job_body(job, position=position, eta_seconds=eta_seconds)
    version = services.catalog.version_of(job)
    return job_body(job, version, response_names(request, version.card), position=position, eta_seconds=eta_seconds)


async def result_of(services: Services, request: Request, job: StoredJob) -> dict[str, Any]:
    """Return the result of a succeeded job, as its kind shows it."""
    form = result_form(job)
    if job.registration is None:
        version = services.catalog.version_of(job)
    elif (registered := services.catalog.registered_by(job)) is not None:
        version = registered
    else:
        raise NotFound("The version that this job registered was deleted.", job_id=job.id)
    read = form.read

    def find() -> Any:  # noqa: ANN401 - what the kind's body is made of
        assert read is not None
        with services.reader.connect() as connection:
            return read(connection, job)

    result = None if read is None else await run_in_threadpool(find)
    if request.scope.get("include") == QUALITY:
        job, result = await run_in_threadpool(_add_quality, services, job, result)
    return form.body(job, version, result, response_names(request, version.card))


def _add_quality(services: Services, job: StoredJob, result: Any) -> tuple[StoredJob, Any]:  # noqa: ANN401 - as above
    """Return a job and its result, with the quality of each scored row.

    Raises InvalidRequest for a job whose result holds no rows.
    """
    if job.kind not in (JobKind.PREDICT, JobKind.BATCH):
        message = f"is for results of rows, and this is a job of the kind {job.kind}: leave it out"
        raise InvalidRequest(f"`include` {message}.", faults=[Fault("/query/include", "kind", message)])
    with services.reader.connect() as connection:
        qualities = find_row_quality(connection, job.id, job.model_version_id) or {}

    def judged(output: StoredOutput | None, row: int) -> StoredOutput | None:
        return None if output is None else replace(output, quality=asdict(qualities[row]) if row in qualities else {})

    if job.output is not None:  # others may wait for the same job: theirs is left as it is
        return replace(job, output=judged(job.output, 0)), result
    return job, [replace(row, output=judged(row.output, row.index)) for row in result]


async def rows_of(services: Services, job: StoredJob) -> list[RowResult]:
    """Return every row of a succeeded job in order, with its output or its faults."""
    if kind_of(job.kind).is_single:
        return [RowResult(0, job.output, None)]

    def read() -> list[RowResult]:
        with services.reader.connect() as connection:
            return list_rows(connection, job)

    return await run_in_threadpool(read)


def error_of(job: StoredJob) -> GuichetError:
    """Return the error of a job that ended without a result."""
    message = (job.error or {}).get("message", "")
    if job.state == JobState.FAILED:
        if (job.error or {}).get("code") == "timeout":
            return JobTimeout(f"The job failed: {message}.", job_id=job.id)
        if (job.error or {}).get("code") == RowRefused.code:
            return RowRefused(f"The row {message}.", job_id=job.id)
        if (job.error or {}).get("code") == NotExplainable.code:
            return NotExplainable(f"The row {message}.", job_id=job.id)
        return ModelFailed(f"The job failed: {message}.", job_id=job.id)
    return Conflict(f"The job was {job.state} and has no result.", job_id=job.id)


def _is_refused(row: RowResult) -> bool:
    return any(fault.get("code") == RowRefused.code for fault in row.faults or [])


def preference_of(services: Services, request: Request) -> Preference:
    """Return the caller's Prefer header, or the service's default wait."""
    settings = services.settings
    return read_preference(request, default=settings.wait_seconds, cap=settings.wait_cap_seconds)
