"""Speed and health of the service in a window, or of some models: from request_logs and jobs, on both dialects."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Float, case, cast, extract, func, select, true

from api.models.catalog import Version
from api.monitoring.scrape import Figures
from api.services import Services
from shared.errors import InvalidRequest
from shared.tables import Job, JobState, RequestLog

MAX_ROUTES = 100
LONGEST = timedelta(days=31)
_QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}


@dataclass(frozen=True, slots=True)
class Window:
    """From (inclusive) to (exclusive)."""

    since: datetime
    until: datetime

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.until - self.since).total_seconds()


def requests(connection: Connection, window: Window, labels: Sequence[str] | None = None) -> dict[str, Any]:
    """Return count, rate, errors and latency of the window's requests, in all and by route (the most frequent 100).

    With labels (`name@version`), those that asked one of these versions for scores.
    """
    inside = (RequestLog.created_at >= window.since) & (RequestLog.created_at < window.until)
    inside &= true() if labels is None else RequestLog.model.in_(labels)
    failed = func.sum(case((RequestLog.status >= 500, 1), else_=0))
    by_route = connection.execute(
        select(RequestLog.method, RequestLog.route, func.count(), failed)
        .where(inside)
        .group_by(RequestLog.method, RequestLog.route)
        .order_by(func.count().desc())
    ).all()
    count = sum(row[2] for row in by_route)
    errors = int(sum(row[3] or 0 for row in by_route))
    return {
        "count": count,
        "per_second": round(count / window.seconds, 4),
        "server_errors": errors,
        "error_rate": None if not count else round(errors / count, 6),
        **_quantiles(connection, RequestLog.duration_ms, inside, count),
        "routes": [
            {
                "route": f"{method} {route}",
                "count": number,
                "server_errors": int(bad or 0),
                **_quantiles(
                    connection,
                    RequestLog.duration_ms,
                    inside & (RequestLog.method == method) & (RequestLog.route == route),
                    number,
                ),
            }
            for method, route, number, bad in by_route[:MAX_ROUTES]
        ],
    }


def jobs(connection: Connection, window: Window, version_ids: Sequence[int] | None = None) -> dict[str, Any]:
    """Return the number of ended jobs and rows in the window by state, and their waits and runs.

    With ids of versions, those of their jobs.
    """
    inside = (Job.finished_at >= window.since) & (Job.finished_at < window.until)
    inside &= true() if version_ids is None else Job.model_version_id.in_(version_ids)
    states = connection.execute(
        select(Job.state, func.count(), func.sum(Job.row_count)).where(inside).group_by(Job.state)
    ).all()
    rows = sum(int(total or 0) for _, _, total in states)
    succeeded = sum(count for state, count, _ in states if state == JobState.SUCCEEDED)
    ran = inside & Job.started_at.is_not(None)
    started = connection.scalar(select(func.count()).select_from(Job).where(ran)) or 0
    return {
        "finished": {state: count for state, count, _ in sorted(states)},
        "rows": rows,
        "rows_per_second": round(rows / window.seconds, 4),
        "success_rate": None if not states else round(succeeded / sum(count for _, count, _ in states), 6),
        "wait": _quantiles(connection, _milliseconds(connection, Job.created_at, Job.started_at), ran, started),
        "run": _quantiles(connection, _milliseconds(connection, Job.started_at, Job.finished_at), ran, started),
    }


def _milliseconds(connection: Connection, begin: Any, end: Any) -> ColumnElement[float]:  # noqa: ANN401 - columns
    if connection.dialect.name == "sqlite":
        days: ColumnElement[float] = func.julianday(end) - func.julianday(begin)
        return days * 86_400_000.0
    return cast(extract("epoch", end - begin), Float) * 1_000.0


def _quantiles(
    connection: Connection,
    value: Any,  # noqa: ANN401 - a column
    inside: ColumnElement[bool],
    count: int,
) -> dict[str, float | None]:
    """Return, for each share, the smallest value that this share of the rows does not exceed; None without rows."""
    if not count:
        return dict.fromkeys(_QUANTILES)
    if connection.dialect.name != "sqlite":
        shares = [func.percentile_disc(share).within_group(value) for share in _QUANTILES.values()]
        numbers = connection.execute(select(*shares).where(inside)).one()
        return {name: _rounded(number) for name, number in zip(_QUANTILES, numbers, strict=True)}
    places = {name: max(-(-count * int(share * 100) // 100) - 1, 0) for name, share in _QUANTILES.items()}
    return {
        name: _rounded(connection.scalar(select(value).where(inside).order_by(value).limit(1).offset(place)))
        for name, place in places.items()
    }


def _rounded(value: Any) -> float | None:  # noqa: ANN401 - a number of either dialect
    return None if value is None else round(float(value), 3)


def window_of(since: datetime | None, until: datetime | None, *, now: datetime, default: timedelta) -> Window:
    """Return the window that a caller means: until now, and so long, where they do not say; raise InvalidRequest."""
    until = in_utc(until) if until is not None else now
    since = in_utc(since) if since is not None else until - default
    if since >= until:
        raise InvalidRequest(f"`from` ({since:%Y-%m-%dT%H:%M:%SZ}) must be before `to` ({until:%Y-%m-%dT%H:%M:%SZ}).")
    if until - since > LONGEST:
        raise InvalidRequest(f"The window is longer than {LONGEST.days} days: ask for parts of it.")
    return Window(since, until)


def in_utc(moment: datetime) -> datetime:
    """Return a moment in UTC, which is what one without an offset is taken for."""
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise InvalidRequest("A moment of the window lies outside the years 1 to 9999.") from None


def read_system(
    services: Services, window: Window, figures: Figures, versions: Sequence[Version] | None = None
) -> dict[str, Any]:
    """Return the body of /metrics/system, of all models or of some versions; for a thread.

    Workers and connections are those of the whole service.
    """
    labels = None if versions is None else [version.label for version in versions]
    ids = None if versions is None else [version.id for version in versions]
    with services.reader.connect() as connection:
        request_figures, ended = requests(connection, window, labels), jobs(connection, window, ids)
    lanes: dict[str, dict[str, float]] = {}
    for queue in figures.queues:
        if labels is None or queue.model in labels:
            lane = lanes.setdefault(queue.lane, {"jobs": 0, "oldest_seconds": 0.0})
            lane["jobs"] += queue.jobs
            lane["oldest_seconds"] = max(lane["oldest_seconds"], round(queue.oldest_seconds, 3))
    rows = sum(one.rows for one in figures.files if labels is None or one.model in labels)
    return {
        "window": {"from": window.since, "to": window.until},
        "requests": request_figures,
        "jobs": ended,
        "queue": {"lanes": lanes, "file_rows": rows},
        "workers": figures.workers,
        "database_connections": figures.pool,
    }
