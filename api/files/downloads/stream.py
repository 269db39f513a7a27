"""Downloads of a CSV job's files, sent piece by piece: each chunk is read just before it is sent.

Nothing is open between two pieces, neither a transaction nor a connection, and one piece at a time is in memory. The
pieces' sizes are in the table, so that any range of bytes is found without reading what lies before it. Only the
joined file is written while it is sent: the sizes that its pieces came to are kept for a while.
"""

import logging
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial as bind
from typing import ParamSpec, TypeVar
from urllib.parse import quote

from anyio import CapacityLimiter, to_thread
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from api.errors.handlers import respond
from api.files.downloads.outputs import (
    READING,
    WRITING,
    Changed,
    Content,
    Download,
    etag_of,
    file_name,
    find_finished,
    open_csv,
)
from api.http.conditional import etag_matches, parse_range, resolve_range
from api.http.middleware import is_head
from api.models.catalog import Version
from shared.errors import Conflict, NotAcceptable, RangeNotSatisfiable
from shared.jobs.queries.jobs import StoredJob
from shared.tables import JobKind

log = logging.getLogger(__name__)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

PARQUET = "application/vnd.apache.parquet"
FILES_WITH_SIZES = 32  # joined files whose pieces' sizes are kept
SECONDS_FOR_LENGTH = 0.25  # how long the size of a joined file is looked for before it is sent without
SECONDS_FOR_RANGE = 20.0  # the same where a range of it is asked for, which cannot be found otherwise

_known_sizes: OrderedDict[str, dict[int, int]] = OrderedDict()  # ETag -> first row -> size; on the event loop only


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def send_csv(
    request: Request, engine: Engine, job: StoredJob, version: Version, content: Content, *, partial: bool
) -> Response:
    """Answer with a file or the requested range of it, or with 304 if the caller already has it."""
    download = await _in_thread(READING, open_csv, engine, job, version, content, partial=partial)
    headers = _headers(download.name, download.etag, download.rows_done) | {"Accept-Ranges": "bytes"}
    if etag_matches(request.headers.get("if-none-match"), download.etag):
        return _not_modified(headers)
    part = None
    if not is_head(request):  # to which a range means nothing (RFC 9110, 14.2)
        part = parse_range(request.headers.get("range"), request.headers.get("if-range"), download.etag)
    if content == "joined":
        download.sizes = _sizes_of(download.etag)
        await _measure(download, SECONDS_FOR_LENGTH if part is None else SECONDS_FOR_RANGE)
    status, start, stop = 200, 0, download.size
    if part is not None and stop is not None:
        settled = resolve_range(part, stop)
        if settled is None:
            return await _no_such_range(request, stop)
        status, (start, stop) = 206, settled
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{download.size}"
    if stop is not None:
        headers["Content-Length"] = str(stop - start)
    media_type = "text/csv; charset=utf-8; header=present"
    body = _nothing() if is_head(request) else _read_pieces(download, start, stop)
    return Pieces(body, status, headers, media_type)


async def send_parquet(
    request: Request, engine: Engine, job: StoredJob, version: Version, *, join: bool, partial: bool
) -> Response:
    """Answer with the table of output.csv as Parquet, written while it is sent; no ranges."""
    chunks = await _in_thread(READING, find_finished, engine, job, partial=partial)
    assert job.csv is not None
    content = "joined" if join else "output"
    rows_done = sum(chunk.row_count for chunk in chunks)
    etag = etag_of(job, chunks, f"{content}.parquet")
    if job.kind == JobKind.REPLAY:
        raise NotAcceptable("Both decisions of a replay can be had as text/csv only: leave Accept and `format` out.")
    ending = "explanations" if job.kind == JobKind.EXPLAIN_BATCH else content
    headers = _headers(file_name(job.csv, job, f"-{ending}.parquet"), etag, rows_done) | {"Accept-Ranges": "none"}
    if etag_matches(request.headers.get("if-none-match"), etag):
        return _not_modified(headers)

    def begin() -> Iterator[bytes]:
        from api.files.downloads.parquet import write_table  # pyarrow comes with it

        return write_table(engine, job, version, [chunk.first_row for chunk in chunks], join=join)

    body = _nothing() if is_head(request) else _write_pieces(begin)
    return Pieces(body, 200, headers, PARQUET)


class Pieces(StreamingResponse):
    """A body that is read while it is sent; it ends early, and visibly so, when it cannot be read to its end."""

    async def stream_response(self, send: Send) -> None:
        """Send everything, or so much that the server has to close the connection."""
        try:
            await super().stream_response(send)
        except (Changed, SQLAlchemyError) as error:
            log.warning("a download was cut off (%s)", type(error).__name__)


async def _in_thread(
    threads: CapacityLimiter, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    return await to_thread.run_sync(bind(function, *args, **kwargs), limiter=threads)


async def _read_pieces(download: Download, start: int, stop: int | None) -> AsyncIterator[bytes]:
    place = len(download.header)
    if start < place:
        yield download.header[start:stop]
    for first_row in download.first_rows:
        if stop is not None and place >= stop:
            return
        size = download.sizes.get(first_row)
        if size is not None and (size == 0 or place + size <= start):
            place += size
            continue
        piece = await _in_thread(download.threads, download.read, first_row)
        if size is not None and len(piece) != size:
            raise Changed
        download.sizes[first_row] = len(piece)
        yield piece[max(start - place, 0) : None if stop is None else stop - place]
        place += len(piece)


async def _write_pieces(begin: Callable[[], Iterator[bytes]]) -> AsyncIterator[bytes]:
    pieces = await _in_thread(WRITING, begin)
    while piece := await _in_thread(WRITING, next, pieces, b""):
        yield piece


async def _nothing() -> AsyncIterator[bytes]:
    # The body of an answer to HEAD. A plain response would say that the file has 0 bytes where its size is not known.
    return
    yield


async def _measure(download: Download, seconds: float) -> None:
    """Find the unknown sizes within the time; the next request continues."""
    deadline = time.monotonic() + seconds
    for first_row in download.first_rows:
        if first_row not in download.sizes:
            if time.monotonic() > deadline:
                return
            try:
                download.sizes[first_row] = len(await _in_thread(download.threads, download.read, first_row))
            except Changed:
                raise Conflict("The file has just changed: send the request again.", retry_after=1) from None


def _sizes_of(etag: str) -> dict[int, int]:
    sizes = _known_sizes.setdefault(etag, {})
    _known_sizes.move_to_end(etag)
    if len(_known_sizes) > FILES_WITH_SIZES:
        _known_sizes.popitem(last=False)
    return sizes


def _headers(name: str, etag: str, rows_done: int) -> dict[str, str]:
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", name)
    disposition = f'attachment; filename="{plain}"'
    if plain != name:
        disposition += f"; filename*=UTF-8''{quote(name, safe='')}"  # RFC 6266
    return {
        "ETag": etag,
        "Content-Disposition": disposition,
        "Cache-Control": "private, no-cache",
        "Vary": "Accept",
        "X-Rows-Done": str(rows_done),
    }


def _not_modified(headers: dict[str, str]) -> Response:
    return Response(None, 304, {name: headers[name] for name in ("ETag", "Cache-Control", "Vary", "X-Rows-Done")})


async def _no_such_range(request: Request, size: int) -> Response:
    sentence = f"The file has {size} bytes, and the requested range has none of them."
    response = await respond(request, RangeNotSatisfiable(sentence))
    response.headers["Content-Range"] = f"bytes */{size}"
    return response
