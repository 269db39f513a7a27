"""Refusals and failures."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    Identity,
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
