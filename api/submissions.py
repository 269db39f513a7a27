"""From a request to a committed job: check, build the submission, hand it to the intake, wait as long as asked."""

import hashlib
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from uuid_utils import uuid7

from api.auth import Caller
from api.bodies import read_json
from api.catalog import Version
from api.prefer import Preference, read_preference
from api.representations import batch_body, is_single, job_body, result_body
from api.responses import json_response, request_id_of
from api.services import Services
from shared.errors import (
    Conflict,
    Fault,
    GuichetError,
    JobTimeout,
    MalformedBody,
    ModelFailed,
    RowFaults,
    TooLarge,
    Unavailable,
)
from shared.job_queries import StoredJob, find_jobs, list_rows
from shared.jobs import Submission
from shared.queue import Lane
from shared.tables import JobKind, JobState

MAX_KEY_LENGTH = 255
_SINGLE_FIELDS = frozenset({"features", "model", "version", "expires_in", "timeout"})
_BATCH_FIELDS = frozenset({"rows", "on_error", "model", "version", "expires_in", "timeout"})


@dataclass(frozen=True, slots=True)
class Options:
    """What a request says besides its rows."""

    version: Version
    timeout: float
    expires_in: float | None


# ── checking ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def check_single(
    services: Services, request: Request, model: str | None
) -> tuple[Options, dict[str, Any], bytes]:
    """Read `{features, model?, version?, expires_in?, timeout?}`; return the options, the canonical row, the bytes."""
    body, raw = await read_json(request, max_bytes=services.settings.max_body_bytes)
    options, faults = await _check_options(services, body, model, _SINGLE_FIELDS, required="features")
    try:
        row = options.version.validator.validate(body.get("features"))
    except RowFaults as refusal:
        if "features" in body:
            faults += [fault.under("/features") for fault in refusal.faults]
        raise RowFaults(
            refusal.detail if len(faults) == len(refusal.faults) else _sum_up(faults), faults=faults
        ) from None
    if faults:
        raise RowFaults(_sum_up(faults), faults=faults)
    return options, row, raw


async def check_batch(
    services: Services, request: Request, model: str | None
) -> tuple[Options, list[Any], list[list[Fault] | None], bytes]:
    """Read `{rows, on_error?, ...}`; return the options, the rows, the faults by row, the bytes.

    With `on_error: continue` a bad row keeps its faults and spoils nothing; with `abort`, or when no row is good,
    the request is refused with every fault.
    """
    body, raw = await read_json(request, max_bytes=services.settings.max_body_bytes)
    options, faults = await _check_options(services, body, model, _BATCH_FIELDS, required="rows")
    on_error = body.get("on_error", "continue")
    if on_error not in ("continue", "abort"):
        faults.append(Fault("/on_error", "category", 'must be "continue" or "abort"'))
    rows = body.get("rows")
    if not isinstance(rows, list):
        if "rows" in body:
            faults.append(Fault("/rows", "type", "must be a list of objects, each with the features of one row"))
        raise RowFaults(_sum_up(faults), faults=faults)
    if not rows:
        faults.append(Fault("/rows", "length", "must hold at least one row"))
    if len(rows) > services.settings.max_batch_rows:
        raise TooLarge(f"A batch holds at most {services.settings.max_batch_rows} rows: send several.")
    # A thousand rows take milliseconds: other requests should not wait for them.
    validate = options.version.validator.validate_many
    canonical, row_faults = validate(rows) if len(rows) <= 20 else await run_in_threadpool(validate, rows)
    bad = [fault.under(f"/rows/{index}") for index, found in enumerate(row_faults) for fault in found]
    if faults or (bad and (on_error == "abort" or all(row_faults))):
        raise RowFaults(_sum_up(faults + bad), faults=faults + bad)
    kept = [row if row is not None else rows[index] for index, row in enumerate(canonical)]
    return options, kept, [found or None for found in row_faults], raw


