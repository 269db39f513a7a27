"""The audit log of keys, models and rows: actor, action and target. Each change is recorded in its own transaction."""

import getpass
import socket
from typing import Any

from sqlalchemy import Connection, insert

from shared.tables import AuditLog

KEY_CREATED, KEY_ROTATED, KEY_REVOKED = "key.created", "key.rotated", "key.revoked"
MODEL_ADDED, MODEL_PROMOTED, ALIAS_REMOVED = "model.added", "model.promoted", "model.alias_removed"
MODEL_ARCHIVED, MODEL_RESTORED, MODEL_DELETED = "model.archived", "model.restored", "model.deleted"
ALERT_ACKNOWLEDGED = "alert.acknowledged"
OUTCOME_REVISED = "outcome.revised"
JOB_READ, JOB_EXPORTED = "job.read", "job.exported"  # what somebody else sent, by an administrator; files of rows
JOB_ERASED = "job.erased"  # by its owner, by an administrator, or by its age
REFERENCE_LOADED, REFERENCE_DROPPED = "reference.loaded", "reference.dropped"


def audit(
    connection: Connection,
    action: str,
    target: str,
    *,
    actor: str | None = None,
    details: dict[str, Any] | None = None,
    request_id: str | None = None,
) -> None:
    """Record an action in its own transaction; the default actor is the operator of this process."""
    connection.execute(
        insert(AuditLog).values(
            actor=(actor or operator())[:200],
            action=action,
            target=target[:200],
            details=details,
            request_id=request_id,
        )
    )


def operator() -> str:
    """Return the user of this process: `command:user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "unknown"
    return f"command:{user}@{socket.gethostname()}"
