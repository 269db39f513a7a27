"""The body of a row's lineage as OpenAPI shows it."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.explanations import StoredExplanation


class LineageRequest(BaseModel):
    """The request that made the job; all but its id and caller is null where it is not logged, or no longer."""

    id: str = Field(description="Its X-Request-Id.")
    caller: str | None = Field(description="Id of the API key that sent it.")
    method: str | None
    route: str | None = Field(description="Path of the route, e.g. /models/{name}/predict.")
    status: int | None
    answered_at: datetime | None
    duration_ms: float | None
    input_hash: str | None = Field(description="HMAC-SHA-256 of the body: the same body has the same one.")


class LineageAttempts(BaseModel):
    """The life of the job."""

    kind: str
    lane: str
    status: str
    count: int = Field(description="How often it was claimed.")
    crashes: int = Field(description="How many of these claims died.")
    accepted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    latency_ms: float | None
    error: dict[str, Any] | None


class LineageVersion(BaseModel):
    """The version that scored the row."""

    model: str
    version: int
    sha256: str = Field(description="SHA-256 of its artefact, which is checked before it is loaded.")
    registered_at: datetime
    task: str
    threshold: float | None = Field(description="Of its card: from this probability on it is the second class.")
    decided_by: str | None = Field(description="What the class follows from.")
    scorer: str = Field(description="How it was registered to be scored.")
    libraries: dict[str, str] = Field(description="Library versions at training.")


class LineagePromotion(BaseModel):
    """The last move before the job by which the version became the champion."""

    model_config = ConfigDict(populate_by_name=True)

    alias: str
    from_: int | None = Field(alias="from", description="Version that it meant before.")
    promoted_at: datetime
    by: str | None = Field(description="Who: for administrators only.")
    reason: str | None = Field(description="Why: for administrators only.")


class LineageInput(BaseModel):
    """The row as it is stored."""

    features: Any = Field(description="Feature to value; the row as it was sent where it did not fit the card.")
    faults: list[dict[str, Any]] | None
    stored_at: datetime
    sha256: str | None = Field(description="SHA-256 of the row when it was accepted; null of rows that did not fit.")
    is_intact: bool | None = Field(
        description="Whether it is still that row; false: it was changed in the database; null: nobody can tell."
    )


class LineageOutput(BaseModel):
    """The score of the row."""

    prediction: float | int | str
    label: str | None
    probability: float | None
    threshold: float | None
    probabilities: dict[str, float] | None = None
    scored_at: datetime


class LineageOutcome(BaseModel):
    """What became of the row."""

    actual: str | float
    revision: int
    observed_at: datetime | None
    recorded_at: datetime


class LineageBody(BaseModel):
    """What led to the score of a row of a job, and what became of it."""

    job_id: str
    row: int
    request: LineageRequest
    attempts: LineageAttempts
    version: LineageVersion
    promotion: LineagePromotion | None = Field(description="Null where the version was not the champion by then.")
    input: LineageInput
    output: LineageOutput | None
    explanation: StoredExplanation | None
    outcome: LineageOutcome | None
