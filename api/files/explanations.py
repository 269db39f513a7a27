"""Explanations of every row of a job in the background: a job of chunks over the rows of the other job."""

import hashlib
from collections.abc import Iterator

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from api.auth.callers import Caller
from api.files.submit import owe_file_rows, spend_file, store_job
from api.jobs.explanations import check_explainable
from api.jobs.requests import SubmitOptions
from api.jobs.submissions import new_submission, set_idempotency_key, ticket_response
from api.models.catalog import Version
from api.services import Services
from shared.broker.names import Lane
from shared.csv.format import CsvFormat
from shared.errors import Conflict
from shared.jobs.chunks.transitions import CsvUpload, PackedChunk
from shared.jobs.queries.files import list_chunks
from shared.jobs.queries.jobs import StoredJob
from shared.tables import JobKind, JobState

CHUNK_ROWS = 200  # of a chunk: a second's work or less where contributions are exact
SAMPLED_ROWS = 10  # where they are sampled, or it is not known: a row may take seconds
EXACT = ("tree_interventional", "tree_path_dependent", "linear")


async def submit_explanations(
    services: Services,
    request: Request,
    caller: Caller,
    source: StoredJob,
    *,
    expires_in: float | None,
    timeout: float | None,
) -> Response:
    """Commit a job that explains every row of an ended job; answer 202 with it.

    Raises Conflict for a job without scores, NotExplainable for a version that cannot be explained.
    """
    version = services.catalog.version_of(source)
    check_explainable(version)
    _check_source(source)
    services.runtime.check_room(Lane.BULK, version)
    await spend_file(services, request, caller)
    options = SubmitOptions(version, timeout or services.settings.job_timeout_seconds, expires_in)
    submission = new_submission(services, request, caller, options, kind=JobKind.EXPLAIN_BATCH, lane=Lane.BULK)
    set_idempotency_key(submission, request, caller)
    with services.keys_in_flight.hold(submission):
        await owe_file_rows(services, request, caller, source.row_count - 1)
        if submission.idempotency_key is not None:
            key_text = f"{source.id} {expires_in} {timeout}"
            submission.body_hash = hashlib.sha256(key_text.encode()).hexdigest()
        places = await run_in_threadpool(_places, services, source)
        size = CHUNK_ROWS if version.explained_by in EXACT else SAMPLED_ROWS
        job = await run_in_threadpool(
            store_job, services, submission, _described(source, version), lambda: _chunks_of(places, size)
        )
    services.runtime.notify_files(version.id)
    return ticket_response(services, request, job)


def _check_source(source: StoredJob) -> None:
    if source.kind == JobKind.EXPLAIN_BATCH:
        raise Conflict("This job explains another one: its own rows are there already.", job_id=source.id)
    if not source.is_terminal:
        raise Conflict(
            "The job has not ended, so not every row has a score yet: send the request again after its end.",
            job_id=source.id,
        )
    has_scores = (
        source.state == JobState.SUCCEEDED if source.csv is None else source.csv.rows_done > source.csv.rows_failed
    )
    if not has_scores:
        raise Conflict("No row of the job has a score to explain.", job_id=source.id)


def _described(source: StoredJob, version: Version) -> CsvUpload:
    """Return the format of the output: that of the file, or else plain CSV."""
    if source.csv is not None:
        file = source.csv
        return CsvUpload(file.format, source.row_count, file.byte_count, file.filename, source_job_id=source.id)
    columns = tuple(feature.name for feature in version.card.row_features)
    return CsvUpload(CsvFormat(",", "utf-8", ".", columns, None), source.row_count, 0, source_job_id=source.id)


def _places(services: Services, source: StoredJob) -> list[tuple[int, int]]:
    """Return (first row, rows) of each chunk of a file; a job of rows is one."""
    if source.csv is None:
        return [(0, source.row_count)]
    with services.reader.connect() as connection:
        return [(chunk.first_row, chunk.row_count) for chunk in list_chunks(connection, source.id)]


def _chunks_of(places: list[tuple[int, int]], size: int) -> Iterator[PackedChunk]:
    """Yield chunks of at most `size` rows; no chunk spans two chunks of the file."""
    for first, count in places:
        for place in range(first, first + count, size):
            yield PackedChunk(place, min(size, first + count - place), b"")
