"""The history of one row's score, and its outcome: read from every table that has a part of it. Nothing here writes.

The view `lineage` has the same for many rows, for SQL.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, select

from shared.explanations.storage import list_explanations
from shared.monitoring.suspensions import was_suspended
from shared.registry.versions import CHAMPION
from shared.tables import AliasEvent, Job, ModelInput, ModelOutput, ModelVersion, Outcome, RequestLog

CLOCKS = timedelta(seconds=5)  # by so much the clocks of the API and of the database may differ


@dataclass(frozen=True, slots=True)
class Lineage:
    """The stored data of one row of a job; each part is a row of its table, None if it does not exist."""

    job: Row[Any]
    version: Row[Any]
    input: Row[Any]
    request: Row[Any] | None  # the request that made the job, as far as requests are logged and kept
    promotion: Row[Any] | None  # the move that had made the version the champion when the job came
    output: Row[Any] | None
    explanation: Row[Any] | None
    outcome: Row[Any] | None
    is_by_pipeline: bool  # its version was suspended when the row was scored


def find_lineage(connection: Connection, job_id: str, row_index: int) -> Lineage | None:
    """Return the stored data of a row of a job; None if that row is not stored (yet)."""
    job = connection.execute(select(Job.__table__).where(Job.id == job_id)).one_or_none()
    row = connection.execute(
        select(ModelInput.__table__).where(ModelInput.job_id == job_id, ModelInput.row_index == row_index)
    ).one_or_none()
    if job is None or row is None:
        return None
    version = connection.execute(select(ModelVersion.__table__).where(ModelVersion.id == job.model_version_id)).one()
    explained = list_explanations(connection, job_id, version.id, first_row=row_index, count=1)
    output = connection.execute(
        select(ModelOutput.__table__).where(ModelOutput.input_id == row.id, ModelOutput.model_version_id == version.id)
    ).one_or_none()
    return Lineage(
        job,
        version,
        row,
        request=_request(connection, job),
        promotion=find_promotion(connection, version.name, version.version, job),
        output=output,
        explanation=explained[0][1] if explained else None,
        outcome=connection.execute(
            select(Outcome.__table__).where(Outcome.input_id == row.id, Outcome.replaced_at.is_(None))
        ).one_or_none(),
        is_by_pipeline=output is not None and was_suspended(connection, version.id, output.created_at),
    )


def find_promotion(connection: Connection, name: str, version: int, job: Row[Any]) -> Row[Any] | None:
    """Return the last move before a job by which a version became the champion; None where it never was."""
    return connection.execute(
        select(AliasEvent.__table__)
        .where(
            AliasEvent.name == name,
            AliasEvent.alias == CHAMPION,
            AliasEvent.to_version == version,
            AliasEvent.created_at <= job.created_at + CLOCKS,
        )
        .order_by(AliasEvent.id.desc())
        .limit(1)
    ).one_or_none()


def _request(connection: Connection, job: Row[Any]) -> Row[Any] | None:
    """Return the first request of the job's X-Request-Id that ended after it was accepted: it may be sent again."""
    return connection.execute(
        select(RequestLog.__table__)
        .where(
            RequestLog.request_id == job.request_id,
            RequestLog.method.in_(("POST", "PUT")),
            RequestLog.created_at >= job.created_at - CLOCKS,
        )
        .order_by(RequestLog.id)
        .limit(1)
    ).one_or_none()
