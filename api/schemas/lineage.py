"""The body of a row's lineage as OpenAPI shows it."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.explanations import StoredExplanation


class LineageRequest(BaseModel):
    """The request that created the job; without its log entry, all fields but id and caller are null."""

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
    count: int = Field(description="Number of claims by workers.")
    crashes: int = Field(description="Claims that ended with the death of their worker.")
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
    threshold: float | None = Field(description="Threshold in its card: the lowest probability of the second class.")
    decided_by: str | None = Field(description="Basis of the class: `probability`, `decision_function` or `predict`.")
    scorer: str = Field(description="Scorer chosen at the registration.")
    libraries: dict[str, str] = Field(description="Library versions at training.")


class LineagePromotion(BaseModel):
    """The last move before the job that made the version the champion."""

    model_config = ConfigDict(populate_by_name=True)

    alias: str
    from_: int | None = Field(alias="from", description="Version that the alias pointed to before.")
    promoted_at: datetime
    by: str | None = Field(description="Actor of the promotion; only administrators see it.")
    reason: str | None = Field(description="Reason of the promotion; only administrators see it.")


class LineageInput(BaseModel):
    """The row as it is stored."""

    features: Any = Field(
        description="Features with their values; for a row that did not fit the card, the row as sent."
    )
    faults: list[dict[str, Any]] | None
    stored_at: datetime
    sha256: str | None = Field(description="SHA-256 of the row when it was accepted; null of rows that did not fit.")
    is_intact: bool | None = Field(
        description="Whether the row is unchanged since then; false: the database has another row; null: unknown."
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
    """The outcome of the row."""

    actual: str | float
    revision: int
    observed_at: datetime | None
    recorded_at: datetime


class LineageBody(BaseModel):
    """The history of one row's score, and the row's outcome."""

    job_id: str
    row: int
    request: LineageRequest
    attempts: LineageAttempts
    version: LineageVersion
    promotion: LineagePromotion | None = Field(description="Null if the version was not the champion at that time.")
    input: LineageInput
    output: LineageOutput | None
    explanation: StoredExplanation | None
    outcome: LineageOutcome | None
