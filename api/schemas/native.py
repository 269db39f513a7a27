"""Native bodies for OpenAPI. Rows themselves are checked by the card's own validator, not by these."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.tables import JobKind


class SubmitBody(BaseModel):
    """One row to score."""

    model_config = ConfigDict(extra="forbid")

    features: dict[str, Any] = Field(description="Feature name to value, as the model's card says.")
    model: str | None = Field(None, description="Model: `name`, `name@3` or `name@alias`; the default one if left out.")
    version: int | None = Field(None, description="Model version; the champion when left out.")
    expires_in: float | None = Field(
        None, ge=1, description=("Longest time in the queue, in seconds; after that, the job expires.")
    )
    timeout: float | None = Field(None, ge=1, description="Longest run, in seconds; after that, the job fails.")


class BatchBody(BaseModel):
    """Several rows to score in one job."""

    model_config = ConfigDict(extra="forbid")

    rows: list[dict[str, Any]] = Field(description="Rows in order, each with the features of one row.")
    on_error: Literal["continue", "abort"] = Field(
        "continue", description="`continue`: bad rows get their faults, good rows their score. `abort`: refuse all."
    )
    model: str | None = Field(None, description="Model: `name`, `name@3` or `name@alias`; the default one if left out.")
    version: int | None = Field(None, description="Model version; the champion when left out.")
    expires_in: float | None = Field(
        None, ge=1, description=("Longest time in the queue, in seconds; after that, the job expires.")
    )
    timeout: float | None = Field(None, ge=1, description="Longest run, in seconds; after that, the job fails.")


class Counts(BaseModel):
    """Rows of a job."""

    total: int
    succeeded: int
    failed: int
    pending: int


class QueuePlace(BaseModel):
    """The position of a queued job."""

    position: int | None = Field(description="Place in its queue, from 1; an estimate in the answer to a submission.")
    eta_seconds: float | None = Field(
        description="Seconds until the result at the measured rate; null without a measured rate."
    )
    is_lower_bound: bool = Field(
        description="Whether the real position and ETA are larger: positions are counted up to 10,001."
    )


class Score(BaseModel):
    """The score of one row."""

    prediction: float | int | str = Field(description="Binary: 0 or 1; multiclass: the class; regression: the number.")
    label: str | None = Field(description="The predicted class in the card's words.")
    probability: float | None = Field(description="Binary: of the positive class; multiclass: of the predicted one.")
    threshold: float | None = Field(
        description="Binary: the lowest probability with the prediction 1; null where no threshold decides."
    )
    probabilities: dict[str, float] | None = Field(None, description="Multiclass: of every label.")


class OutsideBody(BaseModel):
    """A number outside the reference's range."""

    feature: str
    side: Literal["below", "above"]


class RowQualityBody(BaseModel):
    """How unusual a row is in the reference of its version."""

    unusual: float | None = Field(
        description="0 to 1: share of the reference rows that are less unusual, by the shares of their bins."
    )
    outside: list[OutsideBody] = Field(description="Numbers outside the reference's range.")
    unseen: list[str] = Field(description="Features with a category that is not in the reference.")
    missing: list[str] = Field(description="Features without a value.")
    missing_share: float = Field(description="Of all features.")
    confidence: float | None = Field(
        description=(
            "0 to 1: share of the reference rows with the same decision and a score nearer to the "
            "threshold; null for models without a threshold."
        )
    )


_QUALITY = "With `include=quality`; null while the version has no profile of its reference."


class Result(Score):
    """The result of a single row."""

    job_id: str
    request_id: str
    model: str
    model_version: int
    latency_ms: float | None = Field(description="From acceptance to the stored result.")
    quality: RowQualityBody | None = Field(None, description=_QUALITY)


class FaultBody(BaseModel):
    """One fault."""

    pointer: str = Field(description="Place of the fault, as an RFC 6901 JSON pointer.")
    code: str
    message: str


class BatchItem(BaseModel):
    """One row of a batch: a score or its faults."""

    index: int
    status: Literal["succeeded", "failed"]
    prediction: float | int | str | None = None
    label: str | None = None
    probability: float | None = None
    threshold: float | None = None
    probabilities: dict[str, float] | None = None
    errors: list[FaultBody] | None = None
    quality: RowQualityBody | None = Field(None, description=_QUALITY)


class BatchResult(BaseModel):
    """The results of a batch, in input order."""

    job_id: str
    request_id: str
    model: str
    model_version: int
    n_rows: int
    has_failures: bool
    items: list[BatchItem]
    latency_ms: float | None


