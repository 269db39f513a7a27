"""Uploaded models: their jobs, of no version yet, and their files, which wait in pieces until the jobs end.

A job is claimed alone (shared/jobs/transitions.py). Whoever ends it removes the pieces in the same transaction; those
of a job that ended otherwise, canceled, say, are removed by the next one who looks.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, exists, func, insert, select, update

from shared.database.clock import clock
from shared.jobs import transitions as jobs
from shared.jobs.kinds import APART
from shared.jobs.submission import Submission
from shared.jobs.transitions import Claim
from shared.tables import Job, JobState, ModelVersion, Registration, RegistrationPart, Training

DATA = "data"  # the only file of a training: its rows
PIECE_BYTES = 1 << 20  # to quote a megabyte holds the interpreter for four milliseconds, and no longer


class UploadedFile(NamedTuple):
    """A file of an upload, as its job knows it."""

    name: str  # under which it is laid down: a name without folders, with the suffix that tells its format
    filename: str | None  # at its sender's
    size: int  # bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class Upload:
    """A model that was received whole."""

    name: str  # of the model
    options: Mapping[str, Any]  # fields of the form
    files: Mapping[str, UploadedFile]  # by the field that they came in
    actor: str

    @property
    def sha256(self) -> str:
        """The SHA-256 of the artefact, or of the rows to train on."""
        return self.files["artefact" if "artefact" in self.files else DATA].sha256

    @property
    def byte_count(self) -> int:
        """How large its files are together."""
        return sum(file.size for file in self.files.values())


@dataclass(frozen=True, slots=True)
class StoredRegistration:
    """An upload as it is stored, and its result."""

    name: str
    files: Mapping[str, Mapping[str, Any]]
    model_version_id: int | None
    alias: str | None
    version: int | None
    sha256: str | None  # of the version's artefact
    progress: dict[str, Any] | None  # of a training


def submit(
    connection: Connection, job: Submission, upload: Upload, pieces: Iterable[tuple[str, int, bytes]]
) -> datetime | None:
    """Store an upload as a queued job; return when it was accepted.

    `pieces` are (field, place, bytes). None: the job, or its idempotency key, was there before; nothing was stored.
    """
    created_at = jobs.submit_csv(connection, job, row_count=1)
    if created_at is None:
        return None
    connection.execute(
        insert(Registration).values(
            job_id=job.id,
            name=upload.name,
            options=dict(upload.options),
            files={
                field: {"name": file.name, "filename": file.filename, "bytes": file.size, "sha256": file.sha256}
                for field, file in upload.files.items()
            },
            sha256=upload.sha256,
            byte_count=upload.byte_count,
            actor=upload.actor,
        )
    )
    for field, place, payload in pieces:
        values = {"job_id": job.id, "field": field, "place": place, "payload": payload}
        connection.execute(insert(RegistrationPart).values(values))
    return created_at


def count_unfinished(connection: Connection) -> int:
    """Return the number of uploads whose files are stored: those of jobs that have not ended."""
    return connection.scalar(select(func.count(RegistrationPart.job_id.distinct()))) or 0


def is_waiting(connection: Connection) -> bool:
    """Return whether an upload could be claimed now."""
    ready = exists().where(
        Job.state == JobState.QUEUED,
        Job.model_version_id.is_(None),
        Job.run_after <= clock(connection),
        Job.kind.in_(APART),
    )
    return bool(connection.scalar(select(ready)))


def claim(connection: Connection, *, worker: str, lease_seconds: float) -> Claim | None:
    """Take the first queued upload; None without one. Needs a transaction."""
    return jobs.claim_apart(connection, worker=worker, lease_seconds=lease_seconds)


def find_upload(connection: Connection, job_id: str) -> Upload:
    """Return what was uploaded for a job."""
    row = connection.execute(select(Registration.__table__).where(Registration.job_id == job_id)).one()
    files = {
        field: UploadedFile(file["name"], file["filename"], file["bytes"], file["sha256"])
        for field, file in row.files.items()
    }
    return Upload(row.name, row.options, files, row.actor)


def read_file(connection: Connection, job_id: str, field: str) -> Iterator[bytes]:
    """Yield the pieces of a file, one at a time."""
    place = 0
    while True:
        piece = connection.scalar(
            select(RegistrationPart.payload).where(
                RegistrationPart.job_id == job_id, RegistrationPart.field == field, RegistrationPart.place == place
            )
        )
        if piece is None:
            return
        yield piece
        place += 1


def is_canceled(connection: Connection, held: Claim) -> bool:
    """Return whether the cancellation of a claimed job was requested, or another worker holds it by now."""
    row = connection.execute(select(Job.claim_token, Job.cancel_requested_at).where(Job.id == held.job_id)).first()
    return row is None or row[0] != held.token or row[1] is not None


def succeed(connection: Connection, held: Claim, *, model_version_id: int, alias: str | None) -> bool:
    """End a job with the version that it registered, in the transaction that does so; return whether it was ours."""
    connection.execute(
        update(Registration)
        .where(Registration.job_id == held.job_id)
        .values(model_version_id=model_version_id, alias=alias)
    )
    return _end(connection, held, JobState.SUCCEEDED)


def fail(connection: Connection, held: Claim, *, code: str, message: str) -> bool:
    """End a job whose upload became no version, with the reason; return whether it was still ours."""
    return _end(connection, held, JobState.FAILED, {"code": code, "message": message})


def cancel(connection: Connection, held: Claim) -> bool:
    """End a job after its caller's request; return whether it was still ours."""
    return _end(connection, held, JobState.CANCELED)


def _end(connection: Connection, held: Claim, state: JobState, error: dict[str, str] | None = None) -> bool:
    is_ours = jobs.end_apart(connection, held, state=state, error=error)
    if is_ours:
        connection.execute(delete(RegistrationPart).where(RegistrationPart.job_id == held.job_id))
    return is_ours


def forget_files(connection: Connection) -> int:
    """Remove the pieces of uploads whose jobs have ended; return their number."""
    has_ended = exists().where(Job.id == RegistrationPart.job_id, Job.finished_at.is_not(None))
    return connection.execute(delete(RegistrationPart).where(has_ended)).rowcount


def find_registrations(connection: Connection, job_ids: Sequence[str]) -> dict[str, StoredRegistration]:
    """Return the stored uploads of these jobs."""
    columns = (Registration.name, Registration.files, Registration.model_version_id, Registration.alias)
    rows = connection.execute(
        select(Registration.job_id, *columns, ModelVersion.version, ModelVersion.sha256, Training.progress)
        .outerjoin(ModelVersion, ModelVersion.id == Registration.model_version_id)
        .outerjoin(Training, Training.job_id == Registration.job_id)
        .where(Registration.job_id.in_(job_ids))
    )
    return {str(job_id): StoredRegistration(*values) for job_id, *values in rows}
