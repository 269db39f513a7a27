"""Stored decisions as a replay reads them: the rows of a window that versions of one model have scored.

A window is found by the ids of outputs, which grow with time: no index over times is needed. Which ids a chunk holds
is settled when the replay is submitted, so that every decision is in exactly one chunk.
"""

import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    Text,
    and_,
    cast,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by

from shared.tables import ModelInput, ModelOutput, Replay

SLACK = timedelta(hours=1)  # an output may have a higher id than one that was stored so much later

Filter = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Scope:
    """Which decisions: those of some versions (by their numbers in the tables) in a window, up to an id."""

    version_ids: Sequence[int]
    start: datetime
    end: datetime
    features: Mapping[str, Sequence[Any]]  # by name, the values that count; none: all rows
    last_id: int | None = None  # of model_outputs

    def condition(self, connection: Connection) -> ColumnElement[bool]:
        """Return the condition on joined outputs and inputs."""
        conditions = [
            ModelOutput.model_version_id.in_(self.version_ids),
            ModelOutput.created_at >= self.start,
            ModelOutput.created_at < self.end,
            *(_holds(connection, name, values) for name, values in self.features.items()),
        ]
        return and_(*conditions)


@dataclass(frozen=True, slots=True)
class Decisions:
    """A run of decisions: the ids of its first and last output, and how many there are between them."""

    first_id: int
    last_id: int
    count: int

    def dump(self) -> bytes:
        """Return the ids as a chunk keeps them."""
        return orjson.dumps([self.first_id, self.last_id])


@dataclass(frozen=True, slots=True)
class DecidedRows:
    """n decisions and their rows, in the order of their ids."""

    output_ids: list[int]
    input_ids: list[int]
    version_ids: list[int]  # of the versions that decided
    predictions: list[float]
    probabilities: list[float | None]  # None or NaN: there is none
    job_ids: list[str]
    rows: list[int]  # places in their jobs, from 0
    first_at: datetime | None  # when the first of them was decided
    features: bytes  # the canonical rows: a JSON array of n objects
    versions: dict[int, tuple[int, bool]]  # by id: the number, and whether its rows are those of the replay's version


