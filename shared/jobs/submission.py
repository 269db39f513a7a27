"""A job on its way into the tables."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from shared.faults import Fault

# Ends the scope of the ids that callers give their jobs themselves; scopes of Idempotency-Keys end in other paths.
CLIENT_ID_SCOPE = "/jobs/{id}"

NO_VERSION = 0  # the model version id of jobs that run on none: null in the table

# What a submission says of its job: columns of `jobs`, each an attribute of Submission, with their types in PostgreSQL.
# Every other column is written by the transitions.
COLUMNS = {
    "id": "uuid",
    "kind": "text",
    "lane": "text",
    "model_version_id": "int",
    "owner": "text",
    "request_id": "text",
    "traceparent": "text",
    "priority": "smallint",
    "row_count": "int",
    "failed_count": "int",
    "max_attempts": "smallint",
    "timeout_seconds": "float8",
    "idempotency_scope": "text",
    "idempotency_key": "text",
    "body_hash": "text",
}


def time_of(job_id: str) -> float | None:
    """Return the time of a UUIDv7, in seconds since 1970; None for another UUID, which has no time (RFC 9562)."""
    return int(job_id[:8] + job_id[9:13], 16) / 1_000 if job_id[14] == "7" else None


@dataclass(slots=True)
class Submission:
    """One accepted request on its way into the tables."""

    id: str
    kind: str
    lane: str
    model_version_id: int
    request_id: str
    rows: list[Any]  # canonical rows; a row that does not fit the card as it was sent
    faults: list[list[Fault] | None]  # by row: why it will not be scored
    timeout_seconds: float
    max_attempts: int
    owner: str | None = None
    traceparent: str | None = None
    expires_in: float | None = None
    priority: int = 0
    idempotency_scope: str | None = None
    idempotency_key: str | None = None
    body_hash: str | None = None

    @property
    def row_count(self) -> int:
        """How many rows it has; a file's are counted elsewhere."""
        return len(self.rows)

    @property
    def failed_count(self) -> int:
        """How many of its rows will not be scored."""
        return sum(fault is not None for fault in self.faults)

    def expires_at(self, created_at: datetime) -> datetime | None:
        """When it may no longer start, None for never."""
        return None if self.expires_in is None else created_at + timedelta(seconds=self.expires_in)

    def columns(self) -> dict[str, Any]:
        """Return the values of COLUMNS."""
        values = {name: getattr(self, name) for name in COLUMNS}
        return values | {"model_version_id": self.model_version_id or None}
