"""Column types that hold the same values on PostgreSQL and SQLite."""

from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Integer,
    String,
    Text,
    TypeDecorator,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from shared.database.engine import dumps


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time; UTC on both dialects (SQLite keeps none of it by itself)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the stored time as an aware one."""
        if value is not None and value.tzinfo is None:
            return value.replace(tzinfo=UTC)
        return value

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the time to store, in UTC."""
        return value.astimezone(UTC) if value is not None else None


class JsonText(TypeDecorator[Any]):
    """Any JSON value as text: SQLite would turn a bare number in a JSON column into one of its own."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: object, dialect: Dialect) -> str:
        """Return the text to store."""
        return dumps(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ANN401 - any JSON value
        """Return the stored value."""
        return None if value is None else orjson.loads(value)


Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
UuidText = Uuid(as_uuid=False).with_variant(String(36), "sqlite")
BigId = BigInteger().with_variant(Integer(), "sqlite")  # SQLite numbers only INTEGER keys by itself
