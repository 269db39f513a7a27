"""Live worker processes, and the last run of each recurring task."""

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    String,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column

from shared.database.types import Json, UtcDateTime
from shared.tables.base import Table


class Worker(Table):
    """A worker process that has been seen."""

    __tablename__ = "workers"
    __table_args__ = ({"comment": "Worker processes, by their last heartbeat"},)

    id: Mapped[str] = mapped_column(String(128), primary_key=True, comment="host:pid")
    lanes: Mapped[str] = mapped_column(String(128), comment="Lanes that it consumes, comma-separated")
    models: Mapped[list[str]] = mapped_column(Json, comment="Loaded versions, e.g. attrition@1")
    refused: Mapped[dict[str, str]] = mapped_column(Json, comment="Versions that could not be loaded, and why")
    started_at: Mapped[datetime] = mapped_column(
        UtcDateTime, server_default=func.now(), comment="When the process started"
    )
    seen_at: Mapped[datetime] = mapped_column(
        UtcDateTime, server_default=func.now(), comment="When it was heard of last"
    )


class TimedTask(Table):
    """Something that the workers do by the clock."""

    __tablename__ = "timed_tasks"
    __table_args__ = ({"comment": "What the workers do by the clock, and when it was done last"},)

    name: Mapped[str] = mapped_column(String(32), primary_key=True, comment="What is done, e.g. recover")
    done_at: Mapped[datetime] = mapped_column(UtcDateTime, comment="When any worker did it last")
    mark: Mapped[int | None] = mapped_column(
        BigInteger, comment="How far it had come then, where it goes on from there: an id of model_outputs"
    )
