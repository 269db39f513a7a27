"""From uploaded bytes to a committed CSV job, or to a report: received, split, spooled, stored at once.

Nothing of it happens on the event loop but the reading: threads unpack, split and compress.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from anyio import CapacityLimiter, to_thread
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from api.auth.callers import Caller
from api.auth.rate_limit import payer
from api.files.options import CsvQuery, UploadOptions, read_query
from api.files.report import CsvReport
from api.files.uploads.body import MAX_OF_ONE, MAX_UPLOADS, UploadBody, UploadSlots, answer_upload
from api.files.uploads.spool import Spool
from api.files.uploads.unwrapping import UploadDecoder, read_envelope
from api.http.responses import json_response
from api.jobs.submissions import new_submission, set_idempotency_key, ticket_response
from api.runtimes.idempotency import find_earlier
from api.services import Services
from shared.broker.names import Lane
from shared.cards.card import Card
from shared.csv.format import Chunk, CsvFormat, CsvOptions, Limits
from shared.database.engine import reader, run_again
from shared.errors import GuichetError
from shared.jobs.chunks import transitions as chunks
from shared.jobs.chunks.transitions import CsvUpload, PackedChunk
from shared.jobs.queries.jobs import StoredJob, find_jobs
from shared.jobs.submission import Submission
from shared.tables import JobKind

if TYPE_CHECKING:
    from shared.csv.uploads.reader import UploadReader

_PLACES = UploadSlots(MAX_UPLOADS, of_one=MAX_OF_ONE)
# So many threads for all uploads: the event loop, which answers everyone else, need not stand in line with more.
_RECEIVING = CapacityLimiter(2)
_STORING = CapacityLimiter(2)  # each has a connection, and some chunks in memory

Keep = Callable[[Chunk, CsvFormat], None]


@dataclass(frozen=True, slots=True)
class Received:
    """A file that came whole; its chunks were given away."""

    format: CsvFormat
    notices: list[str]  # what was read otherwise than it is written
    row_count: int
    byte_count: int  # uncompressed
    filename: str | None
    sha256: str  # of the file as it was sent, its name and the query


async def receive_csv(
    services: Services, request: Request, caller: Caller, query: CsvQuery, model: str | None
) -> Response:
    """Receive a file and answer: 202 with its job, or with `validate_only` 200 with the report.

    A refusal may be sent before the whole body has arrived.
    """
    body = UploadBody(request, max_bytes=services.settings.max_csv_bytes)

    async def answer() -> Response:
        options = await read_query(services, request, query, model)
        if options.validate_only:
            return await report_csv(services, request, body, caller, options)
        return await submit_csv(services, request, body, caller, options)

    return await answer_upload(request, body, answer())


async def submit_csv(
    services: Services, request: Request, body: UploadBody, caller: Caller, options: UploadOptions
) -> Response:
    """Receive a file and commit it as one job of queued chunks; answer 202 with the job."""
    version = options.common.version
    services.runtime.check_room(Lane.BULK, version)
    await spend_file(services, request, caller)
    submission = new_submission(services, request, caller, options.common, kind=JobKind.CSV, lane=Lane.BULK)
    set_idempotency_key(submission, request, caller)
    with _PLACES.one(holder_of(services, request, caller)), services.keys_in_flight.hold(submission), Spool() as spool:
        received = await _receive(services, request, body, options, lambda chunk, _: spool.add(chunk))
        await owe_file_rows(services, request, caller, received.row_count - 1)
        submission.body_hash = received.sha256 if submission.idempotency_key is not None else None
        job = await to_thread.run_sync(_store, services, submission, received, options, spool, limiter=_STORING)
    services.runtime.notify_files(version.id)
    return ticket_response(services, request, job)


async def report_csv(
    services: Services, request: Request, body: UploadBody, caller: Caller, options: UploadOptions
) -> Response:
    """Receive a file, check every row, and answer 200 with the report."""
    report = CsvReport(options.common.version)
    await spend_file(services, request, caller)
    with _PLACES.one(holder_of(services, request, caller)):
        received = await _receive(services, request, body, options, report.add)
        await owe_file_rows(services, request, caller, received.row_count - 1)
    return json_response(
        report.body(
            received.format,
            notices=received.notices,
            row_count=received.row_count,
            byte_count=received.byte_count,
            filename=received.filename,
        )
    )


async def spend_file(services: Services, request: Request, caller: Caller) -> None:
    """Raise TooManyRequests while the rows of earlier files are owed: before anything of this one is received."""
    settings = services.settings
    if settings.rate_per_minute:
        await services.quota.spend_file(payer(request, caller.id, proxy_hops=settings.proxy_hops))


async def owe_file_rows(services: Services, request: Request, caller: Caller, count: int) -> None:
    """Count the rows of a file beyond the first."""
    settings = services.settings
    if settings.rate_per_minute:
        await services.quota.owe_file_rows(payer(request, caller.id, proxy_hops=settings.proxy_hops), count)


def holder_of(services: Services, request: Request, caller: Caller) -> str | None:
    """Return the holder of an upload's place: a key, else a network address; None where no key is needed."""
    if services.settings.auth == "open":
        return None
    return payer(request, caller.id, proxy_hops=services.settings.proxy_hops)


