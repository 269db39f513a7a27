"""Counts of waiting and ended jobs for /metrics. Reads jobs, and counts each of them once.

Counting every job that ever ended would take longer each day. So they are counted in pieces: what ended before a moment
(the watermark, a minute ago or more) is in `metric_samples` already, and only what ended since is counted anew.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, extract, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from shared.database.clock import clock
from shared.observability.metrics import JOBS_FINISHED, add, sample_key
from shared.tables import ChunkState, Job, JobChunk, JobState, MetricSample, ModelVersion

Labels = Mapping[int, str]  # name@version of every registered version, by its id

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


NO_MODEL = "none"  # the label of jobs of no version


def _label(labels: Labels, version: int | None) -> str:
    return NO_MODEL if version is None else labels.get(version, str(version))


def queues(connection: Connection, labels: Labels) -> list[QueueFigures]:
    """Return every queue with waiting jobs."""
    if connection.dialect.name == "sqlite":
        age = (func.julianday("now") - func.julianday(func.min(Job.run_after))) * 86_400
    else:
        age = extract("epoch", func.now() - func.min(Job.run_after))
    rows = connection.execute(
        select(Job.model_version_id, Job.lane, func.count(), age)
        .where(Job.state == JobState.QUEUED.value)
        .group_by(Job.model_version_id, Job.lane)
    )
    return [
        QueueFigures(_label(labels, version), lane, count, max(float(seconds or 0), 0.0))
        for version, lane, count, seconds in rows
    ]


def files(connection: Connection, labels: Labels) -> list[FileFigures]:
    """Return the waiting chunks and rows of files, by model version."""
    rows = connection.execute(
        select(JobChunk.model_version_id, func.count(), func.sum(JobChunk.row_count))
        .where(JobChunk.state == ChunkState.QUEUED.value)
        .group_by(JobChunk.model_version_id)
    )
    return [FileFigures(labels.get(version, str(version)), count, int(total or 0)) for version, count, total in rows]


def version_labels(connection: Connection) -> Labels:
    """Return `name@version` of every registered version, by its id."""
    rows = connection.execute(select(ModelVersion.id, ModelVersion.name, ModelVersion.version))
    return {number: f"{name}@{version}" for number, name, version in rows}


def count_finished(connection: Connection, engine: Engine, labels: Labels) -> dict[tuple[str, str, str], int]:
    """Return the number of ended jobs, by (model, kind, state): exact with any number of processes.

    If the watermark is too old, it is moved first, in a transaction of its own on `engine`.
    """
    stored, since, age = _counted(connection)
    if age is None or age > _COUNT_SECONDS:
        with engine.begin() as writer:
            _move_watermark(writer, since, _now(writer) - _LATE_SECONDS, labels)
        stored, since, _ = _counted(connection)
    # The stored counts and their watermark come from one snapshot, so another process may move the watermark now.
    return dict(stored + _finished(connection, since, None, labels))


@dataclass(frozen=True, slots=True)
class EndedJob:
    """What the counter needs to know of a job that has ended."""

    model_version_id: int | None
    kind: str
    state: str
    finished_at: datetime


def find_ended(connection: Connection, job_ids: Sequence[str]) -> list[EndedJob]:
    """Return what the counter needs to know of these jobs, as far as they have ended, for `keep_counted`."""
    columns = (Job.model_version_id, Job.kind, Job.state, Job.finished_at)
    rows = connection.execute(select(*columns).where(Job.id.in_(job_ids), Job.finished_at.is_not(None)))
    return [EndedJob(version, kind, state, at) for version, kind, state, at in rows if at is not None]


def keep_counted(connection: Connection, ended: Sequence[EndedJob]) -> None:
    """Count jobs for good that are erased, or queued again, in the transaction that is open: a counter never falls.

    Those up to the watermark are counted already. Nobody moves it until that transaction ends: call it last.
    """
    is_watermark = (MetricSample.name == WATERMARK, MetricSample.part == "count")
    since = connection.scalar(select(MetricSample.value).where(*is_watermark).with_for_update())
    if since is None:  # nobody has asked for the counter yet
        return
    labels = version_labels(connection)
    counts = Counter(
        (_label(labels, job.model_version_id), job.kind, job.state) for job in ended if job.finished_at > _time(since)
    )
    add(connection, {sample_key(JOBS_FINISHED, key): float(count) for key, count in counts.items()})


def _counted(connection: Connection) -> tuple[Counter[tuple[str, str, str]], float, float | None]:
    """Return the stored counts of ended jobs, their watermark (seconds since 1970) and its age in seconds.

    All three come from one statement, so from one snapshot. The age is None before the first count.
    """
    names = (JOBS_FINISHED.name, WATERMARK)
    rows = connection.execute(
        select(MetricSample.name, MetricSample.labels, MetricSample.value, clock(connection).label("now")).where(
            MetricSample.name.in_(names)
        )
    )
    counted: Counter[tuple[str, str, str]] = Counter()
    since, age = 0.0, None
    for name, text, value, now in rows:
        if name == WATERMARK:
            since, age = value, now.timestamp() - value
        else:
            model, kind, state = json.loads(text)
            counted[model, kind, state] = int(value)
    return counted, since, age


def _finished(
    connection: Connection, since: float, until: float | None, labels: Labels
) -> Counter[tuple[str, str, str]]:
    query = select(Job.model_version_id, Job.kind, Job.state, func.count()).where(Job.finished_at > _time(since))
    if until is not None:
        query = query.where(Job.finished_at <= _time(until))
    counts: Counter[tuple[str, str, str]] = Counter()
    for version, kind, state, count in connection.execute(query.group_by(Job.model_version_id, Job.kind, Job.state)):
        counts[_label(labels, version), kind, state] += count
    return counts


def _move_watermark(connection: Connection, since: float, until: float, labels: Labels) -> None:
    """Count what ended between two moments, once: only the process that moves the watermark adds it."""
    if not since:
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        first = insert(MetricSample).values(name=WATERMARK, labels="[]", part="count", value=0.0)
        connection.execute(first.on_conflict_do_nothing())
    is_here = (MetricSample.name == WATERMARK, MetricSample.value == since)
    if connection.execute(update(MetricSample).where(*is_here).values(value=until)).rowcount:
        finished = _finished(connection, since, until, labels)
        add(connection, {sample_key(JOBS_FINISHED, key): float(count) for key, count in finished.items()})


def _now(connection: Connection) -> float:
    now = connection.scalar(select(clock(connection)))
    assert now is not None
    return float(now.timestamp())


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
