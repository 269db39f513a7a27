"""Bodies of changes to models and their aliases."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.registry.aliases import MAX_REASON


class ReasonBody(BaseModel):
    """The reason for a change."""

    model_config = ConfigDict(extra="forbid", strict=True)
    reason: str = Field(
        min_length=1, max_length=MAX_REASON, description=("Reason for the change, for readers of the history.")
    )


class PromotionBody(ReasonBody):
    """The new version of an alias, and the reason."""

    version: int = Field(ge=1, le=2**31 - 1, description="Version number.")
    force: bool = Field(
        False, description="Promote in spite of PROMOTION_GATE; the audit log keeps its refusal and the reason."
    )


class ShadowBody(BaseModel):
    """Progress of a challenger, which scores the champion's rows in the shadow."""

    state: Literal["scoring", "behind", "failing", "stopped"] = Field(
        description="`behind`: rows wait for longer than 30 s, and the challenger scores a sample of them; `failing`: "
        "the last attempt failed, and the service tries again; `stopped`: no further attempt until the alias is moved."
    )
    since: datetime = Field(description="Time when the alias was moved to the version.")
    scored: int = Field(description="Scored rows since then.")
    refused: int = Field(description="Rows that the version refuses or fails on.")
    skipped: int = Field(description="Rows that were left out because the challenger was too slow.")
    lag_seconds: float = Field(description="Age of the oldest waiting row, in seconds.")
    failures: int = Field(description="Failures in a row: crashes, hangs, too much memory, failed loads.")
    reason: str | None = Field(description="Reason of the last failure.")
    stopped_at: datetime | None


class AliasBody(BaseModel):
    """The version of an alias."""

    model: str
    alias: str
    version: int
    updated_at: datetime = Field(description="Time of the last move.")
    previous: int | None = Field(description="Version that a roll back leads to; null: none, or archived or deleted.")
    shadow: ShadowBody | None = Field(
        None, description="Only for `challenger`: its progress; null while it has scored nothing."
    )


class AliasEventBody(BaseModel):
    """A move of an alias."""

    id: int
    created_at: datetime
    alias: str
    from_: int | None = Field(alias="from", description="Version before the move; null: the alias did not exist.")
    to: int | None = Field(description="Version after the move; null: the alias was deleted.")
    reason: str | None
    actor: str = Field(description="`key:ID`, `anyone` where AUTH=open, or `command:USER@HOST`.")
    request_id: str | None


class HistoryBody(BaseModel):
    """A page of a model's history."""

    items: list[AliasEventBody]
    next: str | None = Field(description="Path of the next page; null on the last one.")


class VersionStateBody(BaseModel):
    """The state of a version."""

    model: str
    version: int
    state: str = Field(description="`serving`, `archived` or `deleted`.")
    left: str | None = Field(
        None, description=("Only for a deleted version: files that could not be removed, and the remedy.")
    )
