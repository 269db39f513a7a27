"""Trainings of new versions: the jobs `train`; their files and the versions that they became are in registrations."""

from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from shared.database.types import Json
from shared.tables.base import Table


class Training(Table):
    """How far a job of the kind `train` has come, and its report."""

    __tablename__ = "trainings"
    __table_args__ = (
        {"comment": "Trainings: how far each has come, and what the model card of its version is made of"},
    )

    job_id: Mapped[str] = mapped_column(
        ForeignKey("registrations.job_id", ondelete="CASCADE"), primary_key=True, comment="Its job"
    )
    progress: Mapped[dict[str, Any] | None] = mapped_column(
        Json, comment="{stage, done, total}: how far it has come; null before it begins"
    )
    report: Mapped[dict[str, Any] | None] = mapped_column(
        Json, comment="Data, search, metrics, threshold with its curve, importance; null until its job succeeds"
    )
