"""Bodies of explanations for OpenAPI."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class ExplainJobBody(BaseModel):
    """A row of a job that was scored, to be explained; a row of its own is sent as to `/predict`."""

    model_config = ConfigDict(extra="forbid")

    job_id: str = Field(description="A job of yours, whose row is explained.")
    row: int | None = Field(None, ge=0, description="Which row of that job, from 0; the first when left out.")
    model: str | None = Field(None, description="The job's model; it may be left out.")
    version: int | None = Field(None, description="The version that scored the job; it may be left out.")
    expires_in: float | None = Field(None, ge=1, description="Seconds that the job may queue; then it expires.")
    timeout: float | None = Field(None, ge=1, description="Seconds that the job may run; then it fails.")


class ReferencePopulation(BaseModel):
    """What a row was compared with."""

    rows: int = Field(description="Rows of the population; 0 where the trees' own counts stand for it.")
    source: str
    seed: int | None = Field(description="How the rows were drawn, and orders of features, where any were.")


class Contribution(BaseModel):
    """What one feature adds to the value."""

    feature: str
    value: Any = Field(description="Its value in the row.")
    contribution: float
    reference: Any = Field(description="Median of the reference rows; of text and categories the most frequent value.")
    text: str = Field(description="The same as a sentence.")
    standard_error: float | None = Field(None, description="Where orders of features were sampled.")


class StoredExplanation(BaseModel):
    """Why a row has its score: base_value and all contributions are value."""

    method: str = Field(
        json_schema_extra={
            "enum": ["tree_interventional", "tree_path_dependent", "linear", "enumeration", "permutation_sampling"]
        }
    )
    scale: Literal["log_odds", "probability", "target", "log_target", "margin"]
    label: str | None = Field(description="The class whose score is explained; null for regression.")
    base_value: float = Field(description="Value without knowing the row: the mean of the reference rows.")
    value: float = Field(description="Value of the row, on the scale.")
    prediction: float | int | str = Field(description="The score that is explained.")
    probability: float | None
    reference: ReferencePopulation
    contributions: list[Contribution] = Field(description="By feature of the card, the largest first.")
    top: list[str] = Field(description="The largest of them in words.")


class ExplanationResult(StoredExplanation):
    """The result of a job that explains a row."""

    job_id: str
    request_id: str
    model: str
    model_version: int
    latency_ms: float | None


class ExplainedRow(StoredExplanation):
    """The explanation of a row of a job."""

    row: int = Field(description="Its place in the job, from 0.")


class ExplanationPage(BaseModel):
    """What was explained of some rows of a job."""

    job_id: str = Field(description="The job whose rows these are.")
    model: str
    model_version: int
    items: list[ExplainedRow] = Field(
        description="In the order of the rows; those that were not explained are left out."
    )
    next: str | None = Field(description="Where further rows are; null at the end.")
