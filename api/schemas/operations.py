"""Bodies of the routes for operators, for OpenAPI."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field


class MetricsSummary(BaseModel):
    """The numbers of the whole service since its installation."""

    version: str
    runtime: str
    requests: dict[str, dict[str, Any]] = Field(
        description="By method and route: answers by status, and quantiles of the duration in milliseconds."
    )
    jobs: dict[str, dict[str, dict[str, int]]] = Field(description="Ended jobs by model, kind and state.")
    queues: list[dict[str, Any]] = Field(description="Waiting jobs, by model and lane.")
    files: list[dict[str, Any]] = Field(description="Waiting chunks and rows of files, by model.")
    workers: dict[str, int] = Field(description="Live worker processes by lane.")
    database_connections: dict[str, float] = Field(description="Figures of the API process that answered.")


class SystemMetrics(BaseModel):
    """Speed and health of the service in a window."""

    window: dict[str, datetime]
    requests: dict[str, Any] = Field(description="Count, rate, server errors and latency, in total and by route.")
    jobs: dict[str, Any] = Field(description="Ended jobs by state, rows, and how long jobs waited and ran.")
    queue: dict[str, Any] = Field(description="Waiting jobs, by lane.")
    workers: dict[str, int]
    database_connections: dict[str, float]


class RequestEntry(BaseModel):
    """One request."""

    id: int
    created_at: datetime = Field(description="Time of the end of the answer.")
    request_id: str
    method: str
    route: str
    path: str
    status: int = Field(description="499 if the caller left before the answer began.")
    duration_ms: float
    size: int = Field(description="Bytes of the answer's body.")
    owner: str | None = Field(description="Id of the API key.")
    model: str | None = Field(description="`name@version` of the scored rows' model.")
    input_hash: str | None = Field(description="Keyed hash of the body: equal for equal bodies, and not guessable.")


class ErrorEntry(BaseModel):
    """One refusal or failure, or several equal ones."""

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
    times: int = Field(description="Number of equal entries that this one stands for.")
    type: str | None = Field(description="Type of the exception behind a failure (5xx); null for refusals.")
    stack: str | None = Field(description="Places in the code where it was raised, a line each, without values.")


class AuditEntry(BaseModel):
    """One audited action."""

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
    next: str | None = Field(description="Path of the next page; null on the last one.")


class ErrorPage(BaseModel):
    """Refusals and failures, newest first."""

    items: list[ErrorEntry]
    next: str | None = Field(description="Path of the next page; null on the last one.")


class AuditPage(BaseModel):
    """Audited actions, newest first."""

    items: list[AuditEntry]
    next: str | None = Field(description="Path of the next page; null on the last one.")
