"""Reference data of models: sets of rows with their ground truth."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Integer,
    String,
    Text,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.database.types import Json, JsonText, UtcDateTime
from shared.tables.base import Table


class ReferenceSet(Table):
    """The reference data of a model: rows like those that it was trained on, from one file."""

    __tablename__ = "reference_sets"
    __table_args__ = ({"comment": "Reference data: which file each model's rows came from, and how it was read"},)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, comment="Number of the set")
    model_name: Mapped[str] = mapped_column(String(63), unique=True, comment="The model; it has one set at a time")
    model_version_id: Mapped[int] = mapped_column(
        ForeignKey("model_versions.id"), comment="The version whose card the rows were checked against"
    )
    filename: Mapped[str] = mapped_column(Text, comment="Name of the file")
    sha256: Mapped[str] = mapped_column(String(64), comment="SHA-256 of the file, as it lay on disk")
    byte_count: Mapped[int] = mapped_column(BigInteger, comment="Size of the file, in bytes, uncompressed")
    delimiter: Mapped[str] = mapped_column(String(1), comment="Character between two cells")
    encoding: Mapped[str] = mapped_column(String(16), comment="Encoding of the file")
    decimal: Mapped[str] = mapped_column(String(1), comment="Decimal mark: a point or a comma")
    thousands: Mapped[str] = mapped_column(
        String(1), default="", server_default="", comment="What separates thousands in numbers, if anything does"
    )
    currency: Mapped[str] = mapped_column(
        String(1), default="", server_default="", comment="Currency sign beside numbers, if they have one"
    )
    options: Mapped[dict[str, Any] | None] = mapped_column(
        Json, comment="What was said about the file when it was loaded; the rest was detected"
    )
    target: Mapped[str | None] = mapped_column(Text, comment="Column that holds the answers, if the file has them")
    row_count: Mapped[int] = mapped_column(Integer, comment="Rows that were loaded")
    skipped_count: Mapped[int] = mapped_column(
        Integer, comment="Rows of the file that did not fit and were left out, as was asked"
    )
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.now(), comment="When it was loaded")


class ReferenceRow(Table):
    """One row of a model's reference data."""

    __tablename__ = "reference_rows"
    __table_args__ = ({"comment": "Rows of reference data, in canonical form"},)

    set_id: Mapped[int] = mapped_column(
        ForeignKey("reference_sets.id", ondelete="CASCADE"), primary_key=True, comment="Its set"
    )
    row_no: Mapped[int] = mapped_column(
        Integer, primary_key=True, comment="Place among the set's rows, from 1 and without gaps"
    )
    features: Mapped[dict[str, Any]] = mapped_column(
        JsonText().with_variant(JSONB(), "postgresql"), comment="Feature name to value"
    )
    target: Mapped[Any | None] = mapped_column(
        JsonText().with_variant(JSONB(), "postgresql"),
        comment="The answer that was true: the model's class, or a number; null where the file has none",
    )
