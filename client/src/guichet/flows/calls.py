"""Every call of the API as a flow (see wire.py): its request, its retries, and the reading of its answer."""

import dataclasses
import operator
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal, TypedDict, TypeVar, cast
from urllib.parse import parse_qsl, quote, urlsplit

from guichet.errors import JobFailed, TimedOut, Unusable
from guichet.flows.comparisons import Comparison
from guichet.flows.reproductions import Reproduction
from guichet.flows.trainings import TrainedVersion, training_query, window_body
from guichet.records import BatchResult, CsvReport, CsvResult, Explanation, JobInfo, Model, ModelInfo, Result
from guichet.registering import ModelUpload, Registered
from guichet.transport.exchange import exchange
from guichet.transport.uploads import OnProgress, Source, Upload
from guichet.transport.wire import Flow, Pause, Request, check, encode, read, refusal
from guichet.values import Frame, Row, Rows, index_of, plain_row, plain_rows

LONGEST_WAIT = 25  # seconds that one request may be held back: proxies cut at 30 or 60
LONGEST_STORING = 300  # seconds between the last byte of a file and the answer: it is stored as a whole
LONGEST_POLL = 2.0  # between two polls of a service that does not hold requests back

AnyResult = Result | BatchResult | CsvResult | Explanation | Comparison | Registered | TrainedVersion | Reproduction
_READERS: dict[str, Callable[[dict[str, Any]], AnyResult]] = {
    "predict": Result.read,
    "batch": BatchResult.read,
    "csv": CsvResult.read,
    "explain": Explanation.read,
    "explain_batch": CsvResult.read,
    "replay": Comparison.read,
    "register": Registered.read,
    "train": TrainedVersion.read,
    "reproduce": Reproduction.read,
}
Value = TypeVar("Value")


class RowOptions(TypedDict, total=False):
    """Options for one row; an option left out means the service's default."""

    model: str | None  # name, name@3 or name@alias; the default model when left out
    version: int | None  # the champion when left out
    expires_in: float | None  # seconds that the job may queue
    timeout: float | None  # seconds that the job may run


class BatchOptions(RowOptions, total=False):
    """Options for several rows; an option left out means the service's default."""

    on_error: Literal["continue", "abort"] | None  # abort: refuse all when one is bad


class CsvOptions(TypedDict, total=False):
    """Options for a CSV file; an option left out is detected, or means the service's default."""

    model: str | None  # name, name@3 or name@alias; the default model when left out
    version: int | None  # the champion when left out
    delimiter: str | None  # the character, or comma, semicolon, tab, pipe
    encoding: str | None  # utf-8, utf-16, cp1252, latin-1
    decimal: str | None  # point, comma, or the character
    thousands: str | None  # comma, point, space, apostrophe, the character, or none
    sheet: str | None  # of an Excel workbook; its first visible one when left out
    id_column: str | None  # the column that identifies rows for you
    strict: bool | None  # refuse columns that the model does not know
    max_error_rate: float | None  # from 0 to 1: the job fails when more of its rows have errors
    expires_in: float | None  # seconds that the job may queue
    timeout: float | None  # seconds that one chunk may run


# ── submitting ───────────────────────────────────────────────────────────────────────────────────────────────────


def submit(row: Row, options: RowOptions, *, retries: int, key: str | None) -> Flow[JobInfo]:
    """Submit one row; return its job."""
    request = _post("/jobs", {"features": plain_row(row), **_without_none(options)}, key=key)
    answer = yield from exchange(request, retries)
    return read(check(answer), JobInfo.read)


def predict(row: Row, options: RowOptions, *, retries: int, key: str | None, wait: float | None) -> Flow[Result]:
    """Score one row; return its result."""
    body = {"features": plain_row(row), **_without_none(options)}
    return (yield from _scored("/predict", body, Result.read, retries=retries, key=key, wait=wait))


def explain(
    row: Row | None,
    options: RowOptions,
    *,
    job_id: str | None,
    index: int | None,
    retries: int,
    key: str | None,
    wait: float | None,
) -> Flow[Explanation]:
    """Explain the score of one row, or of a row of a job; return the explanation."""
    if (row is None) == (job_id is None):
        raise Unusable("Give the row to explain, or the id of a job whose row it is.")
    body: dict[str, Any] = _without_none(options)
    if row is not None:
        body["features"] = plain_row(row)
    else:
        body |= {"job_id": job_id} | ({} if index is None else {"row": index})
    return (yield from _scored("/explain", body, Explanation.read, retries=retries, key=key, wait=wait))


