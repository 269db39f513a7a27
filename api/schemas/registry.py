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
    """How a challenger gets on, which scores in the shadow what the champion decides."""

    state: Literal["scoring", "behind", "failing", "stopped"] = Field(
        description="`behind`: rows wait for longer than 30 s, and a sample of them is scored; `failing`: it failed "
        "the last time, and is tried again; `stopped`: it is left alone until the alias is moved."
    )
    since: datetime = Field(description="When the alias was moved to it.")
    scored: int = Field(description="Rows since then.")
    refused: int = Field(description="Rows that it does not take, or fails on.")
    skipped: int = Field(description="Rows that were left out because it could not keep up.")
    lag_seconds: float = Field(description="How long the oldest row that waits has waited.")
    failures: int = Field(description="How often in a row it crashed, hung, ate its memory or could not be loaded.")
    reason: str | None = Field(description="What happened the last time.")
    stopped_at: datetime | None


class AliasBody(BaseModel):
    """The version of an alias."""

    model: str
    alias: str
    version: int
    updated_at: datetime = Field(description="Time of the last move.")
    shadow: ShadowBody | None = Field(
        None, description="Only of `challenger`: how it gets on; null while it has scored nothing."
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
