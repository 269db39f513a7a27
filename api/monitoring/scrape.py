"""All numbers of the service for /metrics: counted by its processes, or queried now from the database."""

import threading
import time
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, select

from api.services import Services
from shared.jobs.figures import FileFigures, Labels, QueueFigures, count_finished, files, queues, version_labels
from shared.observability.exposition import Metric, counted, gauge
from shared.observability.metrics import JOBS_FINISHED, LOST_LOG_ENTRIES, METRICS, Series, quantile, read
from shared.tables import Alert, ErrorLog, RequestLog
from shared.version import VERSION

CACHE_SECONDS = 2.0
LOG_TABLES = (ErrorLog.__tablename__, RequestLog.__tablename__)  # whose entries may be lost
LEVELS = {"low": 1, "moderate": 2, "high": 3}  # of drift


@dataclass(frozen=True, slots=True)
class Figures:
    """The numbers of one moment."""

    series: dict[str, list[Series]]  # by metric
    queues: list[QueueFigures]
    files: list[FileFigures]
    drift: dict[tuple[str, str, str], float]  # level of open alerts by (model, subject, whether it is acknowledged)
    workers: dict[str, int]  # by lane
    pool: dict[str, float]  # connections of this process, by state
    read_at: float  # by the monotonic clock


class Scraper:
    """Reads the numbers, for two seconds only once: any number of scrapers cost the database the same."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: Figures | None = None

    def figures(self, services: Services) -> Figures:
        """Return the numbers, at most CACHE_SECONDS old; for a thread. Raises SQLAlchemyError without a database."""
        with self._lock:
            if self._latest is None or time.monotonic() - self._latest.read_at > CACHE_SECONDS:
                self._latest = _read(services)
            return self._latest


_scrapers: "WeakKeyDictionary[Services, Scraper]" = WeakKeyDictionary()


def scraper_of(services: Services) -> Scraper:
    """Return the scraper of a process's services."""
    return _scrapers.setdefault(services, Scraper())


def _read(services: Services) -> Figures:
    with services.engine.begin() as connection:
        METRICS.flush(connection)  # what this process has counted is among the numbers, too
    with services.reader.connect() as connection:
        labels = version_labels(connection)
        series = read(connection)
        finished = count_finished(connection, services.bulk_engine, labels)
        waiting, chunks = queues(connection, labels), files(connection, labels)
        drift = _drift(connection, labels)
    _begin_at_zero(series)
    series[JOBS_FINISHED.name] = [Series(key, count, 0.0, ()) for key, count in sorted(finished.items())]
    workers: dict[str, int] = {}
    for worker in services.catalog.live_workers():
        for lane in worker.lanes:
            workers[lane] = workers.get(lane, 0) + 1
    pool: Any = services.engine.pool
    connections = {"open": float(pool.checkedin() + pool.checkedout()), "in_use": float(pool.checkedout())}
    return Figures(series, waiting, chunks, drift, workers, connections, time.monotonic())


def _begin_at_zero(series: dict[str, list[Series]]) -> None:
    """Tell of no losses as 0: Prometheus sees no increase in a counter that appears with its first one."""
    lost = series[LOST_LOG_ENTRIES.name]
    present = {each.labels for each in lost}
    lost += [Series((table,), 0.0, 0.0, ()) for table in LOG_TABLES if (table,) not in present]


def _drift(connection: Connection, labels: Labels) -> dict[tuple[str, str, str], float]:
    """Return the levels of the open drift alerts, by (model, feature, `score` or `decision`; `yes` or `no`)."""
    rows = connection.execute(
        select(Alert.model_version_id, Alert.subject, Alert.acknowledged_at.is_not(None), Alert.level).where(
            Alert.kind == "drift", Alert.closed_at.is_(None)
        )
    )
    return {
        (labels[version], subject, "yes" if is_acknowledged else "no"): float(LEVELS[level])
        for version, subject, is_acknowledged, level in rows
        if level in LEVELS
    }


