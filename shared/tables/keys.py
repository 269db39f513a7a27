"""API keys, as hashes."""

from datetime import datetime

from sqlalchemy import (
    String,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column

from shared.database.types import UtcDateTime
from shared.tables.base import Table


class ApiKey(Table):
    """A key of a client program; only its hash is kept."""

    __tablename__ = "api_keys"
    __table_args__ = ({"comment": "API keys, hashed, with their scopes"},)

    id: Mapped[str] = mapped_column(String(32), primary_key=True, comment="Public part of the key")
    name: Mapped[str] = mapped_column(String(100), comment="Whose it is, in the operator's words")
    sha256: Mapped[str] = mapped_column(String(64), unique=True, comment="SHA-256 of the 32 random bytes")
    scopes: Mapped[str] = mapped_column(String(100), comment="Comma-separated: predict, read, admin")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.now(), comment="When it was made")
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime, comment="When it stopped to be valid")