class JobError(BaseModel):
    """The reason why a job has no result."""

    code: str
    message: str


class CsvBody(BaseModel):
    """The file of a CSV job: its format, given or detected."""

    filename: str | None
    delimiter: str
    encoding: str
    decimal: str
    thousands: str = Field(description="Thousands separator of numbers; empty without one.")
    currency: str = Field(description="Currency sign beside numbers; empty without one.")
    id_column: str | None = Field(description="The column that identifies rows; output.csv repeats it.")
    extra_columns: list[str] = Field(description="Further columns that are not features; output.csv repeats them.")
    bytes: int = Field(description="Size of the file, uncompressed.")
    max_error_rate: float | None = Field(description="Share of the rows that may fail before the whole job fails.")
    notices: list[str] = Field(
        description=("Notices about cells that were read with another value than their text shows.")
    )


class Progress(BaseModel):
    """The progress of a job."""

    rows_done: int
    rows_per_second: float | None = Field(description="Rate since the start of the run.")
    eta_seconds: float | None = Field(description="Seconds until the end at that rate; null after the end.")
    chunks_done: int
    chunks_total: int


class TrainingProgress(BaseModel):
    """Progress of a training."""

    stage: Literal["reading", "checking", "searching", "calibrating", "importance", "fitting", "proving"]
    done: int = Field(description="Steps of this stage that are done, e.g. draws.")
    total: int


class Claims(BaseModel):
    """The attempts of a job that was claimed more than once."""

    crashes: int = Field(description="Attempts that ended with the death of their worker.")
    last_claimed_at: datetime | None


class JobBody(BaseModel):
    """A job."""

    id: str
    kind: str = Field(json_schema_extra={"enum": [kind.value for kind in JobKind]})
    status: Literal["queued", "running", "succeeded", "failed", "canceled", "expired"]
    model: str
    model_version: int | None = Field(description="Null until the job has made its version.")
    model_sha256: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    cancel_requested_at: datetime | None = None
    attempts: int
    claims: Claims | None = Field(None, description="Only for jobs that were claimed more than once.")
    counts: Counts
    queue: QueuePlace | None
    has_failures: bool
    csv: CsvBody | None = Field(None, description="Only for CSV jobs.")
    explains: str | None = Field(None, description="Only for jobs that explain another job: the id of that job.")
    progress: Progress | None = Field(None, description="Only for jobs of chunks.")
    training: TrainingProgress | None = Field(None, description="Only for trainings: null before it begins.")
    result: Result | None = None
    error: JobError | None = None
    request_id: str
    links: dict[str, str]


class CsvResult(BaseModel):
    """The result of a CSV job, or of an explanation of all rows: `links` names its files."""

    job_id: str
    request_id: str
    model: str
    model_version: int
    n_rows: int
    counts: Counts
    has_failures: bool
    links: dict[str, str]
    latency_ms: float | None


class ErasedBody(BaseModel):
    """What was erased."""

    id: str
    erased: list[str] = Field(description="Ids of the erased jobs: this one, then those that explained its rows.")
    rows: int = Field(description="Rows of the job.")


class JobPage(BaseModel):
    """A page of jobs, newest first."""

    items: list[JobBody]
    next: str | None = Field(description="Path of the next page; null on the last one.")


class CsvFormatBody(BaseModel):
    """The format of a CSV file."""

    filename: str | None
    delimiter: str
    encoding: str
    decimal: str
    thousands: str = Field(description="Thousands separator of numbers; empty without one.")
    currency: str = Field(description="Currency sign beside numbers; empty without one.")
    id_column: str | None = Field(description="The column that identifies rows, repeated in the output.")
    bytes: int = Field(description="Size of the file, uncompressed.")
    notices: list[str] = Field(
        description=("Notices about cells that were read with another value than their text shows.")
    )


class CsvColumns(BaseModel):
    """The columns of a CSV file, beside the features of the model."""

    features: list[str] = Field(description="Columns that are features, in file order.")
    missing: list[str] = Field(description="Features without a column: null in every row.")
    extra: list[str] = Field(description="Columns that are not features: repeated in the output.")


class CsvError(BaseModel):
    """One fault of a row of a CSV file."""

    row_no: int = Field(description="From 1, the header and empty lines not counted.")
    column: str = Field(description="Empty for the row as a whole.")
    code: str
    message: str


class CsvReportBody(BaseModel):
    """The faults of a CSV file (`validate_only`)."""

    model: str
    model_version: int
    rows: int
    valid: int
    invalid: int
    format: CsvFormatBody
    columns: CsvColumns
    error_count: int
    errors_by_code: dict[str, int]
    errors: list[CsvError] = Field(description="The first 1,000, in file order.")


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    job_id: str | None = None
    errors: list[FaultBody] | None = None


