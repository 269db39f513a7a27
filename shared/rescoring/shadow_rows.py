"""What challengers score, and what becomes of it, in the tables: the rows of a round, the watermark, the scores."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Text, and_, cast, insert, or_, select, update
from sqlalchemy.orm import aliased

from shared.comparison.shadow_state import BEHIND_SECONDS, CHALLENGER
from shared.database.clock import clock
from shared.jobs.chunks.decisions import first_since
from shared.monitoring.suspensions import is_suspended
from shared.registry.versions import CHAMPION
from shared.rescoring.shadow_process import Result
from shared.tables import (
    Job,
    JobKind,
    ModelAlias,
    ModelArchive,
    ModelInput,
    ModelOutput,
    ModelVersion,
    Shadow,
    ShadowScore,
)

LIVE = (JobKind.PREDICT, JobKind.BATCH)  # rows that callers wait for
_SCATTERED, _SPREAD = 10_000, 7_919  # a prime number: ids that follow each other come to places far apart
STRIDE = 20_000  # ids of outputs that are looked at in one query
_SLACK = timedelta(minutes=1)  # an output may have a higher id than one that was stored so much later


@dataclass(frozen=True, slots=True)
class Challenger:
    """A challenger, and how far it has come; None where it has not begun since its alias was moved."""

    version_id: int
    name: str
    version: int
    alias_at: datetime
    mark: int | None
    failures: int
    crashes: int
    is_stopped: bool
    is_suspended: bool  # only its pipeline may score
    holder: str | None  # the process that has it scored

    @property
    def label(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class ShadowRow:
    """A row that another version decided."""

    output_id: int
    decided_by: int
    decided_at: datetime
    features: str  # JSON, in the canonical form of that version


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are scored in a round, and how far that comes."""

    rows: list[ShadowRow]
    end: int  # the mark after them
    skipped: int
    lag_seconds: float  # of the oldest one that waits after them; 0: none


def list_challengers(connection: Connection) -> list[Challenger]:
    """Return the challengers that serve and are not the champions themselves, with how far they have come."""
    champion = aliased(ModelAlias)
    rows = connection.execute(
        select(
            ModelVersion.id,
            ModelVersion.name,
            ModelVersion.version,
            ModelAlias.updated_at,
            Shadow.alias_at,
            Shadow.mark,
            Shadow.failure_count,
            Shadow.crash_count,
            Shadow.stopped_at,
            is_suspended(ModelVersion.id),
            Shadow.leased_by,
        )
        .join(ModelAlias, and_(ModelAlias.model_version_id == ModelVersion.id, ModelAlias.alias == CHALLENGER))
        .outerjoin(champion, and_(champion.name == ModelAlias.name, champion.alias == CHAMPION))
        .outerjoin(Shadow, Shadow.model_version_id == ModelVersion.id)
        .outerjoin(ModelArchive, ModelArchive.model_version_id == ModelVersion.id)
        .where(
            ModelArchive.model_version_id.is_(None),
            or_(champion.model_version_id.is_(None), champion.model_version_id != ModelVersion.id),
        )
    )
    challengers = []
    for version, name, number, moved_at, alias_at, mark, failures, crashes, stopped_at, suspended, holder in rows:
        has_begun = alias_at == moved_at
        challengers.append(
            Challenger(
                version,
                name,
                number,
                moved_at,
                mark if has_begun else None,
                failures if has_begun else 0,
                crashes if has_begun else 0,
                has_begun and stopped_at is not None,
                suspended,
                holder,
            )
        )
    return challengers


def begin(connection: Connection, challenger: Challenger, last: int) -> None:
    """Let a challenger begin with the first decision since its alias was moved; its earlier scores stay."""
    now = datetime.now(UTC)
    of_version = Shadow.model_version_id == challenger.version_id
    before = connection.scalar(select(Shadow.mark).where(of_version))
    anew: dict[str, Any] = {
        "alias_at": challenger.alias_at,
        # What it has scored while it had the alias earlier is not scored again, whatever clocks say.
        "mark": max(_last_before(connection, challenger.alias_at, last), before or 0),
        "moved_at": now,
        "lag_seconds": 0.0,
        "scored_count": 0,
        "refused_count": 0,
        "skipped_count": 0,
        "failure_count": 0,
        "crash_count": 0,
        "reason": None,
        "stopped_at": None,
    }
    if before is None:
        connection.execute(insert(Shadow).values(model_version_id=challenger.version_id, **anew))
    else:  # unless another process has done so
        connection.execute(update(Shadow).where(of_version, Shadow.alias_at < challenger.alias_at).values(anew))


def _last_before(connection: Connection, time: datetime, last: int) -> int:
    """Return the id before that of the first output since a time, and `last` without one."""
    query = select(ModelOutput.id).where(
        ModelOutput.id >= first_since(connection, time - _SLACK, last),
        ModelOutput.id <= last,
        ModelOutput.created_at >= time,
    )
    first_id = connection.scalar(query.order_by(ModelOutput.id).limit(1))
    return last if first_id is None else first_id - 1


