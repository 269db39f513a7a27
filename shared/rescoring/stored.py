"""Rows as they were accepted, with the scores that were given for them. Nothing here writes."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, select

from shared.scoring.outputs import Output
from shared.tables import ModelInput, ModelOutput


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row of a job: its input as it is stored now, and its output, None where it has none."""

    index: int
    input_id: int
    features: dict[str, Any]
    sha256: bytes | None  # of the row when it was accepted
    is_faulty: bool
    output: Output | None


OUTPUT = (
    ModelOutput.task,
    ModelOutput.prediction,
    ModelOutput.label,
    ModelOutput.probability,
    ModelOutput.probabilities,
    ModelOutput.threshold,
)


def list_stored_rows(
    connection: Connection, job_id: str, model_version_id: int, *, first: int, count: int
) -> list[StoredRow]:
    """Return at most `count` stored rows of a job from a place on, in their order."""
    selected = connection.execute(
        select(ModelInput.row_index, ModelInput.id, ModelInput.features, ModelInput.sha256, ModelInput.faults, *OUTPUT)
        .outerjoin(
            ModelOutput,
            and_(ModelOutput.input_id == ModelInput.id, ModelOutput.model_version_id == model_version_id),
        )
        .where(ModelInput.job_id == job_id, ModelInput.row_index.between(first, first + count - 1))
        .order_by(ModelInput.row_index)
    )
    return [
        StoredRow(
            index,
            input_id,
            features,
            None if sha256 is None else bytes(sha256),
            faults is not None,
            None if score[0] is None else Output(*score),
        )
        for index, input_id, features, sha256, faults, *score in selected
    ]
