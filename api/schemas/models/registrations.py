"""The form of an uploaded model, and the result of its job."""

from typing import Any, Literal

from pydantic import BaseModel, Field, JsonValue

_FILE: dict[str, JsonValue] = {"format": "binary"}


class RegistrationForm(BaseModel):
    """A model to add: its files and the options of `python -m shared.registry add`."""

    artefact: str = Field(
        json_schema_extra=_FILE,
        description="A joblib file, a skops file, or a zip archive of the folder that MLflow saved.",
    )
    name: str = Field(description="Name of the model.", pattern=r"^[a-z][a-z0-9_-]{0,62}$")
    reference: str | None = Field(
        None,
        json_schema_extra=_FILE,
        description="Rows like those it was trained on: .csv, .xlsx, .parquet or .json. Needed without a card.",
    )
    contract: str | None = Field(
        None, json_schema_extra=_FILE, description="Part of a card that a client relies on, as JSON."
    )
    card: str | None = Field(None, json_schema_extra=_FILE, description="The card; inferred when left out.")
    preprocessor: str | None = Field(
        None, json_schema_extra=_FILE, description="Joblib file of a fitted transformer that comes before the model."
    )
    code: str | None = Field(
        None, json_schema_extra=_FILE, description="Your own .py file that the model needs, or a zip of several."
    )
    labels: str | None = Field(None, description="Names of the classes: `0=No,1=Yes`, or JSON; also as a file.")
    threshold: str | None = Field(None, description="Lowest probability that is answered as 1; also as a JSON file.")
    metrics: str | None = Field(None, description="JSON object of the training's metrics; also as a file.")
    version: int | None = Field(None, description="Version number; the next one when left out.")
    target: str | None = Field(None, description="Column of the reference rows with the answer.")
    task: Literal["binary", "multiclass", "regression"] | None = Field(
        None, description="Inferred from the model when left out."
    )
    probability: Literal["sigmoid"] | None = Field(
        None, description="Make probabilities from decision_function, for a model without its own."
    )
    scores: str | None = Field(None, description="Column of the reference rows with the model's own scores.")
    skip_bad: bool = Field(False, description="Leave out reference rows that break the contract.")
    trust: str | None = Field(None, description="Types in a skops file that you trust, separated by commas.")
    delimiter: str | None = Field(None, description="Delimiter of the reference rows.")
    encoding: str | None = Field(None, description="Encoding of the reference rows.")
    decimal: str | None = Field(None, description="Decimal mark of the reference rows.")
    thousands: str | None = Field(None, description="Thousands separator of the reference rows.")


class UploadedFileBody(BaseModel):
    """An uploaded file."""

    filename: str | None
    bytes: int
    sha256: str


class RegistrationResult(BaseModel):
    """The version that an upload created."""

    job_id: str
    request_id: str
    model: str
    model_version: int
    version: int
    model_sha256: str
    alias: str | None = Field(
        description="`champion` if the version serves at once, which only the first one of a name does."
    )
    files: dict[str, UploadedFileBody]
    features: list[str]
    left_out: list[str] = Field(description="Columns of the reference rows that are no features of the model.")
    card: dict[str, Any]
    scorer: dict[str, Any]
    links: dict[str, str]
    latency_ms: float | None
