"""Alerts of drift: raised when a version's last day has a level, closed when it has none any more."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, insert, select, update

from shared.database.engine import reader
from shared.monitoring.drift import ORDER, Drift, FeatureDrift
from shared.monitoring.windows import Window, find_drift, find_profile
from shared.tables import Alert, FeatureCount, ModelVersion

DRIFT = "drift"
CHECKED = timedelta(days=1)  # the window that is compared with the reference


def check_drift(engine: Engine, *, now: datetime | None = None) -> str:
    """Compare the last whole day of every version that scored in it with its reference; return what was found.

    A window with too few rows changes nothing. Raises SQLAlchemyError when the database cannot be asked.
    """
    end = (now or datetime.now(UTC)).replace(minute=0, second=0, microsecond=0)
    window = Window(end - CHECKED, end)
    with reader(engine).connect() as connection:
        active = connection.scalars(
            select(FeatureCount.model_version_id)
            .where(FeatureCount.span == "hour", FeatureCount.starts_at >= window.start, FeatureCount.starts_at < end)
            .distinct()
        ).all()
        found = {}
        for version in active:
            stored = find_profile(connection, version)
            if stored is not None:
                found[version] = find_drift(connection, version, stored.profile, window, "reference")
    raised = 0
    for version, drift in found.items():
        if drift.level != "too_few_rows":
            with engine.begin() as connection:
                raised += _record(connection, version, drift, window)
    return f"{len(found)} versions checked, {raised} alerts open"


def _record(connection: Connection, version: int, drift: Drift, window: Window) -> int:
    """Bring the open alerts of a version up to date; return how many there are."""
    now = datetime.now(UTC)
    open_alerts = {
        row.subject: row.id
        for row in connection.execute(
            select(Alert.id, Alert.subject)
            .where(Alert.model_version_id == version, Alert.kind == DRIFT, Alert.closed_at.is_(None))
            .with_for_update()
        )
    }
    drifted = {each.feature: each for each in _all(drift) if each.level in ORDER[1:]}
    for subject, each in drifted.items():
        values: Mapping[str, Any] = {"level": each.level, "details": _details(each, drift, window), "seen_at": now}
        if subject in open_alerts:
            connection.execute(update(Alert).where(Alert.id == open_alerts[subject]).values(values))
        else:
            connection.execute(
                insert(Alert).values(model_version_id=version, kind=DRIFT, subject=subject, opened_at=now, **values)
            )
    gone = [number for subject, number in open_alerts.items() if subject not in drifted]
    if gone:
        connection.execute(update(Alert).where(Alert.id.in_(gone)).values(closed_at=now))
    return len(drifted)


def _all(drift: Drift) -> list[FeatureDrift]:
    return [*drift.features, *(each for each in (drift.score, drift.decision) if each is not None)]


def _details(each: FeatureDrift, drift: Drift, window: Window) -> dict[str, Any]:
    return {
        "from": window.start.isoformat(),
        "to": window.end.isoformat(),
        "rows": drift.rows,
        "psi": each.psi,
        "p_value": each.p_value,
        "missing_delta": each.missing_delta,
        "unseen": each.unseen,
    }


def list_alerts(
    connection: Connection, *, name: str | None, is_open: bool | None, before: int | None, limit: int
) -> list[Row[*tuple[Any, ...]]]:
    """Return a page of alerts with the name and number of their version, newest first."""
    query: Select[*tuple[Any, ...]] = (
        select(Alert.__table__, ModelVersion.name, ModelVersion.version)
        .join(ModelVersion, ModelVersion.id == Alert.model_version_id)
        .order_by(Alert.id.desc())
        .limit(limit)
    )
    if name is not None:
        query = query.where(ModelVersion.name == name)
    if is_open is not None:
        query = query.where(Alert.closed_at.is_(None) if is_open else Alert.closed_at.is_not(None))
    if before is not None:
        query = query.where(Alert.id < before)
    return list(connection.execute(query))