def read_batch(
    connection: Connection,
    mark: int,
    last: int,
    decided_by: Sequence[int],
    *,
    most: int,
    is_alone: bool = False,
    file_share: float = 0.0,
) -> Batch:
    """Return the next rows that some versions decided after an id, `most` at most, or the first one alone.

    Where the oldest has waited for too long, they are a random sample of a stride of ids, and the others are skipped;
    never because rows are scored one by one. Of the rows of files a share is taken, where there is room for it: these
    rows are waited for by nobody, and never hold up or thin out the others.
    """
    of_version = (
        select(ModelOutput.id, ModelOutput.model_version_id, ModelOutput.created_at, cast(ModelInput.features, Text))
        .join(ModelInput, ModelInput.id == ModelOutput.input_id)
        .join(Job, Job.id == ModelInput.job_id)
        .where(ModelOutput.model_version_id.in_(decided_by))
    )
    place = ModelOutput.id * _SPREAD % _SCATTERED  # as good as by chance, and the same whenever it is asked
    of_files = and_(Job.kind == JobKind.CSV, place < file_share * _SCATTERED)
    is_live = Job.kind.in_(LIVE)
    query = of_version.where(or_(is_live, of_files) if is_alone and file_share else is_live).order_by(ModelOutput.id)
    batch = _next(connection, query, mark, last, most=1 if is_alone else most, is_alone=is_alone)
    room = most - len(batch.rows)
    if not file_share or is_alone or room <= 0:
        return batch
    drawn = of_version.where(of_files, _between(mark, batch.end)).order_by(place).limit(room)
    return replace(batch, rows=[*batch.rows, *(ShadowRow(*row) for row in connection.execute(drawn))])


def _next(
    connection: Connection, query: Select[int, int, datetime, str], mark: int, last: int, *, most: int, is_alone: bool
) -> Batch:
    end = min(last, mark + STRIDE)
    between = _between(mark, end)
    rows = [ShadowRow(*row) for row in connection.execute(query.where(between).limit(most + 1))]
    if len(rows) <= most:
        return Batch(rows, end, 0, 0.0 if end == last else _age(connection, end))
    lag = _age(connection, rows[0].output_id - 1)
    if is_alone or lag <= BEHIND_SECONDS:
        return Batch(rows[:most], rows[most - 1].output_id, 0, lag)
    ids = connection.scalars(query.with_only_columns(ModelOutput.id).where(between)).all()
    drawn = random.sample(ids, min(most, len(ids)))
    rows = [ShadowRow(*row) for row in connection.execute(query.where(ModelOutput.id.in_(drawn)))]
    return Batch(rows, end, len(ids) - len(rows), lag)


def _between(mark: int, end: int) -> ColumnElement[bool]:
    return and_(ModelOutput.id > mark, ModelOutput.id <= end)


def _age(connection: Connection, after: int) -> float:
    """Return the seconds since the first output after an id was stored; 0 without such an output."""
    row = connection.execute(
        select(ModelOutput.created_at, clock(connection))
        .where(ModelOutput.id > after)
        .order_by(ModelOutput.id)
        .limit(1)
    ).one_or_none()
    return 0.0 if row is None else max(0.0, (row[1] - row[0]).total_seconds())


def store(
    connection: Connection,
    challenger: Challenger,
    batch: Batch,
    results: Sequence[Result],
    *,
    values: dict[str, Any] | None = None,
) -> bool:
    """Store the scores of a batch and move the mark, in the transaction of the caller.

    Nothing is written, and False returned, where the mark is elsewhere by now, the alias was moved, or the fast way of
    the version was suspended while it scored.
    """
    exact = connection.scalar(select(is_suspended(ModelVersion.id)).where(ModelVersion.id == challenger.version_id))
    if bool(exact) != challenger.is_suspended:
        return False
    refused = sum(isinstance(result, str) for result in results)
    moved = connection.execute(
        update(Shadow)
        .where(is_at(challenger), Shadow.stopped_at.is_(None))
        .values(
            {
                "mark": batch.end,
                "moved_at": clock(connection),
                "lag_seconds": batch.lag_seconds,
                "scored_count": Shadow.scored_count + len(results) - refused,
                "refused_count": Shadow.refused_count + refused,
                "skipped_count": Shadow.skipped_count + batch.skipped,
                "failure_count": 0 if results else Shadow.failure_count,
            }
            | (values or {})
        )
    )
    if moved.rowcount == 0:
        return False
    scores = [_columns(challenger, *pair) for pair in zip(batch.rows, results, strict=True)]
    if scores:
        connection.execute(insert(ShadowScore), scores)
    return True


def is_at(challenger: Challenger) -> Any:  # noqa: ANN401 - a condition
    """Return the condition that a challenger is where it was read."""
    return and_(
        Shadow.model_version_id == challenger.version_id,
        Shadow.alias_at == challenger.alias_at,
        Shadow.mark == challenger.mark,
    )


def _columns(challenger: Challenger, row: ShadowRow, result: Result) -> dict[str, Any]:
    prediction, label, probability = (None, None, None) if isinstance(result, str) else result
    return {
        "output_id": row.output_id,
        "model_version_id": challenger.version_id,
        "decided_at": row.decided_at,
        "prediction": prediction,
        "label": label,
        "probability": probability,
        "fault": result if isinstance(result, str) else None,
    }
