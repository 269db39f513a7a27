"""Versions of models, their aliases, and the history of both."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    ForeignKey,
    Identity,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column

from shared.database.types import BigId, Json, UtcDateTime
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


class AliasEvent(Table):
    """An alias that was moved, or taken away."""

    __tablename__ = "alias_events"
    __table_args__ = (
        Index("ix_alias_events_name_id", "name", "id"),
        {"comment": "Every move of an alias: who, when, from, to, why; entries are never changed"},
    )

    id: Mapped[int] = mapped_column(BigId, Identity(always=False), primary_key=True, comment="Number of the event")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, comment="When it was moved")
    name: Mapped[str] = mapped_column(String(63), comment="Model name")
    alias: Mapped[str] = mapped_column(String(63), comment="Alias, e.g. champion")
    from_version: Mapped[int | None] = mapped_column(Integer, comment="Version that it meant; null: there was none")
    to_version: Mapped[int | None] = mapped_column(Integer, comment="Version that it means; null: it was taken away")
    reason: Mapped[str | None] = mapped_column(Text, comment="Why, in the words of who did it")
    actor: Mapped[str] = mapped_column(
        String(200), comment="key:ID of an API key, anyone, or command:USER@HOST for who ran a command"
    )
    request_id: Mapped[str | None] = mapped_column(String(128), comment="X-Request-Id where it was a request")


class ModelArchive(Table):
    """An archived version: it serves nothing, and its scores keep it from deletion."""

    __tablename__ = "model_archives"
    __table_args__ = ({"comment": "Versions that are archived now: they score nothing until they are restored"},)

    model_version_id: Mapped[int] = mapped_column(
        ForeignKey("model_versions.id"), primary_key=True, autoincrement=False, comment="The version"
    )
    archived_at: Mapped[datetime] = mapped_column(UtcDateTime, comment="When it was archived")
    deleted_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime, comment="When its files were deleted, which ends it; the number is not given again"
    )
    reason: Mapped[str | None] = mapped_column(Text, comment="Why, in the words of who did it")
    actor: Mapped[str] = mapped_column(String(200), comment="Who did it, as in alias_events")
