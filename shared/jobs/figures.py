"""Counts of waiting and ended jobs for /metrics. Reads jobs, and counts each of them once.

Counting every job that ever ended would take longer each day. So they are counted in pieces: what ended before a moment
(the watermark, a minute ago or more) is in `metric_samples` already, and only what ended since is counted anew.
"""

import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, extract, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from shared.database.clock import clock
from shared.observability.metrics import JOBS_FINISHED, add, sample_key
from shared.tables import ChunkState, Job, JobChunk, JobState, MetricSample, ModelVersion

WATERMARK = "jobs_counted_until"
_LATE_SECONDS = 60  # no transaction that ends a job takes so long
_COUNT_SECONDS = 120  # what ended since is counted at every scrape, so that it is never much


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """One queue: a model version's jobs in a lane, or the rows of its files that wait in chunks."""

    model: str  # name@version
    lane: str
    jobs: int
    oldest_seconds: float  # since the job that has waited longest could start; 0 without jobs


@dataclass(frozen=True, slots=True)
class FileFigures:
    """The chunks of files that wait for a model version."""

    model: str  # name@version
    chunks: int
    rows: int


def queues(connection: Connection) -> list[QueueFigures]:
    """Return every queue with waiting jobs."""
    if connection.dialect.name == "sqlite":
        age = (func.julianday("now") - func.julianday(func.min(Job.run_after))) * 86_400
    else:
        age = extract("epoch", func.now() - func.min(Job.run_after))
    rows = connection.execute(
        select(Job.model_version_id, Job.lane, func.count(), age)
        .where(Job.state == JobState.QUEUED.value)
        .group_by(Job.model_version_id, Job.lane)
    ).all()
    labels = version_labels(connection)
    return [
        QueueFigures(labels.get(version, str(version)), lane, count, max(float(seconds or 0), 0.0))
        for version, lane, count, seconds in rows
    ]


def files(connection: Connection) -> list[FileFigures]:
    """Return the waiting chunks and rows of files, by model version."""
    rows = connection.execute(
        select(JobChunk.model_version_id, func.count(), func.sum(JobChunk.row_count))
        .where(JobChunk.state == ChunkState.QUEUED.value)
        .group_by(JobChunk.model_version_id)
    ).all()
    labels = version_labels(connection)
    return [FileFigures(labels.get(version, str(version)), count, int(total or 0)) for version, count, total in rows]


def version_labels(connection: Connection) -> dict[int, str]:
    """Return `name@version` of every registered version, by its id."""
    rows = connection.execute(select(ModelVersion.id, ModelVersion.name, ModelVersion.version))
    return {number: f"{name}@{version}" for number, name, version in rows}


def count_finished(engine: Engine) -> dict[tuple[str, str, str], int]:
    """Return the number of ended jobs, by (model, kind, state): exact with any number of processes.

    The engine has to begin transactions: what is counted, and that it was counted, is stored together.
    """
    with engine.begin() as connection:
        since, now = _watermark(connection), _now(connection)
        if now - since > _COUNT_SECONDS:
            _move_watermark(connection, since, now - _LATE_SECONDS)
    # Both parts of the sum are read at one moment, or another process might move a part in between.
    snapshot = (
        engine if engine.dialect.name == "sqlite" else engine.execution_options(isolation_level="REPEATABLE READ")
    )
    with snapshot.connect() as connection:
        totals: Counter[tuple[str, str, str]] = Counter()
        stored = select(MetricSample.labels, MetricSample.value).where(MetricSample.name == JOBS_FINISHED.name)
        for text, value in connection.execute(stored):
            model, kind, state = json.loads(text)
            totals[model, kind, state] += int(value)
        totals.update(_finished(connection, _watermark(connection), None))
    return dict(totals)


def _finished(connection: Connection, since: float, until: float | None) -> dict[tuple[str, str, str], int]:
    query = select(Job.model_version_id, Job.kind, Job.state, func.count()).where(Job.finished_at > _time(since))
    if until is not None:
        query = query.where(Job.finished_at <= _time(until))
    rows = connection.execute(query.group_by(Job.model_version_id, Job.kind, Job.state)).all()
    labels = version_labels(connection)
    return {(labels.get(version, str(version)), kind, state): count for version, kind, state, count in rows}


def _move_watermark(connection: Connection, since: float, until: float) -> None:
    """Count what ended between two moments, once: only the process that moves the watermark adds it."""
    if not since:
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        first = insert(MetricSample).values(name=WATERMARK, labels="[]", part="count", value=0.0)
        connection.execute(first.on_conflict_do_nothing())
    is_here = (MetricSample.name == WATERMARK, MetricSample.value == since)
    if connection.execute(update(MetricSample).where(*is_here).values(value=until)).rowcount:
        finished = _finished(connection, since, until)
        add(connection, {sample_key(JOBS_FINISHED, labels): float(count) for labels, count in finished.items()})


def _watermark(connection: Connection) -> float:
    """Return the moment until which ended jobs are counted, in seconds since 1970; 0 at first."""
    return float(connection.scalar(select(MetricSample.value).where(MetricSample.name == WATERMARK)) or 0)


def _now(connection: Connection) -> float:
    now = connection.scalar(select(clock(connection)))
    assert now is not None
    return float(now.timestamp())


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