class ModelSummary(BaseModel):
    """A model in the list."""

    model: str
    description: str
    task: str
    versions: list[int] = Field(description="Those that serve.")
    archived: list[int] = Field(description="Archived versions: they take no rows.")
    aliases: dict[str, int]
    is_default: bool
    links: dict[str, str]


class ModelList(BaseModel):
    """The registered models."""

    items: list[ModelSummary]


class ModelBody(BaseModel):
    """A model version: its card, an example row, and its scorer."""

    model: str
    model_version: int
    model_sha256: str
    aliases: list[str]
    state: Literal["serving", "archived"]
    created_at: datetime
    card: dict[str, Any]
    example: dict[str, Any]
    words: dict[str, Any] = Field(
        description=("The form of requests and answers, and the client whose field names the model uses.")
    )
    scorer: dict[str, Any] = Field(
        description=("The chosen scorer, its parity with the pipeline, its speed, and the other candidates.")
    )
    explanation: dict[str, str] | None = Field(
        description=(
            "`method` of explanations, or the reason why the model cannot be explained, `refused`; null: unknown."
        )
    )
    links: dict[str, str]


class FeatureList(BaseModel):
    """The features of a model."""

    model: str
    model_version: int
    n_features: int
    names: list[str] = Field(description="The features in the order of the model.")
    input: Literal["wrapped", "flat"] = Field(description="`flat`: the body of a request is the row itself.")
    wrapper: str | None = Field(description="The field of the body that holds the row; null where it is flat.")
    batch_input: Literal["wrapped", "flat"] = Field(description="`flat`: the body of a batch is the list of its rows.")
    batch_wrapper: str = Field(description="The field of the body that holds the rows of a batch.")
    missing: Literal["refuse", "null"] = Field(description="Treatment of a row without a required feature.")
    extra: Literal["refuse", "ignore"] = Field(description="Treatment of keys that are not features.")
    text: Literal["refuse", "read"] = Field(description='Whether "35" is read as 35, and "yes" as true.')
    derived: dict[str, str] = Field(description="Features that are computed from these, with their formulas.")
    features: list[dict[str, Any]] = Field(description="Name, type, limits, categories, description, example.")
    rules: list[str] = Field(description="Rules between the features of a row.")


class Example(BaseModel):
    """An example request to one model."""

    model: str
    model_version: int
    is_default: bool
    request: dict[str, Any] = Field(description="A body for this model's `predict`.")
    links: dict[str, str]


class ExampleList(BaseModel):
    """An example request to each model."""

    items: list[Example]


class ExampleRows(BaseModel):
    """Example rows of a model: the body of a batch."""

    rows: list[dict[str, Any]]


class Cause(BaseModel):
    """The cause of a problem, for programs: its code, and the values that its sentence has."""

    code: str
    values: dict[str, str | int | None]


class Health(BaseModel):
    """The health of the service."""

    status: Literal["ok", "starting", "degraded", "down"]
    model_loaded: bool
    model: str | None
    model_version: int | None
    runtime: Literal["queue", "sync"]
    database: Literal["ok", "down"]
    broker: Literal["ok", "down"] | None = Field(description="Null in the sync runtime.")
    recovery: Literal["ok", "late"] | None = Field(
        description="Whether the workers recover jobs of dead workers; null in the sync runtime."
    )
    workers: list[dict[str, Any]]
    worker_count: int = Field(description="Worker processes with a recent heartbeat; 0 in the sync runtime.")
    oldest_queued_seconds: float | None = Field(
        description="Seconds since the oldest queued job became ready; null in the sync runtime."
    )
    reasons: list[str] = Field(description="Problems, one sentence each.")
    causes: list[Cause | None] = Field(description="The cause of each reason; null for a sentence without a code.")


class Alive(BaseModel):
    """The service answers."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """Whether the service accepts requests."""

    status: Literal["ok", "down"]
    reasons: list[str] | None = Field(None, description="Reasons, one sentence each.")


class ServedModel(BaseModel):
    """The serving version of a model, used where a request names none."""

    model: str
    model_version: int
    model_sha256: str
    trained_at: datetime | None = Field(description="Training time in the card; null without one.")
    created_at: datetime = Field(description="Time of the registration.")


class ServiceVersion(BaseModel):
    """The version of the service."""

    name: str
    version: str
    runtime: Literal["queue", "sync"]
    python: str
    models: list[ServedModel] | None = Field(None, description="The champion of each model; only with a valid key.")
