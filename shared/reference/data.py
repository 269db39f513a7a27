"""The reference data of a model: rows like its training rows, with their ground truth.

A model has one set of rows at a time, from one file; shared/reference/load.py takes the file in.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, insert, select
from sqlalchemy.exc import IntegrityError

from shared.database.engine import take_time
from shared.errors import Conflict, NotFound
from shared.observability.audit import REFERENCE_DROPPED, REFERENCE_LOADED, audit
from shared.tables import ModelVersion, ReferenceSet

_COLUMNS = "reference_rows (set_id, row_no, features, target)"
_NULL = "\\N"  # in COPY's text format


@dataclass(frozen=True, slots=True)
class StoredSet:
    """The reference data that a model has, and the file that they came from."""

    model: str
    version: int  # whose card the rows were checked against
    filename: str
    sha256: str  # of the file
    byte_count: int  # uncompressed
    delimiter: str
    encoding: str
    decimal: str
    target: str | None  # the column that holds the answers
    row_count: int
    skipped_count: int
    created_at: datetime
    thousands: str  # what separates thousands; empty: nothing does
    currency: str  # the sign beside numbers, if they have one
    options: dict[str, Any] | None  # what was said about the file; None: it is not known any more


def find_set(connection: Connection, model_name: str) -> StoredSet | None:
    """Return the description of a model's reference data, None without any."""
    row = connection.execute(_sets().where(ReferenceSet.model_name == model_name)).one_or_none()
    return None if row is None else _stored(row)


def list_sets(connection: Connection) -> list[StoredSet]:
    """Return the reference data of every model that has any, by name."""
    return [_stored(row) for row in connection.execute(_sets().order_by(ReferenceSet.model_name))]


def drop_set(connection: Connection, model_name: str) -> StoredSet:
    """Delete a model's reference data; raise NotFound without any."""
    stored = find_set(connection, model_name)
    if stored is None:
        models = ", ".join(stored.model for stored in list_sets(connection)) or "no model"
        raise NotFound(f"There are no reference data of {model_name[:63]!r}; there are some of: {models}.")
    take_time(connection)
    connection.execute(delete(ReferenceSet).where(ReferenceSet.model_name == model_name))
    audit(connection, REFERENCE_DROPPED, model_name, details={"sha256": stored.sha256, "rows": stored.row_count})
    return stored


def replace_set(
    connection: Connection, values: dict[str, Any], pieces: Iterable[Sequence[tuple[str, str | None]]]
) -> None:
    """Replace a model's reference data, all or nothing.

    `values` are those of `reference_sets`; each piece holds some rows, as the JSON text of features and of target.
    Raises Conflict when somebody else has just done the same.
    """
    take_time(connection)
    connection.execute(delete(ReferenceSet).where(ReferenceSet.model_name == values["model_name"]))
    try:
        set_id = connection.execute(insert(ReferenceSet).values(values).returning(ReferenceSet.id)).scalar_one()
    except IntegrityError as error:
        raise Conflict(
            f"Somebody else has just loaded reference data of {values['model_name']}: look at them with "
            "`python -m shared.registry reference list`, and try again if yours are to replace them."
        ) from error
    store = _copy if connection.dialect.name == "postgresql" else _insert
    row_no = 1
    for piece in pieces:
        store(connection, set_id, row_no, piece)
        row_no += len(piece)
    details = {"sha256": values["sha256"], "rows": values["row_count"]}
    audit(connection, REFERENCE_LOADED, values["model_name"], details=details)


def _copy(connection: Connection, set_id: int, first: int, piece: Sequence[tuple[str, str | None]]) -> None:
    """Store rows by COPY in its text format (PostgreSQL manual, COPY), where a backslash is written twice."""
    lines = [
        f"{set_id}\t{row_no}\t{_doubled(features)}\t{_NULL if target is None else _doubled(target)}\n"
        for row_no, (features, target) in enumerate(piece, first)
    ]
    content = "".join(lines).encode()
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor:
        cursor.copy_expert(f"COPY {_COLUMNS} FROM STDIN", BytesIO(content), len(content))


def _doubled(json: str) -> str:
    return json.replace("\\", "\\\\")


def _insert(connection: Connection, set_id: int, first: int, piece: Sequence[tuple[str, str | None]]) -> None:
    connection.exec_driver_sql(
        f"INSERT INTO {_COLUMNS} VALUES (?, ?, ?, ?)",  # noqa: S608 - a constant
        [(set_id, row_no, features, target) for row_no, (features, target) in enumerate(piece, first)],
    )


def _sets() -> Select[*tuple[Any, ...]]:
    stored = ReferenceSet
    return select(
        stored.model_name,
        ModelVersion.version,
        stored.filename,
        stored.sha256,
        stored.byte_count,
        stored.delimiter,
        stored.encoding,
        stored.decimal,
        stored.target,
        stored.row_count,
        stored.skipped_count,
        stored.created_at,
        stored.thousands,
        stored.currency,
        stored.options,
    ).join(ModelVersion, ModelVersion.id == stored.model_version_id)


def _stored(row: Row[*tuple[Any, ...]]) -> StoredSet:
    return StoredSet(*row)
