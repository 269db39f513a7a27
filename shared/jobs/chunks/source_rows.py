"""The rows of another job that a chunk is about: read when it is claimed."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.engine import RowMapping

from shared.tables import JobChunk, ModelInput


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A row of another job that is explained."""

    index: int
    input_id: int
    features: dict[str, Any]  # canonical, where it has no faults
    faults: list[dict[str, Any]] | None  # why it has no score


def read_source(connection: Connection, chunk: RowMapping) -> tuple[tuple[SourceRow, ...], bytes, int]:
    """Return the rows of another job that a chunk is about, the chunk of its file, and the records before them.

    A chunk of a file of its own has its payload.
    """
    source_id, first = chunk["source_job_id"], chunk["first_row"]
    if source_id is None:
        return (), chunk["payload"], 0
    rows = connection.execute(
        select(ModelInput.row_index, ModelInput.id, ModelInput.features, ModelInput.faults)
        .where(ModelInput.job_id == source_id, ModelInput.row_index.between(first, first + chunk["row_count"] - 1))
        .order_by(ModelInput.row_index)
    )
    source = tuple(SourceRow(*row) for row in rows)
    records = connection.execute(
        select(JobChunk.first_row, JobChunk.payload)
        .where(JobChunk.job_id == source_id, JobChunk.first_row <= first)
        .order_by(JobChunk.first_row.desc())
        .limit(1)
    ).first()
    return (source, b"", 0) if records is None else (source, records.payload, first - records.first_row)