async def _check_options(
    services: Services, body: object, model: str | None, fields: frozenset[str], *, required: str
) -> tuple[Options, list[Fault]]:
    if not isinstance(body, dict):
        raise RowFaults(
            f"The body must be an object with `{required}`.",
            faults=[Fault("", "not_an_object", f'must be an object such as {{"{required}": ...}}')],
        )
    faults = [
        Fault(
            f"/{_escape(key)}", "unknown_field", f"is not a field of this request: it takes {', '.join(sorted(fields))}"
        )
        for key in body.keys() - fields
    ]
    if required not in body:
        faults.append(Fault(f"/{required}", "missing", "is missing"))
    name = body.get("model")
    if name is not None and not isinstance(name, str):
        raise RowFaults(
            "`model` must be text.", faults=[Fault("/model", "type", "must be the name of a model, as text")]
        )
    if model is not None:
        if name is not None and name != model:
            raise RowFaults(
                "The path and the body name different models.",
                faults=[Fault("/model", "conflict", "must be left out, or be the model in the path")],
            )
        name = model
    number = body.get("version")
    if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
        raise RowFaults("`version` must be a number.", faults=[Fault("/version", "type", "must be a whole number")])
    version = await find_version(services, name, number)
    settings = services.settings
    timeout = _seconds(body, "timeout", settings.job_timeout_cap_seconds, faults)
    expires_in = _seconds(body, "expires_in", 366 * 86_400, faults)
    return Options(version, timeout or settings.job_timeout_seconds, expires_in), faults


async def find_version(services: Services, name: str | None, number: int | None) -> Version:
    """Return the version that a request means; raise NotFound, or Unavailable where no model is registered."""
    version = services.catalog.find(name, number)
    if version is None:
        await run_in_threadpool(services.catalog.refresh_after_miss)  # it may have been registered a moment ago
        version = services.catalog.find(name, number)
    if version is None:
        raise services.catalog.explain_missing(name, number)
    return version


def _seconds(body: dict[str, Any], field: str, cap: float, faults: list[Fault]) -> float | None:
    value = body.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= cap:
        faults.append(Fault(f"/{field}", "range", f"must be a number of seconds above 0, at most {cap:g}"))
        return None
    return float(value)


def _escape(key: str) -> str:
    return key[:100].replace("~", "~0").replace("/", "~1")


def _sum_up(faults: list[Fault]) -> str:
    first = "; ".join(f"{fault.pointer} {fault.message}" for fault in faults[:3])
    return f"The request is not valid: {first}{'' if len(faults) <= 3 else f'; and {len(faults) - 3} more'}."


# ── submitting ───────────────────────────────────────────────────────────────────────────────────────────────────


