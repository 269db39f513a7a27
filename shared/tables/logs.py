"""Requests, refusals and failures, and the actions of operators."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    Float,
    Identity,
    Index,
    Integer,
    SmallInteger,
    String,
    Text,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column

from shared.database.types import BigId, Json, UtcDateTime, UuidText
from shared.tables.base import Table


class ErrorLog(Table):
    """A request that was refused or failed."""

    __tablename__ = "error_logs"
    __table_args__ = ({"comment": "Refusals and failures: what was wrong, never the values"},)

    id: Mapped[int] = mapped_column(BigId, Identity(always=False), primary_key=True, comment="Number of the entry")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.now(), comment="When it happened")
    request_id: Mapped[str] = mapped_column(String(128), index=True, comment="X-Request-Id of the request")
    method: Mapped[str] = mapped_column(String(8), comment="HTTP method")
    path: Mapped[str] = mapped_column(Text, comment="Path, without the query")
    status: Mapped[int] = mapped_column(SmallInteger, comment="HTTP status of the answer")
    code: Mapped[str] = mapped_column(String(64), comment="Stable error code")
    detail: Mapped[str] = mapped_column(Text, comment="The sentence that the caller was told")
    faults: Mapped[list[dict[str, Any]] | None] = mapped_column(
        Json, comment="Every fault of the rows: [{pointer, code, message}]"
    )
    job_id: Mapped[str | None] = mapped_column(UuidText, comment="The job that it was about, if any")
    owner: Mapped[str | None] = mapped_column(String(32), comment="Id of the API key, if one was known")
    times: Mapped[int] = mapped_column(
        Integer, server_default="1", comment="How many alike it stands for: floods are counted, not stored one by one"
    )
    type: Mapped[str | None] = mapped_column(
        String(100), comment="Of failures (5xx): the type of the exception; null for refusals"
    )
    stack: Mapped[str | None] = mapped_column(
        Text, comment="Of failures: where it was raised, a line for each place; types and places, never values"
    )


class RequestLog(Table):
    """An answered request: caller, route, time and duration, never its content."""

    __tablename__ = "request_logs"
    __table_args__ = (
        Index("ix_request_logs_created_at", "created_at", postgresql_using="brin"),
        {"comment": "Every request but successful probes: who asked for what, and when; never the values"},
    )

    id: Mapped[int] = mapped_column(BigId, Identity(always=False), primary_key=True, comment="Number of the entry")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, comment="When the answer ended, by the API's clock")
    request_id: Mapped[str] = mapped_column(String(128), index=True, comment="X-Request-Id of the request")
    method: Mapped[str] = mapped_column(String(8), comment="HTTP method")
    route: Mapped[str] = mapped_column(String(200), comment="Path of the route, e.g. /jobs/{id}; `(none)` without one")
    path: Mapped[str] = mapped_column(Text, comment="Path as it was sent, without the query")
    status: Mapped[int] = mapped_column(SmallInteger, comment="HTTP status; 499 where the caller left before it")
    duration_ms: Mapped[float] = mapped_column(Float, comment="Milliseconds from the headers to the answer's end")
    size: Mapped[int] = mapped_column(BigId, comment="Bytes of the answer's body")
    owner: Mapped[str | None] = mapped_column(String(32), comment="Id of the API key, if one was known")
    model: Mapped[str | None] = mapped_column(String(140), comment="name@version that was asked for a score")
    input_hash: Mapped[str | None] = mapped_column(
        String(64), comment="HMAC-SHA-256 of the body: the same input has the same hash, which nobody can guess"
    )


class AuditLog(Table):
    """Something that somebody did to the service."""

    __tablename__ = "audit_logs"
    __table_args__ = ({"comment": "What was done to keys and models: by whom, when, to what"},)

    id: Mapped[int] = mapped_column(BigId, Identity(always=False), primary_key=True, comment="Number of the entry")
    created_at: Mapped[datetime] = mapped_column(
        UtcDateTime, server_default=func.now(), index=True, comment="When it was done"
    )
    actor: Mapped[str] = mapped_column(
        String(200), comment="key:ID of an API key, or command:USER@HOST for who ran a command"
    )
    action: Mapped[str] = mapped_column(String(64), index=True, comment="What was done, e.g. key.created")
    target: Mapped[str] = mapped_column(String(200), comment="To what, e.g. attrition@2")
    details: Mapped[dict[str, Any] | None] = mapped_column(Json, comment="More of it, never values of rows")
    request_id: Mapped[str | None] = mapped_column(String(128), comment="X-Request-Id where it was a request")