async def _receive(
    services: Services, request: Request, body: UploadBody, options: UploadOptions, keep: Keep
) -> Received:
    """Pass each complete chunk of the file to `keep`; raise for a refused file."""
    settings = services.settings
    envelope = read_envelope(request.headers)
    unwrapper = UploadDecoder(envelope, max_bytes=settings.max_csv_bytes)
    csv_options = replace(options.csv_options, encoding=options.csv_options.encoding or envelope.charset)
    limits = Limits(settings.max_csv_bytes, settings.max_csv_rows, settings.max_csv_record_bytes)
    digest = hashlib.sha256()
    file = await to_thread.run_sync(_open, options.common.version.card, csv_options, limits, limiter=_RECEIVING)

    def give(chunks: Iterable[Chunk]) -> None:
        for chunk in chunks:
            assert file.format is not None
            keep(chunk, file.format)

    def take(pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            digest.update(piece)
            file.likely_delimiter = unwrapper.likely_delimiter
            give(file.feed(piece))

    while data := await body.read():
        await to_thread.run_sync(take, unwrapper.unwrap(data), limiter=_RECEIVING)
    await to_thread.run_sync(take, unwrapper.finish(), limiter=_RECEIVING)
    await to_thread.run_sync(give, file.finish(), limiter=_RECEIVING)
    assert file.format is not None
    named = [*sorted(request.query_params.multi_items()), ("", unwrapper.filename or "")]
    digest.update(urlencode(named).encode())
    return Received(file.format, file.notices, file.row_count, file.byte_count, unwrapper.filename, digest.hexdigest())


def _open(card: Card, csv_options: CsvOptions, limits: Limits) -> "UploadReader":
    # Imported here: a process that never receives a file does without the libraries that split it.
    from shared.csv.uploads.reader import UploadReader

    return UploadReader(card, csv_options, limits)


def _store(
    services: Services, submission: Submission, received: Received, options: UploadOptions, spool: Spool
) -> StoredJob:
    """Commit the job with its chunks; return it, or the job which the same request made before."""
    file = CsvUpload(
        format=received.format,
        row_count=received.row_count,
        byte_count=received.byte_count,
        filename=received.filename,
        max_error_rate=options.max_error_rate,
        notices=received.notices,
    )
    return store_job(services, submission, file, spool.chunks)


def store_job(
    services: Services,
    submission: Submission,
    file: CsvUpload,
    packed: Callable[[], Iterable[PackedChunk]],
    keep: Callable[[Connection], None] = lambda _: None,
) -> StoredJob:
    """Commit a job of chunks, and what `keep` stores beside it; return it, or the job which the same request made.

    For a thread.
    """

    def commit() -> bool:
        with services.bulk_engine.begin() as connection:
            is_new = chunks.submit(connection, submission, file, packed()) is not None
            if is_new:
                keep(connection)
            return is_new

    # The job's id decides: what the first try committed is not stored again.
    return find_stored(services, submission, is_new=run_again(commit))


def find_stored(services: Services, submission: Submission, *, is_new: bool) -> StoredJob:
    """Return the job of a submission that was committed, or the one which the same request made before."""
    here = reader(services.bulk_engine)  # whose connection has just worked
    earlier = None if is_new else find_earlier(here, submission)
    if isinstance(earlier, GuichetError):
        raise earlier
    job_id = submission.id if earlier is None or earlier.existing_id is None else earlier.existing_id
    with here.connect() as connection:
        return find_jobs(connection, [job_id])[job_id]
