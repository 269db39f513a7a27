"""Bodies of API keys."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ScopeName = Literal["predict", "read", "admin"]


class NewKeyBody(BaseModel):
    """Whose key it is, and what it may do."""

    model_config = ConfigDict(extra="forbid", strict=True, str_strip_whitespace=True)

    name: str = Field(min_length=1, max_length=100, description="Whose key it is, in your words.")
    scopes: list[ScopeName] = Field(
        ["predict", "read"],
        min_length=1,
        max_length=3,
        description="`predict`: submit, and change its own jobs; `read`: read them, and the models; `admin`: "
        "everything.",
    )


class KeyBody(BaseModel):
    """An API key, without its secret."""

    id: str = Field(description="Public part: owner of its jobs, and its name in the logs.")
    name: str
    scopes: list[ScopeName]
    created_at: datetime
    revoked_at: datetime | None = Field(description="When it ended; null while it is valid.")


class SecretKeyBody(KeyBody):
    """An API key with its secret, which is shown this once."""

    key: str = Field(description="The secret: only its SHA-256 is stored.")


class KeyPage(BaseModel):
    """A page of keys, newest first."""

    items: list[KeyBody]
    next: str | None = Field(description="Path of the next page; null on the last one.")
