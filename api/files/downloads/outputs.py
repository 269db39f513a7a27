"""The output files of a CSV job at this moment: names, pieces, sizes, and the reading of a piece."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from anyio import CapacityLimiter
from sqlalchemy import Engine

from api.http.prefix import link
from api.models.catalog import Version
from shared.database.engine import dumps
from shared.errors import Conflict
from shared.handlers.replays import COLUMNS
from shared.jobs.queries.files import ChunkPlace, StoredCsv, list_chunks, read_chunk
from shared.jobs.queries.jobs import StoredJob
from shared.tables import ChunkState, JobKind, JobState
from shared.version import VERSION

Content = Literal["output", "errors", "joined"]

# By the kind of the job, where it is no file that is scored: what is done to its rows, and how its output is called.
_WORK: dict[str, str] = {JobKind.EXPLAIN_BATCH: "explained", JobKind.REPLAY: "decided again"}
_NAMES: dict[str, str] = {JobKind.EXPLAIN_BATCH: "explanations", JobKind.REPLAY: "replay"}
READING = CapacityLimiter(4)  # so many pieces at once: downloads must not take the threads of everything else
WRITING = CapacityLimiter(1)  # pieces that are made while they are sent: two at once would only be in each other's way


class Changed(Exception):
    """A piece has changed since the download began: its rows are being scored again, or were erased."""


@dataclass(slots=True)
class Download:
    """A file in its present state."""

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
            f"and POST {link(f'/jobs/{job.id}/retry')} retries the rest.",
            job_id=job.id,
        )
    work = _WORK.get(job.kind, "scored")
    raise Conflict(
        f"The file is still being {work}: {rows}. Ask again later, or take these with ?partial=true.",
        job_id=job.id,
        retry_after=2,
    )


def open_csv(engine: Engine, job: StoredJob, version: Version, content: Content, *, partial: bool) -> Download:
    """Return a file of a CSV job, ready to be read; for a thread."""
    from shared.csv import output as csv_output  # numpy comes with it
    from shared.explanations.lines import explanation_header

    assert job.csv is not None
    word = _NAMES.get(job.kind, "output")
    form, card = job.csv.format, version.card
    chunks = find_finished(engine, job, partial=partial)

    def read(first_row: int) -> bytes:
        with engine.connect() as connection:
            if content != "joined":
                return read_chunk(connection, job.id, first_row, content)
            payload = read_chunk(connection, job.id, first_row, "payload")
            output = read_chunk(connection, job.id, first_row, "output")
        try:
            return csv_output.join_records(card, form, payload, output)
        except ValueError as error:  # one of the two is gone
            raise Changed from error

    sizes: dict[int, int] = {}
    if content == "joined":
        header = csv_output.joined_header(card, form)
    elif content == "output":
        headers = {"explanations": explanation_header, "output": csv_output.output_header}
        header = headers[word](card, form) if word in headers else csv_output.header_line(COLUMNS, form)
        sizes = {chunk.first_row: chunk.output_bytes or 0 for chunk in chunks}
    else:
        header = csv_output.errors_header(form)
        sizes = {chunk.first_row: chunk.errors_bytes or 0 for chunk in chunks}
    return Download(
        name=file_name(job.csv, job, f"-{word if content == 'output' else content}.csv"),
        etag=etag_of(job, chunks, content),
        header=header,
        first_rows=[chunk.first_row for chunk in chunks],
        sizes=sizes,
        rows_done=sum(chunk.row_count for chunk in chunks),
        read=read,
        threads=WRITING if content == "joined" else READING,
    )


def etag_of(job: StoredJob, chunks: list[ChunkPlace], content: str) -> str:
    """Return the ETag of a file: another one for every content."""
    # The events count every chunk that is stored and every retry: no two contents have the same number and chunks.
    assert job.csv is not None
    places = [(chunk.first_row, chunk.row_count, chunk.output_bytes, chunk.errors_bytes) for chunk in chunks]
    state = dumps([VERSION, job.id, content, job.csv.event_count, places])
    return f'"{hashlib.sha256(state.encode()).hexdigest()[:32]}"'


def file_name(file: StoredCsv, job: StoredJob, ending: str) -> str:
    """Return a name for the file at the caller's, after the one that was sent."""
    sent = "".join(character for character in file.filename or "" if character.isprintable())
    stem = PurePath(sent.replace("\\", "/")).name
    for suffix in (".gz", ".csv", ".tsv", ".txt"):
        stem = stem[: -len(suffix)] if stem.lower().endswith(suffix) else stem
    return (stem[:100] or job.id) + ending