def explain_job(
    job_id: str, *, expires_in: float | None, timeout: float | None, retries: int, key: str | None
) -> Flow[JobInfo]:
    """Explain every row of a job that has ended; return the job that does so."""
    options = _without_none({"expires_in": expires_in, "timeout": timeout})
    params = {name: str(value) for name, value in options.items()}
    request = Request("POST", f"{job_path(job_id)}/explain", params, headers=_key(key), wait=LONGEST_STORING)
    answer = yield from exchange(request, retries)
    return read(check(answer), JobInfo.read)


def replay(body: dict[str, Any], *, retries: int, key: str | None) -> Flow[JobInfo]:
    """Decide stored rows again; return the job that does so."""
    answer = yield from exchange(_post("/replays", body, key=key, wait=LONGEST_STORING), retries)
    return read(check(answer), JobInfo.read)


def register(upload: ModelUpload, *, retries: int, key: str | None) -> Flow[JobInfo]:
    """Send a model; return the job that registers it."""
    request = Request("POST", "/models", {}, upload.headers | _key(key), upload=upload, wait=LONGEST_STORING)
    answer = yield from exchange(request, retries)
    return read(check(answer), JobInfo.read)


def train(upload: Upload, options: Mapping[str, Any], *, retries: int, key: str | None) -> Flow[JobInfo]:
    """Send a file of rows with their answers to train on; return the job that does so."""
    headers = upload.headers | _key(key)
    request = Request("POST", "/train", training_query(options), headers, upload=upload, wait=LONGEST_STORING)
    answer = yield from exchange(request, retries)
    return read(check(answer), JobInfo.read)


def train_again(
    model: str,
    options: Mapping[str, Any],
    *,
    start: datetime | str | None,
    end: datetime | str | None,
    retries: int,
    key: str | None,
) -> Flow[JobInfo]:
    """Train on a model's reference rows and its rows of a window with outcomes; return the job that does so."""
    body = window_body(model, options, start=start, end=end)
    answer = yield from exchange(_post("/train", body, key=key, wait=LONGEST_STORING), retries)
    return read(check(answer), JobInfo.read)


def reproduce(job_id: str, *, row: int | None, retries: int, key: str | None) -> Flow[JobInfo]:
    """Score rows of a job again by the artefact that decided; return the job that does so."""
    params = {} if row is None else {"row": str(row)}
    answer = yield from exchange(Request("POST", f"{job_path(job_id)}/reproduce", params, _key(key)), retries)
    return read(check(answer), JobInfo.read)


def model_card(name: str, version: int, *, retries: int) -> Flow[str]:
    """Read the model card of a version that was trained by the service, as Markdown."""
    path = f"/models/{quote(name, safe='')}/versions/{version}/card"
    answer = yield from exchange(Request("GET", path, headers={"Accept": "text/markdown"}), retries)
    return check(answer).body.decode()


def explanations(
    job_id: str, place: str | None, *, row: int | None, retries: int
) -> Flow[tuple[list[tuple[int, Explanation]], str | None]]:
    """Read a page of the stored explanations of a job's rows; return (row, explanation) and the next page's place."""
    params = {"limit": "200"} if row is None else {"row": str(row)}
    if place is not None:  # which may begin with the prefix of a proxy, which the address of the service brings already
        params = dict(parse_qsl(urlsplit(place).query))
    answer = yield from exchange(Request("GET", f"{job_path(job_id)}/explanations", params), retries)

    def items(body: dict[str, Any]) -> tuple[list[tuple[int, Explanation]], str | None]:
        about = {name: body[name] for name in ("job_id", "model", "model_version")}
        return [(item["row"], Explanation.read(about | item)) for item in body["items"]], body["next"]

    return read(check(answer), items)


def lineage(job_id: str, *, row: int, retries: int) -> Flow[dict[str, Any]]:
    """Read what led to the score of a row of a job, and what became of it."""
    request = Request("GET", f"{job_path(job_id)}/lineage", {"row": str(row)})
    answer = yield from exchange(request, retries)
    return read(check(answer), dict)


def submit_batch(rows: Rows, options: BatchOptions, *, retries: int, key: str | None) -> Flow[JobInfo]:
    """Submit several rows; return their job."""
    body = {"rows": plain_rows(rows), **_without_none(options)}
    answer = yield from exchange(_post("/predict_batch", body, key=key, prefer="respond-async"), retries)
    return read(check(answer), JobInfo.read)


