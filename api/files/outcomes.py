"""Files of outcomes: each line names a scored row and its outcome.

A line names its row by `job_id` and `row` (from 0) or `row_no` (from 1, as in output.csv), or by `id`: the id that the
caller gave its job or, beside `?job=`, the value of that CSV job's id column.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter, to_thread
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection, select
from starlette.requests import Request

from api.auth.callers import Caller
from api.files.uploads.body import UploadBody
from api.files.uploads.unwrapping import UploadDecoder, read_envelope
from api.http.responses import request_id_of
from api.jobs.finding import canonical_id
from api.models.catalog import Snapshot
from api.runtimes.idempotency import client_scope
from api.schemas.moments import AwareMoment
from api.services import Services
from shared.cards.numbers import NumberForm
from shared.csv.format import CsvOptions, Limits, read_records
from shared.errors import MAX_FAULTS, Conflict, RowFaults
from shared.faults import Fault, counted, sentence
from shared.jobs.queries.files import list_chunks, read_chunk
from shared.jobs.queries.jobs import StoredJob
from shared.monitoring.outcomes import Recorded, Truth, TruthReader, find_rows, record_outcomes
from shared.observability.audit import OUTCOME_REVISED, audit
from shared.tables import Job

if TYPE_CHECKING:
    from shared.csv.uploads.reader import UploadReader

MAX_ROWS = 100_000
MAX_BYTES = 20_000_000
MAX_INPUTS = 20  # that an audit entry of a revision names
COLUMNS = ("job_id", "row", "row_no", "id", "actual", "observed_at")
_RECEIVING = CapacityLimiter(1)  # one thread: such files are rare, and others wait for threads
_TIME = TypeAdapter(AwareMoment)


@dataclass(slots=True)
class OutcomeFile:
    """The lines of a file as text."""

    columns: tuple[str, ...]
    lines: list[list[str]]
    numbers: NumberForm


@dataclass(slots=True)
class Join:
    """The lines of a file as truths, and the faults of the other lines."""

    truths: list[Truth] = field(default_factory=list)
    row_nos: list[int] = field(default_factory=list)  # of each truth: its line, from 1
    errors: list[tuple[int, str, str, str]] = field(default_factory=list)  # line, column, code, message

    def refuse(self, row_no: int, column: str, code: str, message: str) -> None:
        """Record the fault of a line."""
        self.errors.append((row_no, column, code, message))


async def receive_outcomes(request: Request, body: UploadBody) -> OutcomeFile:
    """Read a file of outcomes; raise for any other file, before anything is stored."""
    envelope = read_envelope(request.headers)
    decoder = UploadDecoder(envelope, max_bytes=MAX_BYTES)
    csv_options = CsvOptions(encoding=envelope.charset)
    file = await to_thread.run_sync(_open, csv_options, limiter=_RECEIVING)
    lines: list[list[str]] = []

    def take(pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            _keep(file, file.feed(piece), lines)

    while data := await body.read():
        await to_thread.run_sync(take, decoder.unwrap(data), limiter=_RECEIVING)
    await to_thread.run_sync(take, decoder.finish(), limiter=_RECEIVING)
    await to_thread.run_sync(lambda: _keep(file, file.finish(), lines), limiter=_RECEIVING)
    assert file.format is not None
    columns = file.format.columns
    faults = _header_faults(columns)
    if faults:
        raise RowFaults(sentence(faults, subject="The header does not fit"), faults=faults)
    return OutcomeFile(columns, lines, file.format.numbers)


def _open(csv_options: CsvOptions) -> "UploadReader":
    # Imported here: a process that never receives a file does without the libraries that split it.
    from shared.csv.uploads.columns import ExpectedColumns
    from shared.csv.uploads.reader import UploadReader

    limits = Limits(MAX_BYTES, MAX_ROWS, 10_000)
    return UploadReader(None, csv_options, limits, expected=ExpectedColumns(dict.fromkeys(("actual",)), others=()))


def _keep(file: "UploadReader", chunks: Iterable[Any], lines: list[list[str]]) -> None:
    for chunk in chunks:
        assert file.format is not None
        lines += read_records(chunk.data.decode(), file.format.delimiter)


def _header_faults(columns: tuple[str, ...]) -> list[Fault]:
    faults = [Fault("/header/actual", "missing", "is missing")] if "actual" not in columns else []
    if ("job_id" in columns) == ("id" in columns):
        faults.append(Fault("/header/job_id", "missing", "or id must be there, and one of them alone"))
    if "row" in columns and "row_no" in columns:
        faults.append(Fault("/header/row", "conflict", "and row_no say the same: keep one"))
    faults += [
        Fault("/header", "unknown_column", f"has a column beside {', '.join(COLUMNS)}: remove it")
        for name in columns
        if name not in COLUMNS
    ][:1]
    return faults


def store_outcomes(
    services: Services,
    request: Request,
    caller: Caller,
    file: OutcomeFile,
    *,
    job: StoredJob | None,
    revise: bool,
    is_whole: bool,
) -> dict[str, Any]:
    """Join a file and store it in one transaction; return the report.

    `job` is the CSV job whose id column the file names its rows by. With `is_whole`, one bad line refuses the file:
    RowFaults or, where a row has another outcome already, Conflict; nothing is then stored.
    """
    with services.reader.connect() as connection:
        join = _join(connection, services.catalog.snapshot, caller, file, job)
    if join.errors and is_whole:
        raise RowFaults(
            f"{len(join.errors)} of {len(file.lines)} lines cannot be joined, and nothing was stored: correct them, or "
            "send the file with ?on_error=continue.",
            faults=_faults(join),
            fault_count=len(join.errors),
        )
    recorded = Recorded()
    with services.bulk_engine.begin() as connection:
        recorded = record_outcomes(
            connection, join.truths, by=caller.id, request_id=request_id_of(request), revise=revise
        )
        for place in recorded.refused:
            message = "differs from the stored value: send the file with ?revise=true to replace it"
            join.refuse(join.row_nos[place], "actual", "conflict", message)
        if recorded.refused and is_whole:
            count = len(recorded.refused)
            raise Conflict(
                f"{counted(count, 'row')} {'has' if count == 1 else 'have'} another outcome already, and nothing was "
                "stored: send the file with ?revise=true to replace it, which keeps the earlier value.",
                faults=_faults(join),
                fault_count=count,
            )
        if recorded.revised:
            inputs = [join.truths[place].input_id for place in recorded.revised]
            audit(
                connection,
                OUTCOME_REVISED,
                f"{counted(len(inputs), 'row')} of a file" if job is None else f"job:{job.id}",
                actor=caller.actor,
                details={"rows": len(inputs), "first_inputs": inputs[:MAX_INPUTS]},
                request_id=request_id_of(request),
            )
    join.errors.sort()
    return {
        "rows": len(file.lines),
        "created": len(recorded.created),
        "unchanged": len(recorded.unchanged),
        "revised": len(recorded.revised),
        "refused": len({row_no for row_no, *_ in join.errors}),
        "errors": [
            {"row_no": row_no, "column": column, "code": code, "message": message}
            for row_no, column, code, message in join.errors[:MAX_FAULTS]
        ],
    }


def _faults(join: Join) -> list[Fault]:
    return [
        Fault(f"/{row_no}/{column}", code, message)
        for row_no, column, code, message in sorted(join.errors)[:MAX_FAULTS]
    ]


def _join(connection: Connection, snapshot: Snapshot, caller: Caller, file: OutcomeFile, job: StoredJob | None) -> Join:
    """Find the scored row of each line, and read its value by its own model's card."""
    join = Join()
    lines: list[tuple[int, dict[str, str]]] = []
    for row_no, cells in enumerate(file.lines, 1):
        if len(cells) != len(file.columns):
            join.refuse(row_no, "", "cells", f"has {len(cells)} cells and the header {len(file.columns)}")
        else:
            lines.append((row_no, {name: cell.strip() for name, cell in zip(file.columns, cells, strict=True)}))
    named = _by_id_column(connection, job, lines) if job is not None else None
    jobs_by_id = _find_jobs(connection, caller, {line.get("job_id") or line.get("id") or "" for _, line in lines}, job)
    placed: list[tuple[int, dict[str, str], str, int, int]] = []  # with job id, version and row
    for row_no, line in lines:
        column = "job_id" if "job_id" in line else "id"
        if named is not None and job is not None:
            row = named(line["id"]) if "id" in line else _fault("must be there: ?job= names rows by their id")
            if isinstance(row, Fault):
                join.refuse(row_no, "id", row.code, row.message)
            else:
                placed.append((row_no, line, job.id, job.model_version_id, row))
        elif (target := jobs_by_id.get(line[column])) is None:
            join.refuse(row_no, column, "not_found", "is the id of no job of yours")
        else:
            row = _read_row(line, is_single=target.row_count == 1)
            if isinstance(row, Fault):
                join.refuse(row_no, row.pointer, row.code, row.message)
            else:
                placed.append((row_no, line, target.id, target.model_version_id, row))
    _read_truths(connection, snapshot, file, placed, join)
    return join