def prometheus_metrics(figures: Figures, services: Services) -> list[Metric]:
    """Return the numbers as metrics."""
    snapshot = services.catalog.snapshot
    challengers = sorted(
        ((snapshot.by_id[version].label, state) for version, state in snapshot.shadows.items()),
        key=lambda challenger: challenger[0],
    )
    return [
        *counted(figures.series),
        gauge(
            "queued_jobs",
            "Jobs that wait, of a model version in a lane.",
            ("model", "lane"),
            [((queue.model, queue.lane), queue.jobs) for queue in figures.queues],
        ),
        gauge(
            "queue_oldest_seconds",
            "How long the oldest of them has been ready to start.",
            ("model", "lane"),
            [((queue.model, queue.lane), queue.oldest_seconds) for queue in figures.queues],
        ),
        gauge(
            "queued_file_rows",
            "Rows of files that wait to be scored.",
            ("model",),
            [((one.model,), one.rows) for one in figures.files],
        ),
        gauge(
            "drift_level",
            "Level of an open drift alert: 1 low, 2 moderate, 3 high; nothing where there is none.",
            ("model", "subject", "acknowledged"),
            sorted(figures.drift.items()),
        ),
        gauge(
            "suspended",
            "1 for a version that its pipeline scores since a self-audit found a wrong score; nothing for others.",
            ("model",),
            [((label,), 1.0) for label in sorted(snapshot.by_id[version].label for version in snapshot.suspended)],
        ),
        gauge(
            "challenger_stopped",
            "1 for a challenger that is left alone since it failed, 0 for one that scores in the shadow.",
            ("model",),
            [((label,), float(state.stopped_at is not None)) for label, state in challengers],
        ),
        gauge(
            "challenger_lag_seconds",
            "How long the oldest decision has waited for a challenger that scores in the shadow.",
            ("model",),
            [((label,), state.lag_seconds) for label, state in challengers if state.stopped_at is None],
        ),
        gauge("workers", "Worker processes that were heard of lately.", ("lane",), _pairs(figures.workers)),
        gauge(
            "database_connections",
            "Connections to the database of the API process that answered.",
            ("state",),
            _pairs(figures.pool),
        ),
        gauge("models", "Model versions that are registered.", (), [((), len(snapshot.by_id))]),
        gauge("build_info", "The version of the service.", ("version", "runtime"), [_build(services)]),
    ]


def summary(figures: Figures, services: Services) -> dict[str, Any]:
    """Return the numbers as one JSON object: requests by route, jobs by model, queues, workers."""
    requests: dict[str, dict[str, int]] = {}
    for series in figures.series["http_requests"]:
        method, route, status = series.labels
        by_status = requests.setdefault(f"{method} {route}", {})
        by_status[status] = by_status.get(status, 0) + int(series.count)
    latency = {" ".join(series.labels): _latency(series) for series in figures.series["http_request_duration_seconds"]}
    jobs: dict[str, dict[str, dict[str, int]]] = {}
    for series in figures.series[JOBS_FINISHED.name]:
        model, kind, state = series.labels
        jobs.setdefault(model, {}).setdefault(kind, {})[state] = int(series.count)
    return {
        "version": VERSION,
        "runtime": services.settings.runtime,
        "requests": {name: {"by_status": by_status, **latency.get(name, {})} for name, by_status in requests.items()},
        "jobs": jobs,
        "queues": [
            {"model": one.model, "lane": one.lane, "jobs": one.jobs, "oldest_seconds": round(one.oldest_seconds, 3)}
            for one in figures.queues
        ],
        "files": [{"model": one.model, "chunks": one.chunks, "rows": one.rows} for one in figures.files],
        "workers": figures.workers,
        "database_connections": figures.pool,
    }


def _latency(series: Series) -> dict[str, float | None]:
    shares = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
    seconds = {name: quantile(series.buckets, share) for name, share in shares.items()}
    return {name: None if value is None else round(value * 1_000, 2) for name, value in seconds.items()}


def _pairs(values: dict[str, Any]) -> list[tuple[tuple[str], float]]:
    return [((name,), float(value)) for name, value in sorted(values.items())]


def _build(services: Services) -> tuple[tuple[str, str], float]:
    return (VERSION, services.settings.runtime), 1.0
