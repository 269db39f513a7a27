"""Jobs of no version: models that are uploaded, trainings, and past decisions that are made again."""

from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, Integer, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from shared.database.types import BigId, Json
from shared.tables.base import Table


class Registration(Table):
    """What a job of the kind `register` makes a version of."""

    __tablename__ = "registrations"
    __table_args__ = ({"comment": "Uploaded models: what a job registers, and the version that it became"},)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, comment="Its job")
    name: Mapped[str] = mapped_column(String(63), comment="Name of the model")
    options: Mapped[dict[str, Any]] = mapped_column(Json, comment="Fields of the form, as `registry add` takes them")
    files: Mapped[dict[str, Any]] = mapped_column(
        Json, comment="Uploaded files: field of the form to {name, filename, bytes, sha256}"
    )
    sha256: Mapped[str] = mapped_column(String(64), comment="SHA-256 of the artefact as it was uploaded")
    byte_count: Mapped[int] = mapped_column(BigInteger, comment="Size of all files, in bytes")
    actor: Mapped[str] = mapped_column(Text, comment="Who uploaded it: key:ID, or anyone")
    model_version_id: Mapped[int | None] = mapped_column(
        ForeignKey("model_versions.id"), comment="The version that it became; null until its job succeeds"
    )
    alias: Mapped[str | None] = mapped_column(
        String(63), comment="Alias that was moved to the version; null where none was"
    )


class RegistrationPart(Table):
    """A piece of an uploaded file, for as long as its job has not ended."""

    __tablename__ = "registration_parts"
    __table_args__ = (
        UniqueConstraint("job_id", "field", "place"),
        {"comment": "Pieces of uploaded files, until their jobs end"},
    )

    id: Mapped[int] = mapped_column(BigId, Identity(always=False), primary_key=True, comment="Number of the piece")
    job_id: Mapped[str] = mapped_column(
        ForeignKey("registrations.job_id", ondelete="CASCADE"), comment="Its registration"
    )
    field: Mapped[str] = mapped_column(String(16), comment="Field of the form that the file came in")
    place: Mapped[int] = mapped_column(Integer, comment="Place of the piece in its file, from 0")
    payload: Mapped[bytes] = mapped_column(LargeBinary, comment="Its bytes")


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


class Reproduction(Table):
    """What a job of the kind `reproduce` scores again, and what came of it; the version is in registrations."""

    __tablename__ = "reproductions"
    __table_args__ = (
        Index("ix_reproductions_source_job_id", "source_job_id"),
        {"comment": "Past decisions that were made again: of which job, and whether they came out the same"},
    )

    job_id: Mapped[str] = mapped_column(
        ForeignKey("registrations.job_id", ondelete="CASCADE"), primary_key=True, comment="Its job"
    )
    source_job_id: Mapped[str | None] = mapped_column(
        ForeignKey("jobs.id", ondelete="SET NULL"), comment="Job whose rows are scored again"
    )
    row_index: Mapped[int | None] = mapped_column(Integer, comment="The only row, from 0; null for every row")
    report: Mapped[dict[str, Any] | None] = mapped_column(
        Json, comment="What decided, what has changed since, and rows that differ; null until its job succeeds"
    )
