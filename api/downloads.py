"""The files of a CSV job, sent piece by piece: each chunk's lines are read when their turn comes.

Nothing is open between two pieces, neither a transaction nor a connection, and one piece at a time is in memory. The
pieces' sizes are in the table, so that any range of bytes is found without reading what lies before it. Only the
joined file is written while it is sent: the sizes that its pieces came to are kept for a while.
"""

import hashlib
import logging
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial as bind
from pathlib import PurePath
from typing import Literal, ParamSpec, TypeVar
from urllib.parse import quote

from anyio import CapacityLimiter, to_thread
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from api.catalog import Version
from api.conditions import asked_range, matches, settle_range
from api.errors import respond
from api.middleware import is_head
from api.prefix import link
from shared.csv_queries import ChunkPlace, StoredCsv, list_chunks, read_chunk
from shared.db import dumps
from shared.errors import Conflict, RangeNotSatisfiable
from shared.job_queries import StoredJob
from shared.tables import ChunkState, JobState
from shared.version import VERSION

log = logging.getLogger(__name__)

Given = ParamSpec("Given")
Result = TypeVar("Result")
Content = Literal["output", "errors", "joined"]

PARQUET = "application/vnd.apache.parquet"
FILES_WITH_SIZES = 32  # joined files whose pieces' sizes are kept
SECONDS_FOR_LENGTH = 0.25  # how long the size of a joined file is looked for before it is sent without
SECONDS_FOR_RANGE = 20.0  # the same where a range of it is asked for, which cannot be found otherwise

_reading = CapacityLimiter(4)  # so many pieces at once: downloads must not take the threads of everything else
_writing = CapacityLimiter(1)  # pieces that are made while they are sent: two at once would only be in each other's way
_known_sizes: OrderedDict[str, dict[int, int]] = OrderedDict()  # ETag -> first row -> size; on the event loop only


class Changed(Exception):
    """A piece is no longer what it was when the download began: its rows are being scored again, or were erased."""


@dataclass(slots=True)
class Download:
    """A file as it stands at this moment."""

    name: str
    etag: str
    header: bytes
    first_rows: list[int]  # of the pieces
    sizes: dict[int, int]  # of the pieces by first row, as far as they are known
    rows_done: int
    read: Callable[[int], bytes]  # the piece with this first row; for a thread
    threads: CapacityLimiter

    @property
    def size(self) -> int | None:
        """The size of the file in bytes, None while it is not known."""
        if len(self.sizes) < len(self.first_rows):
            return None
        return len(self.header) + sum(self.sizes.values())


# ── what there is ────────────────────────────────────────────────────────────────────────────────────────────────


def find_finished(engine: Engine, job: StoredJob, *, partial: bool) -> list[ChunkPlace]:
    """Return the chunks that are stored, in file order; raise Conflict unless they are all there or `partial`."""
    with engine.connect() as connection:
        chunks = list_chunks(connection, job.id)
    finished = [chunk for chunk in chunks if chunk.state in (ChunkState.DONE, ChunkState.FAILED)]
    if partial or (chunks and len(finished) == len(chunks)):
        return finished
    rows = f"{sum(chunk.row_count for chunk in finished)} of {job.row_count} rows are done"
    if job.is_terminal:
        how = "has failed" if job.state == JobState.FAILED else f"was {job.state}"
        raise Conflict(
            f"The job {how} before its end: {rows}. ?partial=true gives these, "
            f"and POST {link(f'/jobs/{job.id}/retry')} takes up the rest.",
            job_id=job.id,
        )
    raise Conflict(
        f"The file is still being scored: {rows}. Ask again later, or take these with ?partial=true.",
        job_id=job.id,
        retry_after=2,
    )


