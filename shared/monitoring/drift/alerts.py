"""Alerts of drift: opened while the last day of a version has a drift level, and closed after that.

Somebody may acknowledge one, with a reason. That holds until the alert has a higher level than they saw.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, insert, select, update

from shared.database.engine import reader
from shared.errors import Conflict, NotFound
from shared.monitoring.drift.comparison import ORDER, Drift, FeatureDrift, Level
from shared.monitoring.drift.windows import Window, find_drift, find_profile
from shared.monitoring.suspensions import SELF_AUDIT
from shared.observability.audit import ALERT_ACKNOWLEDGED, audit
from shared.tables import Alert, FeatureCount, ModelVersion

DRIFT = "drift"
CHECKED = timedelta(days=1)  # the window that is compared with the reference
SILENCE = timedelta(days=7)  # without a scored row, after which a version has no alerts
_NOT_ACKNOWLEDGED = dict.fromkeys(("acknowledged_at", "acknowledged_by", "acknowledged_level", "reason"))
_WITH_VERSION: Select[*tuple[Any, ...]] = select(Alert.__table__, ModelVersion.name, ModelVersion.version).join(
    ModelVersion, ModelVersion.id == Alert.model_version_id
)


def update_drift_alerts(engine: Engine, *, now: datetime | None = None) -> str:
    """Compare the last whole day of every scoring version with its reference; return a summary.

    A window with too few rows changes nothing. Alerts of a version that has scored nothing for a week, because another
    one serves, are closed. Raises SQLAlchemyError if the database does not answer.
    """
    end = (now or datetime.now(UTC)).replace(minute=0, second=0, microsecond=0)
    window = Window(end - CHECKED, end)
    with reader(engine).connect() as connection:
        active = connection.scalars(
            select(FeatureCount.model_version_id)
            .where(FeatureCount.span == "hour", FeatureCount.starts_at >= window.start, FeatureCount.starts_at < end)
            .distinct()
        ).all()
        drifts = {}
        for version in active:
            stored = find_profile(connection, version)
            if stored is not None:
                drifts[version] = find_drift(connection, version, stored.profile, window, "reference")
    with engine.begin() as connection:
        _close_silent(connection, end)
    raised = 0
    for version, drift in drifts.items():
        if drift.level != "too_few_rows":
            with engine.begin() as connection:
                raised += _record(connection, version, drift, window)
    return f"{len(drifts)} versions checked, {raised} alerts open"


def _record(connection: Connection, version: int, drift: Drift, window: Window) -> int:
    """Bring the open alerts of a version up to date; return their number."""
    now = datetime.now(UTC)
    open_alerts = {
        row.subject: row
        for row in connection.execute(
            select(Alert.id, Alert.subject, Alert.acknowledged_level)
            .where(Alert.model_version_id == version, Alert.kind == DRIFT, Alert.closed_at.is_(None))
            .with_for_update()
        )
    }
    drifted = {each.feature: each for each in _all(drift) if each.level in ORDER[1:]}
    for subject, each in drifted.items():
        values: Mapping[str, Any] = {"level": each.level, "details": _details(each, drift, window), "seen_at": now}
        if subject in open_alerts:
            alert = open_alerts[subject]
            if alert.acknowledged_level is not None and _is_worse(each.level, alert.acknowledged_level):
                values = {**values, **_NOT_ACKNOWLEDGED}
            connection.execute(update(Alert).where(Alert.id == alert.id).values(values))
        else:
            connection.execute(
                insert(Alert).values(model_version_id=version, kind=DRIFT, subject=subject, opened_at=now, **values)
            )
    gone = [alert.id for subject, alert in open_alerts.items() if subject not in drifted]
    if gone:
        connection.execute(update(Alert).where(Alert.id.in_(gone)).values(closed_at=now))
    return len(drifted)


def _close_silent(connection: Connection, end: datetime) -> None:
    """Close the drift alerts of versions that have scored nothing for a week."""
    scoring = select(FeatureCount.model_version_id).where(
        FeatureCount.span == "hour", FeatureCount.starts_at >= end - SILENCE
    )
    is_silent = Alert.model_version_id.not_in(scoring)
    connection.execute(
        update(Alert)
        .where(Alert.kind == DRIFT, Alert.closed_at.is_(None), Alert.seen_at < end - SILENCE, is_silent)
        .values(closed_at=datetime.now(UTC))
    )


def _is_worse(level: Level, than: Level) -> bool:
    return ORDER.index(level) > ORDER.index(than)


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
    connection: Connection,
    *,
    name: str | None,
    is_open: bool | None,
    before: int | None,
    limit: int,
    is_acknowledged: bool | None = None,
    kind: str | None = None,
    version: int | None = None,
) -> list[Row[*tuple[Any, ...]]]:
    """Return a page of alerts with the name and number of their version, newest first."""
    query = _WITH_VERSION.order_by(Alert.id.desc()).limit(limit)
    if name is not None:
        query = query.where(ModelVersion.name == name)
    if version is not None:
        query = query.where(ModelVersion.version == version)
    if kind is not None:
        query = query.where(Alert.kind == kind)
    if is_open is not None:
        query = query.where(Alert.closed_at.is_(None) if is_open else Alert.closed_at.is_not(None))
    if is_acknowledged is not None:
        query = query.where(Alert.acknowledged_at.is_not(None) if is_acknowledged else Alert.acknowledged_at.is_(None))
    if before is not None:
        query = query.where(Alert.id < before)
    return list(connection.execute(query))


def acknowledge(
    connection: Connection, alert_id: int, *, by: str, reason: str, request_id: str
) -> Row[*tuple[Any, ...]]:
    """Write down that somebody (`by`) knows of an alert, open or closed, and why it may stand; return the alert.

    One of the self-audit is closed with that: its version is scored the fast way again.

    The same again changes nothing. Raises NotFound for an unknown id, Conflict where somebody else was first or gave
    another reason. The caller commits.
    """
    alert = connection.execute(_WITH_VERSION.where(Alert.id == alert_id).with_for_update(of=Alert)).one_or_none()
    if alert is None:
        raise NotFound("There is no alert with this id: GET /alerts lists them.")
    if alert.acknowledged_at is not None:
        if (alert.acknowledged_by, alert.reason) == (by, reason):
            return alert
        raise Conflict(
            f"{alert.acknowledged_by} has acknowledged this alert already, with another reason: GET /alerts shows it."
            if alert.reason != reason
            else f"{alert.acknowledged_by} has acknowledged this alert already."
        )
    values = {"acknowledged_by": by, "acknowledged_level": alert.level, "reason": reason}
    now = datetime.now(UTC)
    closed_at = now if alert.kind == SELF_AUDIT and alert.closed_at is None else alert.closed_at
    connection.execute(
        update(Alert).where(Alert.id == alert_id).values(**values, acknowledged_at=now, closed_at=closed_at)
    )
    about = {"model": f"{alert.name}@{alert.version}", "subject": alert.subject, "level": alert.level, "reason": reason}
    audit(connection, ALERT_ACKNOWLEDGED, f"alert:{alert_id}", actor=by, details=about, request_id=request_id)
    return connection.execute(_WITH_VERSION.where(Alert.id == alert_id)).one()
