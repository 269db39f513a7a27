"""Explanations in their table: stored with the end of their jobs, found by job, or by row and model version."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import Connection, Row, select
from sqlalchemy.dialects import sqlite

from shared.database.engine import dumps
from shared.database.prepared import Statement, array
from shared.explanations.explanation import Explanation
from shared.tables import ModelInput, StoredExplanation

# By column, its type in PostgreSQL; the same in every row: the version.
_COLUMNS = {
    "input_id": "bigint",
    "row_sha256": "text",
    "method": "text",
    "scale": "text",
    "label": "text",
    "base_value": "float8",
    "value": "float8",
    "prediction": "float8",
    "probability": "float8",
    "reference": "text",
    "contributions": "text",
    "top": "text",
}
_JSON = ("reference", "contributions", "top")
_STORE = Statement(
    "store_explanations",
    ("int", *(f"{kind}[]" for kind in _COLUMNS.values())),
    f"""
INSERT INTO explanations (model_version_id, {", ".join(_COLUMNS)})
SELECT $1, {", ".join(f"{name}::jsonb" if name in _JSON else name for name in _COLUMNS)}
FROM unnest({", ".join(f"${number}" for number in range(2, len(_COLUMNS) + 2))}) AS t ({", ".join(_COLUMNS)})
ON CONFLICT DO NOTHING
""",  # noqa: S608 - built from constants
)


def store_explanations(
    connection: Connection, model_version_id: int, explanations: Sequence[tuple[int, Explanation]]
) -> None:
    """Write explanations (input id, explanation) of one model version, in the transaction that is open.

    The first explanation of an input stays: another one says the same. On PostgreSQL it is one statement, since a chunk
    has hundreds of them, which take seconds one by one.
    """
    rows = [_values(input_id, explanation) for input_id, explanation in explanations]
    if connection.dialect.name == "postgresql":
        texts = [row | {name: dumps(row[name]) for name in _JSON} for row in rows]
        _STORE.run(connection, model_version_id, *(array(row[name] for row in texts) for name in _COLUMNS))
        return
    now = datetime.now(UTC)
    connection.execute(
        sqlite.insert(StoredExplanation).on_conflict_do_nothing(),
        [row | {"model_version_id": model_version_id, "created_at": now} for row in rows],
    )


def _values(input_id: int, explanation: Explanation) -> dict[str, Any]:
    """Return the values of _COLUMNS."""
    return {
        "input_id": input_id,
        "row_sha256": row_sha256({one["feature"]: one["value"] for one in explanation.contributions}),
        "method": explanation.method,
        "scale": explanation.scale,
        "label": explanation.label,
        "base_value": explanation.base_value,
        "value": explanation.value,
        "prediction": explanation.output.prediction,
        "probability": explanation.output.probability,
        "reference": explanation.reference,
        "contributions": explanation.contributions,
        "top": explanation.top,
    }


def find_explanation(connection: Connection, job_id: str, row_index: int = 0) -> Row[Any] | None:
    """Return the explanation of one of a job's rows, None without one."""
    return connection.execute(
        select(StoredExplanation.__table__)
        .join(ModelInput, ModelInput.id == StoredExplanation.input_id)
        .where(ModelInput.job_id == job_id, ModelInput.row_index == row_index)
    ).first()


def find_explanation_of_row(connection: Connection, model_version_id: int, row: Mapping[str, Any]) -> Row[Any] | None:
    """Return the newest explanation of a canonical row by a model version, from any job; None without one."""
    return connection.execute(
        select(StoredExplanation.__table__)
        .where(StoredExplanation.model_version_id == model_version_id, StoredExplanation.row_sha256 == row_sha256(row))
        .order_by(StoredExplanation.id.desc())
        .limit(1)
    ).first()


def list_explanations(
    connection: Connection, job_id: str, model_version_id: int, *, first_row: int, count: int
) -> list[tuple[int, Row[Any]]]:
    """Return (row, explanation) of those of `count` rows of a job that were explained, from a first row on.

    A row was explained by its own place, in a job that explains all of them, or else as the same row of another job.
    """
    inputs = connection.execute(
        select(ModelInput.row_index, ModelInput.id, ModelInput.features)
        .where(
            ModelInput.job_id == job_id,
            ModelInput.row_index.between(first_row, first_row + count - 1),
            ModelInput.faults.is_(None),
        )
        .order_by(ModelInput.row_index)
    ).all()
    if not inputs:
        return []
    table = StoredExplanation.__table__
    own = connection.execute(
        select(table).where(
            StoredExplanation.model_version_id == model_version_id,
            StoredExplanation.input_id.in_([row.id for row in inputs]),
        )
    )
    by_input = {row.input_id: row for row in own}
    hashes = {row.id: row_sha256(row.features) for row in inputs if row.id not in by_input}
    others = connection.execute(
        select(table)
        .where(
            StoredExplanation.model_version_id == model_version_id,
            StoredExplanation.row_sha256.in_(set(hashes.values())),
        )
        .order_by(StoredExplanation.id)
    )
    by_hash = {row.row_sha256: row for row in others}  # the newest
    pairs = ((row.row_index, by_input.get(row.id) or by_hash.get(hashes.get(row.id))) for row in inputs)
    return [(index, row) for index, row in pairs if row is not None]


def row_sha256(row: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a canonical row, whatever the order of its features."""
    return hashlib.sha256(orjson.dumps(dict(row), option=orjson.OPT_SORT_KEYS)).hexdigest()
