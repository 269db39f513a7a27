"""Trainings: their options, in the query beside a file or in the body of a window, and their result."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.moments import AwareMoment
from shared.training.options import DEFAULT_DRAWS, MAX_DRAWS, EstimatorName

MAX_NAMES = 1_000  # columns that are left out

Cost = Annotated[float, Field(ge=0, le=1e12)]
Recall = Annotated[float, Field(gt=0, le=1)]
Draws = Annotated[int, Field(ge=1, le=MAX_DRAWS)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Task = Literal["binary", "multiclass", "regression"]

_POSITIVE = "Two classes: the one whose probability is answered; the second in order when left out."
_COST_FP = "Cost of a false positive; the training chooses the threshold with the least cost."
_RECALL = "Used instead of the costs: the training chooses the highest threshold with this recall."
_DRAWS = "Combinations of an estimator with its parameters to try; the first of each estimator has its defaults."


class TrainQuery(BaseModel):
    """The query of `POST /train` beside a file."""

    name: str | None = Field(None, max_length=63, description="Name of the model.")
    target: str | None = Field(None, max_length=200, description="Column with the answer.")
    task: Task | None = Field(None, description="Inferred from the target column when left out.")
    positive: str | None = Field(None, max_length=200, description=_POSITIVE)
    leave_out: str | None = Field(None, max_length=4_000, description="Columns that are no features: `id,name`.")
    estimators: str | None = Field(
        None, max_length=200, description="`linear,random_forest`, for example; all that are installed when left out."
    )
    draws: Draws = Field(DEFAULT_DRAWS, description=_DRAWS)
    seed: Seed = Field(0, description="The same file, seed and libraries give the same model.")
    cost_fp: Cost = Field(1.0, description=_COST_FP)
    cost_fn: Cost = Field(1.0, description="Cost of a false negative.")
    target_recall: Recall | None = Field(None, description=_RECALL)
    delimiter: str | None = Field(None, description="Delimiter of cells; detected when left out, like the next ones.")
    encoding: str | None = Field(None, description="Encoding of the file.")
    decimal: str | None = Field(None, description="Decimal mark: `point` or `comma`.")
    thousands: str | None = Field(None, description="Thousands separator.")


class TrainBody(BaseModel):
    """A training on a model's reference rows and on its scored rows with known outcomes in a window."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model: str = Field(max_length=200, description="Model: `name`, `name@3` or `name@alias`; its card has the columns.")
    from_: AwareMoment | None = Field(None, alias="from", description="Start of the window; no limit when left out.")
    to: AwareMoment | None = Field(None, description="End of the window, exclusive; now when left out.")
    name: str | None = Field(None, max_length=63, description="Name of the new model; that of `model` when left out.")
    positive: str | None = Field(None, max_length=200, description=_POSITIVE)
    leave_out: list[str] = Field(
        default_factory=list, max_length=MAX_NAMES, description="Columns that are no features."
    )
    estimators: list[EstimatorName] | None = Field(None, min_length=1, description="All installed ones when left out.")
    draws: Draws = Field(DEFAULT_DRAWS, description=_DRAWS)
    seed: Seed = 0
    cost_fp: Cost = Field(1.0, description=_COST_FP)
    cost_fn: Cost = Field(1.0, description="Cost of a false negative.")
    target_recall: Recall | None = Field(None, description=_RECALL)


class IntervalBody(BaseModel):
    """A metric of cross-validation with its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None


class ModelCardBody(BaseModel):
    """What the model card of a version that was trained here says."""

    model: str
    version: int
    model_sha256: str
    trained_at: datetime
    job_id: str = Field(description="The training.")
    task: Task
    target: str
    labels: list[str]
    data_sha256: str = Field(description="SHA-256 of the file that it was trained on.")
    rows: int
    class_rows: list[int] = Field(description="Rows of each label.")
    notes: list[str] = Field(description="Columns that were left out, and why.")
    features: list[dict[str, Any]] = Field(description="`name`, `type`, and how many values were `missing`.")
    metrics: dict[str, IntervalBody]
    search: dict[str, Any] = Field(description="The folds, the metric, the best draw and all that were tried.")
    threshold: dict[str, Any] | None = Field(description="Of two classes: which, why, and what it does to the rows.")
    calibration: dict[str, Any] | None
    importance: list[dict[str, Any]] = Field(description="Fall of the metric when a feature is shuffled.")
    options: dict[str, Any] = Field(description="What the caller of the training chose.")
    intended_use: str
    limits: list[str]
    libraries: dict[str, str]


class TrainingResult(BaseModel):
    """The candidate version that a training produced."""

    job_id: str
    request_id: str
    model: str
    model_version: int
    version: int
    model_sha256: str
    data_sha256: str = Field(description="SHA-256 of the training file.")
    alias: None = Field(description="Always null: a training moves no alias. Promote the version to serve it.")
    rows: int
    task: Task
    labels: list[str]
    best: dict[str, Any] = Field(description="The estimator, its parameters, and its cross-validated figure.")
    tried: list[dict[str, Any]] = Field(description="Every draw, the best first.")
    metrics: dict[str, IntervalBody]
    threshold: float | None = Field(description="Only for two classes.")
    decision: dict[str, Any] | None = Field(description="Reason for the threshold, and its effect on the rows.")
    curve: dict[str, list[float]] | None = Field(description="Hits, false alarms and mean cost at each threshold.")
    calibration: dict[str, Any] | None
    importance: list[dict[str, Any]]
    notes: list[str] = Field(description="Columns that were left out, and why.")
    card: dict[str, Any]
    links: dict[str, str] = Field(description="`card` is the page of the model card, in Markdown.")
    latency_ms: float | None