def predict_batch(
    rows: Rows, options: BatchOptions, *, retries: int, key: str | None, wait: float | None
) -> Flow[BatchResult]:
    """Score several rows; return their results."""
    body = {"rows": plain_rows(rows), **_without_none(options)}
    result = yield from _scored("/predict_batch", body, BatchResult.read, retries=retries, key=key, wait=wait)
    return dataclasses.replace(result, row_index=index_of(rows))


def open_upload(
    source: Source,
    options: CsvOptions,
    *,
    filename: str | None,
    compress: bool,
    on_progress: OnProgress | None,
) -> tuple[Upload, CsvOptions]:
    """Open a file, or a data frame as one; return it with the options, which include the format of a data frame."""
    if isinstance(source, Frame):
        written: CsvOptions = {"delimiter": "comma", "encoding": "utf-8", "decimal": "point"}
        options = {**options, **written}
    return Upload(
        source,
        filename=filename,
        compress=compress,
        on_progress=on_progress,
        id_column=options.get("id_column"),
    ), options


def predict_csv(upload: Upload, options: CsvOptions, *, retries: int, key: str | None) -> Flow[JobInfo]:
    """Send a CSV file; return its job."""
    answer = yield from exchange(_send(upload, options, key=key), retries)
    return read(check(answer), JobInfo.read)


def validate_csv(upload: Upload, options: CsvOptions, *, retries: int) -> Flow[CsvReport]:
    """Send a CSV file to be checked only; return the report."""
    answer = yield from exchange(_send(upload, options, validate_only=True), retries)
    return read(check(answer), CsvReport.read)


def _scored(
    path: str,
    body: dict[str, Any],
    reader: Callable[[dict[str, Any]], Value],
    *,
    retries: int,
    key: str | None,
    wait: float | None,
) -> Flow[Value]:
    deadline = None if wait is None else time.monotonic() + wait
    held = LONGEST_WAIT if wait is None else int(min(wait, LONGEST_WAIT))
    answer = yield from exchange(_post(path, body, key=key, prefer=f"wait={held}", wait=held), retries)
    if answer.status != 202:
        job_id = answer.problem.get("job_id")
        if job_id is None or answer.status not in (409, 500, 504):
            return read(check(answer), reader)
        job = yield from find(job_id, retries=retries)  # it ended without a result, and knows why
    else:
        job = read(answer, JobInfo.read)
    left = None if deadline is None else max(deadline - time.monotonic(), 0)
    return cast(Value, (yield from result(job, retries=retries, timeout=left)))


# ── jobs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def find(job_id: str, *, retries: int) -> Flow[JobInfo]:
    """Read a job."""
    answer = yield from exchange(Request("GET", job_path(job_id)), retries)
    return read(check(answer), JobInfo.read)


def page(
    place: str | None, *, status: str | None, model: str | None, size: int, retries: int
) -> Flow[tuple[list[JobInfo], str | None]]:
    """Read a page of jobs, newest first; return them and the place of the next page."""
    if place is None:
        params = {"limit": str(size), "status": status, "model": model}
        request = Request("GET", "/jobs", {name: value for name, value in params.items() if value is not None})
    else:
        # The path may begin with the prefix of a proxy, which the address of the service brings already.
        request = Request("GET", "/jobs", dict(parse_qsl(urlsplit(place).query)))
    answer = yield from exchange(request, retries)

    def items(body: dict[str, Any]) -> tuple[list[JobInfo], str | None]:
        return [JobInfo.read(item) for item in body["items"]], body["next"]

    return read(check(answer), items)


