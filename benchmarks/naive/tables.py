"""Its tables and its engine."""

import os
import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, create_engine, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

# As many connections as can be busy at once; overflow connections would be opened and closed all the time.
engine = create_engine(os.environ["NAIVE_DATABASE_URL"], pool_size=15, max_overflow=0)
Session = sessionmaker(engine)


class Base(DeclarativeBase):
    """Base of both tables."""


class Job(Base):
    """One row to score."""

    __tablename__ = "jobs"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    state: Mapped[str] = mapped_column(default="queued")
    features: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]


class Output(Base):
    """Its score."""

    __tablename__ = "outputs"

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"))
    prediction: Mapped[int]
    probability: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