def _fault(message: str, *, column: str = "", code: str = "not_found") -> Fault:
    return Fault(column, code, message)


def _read_row(line: Mapping[str, str], *, is_single: bool) -> int | Fault:
    column = "row_no" if "row_no" in line else "row"
    text = line.get(column, "")
    if not text and is_single:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 9 or (column == "row_no" and int(text) < 1):
        least = 1 if column == "row_no" else 0
        return _fault(f"must be the place of the row in its job, from {least}", column=column, code="type")
    return int(text) - (column == "row_no")


def _read_truths(
    connection: Connection,
    snapshot: Snapshot,
    file: OutcomeFile,
    placed: list[tuple[int, dict[str, str], str, int, int]],
    join: Join,
) -> None:
    stored = find_rows(connection, [(job_id, row) for *_, job_id, _, row in placed])
    readers = {version: TruthReader(snapshot.by_id[version].card, file.numbers) for *_, version, _ in placed}
    seen: dict[int, float] = {}
    for row_no, line, job_id, version, row in placed:
        input_id, is_scored = stored.get((job_id, row), (0, False))
        column = "row_no" if "row_no" in line else "row" if "row" in line else "id" if "id" in line else "job_id"
        value = readers[version].read(line["actual"])
        observed_at = _read_time(line.get("observed_at", ""))
        if not input_id:
            join.refuse(row_no, column, "not_found", "is no row of this job")
        elif not is_scored:
            join.refuse(row_no, column, "not_scored", "is a row that has no score")
        elif isinstance(value, Fault):
            join.refuse(row_no, "actual", value.code, value.message)
        elif isinstance(observed_at, Fault):
            join.refuse(row_no, "observed_at", observed_at.code, observed_at.message)
        elif input_id in seen:
            if seen[input_id] != value[0]:
                join.refuse(row_no, "actual", "conflict", "is another value than in an earlier line of this file")
        else:
            seen[input_id] = value[0]
            join.truths.append(Truth(input_id, *value, observed_at))
            join.row_nos.append(row_no)


