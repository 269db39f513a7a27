"""The life of a chunk, of a CSV file or of a job of explanations, and its effect on the job.

    submit ──▶ queued ──▶ running ──▶ done            claim (attempt + 1, new token, lease), store
                 ▲  │        │  └────▶ failed          store: its row took every worker down
                 │  │        │
                 │  └──▶ canceled ◀── (the job ended)  cancel, too many errors, expiry
                 └───────────┘                         recover (lease ran out), requeue_after_crash (stuck, or out of
                                                       memory)

A chunk that took its worker down twice is cut into smaller ones (`split`), until the guilty row stands alone.
Whoever stores a chunk writes its inputs, its outputs, its lines of the output files, the progress of its job and,
with the last chunk, the job's end in one transaction. The token is compared last: a worker that lost its lease
meanwhile undoes all of it. Rows are locked in the order chunk, csv_files, jobs; whoever comes from the job's side
skips chunks that are locked. Every function works in the transaction that is open, on both dialects; to store
a chunk is in shared/jobs/chunks/storage.py.
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, exists, insert, select, update
from sqlalchemy.engine import RowMapping

from shared.csv.format import CsvFormat
from shared.csv.packing import unpack
from shared.database.clock import clock
from shared.jobs import transitions as jobs
from shared.jobs.chunks import decisions
from shared.jobs.chunks.decisions import DecidedRows
from shared.jobs.chunks.source_rows import SourceRow, read_source
from shared.jobs.figures import find_ended, keep_counted
from shared.jobs.kinds import CHUNKED
from shared.jobs.submission import Submission
from shared.monitoring.suspensions import is_suspended
from shared.tables import ChunkState, CsvFile, Job, JobChunk, JobEvent, JobKind, JobState, ModelInput

DEATHS = 2  # after so many a chunk is cut: one may have been an innocent bystander's
PARTS = 16  # into so many
_DONE = {JobKind.EXPLAIN_BATCH.value: "explained", JobKind.REPLAY.value: "decided again"}
_BATCH = 4  # chunks in one INSERT: to quote a megabyte holds the interpreter for four milliseconds, and no longer


# ── accepted ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class CsvUpload:
    """A file that was received whole."""

    format: CsvFormat
    row_count: int
    byte_count: int  # uncompressed
    filename: str | None = None
    max_error_rate: float | None = None
    notices: Sequence[str] = ()  # what was read otherwise than it is written
    source_job_id: str | None = None  # the job whose rows are explained: the chunks have none of their own


@dataclass(frozen=True, slots=True)
class PackedChunk:
    """A run of whole records, compressed."""

    first_row: int
    row_count: int
    payload: bytes


def submit(connection: Connection, job: Submission, file: CsvUpload, chunks: Iterable[PackedChunk]) -> datetime | None:
    """Store a CSV job with its file as queued chunks; return when it was accepted.

    None: the job, or its idempotency key, was there before; nothing was stored.
    """
    created_at = jobs.submit_csv(connection, job, row_count=file.row_count)
    if created_at is None:
        return None
    form = file.format
    connection.execute(
        insert(CsvFile).values(
            job_id=job.id,
            source_job_id=file.source_job_id,
            filename=file.filename,
            delimiter=form.delimiter,
            encoding=form.encoding,
            decimal=form.decimal,
            bom=form.bom,
            thousands=form.thousands,
            currency=form.currency,
            notices=list(file.notices),
            columns=list(form.columns),
            id_column=form.id_column,
            max_error_rate=file.max_error_rate,
            byte_count=file.byte_count,
            chunk_count=0,
        )
    )
    count = _insert_chunks(connection, job.id, job.model_version_id, chunks)
    connection.execute(update(CsvFile).where(CsvFile.job_id == job.id).values(chunk_count=count))
    add_event(connection, job.id, "accepted")
    return created_at


def _insert_chunks(
    connection: Connection, job_id: str, model_version_id: int, chunks: Iterable[PackedChunk], *, crash_count: int = 0
) -> int:
    count = 0
    waiting = iter(chunks)
    while batch := list(islice(waiting, _BATCH)):
        connection.execute(
            insert(JobChunk),
            [
                {
                    "job_id": job_id,
                    "model_version_id": model_version_id,
                    "first_row": chunk.first_row,
                    "row_count": chunk.row_count,
                    "state": ChunkState.QUEUED.value,
                    "payload": chunk.payload,
                    "crash_count": crash_count,
                }
                for chunk in batch
            ],
        )
        count += len(batch)
    return count


# ── claimed ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class ChunkClaim:
    """A chunk that this worker holds: its token keeps earlier holders from storing."""

    id: int
    job_id: str
    kind: str
    token: int
    model_version_id: int
    first_row: int
    row_count: int
    attempt: int
    crash_count: int
    max_attempts: int
    timeout_seconds: float
    format: CsvFormat
    payload: bytes  # packed; of a chunk that explains the rows of a file: the chunk of that file, if there is one
    request_id: str = ""
    traceparent: str | None = None  # W3C trace context of the request
    skipped: int = 0  # records of the payload before the first row
    source: tuple[SourceRow, ...] = ()  # the rows of another job, as far as it has them
    decided: DecidedRows | None = None  # of a replay: the decisions, as far as they are still there
    by_pipeline: bool = False  # its version is suspended: only the pipeline may score it

    @property
    def should_split(self) -> bool:
        """Whether it should be cut before anyone tries it again."""
        return self.crash_count >= DEATHS and self.row_count > 1

    @property
    def is_out_of_attempts(self) -> bool:
        """Whether its only row has taken down as many workers as it may."""
        return self.row_count == 1 and self.crash_count >= self.max_attempts


_CLAIMED = (
    JobChunk.id,
    JobChunk.job_id,
    Job.kind,
    JobChunk.first_row,
    JobChunk.row_count,
    JobChunk.attempt,
    JobChunk.crash_count,
    JobChunk.payload,
    Job.max_attempts,
    Job.timeout_seconds,
    Job.request_id,
    Job.traceparent,
    CsvFile.source_job_id,
    is_suspended(JobChunk.model_version_id).label("by_pipeline"),
)
FORMAT = (
    CsvFile.delimiter,
    CsvFile.encoding,
    CsvFile.decimal,
    CsvFile.columns,
    CsvFile.id_column,
    CsvFile.bom,
    CsvFile.thousands,
    CsvFile.currency,
)


def format_of(row: RowMapping) -> CsvFormat:
    """Return the format of a file, from the columns in FORMAT."""
    return CsvFormat(
        delimiter=row["delimiter"],
        encoding=row["encoding"],
        decimal=row["decimal"],
        columns=tuple(row["columns"]),
        id_column=row["id_column"],
        bom=row["bom"],
        thousands=row["thousands"],
        currency=row["currency"],
    )


def claim(connection: Connection, *, model_version_id: int, worker: str, lease_seconds: float) -> ChunkClaim | None:
    """Take one queued chunk of a version, first rows first; None without one."""
    ready = (
        select(*_CLAIMED, *FORMAT)
        .join(CsvFile, CsvFile.job_id == JobChunk.job_id)
        .join(Job, Job.id == JobChunk.job_id)
        .where(
            JobChunk.state == ChunkState.QUEUED,
            JobChunk.model_version_id == model_version_id,
            JobChunk.run_after <= clock(connection),
            Job.kind.in_(CHUNKED),  # those of a newer release are left to its workers
        )
        .order_by(JobChunk.first_row, JobChunk.job_id)
        .limit(1)
        .with_for_update(of=JobChunk, skip_locked=True)
    )
    while (row := connection.execute(ready).mappings().first()) is not None:
        token = secrets.randbits(62)
        _lock_file(connection, row["job_id"])  # who ends the job at this moment sees this claim, or this claim the end
        started = jobs.start_csv(connection, row["job_id"], token=token)
        if started is None:  # its job has ended, or is about to
            _set(connection, JobChunk.id == row["id"], state=ChunkState.CANCELED.value)
            if jobs.expire_csv(connection, row["job_id"]):
                abandon_chunks(connection, [row["job_id"]])
            else:  # it may have waited for this chunk alone, which was given back or cut after the cancellation
                end_if_done(connection, row["job_id"])
            continue
        if started:
            add_event(connection, row["job_id"], "started")
        _set(
            connection,
            JobChunk.id == row["id"],
            state=ChunkState.RUNNING.value,
            attempt=JobChunk.attempt + 1,
            claim_token=token,
            leased_by=worker,
            lease_expires_at=clock(connection, lease_seconds),
        )
        source, payload, skipped = read_source(connection, row)
        decided = decisions.read(connection, row["job_id"], unpack(payload)) if row["kind"] == JobKind.REPLAY else None
        return ChunkClaim(
            id=row["id"],
            job_id=row["job_id"],
            kind=row["kind"],
            token=token,
            model_version_id=model_version_id,
            first_row=row["first_row"],
            row_count=row["row_count"],
            attempt=row["attempt"] + 1,
            crash_count=row["crash_count"],
            max_attempts=row["max_attempts"],
            timeout_seconds=row["timeout_seconds"],
            by_pipeline=row["by_pipeline"],
            format=format_of(row),
            payload=payload,
            request_id=row["request_id"],
            traceparent=row["traceparent"],
            skipped=skipped,
            source=source,
            decided=decided,
        )
    return None


def heartbeat(connection: Connection, claims: Sequence[ChunkClaim], *, lease_seconds: float) -> None:
    """Renew the leases of claims that are still ours."""
    for claim in claims:
        _set(connection, held_by(claim), lease_expires_at=clock(connection, lease_seconds))


# ── back to the queue ────────────────────────────────────────────────────────────────────────────────────────────


def requeue_after_crash(connection: Connection, claim: ChunkClaim) -> None:
    """Give a claim back that got stuck or ran out of memory: it counts as a death."""
    _set(connection, held_by(claim), **_QUEUED, crash_count=JobChunk.crash_count + 1, run_after=clock(connection, 1.0))


def release(connection: Connection, claim: ChunkClaim) -> None:
    """Give a claim back at once; it is no fault of the chunk."""
    _set(connection, held_by(claim), **_QUEUED, attempt=JobChunk.attempt - 1)


def split(connection: Connection, claim: ChunkClaim, parts: Iterable[PackedChunk]) -> bool:
    """Put smaller chunks in the place of a claimed one; return whether it was still ours.

    The next death of a part is enough to cut it again.
    """
    if connection.execute(delete(JobChunk).where(held_by(claim))).rowcount == 0:
        return False
    count = _insert_chunks(connection, claim.job_id, claim.model_version_id, parts, crash_count=DEATHS - 1)
    connection.execute(
        update(CsvFile).where(CsvFile.job_id == claim.job_id).values(chunk_count=CsvFile.chunk_count + count - 1)
    )
    return True


def recover(connection: Connection, *, all_of_them: bool = False) -> tuple[int, list[str]]:
    """Queue chunks with expired leases again; return their number, and the jobs that end with it.

    With `all_of_them`, leases do not count: the one process that held them has just started again.
    """
    late = select(JobChunk.id, JobChunk.job_id).where(JobChunk.state == ChunkState.RUNNING)
    if not all_of_them:
        late = late.where(JobChunk.lease_expires_at < clock(connection))
    lost = connection.execute(late.limit(500).with_for_update(skip_locked=True)).all()
    if not lost:
        return 0, []
    _set(
        connection,
        JobChunk.id.in_([row.id for row in lost]),
        **_QUEUED,
        crash_count=JobChunk.crash_count + 1,
        run_after=clock(connection, secrets.randbelow(1000) / 1000),
    )
    # In one order, so that two who recover do not wait for each other.
    ended = [job_id for job_id in sorted({row.job_id for row in lost}) if end_if_done(connection, job_id) is not None]
    return len(lost), ended


NO_CLAIM = jobs.NO_CLAIM
_QUEUED = NO_CLAIM | {"state": ChunkState.QUEUED.value}


# ── the job's progress and its end ───────────────────────────────────────────────────────────────────────────────


def count_stored(connection: Connection, claim: ChunkClaim, *, failed_count: int) -> JobState | None:
    """Count a stored chunk; return the final state of its job if the chunk ended it."""
    connection.execute(
        update(CsvFile)
        .where(CsvFile.job_id == claim.job_id)
        .values(
            chunks_done=CsvFile.chunks_done + 1,
            rows_done=CsvFile.rows_done + claim.row_count,
            rows_failed=CsvFile.rows_failed + failed_count,
        )
    )
    ended = end_if_done(connection, claim.job_id)
    if ended is None:
        add_event(connection, claim.job_id, "progress")
    return ended


def end_if_done(connection: Connection, job_id: str) -> JobState | None:
    """End a job of chunks that has nothing left to do; return its final state, None if it goes on.

    It has succeeded when every chunk is stored and some row was scored. When its cancellation was asked for, or more
    rows failed than it allows, chunks that wait are given up, and it ends as soon as no worker holds one.
    """
    file = _lock_file(connection, job_id)
    job = connection.execute(
        # NO KEY: rows that other chunks of this job are storing hold its key by their foreign key.
        select(Job.kind, Job.state, Job.row_count, Job.cancel_requested_at)
        .where(Job.id == job_id)
        .with_for_update(key_share=True)
    ).one()
    if job.state not in (JobState.QUEUED, JobState.RUNNING):
        return None
    allowed = None if file.max_error_rate is None else file.max_error_rate * job.row_count
    too_many = allowed is not None and file.rows_failed > allowed
    error = None
    if file.chunks_done >= file.chunk_count and not too_many:
        state = JobState.SUCCEEDED if file.rows_failed < job.row_count else JobState.FAILED
        if state == JobState.FAILED:
            done = _DONE.get(job.kind, "scored")
            code = f"no_row_{done.replace(' ', '_')}"
            error = {"code": code, "message": f"no row could be {done}: errors.csv says why"}
    elif job.cancel_requested_at is not None or too_many:
        _cancel_queued(connection, job_id)
        running = exists().where(JobChunk.job_id == job_id, JobChunk.state == ChunkState.RUNNING)
        if connection.scalar(select(running)):
            return None
        state = JobState.FAILED if too_many else JobState.CANCELED
        if too_many:
            error = {
                "code": "too_many_errors",
                "message": f"more than {file.max_error_rate:.2%} of the rows failed: errors.csv says why",
            }
    else:
        return None
    failed = file.rows_failed + job.row_count - file.rows_done
    jobs.end_csv(connection, job_id, state=state, failed_count=failed, error=error)
    add_event(connection, job_id, "finished")
    return state


def cancel(connection: Connection, job_id: str) -> str | None:
    """Cancel a CSV job: at once when no worker holds a chunk of it; return its state, None if it had ended."""
    _lock_file(connection, job_id)
    state = jobs.cancel(connection, job_id)
    if state is None:
        return None
    if state == JobState.CANCELED:
        abandon_chunks(connection, [job_id])
        return state
    return end_if_done(connection, job_id) or state


def expire(connection: Connection) -> list[str]:
    """End CSV jobs that are still queued and may no longer start (500 at most); return their ids."""
    late = (
        select(Job.id)
        .where(Job.state == JobState.QUEUED, Job.kind.in_(CHUNKED), Job.expires_at <= clock(connection))
        .order_by(Job.id)
        .limit(500)
    )
    ended = []
    for job_id in connection.scalars(late).all():
        _lock_file(connection, job_id)
        if jobs.expire_csv(connection, job_id):
            ended.append(job_id)
    abandon_chunks(connection, ended)
    return ended


def abandon_chunks(connection: Connection, job_ids: Iterable[str]) -> None:
    """Give up the chunks of jobs that have just ended without a worker, and notify their followers."""
    for job_id in job_ids:
        if connection.scalar(select(CsvFile.job_id).where(CsvFile.job_id == job_id)) is not None:
            _cancel_queued(connection, job_id)
            add_event(connection, job_id, "finished")


def reopen(connection: Connection, job_id: str) -> bool:
    """Queue an ended job of chunks again, for the chunks that are not stored, or whose row killed workers.

    Stored results stay, and `max_error_rate` no longer counts. Returns whether anything was left to do.
    """
    file = _lock_file(connection, job_id)
    if file.chunks_done >= file.chunk_count and not _failed_chunks(connection, job_id):
        return False
    ended = find_ended(connection, [job_id])
    if not jobs.reopen_csv(connection, job_id):
        return False
    for chunk in _failed_chunks(connection, job_id):
        rows = ModelInput.row_index.between(chunk.first_row, chunk.first_row + chunk.row_count - 1)
        connection.execute(delete(ModelInput).where(ModelInput.job_id == job_id, rows))
        connection.execute(
            update(CsvFile)
            .where(CsvFile.job_id == job_id)
            .values(
                chunks_done=CsvFile.chunks_done - 1,
                rows_done=CsvFile.rows_done - chunk.row_count,
                rows_failed=CsvFile.rows_failed - chunk.failed_count,
            )
        )
    _set(
        connection,
        (JobChunk.job_id == job_id) & JobChunk.state.in_([ChunkState.CANCELED, ChunkState.FAILED]),
        **_QUEUED,
        attempt=0,
        crash_count=0,
        failed_count=0,
        finished_at=None,
        run_after=clock(connection),
        **dict.fromkeys(("output", "output_bytes", "errors", "errors_bytes")),
    )
    # Whoever asks for the rest wants it in spite of the errors so far: the limit would end the job again at once.
    again = {"rows_before": CsvFile.rows_done, "max_error_rate": None}
    connection.execute(update(CsvFile).where(CsvFile.job_id == job_id).values(again))
    add_event(connection, job_id, "accepted")
    keep_counted(connection, ended)
    return True


def _failed_chunks(connection: Connection, job_id: str) -> Sequence[Any]:
    return connection.execute(
        select(JobChunk.first_row, JobChunk.row_count, JobChunk.failed_count).where(
            JobChunk.job_id == job_id, JobChunk.state == ChunkState.FAILED
        )
    ).all()


# ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────


def add_event(connection: Connection, job_id: str, kind: str) -> None:
    """Write down what happened to a job: its state and counts at this moment, under the next sequence number."""
    seq = connection.scalar(
        update(CsvFile)
        .where(CsvFile.job_id == job_id)
        .values(event_count=CsvFile.event_count + 1)
        .returning(CsvFile.event_count)
    )
    job = connection.execute(
        select(Job.state, Job.row_count, Job.claimed_at, CsvFile.rows_done, CsvFile.rows_failed)
        .add_columns(CsvFile.rows_before, CsvFile.chunks_done, CsvFile.chunk_count, clock(connection).label("now"))
        .join(CsvFile, CsvFile.job_id == Job.id)
        .where(Job.id == job_id)
    ).one()
    data = {
        "status": job.state,
        "counts": row_counts(job.row_count, rows_done=job.rows_done, rows_failed=job.rows_failed),
        "progress": progress(
            state=job.state,
            row_count=job.row_count,
            rows_done=job.rows_done,
            rows_before=job.rows_before,
            chunks_done=job.chunks_done,
            chunk_count=job.chunk_count,
            since=job.claimed_at,
            until=job.now.replace(tzinfo=job.now.tzinfo or UTC),
        ),
    }
    connection.execute(insert(JobEvent).values(job_id=job_id, seq=seq, type=kind, data=data))


def row_counts(row_count: int, *, rows_done: int, rows_failed: int) -> dict[str, int]:
    """Return the rows of a file by what became of them: those that no worker has stored are `pending`."""
    return {
        "total": row_count,
        "succeeded": rows_done - rows_failed,
        "failed": rows_failed,
        "pending": row_count - rows_done,
    }


def progress(
    *,
    state: str,
    row_count: int,
    rows_done: int,
    rows_before: int,
    chunks_done: int,
    chunk_count: int,
    since: datetime | None,
    until: datetime,
) -> dict[str, Any]:
    """Return the scored rows of a file, their rate (rows/s), and the seconds until its end at that rate.

    `rows_before` were stored before the present run, which began at `since`.
    """
    seconds = (until - since).total_seconds() if since is not None else 0.0
    rate = (rows_done - rows_before) / seconds if rows_done > rows_before and seconds > 0 else None
    goes_on = state in (JobState.QUEUED, JobState.RUNNING)
    return {
        "rows_done": rows_done,
        "rows_per_second": None if rate is None else round(rate, 1),
        "eta_seconds": round((row_count - rows_done) / rate, 1) if goes_on and rate is not None else None,
        "chunks_done": chunks_done,
        "chunks_total": chunk_count,
    }


# ── small parts ──────────────────────────────────────────────────────────────────────────────────────────────────


def held_by(claim: ChunkClaim) -> ColumnElement[bool]:
    """Return the fence: the condition that a claimed chunk is still held by this very claim."""
    return (JobChunk.id == claim.id) & (JobChunk.claim_token == claim.token)


def _set(connection: Connection, which: ColumnElement[bool], **values: Any) -> int:  # noqa: ANN401 - column values
    return connection.execute(update(JobChunk).where(which).values(**values)).rowcount


def _lock_file(connection: Connection, job_id: str) -> Any:  # noqa: ANN401 - a row
    return connection.execute(
        select(CsvFile.chunk_count, CsvFile.chunks_done, CsvFile.rows_done, CsvFile.rows_failed, CsvFile.max_error_rate)
        .where(CsvFile.job_id == job_id)
        .with_for_update()
    ).one()


def _cancel_queued(connection: Connection, job_id: str) -> None:
    # Chunks that somebody is claiming at this moment are left to the claim, which looks at the job.
    queued = (
        select(JobChunk.id)
        .where(JobChunk.job_id == job_id, JobChunk.state == ChunkState.QUEUED)
        .with_for_update(skip_locked=True)
    )
    _set(connection, JobChunk.id.in_(queued), state=ChunkState.CANCELED.value)