def open_csv(engine: Engine, job: StoredJob, version: Version, content: Content, *, partial: bool) -> Download:
    """Return a file of a CSV job, ready to be read; for a thread."""
    from shared import csv_output  # numpy comes with it

    assert job.csv is not None
    form, card = job.csv.format, version.card
    chunks = find_finished(engine, job, partial=partial)

    def read(first_row: int) -> bytes:
        with engine.connect() as connection:
            if content != "joined":
                return read_chunk(connection, job.id, first_row, content)
            given = read_chunk(connection, job.id, first_row, "payload")
            output = read_chunk(connection, job.id, first_row, "output")
        try:
            return csv_output.join_records(card, form, given, output)
        except ValueError as error:  # one of the two is gone
            raise Changed from error

    sizes: dict[int, int] = {}
    if content == "joined":
        header = csv_output.joined_header(card, form)
    elif content == "output":
        header = csv_output.output_header(card, form)
        sizes = {chunk.first_row: chunk.output_bytes or 0 for chunk in chunks}
    else:
        header = csv_output.errors_header(form)
        sizes = {chunk.first_row: chunk.errors_bytes or 0 for chunk in chunks}
    return Download(
        name=_file_name(job.csv, job, f"-{content}.csv"),
        etag=_etag(job, chunks, content),
        header=header,
        first_rows=[chunk.first_row for chunk in chunks],
        sizes=sizes,
        rows_done=sum(chunk.row_count for chunk in chunks),
        read=read,
        threads=_writing if content == "joined" else _reading,
    )


def _etag(job: StoredJob, chunks: list[ChunkPlace], content: str) -> str:
    # The events count every chunk that is stored and every retry: no two contents have the same number and chunks.
    assert job.csv is not None
    places = [(chunk.first_row, chunk.row_count, chunk.output_bytes, chunk.errors_bytes) for chunk in chunks]
    state = dumps([VERSION, job.id, content, job.csv.event_count, places])
    return f'"{hashlib.sha256(state.encode()).hexdigest()[:32]}"'


def _file_name(file: StoredCsv, job: StoredJob, ending: str) -> str:
    """Return a name for the file at the caller's, after the one that was sent."""
    sent = "".join(character for character in file.filename or "" if character.isprintable())
    stem = PurePath(sent.replace("\\", "/")).name
    for suffix in (".gz", ".csv", ".tsv", ".txt"):
        stem = stem[: -len(suffix)] if stem.lower().endswith(suffix) else stem
    return (stem[:100] or job.id) + ending


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def send_csv(
    request: Request, engine: Engine, job: StoredJob, version: Version, content: Content, *, partial: bool
) -> Response:
    """Answer with a file or the range of it that is asked for, or with 304 if the caller has it already."""
    download = await _in_thread(_reading, open_csv, engine, job, version, content, partial=partial)
    headers = _headers(download.name, download.etag, download.rows_done) | {"Accept-Ranges": "bytes"}
    if matches(request.headers.get("if-none-match"), download.etag):
        return _not_modified(headers)
    asked = None
    if not is_head(request):  # to which a range means nothing (RFC 9110, 14.2)
        asked = asked_range(request.headers.get("range"), request.headers.get("if-range"), download.etag)
    if content == "joined":
        download.sizes = _sizes_of(download.etag)
        await _measure(download, SECONDS_FOR_LENGTH if asked is None else SECONDS_FOR_RANGE)
    status, start, stop = 200, 0, download.size
    if asked is not None and stop is not None:
        settled = settle_range(asked, stop)
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
    chunks = await _in_thread(_reading, find_finished, engine, job, partial=partial)
    assert job.csv is not None
    content = "joined" if join else "output"
    rows_done = sum(chunk.row_count for chunk in chunks)
    etag = _etag(job, chunks, f"{content}.parquet")
    headers = _headers(_file_name(job.csv, job, f"-{content}.parquet"), etag, rows_done) | {"Accept-Ranges": "none"}
    if matches(request.headers.get("if-none-match"), etag):
        return _not_modified(headers)

    def begin() -> Iterator[bytes]:
        from api.parquet import write_table  # pyarrow comes with it

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
    threads: CapacityLimiter, function: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs
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
    pieces = await _in_thread(_writing, begin)
    while piece := await _in_thread(_writing, next, pieces, b""):
        yield piece


async def _nothing() -> AsyncIterator[bytes]:
    # The body of an answer to HEAD. A plain response would say that the file has 0 bytes where its size is not known.
    return
    yield


async def _measure(download: Download, seconds: float) -> None:
    """Find the sizes that are not known, as far as the time allows: the next request goes on from there."""
    deadline = time.monotonic() + seconds
    for first_row in download.first_rows:
        if first_row not in download.sizes:
            if time.monotonic() > deadline:
                return
            try:
                download.sizes[first_row] = len(await _in_thread(download.threads, download.read, first_row))
            except Changed:
                raise Conflict("The file has changed at this moment: ask again.", retry_after=1) from None


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
    sentence = f"The file has {size} bytes, and none of them is in the range that was asked for."
    response = await respond(request, RangeNotSatisfiable(sentence))
    response.headers["Content-Range"] = f"bytes */{size}"
    return response