def _read_time(text: str) -> datetime | Fault | None:
    if not text:
        return None
    try:
        return _TIME.validate_python(text)
    except ValidationError:
        return _fault("must be an RFC 3339 time with its offset, e.g. 2026-11-01T00:00:00Z", code="type")


@dataclass(frozen=True, slots=True)
class _JobOfRow:
    id: str
    model_version_id: int
    row_count: int


def _find_jobs(connection: Connection, caller: Caller, ids: set[str], job: StoredJob | None) -> dict[str, _JobOfRow]:
    """Return the caller's jobs by the ids that a file calls them: ours, or those that the caller gave."""
    if job is not None:
        return {}
    ours: dict[str, list[str]] = {}  # the texts of the file by the id that they write, of whatever case
    for text in ids:
        if (canonical := canonical_id(text)) is not None:
            ours.setdefault(canonical, []).append(text)
    jobs: dict[str, _JobOfRow] = {}
    columns = (Job.id, Job.model_version_id, Job.row_count, Job.owner, Job.idempotency_key)
    with_rows = select(*columns).where(Job.model_version_id.is_not(None))
    canonical_ids = list(ours)
    for start in range(0, len(canonical_ids), 500):
        for row in connection.execute(with_rows.where(Job.id.in_(canonical_ids[start : start + 500]))):
            if caller.may_see(row.owner):
                of_row = _JobOfRow(str(row.id), row.model_version_id, row.row_count)
                jobs.update(dict.fromkeys(ours[str(row.id)], of_row))
    theirs = list(ids - jobs.keys())
    scope = client_scope(caller.id)
    for start in range(0, len(theirs), 500):
        piece = theirs[start : start + 500]
        query = with_rows.where(Job.idempotency_scope == scope, Job.idempotency_key.in_(piece))
        for row in connection.execute(query):
            jobs[row.idempotency_key] = _JobOfRow(str(row.id), row.model_version_id, row.row_count)
    return jobs


def _by_id_column(
    connection: Connection, job: StoredJob, lines: Iterable[tuple[int, Mapping[str, str]]]
) -> Callable[[str], int | Fault]:
    """Return a function that finds a row of a CSV job by the value of its id column."""
    assert job.csv is not None
    form = job.csv.format
    assert form.id_column is not None
    names = {line.get("id", "") for _, line in lines}
    place = form.columns.index(form.id_column)
    rows: dict[str, int | None] = {}  # None: it stands there more than once
    for chunk in list_chunks(connection, job.id):
        records = read_records(read_chunk(connection, job.id, chunk.first_row, "payload").decode(), form.delimiter)
        for row, record in enumerate(records, chunk.first_row):
            name = record[place].strip() if place < len(record) else ""
            if name in names:
                rows[name] = None if name in rows else row

    def find(name: str) -> int | Fault:
        if name not in rows:
            return _fault("is no value of that file's id column")
        row = rows[name]
        return _fault("stands in that file more than once: name its rows by job_id and row_no") if row is None else row

    return find
