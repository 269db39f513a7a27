"""Versions whose fast scorer gave a wrong score: the pipeline scores their rows until the alert is acknowledged.

An open alert of the kind `self_audit` is what suspends a version. Every claim asks for it in its own statement, so that
no process has to be told.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, exists, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from shared.reasons import Reason
from shared.tables import Alert

SELF_AUDIT = "self_audit"


def suspended_sql(version: str) -> str:
    """Return the SQL condition for a suspended version (`$1`, say): one look-up in a small index."""
    return (
        f"EXISTS (SELECT 1 FROM alerts WHERE model_version_id = {version} "  # noqa: S608 - constants
        f"AND kind = '{SELF_AUDIT}' AND closed_at IS NULL)"
    )


@dataclass(frozen=True, slots=True)
class Suspension:
    """Why a version is scored by its pipeline."""

    alert_id: int
    since: datetime
    details: dict[str, Any]  # figures of the rows that differed

    def sentence(self, label: str) -> Reason:
        """Return the suspension as a sentence with advice."""
        figures = self.details
        return Reason(
            "version_suspended",
            model=label,
            since=f"{self.since:%Y-%m-%d %H:%M:%S}",
            rows=figures["rows_differing"],
            checked=figures["rows_checked"],
            scorer=figures["scorer"],
            alert=self.alert_id,
        )


def is_suspended(model_version_id: int | InstrumentedAttribute[int]) -> ColumnElement[bool]:
    """Return the condition that a version is suspended."""
    return exists().where(
        Alert.model_version_id == model_version_id, Alert.kind == SELF_AUDIT, Alert.closed_at.is_(None)
    )


def was_suspended(connection: Connection, model_version_id: int, at: datetime) -> bool:
    """Return whether a version was suspended at a time: the pipeline scored its rows then."""
    return bool(
        connection.scalar(
            select(
                exists().where(
                    Alert.model_version_id == model_version_id,
                    Alert.kind == SELF_AUDIT,
                    Alert.opened_at <= at,
                    or_(Alert.closed_at.is_(None), Alert.closed_at >= at),
                )
            )
        )
    )


def list_suspended(connection: Connection) -> dict[int, Suspension]:
    """Return why each version that is suspended now is so, by its id."""
    alerts = connection.execute(
        select(Alert.model_version_id, Alert.id, Alert.opened_at, Alert.details).where(
            Alert.kind == SELF_AUDIT, Alert.closed_at.is_(None)
        )
    )
    return {version: Suspension(alert_id, since, details) for version, alert_id, since, details in alerts}
