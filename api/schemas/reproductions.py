"""Past decisions that were made again."""

from typing import Any

from pydantic import BaseModel, Field


class ReproducedRow(BaseModel):
    """A row that was scored again."""

    index: int = Field(description="Place of the row in its job, from 0.")
    changed: str = Field(description="Empty: nothing; else `input`, `output`, `input or output`, or `libraries`.")
    message: str = Field(description="The difference, as a sentence.")
    stored: dict[str, Any] | None = Field(description="The stored score.")
    now: dict[str, Any] | None = Field(description="The score that came out now, or why there is none.")
    company: str = Field(description="Rows beside which the stored score came out again: `alone`, for example.")


class ReproductionResult(BaseModel):
    """What decided, and whether it decides the same again."""

    job_id: str
    request_id: str
    model: str
    model_version: int
    reproduces: str = Field(description="Job whose rows were scored again.")
    sha256: str = Field(description="SHA-256 of the artefact.")
    is_equal: bool = Field(description="Whether nothing has changed, and each score came out again, bit for bit.")
    changed: dict[str, str] = Field(description="`artefact` or `card`: how it differs from what was registered.")
    promotion: dict[str, Any] | None = Field(
        description="The move that had made the version the champion when the job came: `at`, `by`, `from`, `reason`."
    )
    scorer: str = Field(description="The way in which the rows were scored now; empty where nothing was.")
    registered_scorer: str
    threshold: float | None
    libraries: dict[str, str] = Field(description="Those of the training.")
    libraries_that_differ: list[str] = Field(description="Those that are installed in another version now.")
    counts: dict[str, int] = Field(description="`rows`, `equal`, and how many differ by what was changed.")
    rows: list[ReproducedRow] = Field(description="The first 100 rows that differ; or the only row that was scored.")
    latency_ms: float | None