def plan(connection: Connection, scope: Scope, *, rows: int) -> list[Decisions]:
    """Return the decisions of a scope in runs of this number of rows; the last one may be shorter."""
    bounds = _id_bounds(connection, scope)
    if bounds is None:
        return []
    number = func.row_number().over(order_by=ModelOutput.id) - 1
    numbered = select(ModelOutput.id, (number // literal(rows)).label("part")).where(
        ModelOutput.id.between(*bounds), scope.condition(connection)
    )
    if scope.features:
        numbered = numbered.join(ModelInput, ModelInput.id == ModelOutput.input_id)
    runs = numbered.subquery()
    query = select(func.min(runs.c.id), func.max(runs.c.id), func.count()).group_by(runs.c.part).order_by(runs.c.part)
    return [Decisions(*row) for row in connection.execute(query)]


def count_by_version(connection: Connection, scope: Scope) -> dict[int, int]:
    """Return how many decisions of a scope each version made, of those that made any."""
    bounds = _id_bounds(connection, scope)
    if bounds is None:
        return {}
    query = select(ModelOutput.model_version_id, func.count()).where(
        ModelOutput.id.between(*bounds), scope.condition(connection)
    )
    if scope.features:
        query = query.join(ModelInput, ModelInput.id == ModelOutput.input_id)
    counts = connection.execute(query.group_by(ModelOutput.model_version_id))
    return {version: count for version, count in counts}  # noqa: C416 - rows, as mypy knows them


def read(connection: Connection, job_id: str, chunk: bytes) -> DecidedRows:
    """Return the decisions of a chunk of a replay with their rows, as far as they were not erased."""
    first, last = orjson.loads(chunk)
    replay = connection.execute(select(Replay.__table__).where(Replay.job_id == job_id)).one()
    versions = {each["id"]: (each["version"], each["fits"]) for each in replay.versions}
    scope = Scope(list(versions), replay.starts_at, replay.ends_at, replay.filter.get("features") or {})
    fetch = _fetch_packed if connection.dialect.name == "postgresql" else _fetch
    return fetch(connection, ModelOutput.id.between(first, last) & scope.condition(connection), versions)


def _decided(which: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    """Return the query for decisions and their rows, in the order of their ids; features are text."""
    return (
        select(
            ModelOutput.id,
            ModelOutput.input_id,
            ModelOutput.model_version_id,
            ModelOutput.prediction,
            ModelOutput.probability,
            ModelInput.job_id,
            ModelInput.row_index,
            ModelOutput.created_at,
            cast(ModelInput.features, Text).label("features"),
        )
        .join(ModelInput, ModelInput.id == ModelOutput.input_id)
        .where(which)
        .order_by(ModelOutput.id)
    )


def _fetch(connection: Connection, which: ColumnElement[bool], versions: dict[int, tuple[int, bool]]) -> DecidedRows:
    outputs = connection.execute(_decided(which)).all()
    columns = list(zip(*outputs, strict=True)) if outputs else [()] * 9
    ids, inputs, decided_by, predictions, probabilities, jobs, rows, times, features = map(list, columns)
    text = "[" + ",".join(features) + "]"
    return DecidedRows(
        ids,
        inputs,
        decided_by,
        predictions,
        probabilities,
        list(map(str, jobs)),
        rows,
        times[0] if times else None,
        text.encode(),
        versions,
    )


def _fetch_packed(
    connection: Connection, which: ColumnElement[bool], versions: dict[int, tuple[int, bool]]
) -> DecidedRows:
    """Return the same from PostgreSQL in one record, a value for each column: each of its rows would cost as much."""
    columns = _decided(which).subquery().c

    def packed(value: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.string_agg(value, aggregate_order_by(literal_column("''::bytea"), columns.id))

    def of_numbers(column: ColumnElement[Any]) -> ColumnElement[Any]:
        return packed(func.int8send(cast(column, BigInteger)))

    def of_floats(column: ColumnElement[Any]) -> ColumnElement[Any]:
        return packed(func.float8send(func.coalesce(column, literal_column("'NaN'::float8"))))

    record = connection.execute(
        select(
            of_numbers(columns.id),
            of_numbers(columns.input_id),
            of_numbers(columns.model_version_id),
            of_floats(columns.prediction),
            of_floats(columns.probability),
            packed(func.uuid_send(columns.job_id)),
            of_numbers(columns.row_index),
            func.min(columns.created_at),
            func.string_agg(columns.features, aggregate_order_by(literal_column("','"), columns.id)),
        )
    ).one()
    ids, inputs, decided_by, predictions, probabilities, jobs, rows, first_at, features = record
    jobs = bytes(jobs or b"")
    job_ids = [jobs[start : start + 16] for start in range(0, len(jobs), 16)]
    names = {each: str(UUID(bytes=each)) for each in set(job_ids)}
    return DecidedRows(
        _unpacked("q", ids),
        _unpacked("q", inputs),
        _unpacked("q", decided_by),
        _unpacked("d", predictions),
        _unpacked("d", probabilities),
        list(map(names.__getitem__, job_ids)),
        _unpacked("q", rows),
        first_at,
        b"[" + (features or "").encode() + b"]",
        versions,
    )


def _unpacked(kind: str, data: memoryview | None) -> list[Any]:
    """Return numbers that PostgreSQL has sent in network byte order."""
    numbers = array(kind, bytes(data or b""))
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers.tolist()


def _id_bounds(connection: Connection, scope: Scope) -> tuple[int, int] | None:
    """Return ids of outputs between which those of a window lie."""
    last: int | None = scope.last_id
    if last is None:
        last = connection.scalar(select(func.max(ModelOutput.id)))
    if not last:
        return None
    first = first_since(connection, scope.start - SLACK, last)
    return first, min(last, first_since(connection, scope.end + SLACK, last))


def first_since(connection: Connection, time: datetime, last: int) -> int:
    """Return the id of the first output up to `last` of that time or later, and `last` + 1 without one.

    By bisection over the ids: exact where outputs were stored in the order of their times.
    """
    low, high = 1, last + 1
    while low < high:
        middle = (low + high) // 2
        output = connection.execute(
            select(ModelOutput.id, ModelOutput.created_at)
            .where(ModelOutput.id >= middle)
            .order_by(ModelOutput.id)
            .limit(1)
        ).first()
        if output is None or output.created_at >= time:
            high = middle
        else:
            low = output.id + 1
    return low


def _holds(connection: Connection, name: str, values: Sequence[Any]) -> ColumnElement[bool]:
    """Return the condition that a feature of a row has one of some values."""
    if not values:
        return ~true()
    if connection.dialect.name == "postgresql":
        column = ModelInput.features
        return or_(*(column.op("@>", is_comparison=True)(literal({name: each}, JSONB)) for each in values))
    path = '$."' + name.replace('"', '\\"') + '"'
    value = func.json_extract(cast(ModelInput.features, Text), path)
    return or_(*(value.is_(None) if each is None else value == each for each in values))
