"""Past decisions that are made again: their jobs, which are claimed and ended as uploads are, and their reports."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from shared.jobs import transitions as jobs
from shared.jobs.submission import Submission
from shared.jobs.transitions import Claim
from shared.tables import JobState, ModelVersion, Registration, Reproduction


def submit(
    connection: Connection, job: Submission, *, source_job_id: str, row: int | None, model_version_id: int, actor: str
) -> datetime | None:
    """Store a job that scores a row of another one again, or with None every row; return when it was accepted.

    None: the job, or its idempotency key, was there before; nothing was stored.
    """
    created_at = jobs.submit_csv(connection, job, row_count=1)
    if created_at is None:
        return None
    name, sha256 = connection.execute(
        select(ModelVersion.name, ModelVersion.sha256).where(ModelVersion.id == model_version_id)
    ).one()
    about = {"options": {}, "files": {}, "byte_count": 0, "sha256": sha256, "model_version_id": model_version_id}
    connection.execute(insert(Registration).values(job_id=job.id, name=name, actor=actor, **about))
    connection.execute(insert(Reproduction).values(job_id=job.id, source_job_id=source_job_id, row_index=row))
    return created_at


def find_source(connection: Connection, job_id: str) -> tuple[str | None, int | None]:
    """Return the job whose rows a job scores again, None where it was erased; and the only row, None for all."""
    source = select(Reproduction.source_job_id, Reproduction.row_index).where(Reproduction.job_id == job_id)
    source_job_id, row = connection.execute(source).one()
    return source_job_id, row


def succeed(connection: Connection, held: Claim, report: dict[str, Any]) -> bool:
    """End a job with its report; return whether it was still ours."""
    connection.execute(update(Reproduction).where(Reproduction.job_id == held.job_id).values(report=report))
    return jobs.end_apart(connection, held, state=JobState.SUCCEEDED)


def find_reproduction(connection: Connection, job_id: str) -> dict[str, Any] | None:
    """Return the report of a job, None where it has none."""
    return connection.scalar(select(Reproduction.report).where(Reproduction.job_id == job_id))
