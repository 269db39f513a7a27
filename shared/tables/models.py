"""Versions of models, and the aliases that point to them."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    ForeignKey,
    Integer,
    String,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column

from shared.database.types import Json, UtcDateTime
from shared.tables.base import Table


class ModelVersion(Table):
    """One immutable model version."""

    __tablename__ = "model_versions"
    __table_args__ = (
        UniqueConstraint("name", "version"),
        {"comment": "Immutable model versions, known by the sha256 of their artefact"},
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True, comment="Number that other tables refer to")
    name: Mapped[str] = mapped_column(String(63), comment="Model name, e.g. attrition")
    version: Mapped[int] = mapped_column(Integer, comment="Version number, counted per name from 1")
    sha256: Mapped[str] = mapped_column(String(64), comment="SHA-256 of model.joblib, checked before unpickling")
    uri: Mapped[str] = mapped_column(Text, comment="Where the package lies, relative to MODELS_DIR")
    card: Mapped[dict[str, Any]] = mapped_column(
        JSON, comment="The card: all that the code knows about the model (as text: labels keep their order)"
    )
    scorer: Mapped[dict[str, Any]] = mapped_column(
        Json,
        comment="How it is scored: the choice, its parity with the pipeline, its speed, the rejected ones",
    )
    created_at: Mapped[datetime] = mapped_column(
        UtcDateTime, server_default=func.now(), comment="When it was registered"
    )


class ModelAlias(Table):
    """A movable name for a version."""

    __tablename__ = "model_aliases"
    __table_args__ = (
        UniqueConstraint("name", "alias"),
        {"comment": "Movable names of versions: champion serves by default"},
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True, comment="Number of the alias")
    name: Mapped[str] = mapped_column(String(63), comment="Model name")
    alias: Mapped[str] = mapped_column(String(63), comment="Alias, e.g. champion")
    model_version_id: Mapped[int] = mapped_column(
        ForeignKey("model_versions.id"), comment="The version that it means now"
    )
    updated_at: Mapped[datetime] = mapped_column(
        UtcDateTime, server_default=func.now(), comment="When it was moved last"
    )