async def submit(
    services: Services,
    request: Request,
    caller: Caller,
    options: Options,
    rows: list[Any],
    faults: list[list[Fault] | None],
    raw: bytes,
    *,
    kind: JobKind,
    preference: Preference,
) -> Response:
    """Commit one job and answer: 200 with its result if it ends within the wait, else 202 with the job."""
    settings = services.settings
    lane = Lane.INTERACTIVE if len(rows) <= settings.interactive_rows else Lane.BULK
    version = options.version
    queue = services.queue
    if queue is not None and queue.backlog.is_full(lane, version.id):
        raise Unavailable(
            f"The queue of {version.label} is full ({settings.max_queued} jobs): try again later.",
            retry_after=queue.backlog.retry_after(lane, version.id, position=settings.max_queued // 10),
        )
    submission = Submission(
        id=str(uuid7()),
        kind=kind.value,
        lane=lane.value,
        model_version_id=version.id,
        request_id=request_id_of(request),
        rows=rows,
        faults=faults,
        timeout_seconds=options.timeout,
        max_attempts=settings.max_attempts,
        owner=caller.id,
        traceparent=request.scope.get("traceparent"),
        expires_in=options.expires_in,
    )
    key = request.headers.get("idempotency-key")
    if key is not None:
        _mark(submission, key, request, caller, raw)
    future = queue.waiting.expect(submission.id) if queue is not None and preference.wait > 0 else None
    try:
        with services.keys_in_flight.holding(submission):
            accepted = await services.intake.submit(submission)
        job = accepted.job
        if job is None and accepted.earlier_id is not None:
            job = await find_job(services, accepted.earlier_id)
            if queue is not None and preference.wait > 0 and not job.is_terminal:
                job = await queue.waiting.wait(job.id, preference.wait) or job
        elif queue is not None and future is not None:
            job = await queue.waiting.ended(future, preference.wait) or job
    finally:
        if queue is not None and future is not None:
            queue.waiting.forget(submission.id, future)
    assert job is not None
    return await answer(services, request, job, preference)


def _mark(submission: Submission, key: str, request: Request, caller: Caller, raw: bytes) -> None:
    if not key or len(key) > MAX_KEY_LENGTH or not key.isprintable():
        raise MalformedBody(f"Idempotency-Key must be 1 to {MAX_KEY_LENGTH} printable characters.")
    submission.idempotency_scope = f"{caller.id or '-'}:{request.url.path}"[:128]
    submission.idempotency_key = key
    submission.body_hash = hashlib.sha256(raw).hexdigest()


async def find_job(services: Services, job_id: str) -> StoredJob:
    """Read a job that is known to exist."""

    def read() -> StoredJob:
        with services.reader.connect() as connection:
            return find_jobs(connection, [job_id])[job_id]

    return await run_in_threadpool(read)


# ── answering ────────────────────────────────────────────────────────────────────────────────────────────────────


async def answer(services: Services, request: Request, job: StoredJob, preference: Preference) -> Response:
    """Return 200 with the result of an ended job, its error, or 202 with the job."""
    applied = {} if preference.applied is None else {"Preference-Applied": preference.applied}
    if not job.is_terminal or preference.wait <= 0:
        return accepted_response(services, job, applied)
    if job.state != JobState.SUCCEEDED:
        raise error_of(job)
    headers = {"Content-Location": f"/jobs/{job.id}", **applied}
    return json_response(await result_of(services, job), headers=headers)


def accepted_response(services: Services, job: StoredJob, headers: dict[str, str]) -> Response:
    """Return 202 with the job, where to find it, and when to ask."""
    version = services.catalog.picture.by_id[job.model_version_id]
    position = eta = None
    retry_after = 1
    if services.queue is not None and job.state == JobState.QUEUED:
        backlog = services.queue.backlog
        position = backlog.queued(job.lane, version.id) + 1
        eta = backlog.eta(job.lane, version.id, position=position)
        retry_after = backlog.retry_after(job.lane, version.id, position=position)
    return json_response(
        job_body(job, version, position=position, eta_seconds=eta),
        status=202,
        headers={"Location": f"/jobs/{job.id}", "Retry-After": str(retry_after), **headers},
    )


async def result_of(services: Services, job: StoredJob) -> dict[str, Any]:
    """Return the result of a succeeded job: one score, or one for each row of a batch."""
    version = services.catalog.picture.by_id[job.model_version_id]
    if is_single(job):
        assert job.output is not None
        return result_body(job, version, job.output)

    def read() -> dict[str, Any]:
        with services.reader.connect() as connection:
            return batch_body(job, version, list_rows(connection, job))

    return await run_in_threadpool(read)


def error_of(job: StoredJob) -> GuichetError:
    """Return the error of a job that ended without a result."""
    message = (job.error or {}).get("message", "")
    if job.state == JobState.FAILED:
        if (job.error or {}).get("code") == "timeout":
            return JobTimeout(f"The job failed: {message}.", job_id=job.id)
        return ModelFailed(f"The job failed: {message}.", job_id=job.id)
    return Conflict(f"The job was {job.state} and has no result.", job_id=job.id)


def preference_of(services: Services, request: Request) -> Preference:
    """Return what the caller's Prefer header asks for, or the service's default wait."""
    settings = services.settings
    return read_preference(request, default=settings.wait_seconds, cap=settings.wait_cap_seconds)
