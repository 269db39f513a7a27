"""Bodies of changes to all jobs that match a filter."""

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.moments import AwareMoment
from shared.tables import JobState


class JobChangesBody(BaseModel):
    """The jobs that are meant, as `GET /jobs` filters them; without a filter, all that can be changed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    status: JobState | None = Field(None, description="Only jobs in this state.")
    model: str | None = Field(
        None, max_length=127, description="Only jobs of this model, or of `name@3` or `name@alias`."
    )
    from_: AwareMoment | None = Field(None, alias="from", description="Only jobs that arrived then, or later.")
    to: AwareMoment | None = Field(None, description="Only jobs that arrived before.")
    confirm: str | None = Field(
        None, max_length=64, description="Of the answer with the count: these jobs are changed now."
    )


class JobCount(BaseModel):
    """How many jobs would be changed; nothing is changed yet."""

    count: int = Field(description="Jobs that match and can be changed.")
    is_lower_bound: bool = Field(description="Whether there are more than `count`.")
    confirm: str | None = Field(
        description="Send the same filter with this within 15 minutes: jobs that arrive later are left alone. "
        "Null where there is nothing to change."
    )


class JobChanges(BaseModel):
    """What was changed."""

    changed: int = Field(description="Jobs that were changed, or will be as soon as their worker sees it.")
    refused: int = Field(description="Jobs that had ended, or had been taken up, before this request came to them.")
    has_more: bool = Field(description="Whether more jobs match: one request changes 500 at most. Send it again.")
