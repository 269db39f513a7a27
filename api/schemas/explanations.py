"""Bodies of explanations for OpenAPI."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class ExplainJobBody(BaseModel):
    """A scored row of a job to explain; a row outside a job is sent as to `/predict`."""

    model_config = ConfigDict(extra="forbid")

    job_id: str = Field(description="A job of yours, whose row is explained.")
    row: int | None = Field(
        None, ge=0, description=("Place of the row in that job, from 0; needed where the job has several rows.")
    )
    model: str | None = Field(None, description="The job's model; it may be left out.")
    version: int | None = Field(None, description="The version that scored the job; it may be left out.")
    expires_in: float | None = Field(
        None, ge=1, description=("Longest time in the queue, in seconds; after that, the job expires.")
    )
    timeout: float | None = Field(None, ge=1, description="Longest run, in seconds; after that, the job fails.")


class ReferencePopulation(BaseModel):
    """The reference population of an explanation."""

    rows: int = Field(description="Rows of the reference population; 0 where the trees' own counts are used instead.")
    source: str
    seed: int | None = Field(description="Seed of the sampled rows and feature orders; null without sampling.")


class Contribution(BaseModel):
    """The contribution of one feature to the value."""

    feature: str
    value: Any = Field(description="Value of the feature in the row.")
    contribution: float
    reference: Any = Field(description="Median of the reference rows; of text and categories the most frequent value.")
    text: str = Field(description="The same as a sentence.")
    standard_error: float | None = Field(None, description="Standard error; only where feature orders were sampled.")


class StoredExplanation(BaseModel):
    """The explanation of a score: base_value plus all contributions equals value."""

    method: str = Field(
        json_schema_extra={
            "enum": ["tree_interventional", "tree_path_dependent", "linear", "enumeration", "permutation_sampling"]
        }
    )
    scale: Literal["log_odds", "probability", "target", "log_target", "margin"]
    label: str | None = Field(description="The class whose score is explained; null for regression.")
    base_value: float = Field(description="Mean value of the reference rows.")
    value: float = Field(description="Value of the row, on `scale`.")
    prediction: float | int | str = Field(description="The explained score.")
    probability: float | None
    reference: ReferencePopulation
    contributions: list[Contribution] = Field(description="One for each feature of the card, the largest first.")
    top: list[str] = Field(description="The largest contributions in words.")


class ExplanationResult(StoredExplanation):
    """The result of a job that explains a row."""

    job_id: str
    request_id: str
    model: str
    model_version: int
    latency_ms: float | None


class ExplainedRow(StoredExplanation):
    """The explanation of a row of a job."""

    row: int = Field(description="Place of the row in the job, from 0.")


class ExplanationPage(BaseModel):
    """Stored explanations of some rows of a job."""

    job_id: str = Field(description="The job whose rows these are.")
    model: str
    model_version: int
    items: list[ExplainedRow] = Field(description="In the order of the rows, without those that were not explained.")
    next: str | None = Field(description="Path of the next page; null on the last one.")
