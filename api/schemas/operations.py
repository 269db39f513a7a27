"""Bodies of the routes for operators, for OpenAPI."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field


class MetricsSummary(BaseModel):
    """The numbers of the whole service since it was set up."""

    version: str
    runtime: str
    requests: dict[str, dict[str, Any]] = Field(
        description="By method and route: answers by status, and quantiles of the duration in milliseconds."
    )
    jobs: dict[str, dict[str, dict[str, int]]] = Field(description="Ended jobs by model, kind and state.")
    queues: list[dict[str, Any]] = Field(description="Jobs that wait now, by model and lane.")
    files: list[dict[str, Any]] = Field(description="Chunks and rows of files that wait now, by model.")
    workers: dict[str, int] = Field(description="Live worker processes by lane.")
    database_connections: dict[str, float] = Field(description="Of the API process that answered.")


class SystemMetrics(BaseModel):
    """How fast and how healthy the service was in a window."""

    window: dict[str, datetime]
    requests: dict[str, Any] = Field(description="Count, rate, server errors and latency, in all and by route.")
    jobs: dict[str, Any] = Field(description="Ended jobs by state, rows, and how long jobs waited and ran.")
    queue: dict[str, Any] = Field(description="What waits now, by lane.")
    workers: dict[str, int]
    database_connections: dict[str, float]


class RequestEntry(BaseModel):
    """One request."""

    id: int
    created_at: datetime = Field(description="When its answer ended.")
    request_id: str
    method: str
    route: str
    path: str
    status: int = Field(description="499 where the caller left before the answer began.")
    duration_ms: float
    size: int = Field(description="Bytes of the answer's body.")
    owner: str | None = Field(description="Id of the API key.")
    model: str | None = Field(description="`name@version` that was asked for a score.")
    input_hash: str | None = Field(description="The same body has the same hash; nobody can guess it.")


class ErrorEntry(BaseModel):
    """One refusal or failure, or many alike."""

    id: int
    created_at: datetime
    request_id: str
    method: str
    path: str
    status: int
    code: str
    detail: str
    faults: list[dict[str, Any]] | None
    job_id: str | None
    owner: str | None
    times: int = Field(description="How many alike it stands for.")


class AuditEntry(BaseModel):
    """Something that was done."""

    id: int
    created_at: datetime
    actor: str = Field(description="`key:ID`, or `command:USER@HOST`.")
    action: str
    target: str
    details: dict[str, Any] | None
    request_id: str | None


class RequestPage(BaseModel):
    """Requests, newest first."""

    items: list[RequestEntry]
    next: str | None = Field(description="Address of the next page.")


class ErrorPage(BaseModel):
    """Refusals and failures, newest first."""

    items: list[ErrorEntry]
    next: str | None = Field(description="Address of the next page.")


class AuditPage(BaseModel):
    """What was done, newest first."""

    items: list[AuditEntry]
    next: str | None = Field(description="Address of the next page.")