def wait_for(
    job_id: str,
    *,
    retries: int,
    timeout: float | None,
    until: Callable[[JobInfo], bool] = operator.attrgetter("is_ended"),
) -> Flow[JobInfo]:
    """Wait until a job ends; return it. Raise TimedOut when that takes longer than `timeout` seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = 0.05
    while True:
        left = LONGEST_WAIT if deadline is None else deadline - time.monotonic()
        held = max(int(min(left, LONGEST_WAIT)), 0)
        asked_at = time.monotonic()
        request = Request("GET", job_path(job_id), headers={"Prefer": f"wait={held}"} if held else {}, wait=held)
        answer = yield from exchange(request, retries, deadline=deadline)
        job = read(check(answer), JobInfo.read)
        if until(job):
            return job
        left = LONGEST_POLL if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise TimedOut(
                f"The job {job_id} is still {job.status} after {timeout:g} seconds; it goes on.", job_id=job_id
            )
        if held == 0 or time.monotonic() - asked_at < 0.9:
            # It does not hold requests back (or not this one): ask again soon, then less and less often.
            yield Pause(min(pause, left))
            pause = min(pause * 2, LONGEST_POLL)


def result(job: JobInfo, *, retries: int, timeout: float | None) -> Flow[AnyResult]:
    """Return the result of an ended job; raise JobFailed if it has none."""
    if not job.is_ended:
        job = yield from wait_for(job.id, retries=retries, timeout=timeout)
    check_succeeded(job)
    if job.result is not None:
        return job.result
    reader = _READERS.get(job.kind)
    if reader is None:
        raise Unusable(f"This version of the client does not read the results of a job of kind {job.kind}.")
    answer = yield from exchange(Request("GET", f"{job_path(job.id)}/result"), retries)
    return read(check(answer), reader)


def cancel(job_id: str, *, retries: int) -> Flow[JobInfo]:
    """Cancel a job; return it. One that is canceled already stays so: that is no error."""
    answer = yield from exchange(Request("POST", f"{job_path(job_id)}/cancel"), retries)
    if answer.status == 409:
        # The first attempt may have done it, and only its answer was lost.
        job = yield from find(job_id, retries=retries)
        if job.status == "canceled":
            return job
    return read(check(answer), JobInfo.read)


def retry(job_id: str, *, retries: int) -> Flow[JobInfo]:
    """Retry the remaining rows of a failed or canceled CSV job; return it. A running job is no error.

    One that is still being canceled is waited for: the service takes it up again when it has ended.
    """
    request = Request("POST", f"{job_path(job_id)}/retry", {"only": "failed"})
    had_ended = False
    while True:
        answer = yield from exchange(request, retries)
        if answer.status != 409:
            return read(check(answer), JobInfo.read)
        job = yield from find(job_id, retries=retries)
        if job.is_being_canceled:
            job = yield from wait_for(
                job_id, retries=retries, timeout=None, until=lambda job: not job.is_being_canceled
            )
        elif not job.is_ended:
            return job  # the first attempt has done it, and only its answer was lost
        elif had_ended or not job.is_retryable:
            raise refusal(answer)
        had_ended = job.is_ended


def check_succeeded(job: JobInfo) -> None:
    """Raise JobFailed for a job that ended without a result."""
    if job.status == "succeeded":
        return
    why = "" if job.error is None else f": {job.error.message.rstrip('.')}"
    sentences = {
        "failed": f"The job {job.id} failed{why}.",
        "expired": f"The job {job.id} expired before it was taken.",
    }
    raise JobFailed(
        sentences.get(job.status, f"The job {job.id} was {job.status}{why}."),
        job_id=job.id,
        status=job.status,
        code=job.status if job.error is None else job.error.code,
    )


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────


def models(*, retries: int) -> Flow[list[ModelInfo]]:
    """List the models."""
    answer = yield from exchange(Request("GET", "/models"), retries)
    return read(check(answer), lambda body: [ModelInfo.read(item) for item in body["items"]])


def model(name: str, *, retries: int) -> Flow[Model]:
    """Read a model: `name`, `name@3` or `name@alias`."""
    answer = yield from exchange(Request("GET", f"/models/{quote(name, safe='@')}"), retries)
    return read(check(answer), Model.read)


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────


def job_path(job_id: str) -> str:
    """Return the path of a job; raise Unusable for what cannot be a job id."""
    try:
        return f"/jobs/{uuid.UUID(job_id)}"
    except ValueError:
        raise Unusable(f"{job_id!r} is not a job id: ids look like 01a1fc6e-b8ef-76d6-a1a8-7ba162c421cb.") from None


def _post(path: str, body: dict[str, Any], *, key: str | None, prefer: str | None = None, wait: float = 0) -> Request:
    headers = {"Content-Type": "application/json", **_key(key)}
    if prefer is not None:
        headers["Prefer"] = prefer
    return Request("POST", path, headers=headers, content=encode(body), wait=wait)


def _send(upload: Upload, options: CsvOptions, *, key: str | None = None, validate_only: bool = False) -> Request:
    query = _without_none(options)
    params = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in query.items()}
    if validate_only:
        params["validate_only"] = "true"
    headers = upload.headers if validate_only else upload.headers | _key(key)
    return Request("POST", "/predict_csv", params, headers, upload=upload, wait=LONGEST_STORING)


def _key(key: str | None) -> dict[str, str]:
    # One key for all attempts of this call: however often it is sent, it makes one job.
    return {"Idempotency-Key": key or str(uuid.uuid4())}


def _without_none(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
