"""Bodies of monitoring for OpenAPI."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from api.schemas.moments import AwareMoment

DriftLevel = Literal["none", "low", "moderate", "high", "too_few_rows"]


class PeriodBody(BaseModel):
    """A period in UTC: whole hours."""

    from_: datetime = Field(alias="from", description="Start of the period, inclusive.")
    to: datetime = Field(description="End; it is not.")


class FeatureDriftBody(BaseModel):
    """The drift of one feature."""

    feature: str
    psi: float = Field(
        description="Population stability index over the feature's bins, missing included; 0.5 is added to each bin."
    )
    p_value: float = Field(description="p-value of the G-test that both sides come from one population.")
    adjusted_p_value: float = Field(description="p-value after the Benjamini-Hochberg correction over all features.")
    ks_lower_bound: float | None = Field(
        description="Lower bound of the Kolmogorov-Smirnov statistic; null for categories, which have no order."
    )
    missing_share: float = Field(description="Share of the window's rows without a value.")
    missing_delta: float = Field(description="Difference between this share and that of the other side.")
    unseen: int = Field(description="Values outside the reference's range or categories.")
    level: DriftLevel


class DriftBody(BaseModel):
    """The differences between the rows of a window and those of its reference."""

    model: str
    version: int
    window: PeriodBody
    against: Literal["reference", "previous", "same_weekday"]
    rows: int = Field(description="Scored rows of the window.")
    reference_rows: int = Field(description="Rows of the side to compare with.")
    level: DriftLevel = Field(description="The highest of all levels below.")
    advice: str = Field(description="What to do.")
    features: list[FeatureDriftBody] = Field(description="Every feature, the largest PSI first.")
    score: FeatureDriftBody | None = Field(description="The same for the score; null without a reference score.")
    decision: FeatureDriftBody | None = Field(description="The same for the decision; null for a regression.")
    decision_rate: dict[str, float] = Field(description="Share of each label among the window's decisions.")
    thresholds: dict[str, float] = Field(description="Lowest PSI of each level, if the p-value agrees.")
    is_complete: bool = Field(description="Whether all rows scored before the end of the window are counted.")


class AlertBody(BaseModel):
    """An alert: drift of a feature, the score or the decision, or a wrong score found by the self-audit."""

    id: int
    model: str
    version: int
    kind: Literal["drift", "self_audit"]
    subject: str = Field(description="The feature, `score` or `decision`.")
    level: Literal["low", "moderate", "high"]
    details: dict[str, Any] = Field(description="The figures behind the level, and their window or rows.")
    opened_at: datetime
    seen_at: datetime = Field(description="Last check that confirmed the alert.")
    closed_at: datetime | None = Field(
        description="First check without the drift, or acknowledgement of a self-audit; null while the alert is open."
    )
    acknowledged_at: datetime | None = Field(
        description=("Time of the acknowledgement; null again after a rise of the level.")
    )
    acknowledged_by: str | None = Field(description="`key:ID`, or `anyone` where no key is required.")
    reason: str | None = Field(description="Reason in the acknowledgement.")


class AcknowledgeBody(BaseModel):
    """The reason of an acknowledgement."""

    model_config = ConfigDict(extra="forbid", strict=True, str_strip_whitespace=True)

    reason: str = Field(
        min_length=1, max_length=500, description=("Reason to keep the drift, or the action against it.")
    )


class AlertPage(BaseModel):
    """A page of alerts."""

    items: list[AlertBody]
    next: str | None = Field(description="Path of the next page; null on the last one.")


def _refuse_no_values(value: object) -> object:
    if not isinstance(value, str | int | float):
        raise PydanticCustomError("outcome", "must be a class, its label or a number")
    return value


class OutcomeBody(BaseModel):
    """The outcome of a row."""

    model_config = ConfigDict(extra="forbid", strict=True)

    actual: Annotated[str | int | float | bool, BeforeValidator(_refuse_no_values)] = Field(
        description="The class, by the model's name or its label; for a regression the number."
    )
    row: int | None = Field(
        None, ge=0, le=2**31 - 1, description="Place of the row in its job, from 0; left out for a job of one row."
    )
    observed_at: AwareMoment | None = Field(None, description="Time of the observation, RFC 3339 with an offset.")


class StoredOutcome(BaseModel):
    """The stored outcome of a row."""

    job_id: str
    row: int
    actual: str | float = Field(description="Label of the class; for a regression the number.")
    revision: int = Field(description="1 for the first value, then 2, 3, ...")
    observed_at: datetime | None
    recorded_at: datetime


class OutcomeError(BaseModel):
    """A line of the file that was not stored."""

    row_no: int = Field(description="Place of the line in the file, from 1, without the header.")
    column: str
    code: str
    message: str


class OutcomesReport(BaseModel):
    """The report on a file of outcomes."""

    rows: int = Field(description="Lines of the file.")
    created: int
    unchanged: int = Field(description="Lines with the value that was already stored.")
    revised: int = Field(description="Lines with a new value; the earlier one is kept beside it.")
    refused: int
    errors: list[OutcomeError] = Field(description="The first thousand refused lines.")


class EstimateBody(BaseModel):
    """A metric with its 95 % interval; null where the rows do not define it."""

    value: float | None
    low: float | None
    high: float | None
    method: str = Field(
        description=("Method of the interval: wilson, mover, delong, logit, normal, delta, or a mean by class.")
    )


class CalibrationBody(BaseModel):
    """Rows whose probability lies in one tenth of the scale."""

    low: float
    high: float
    rows: int
    mean_probability: float
    share: float = Field(description="Share of positive rows, with its Wilson interval.")
    share_low: float
    share_high: float


class RocBody(BaseModel):
    """A point of the ROC curve."""

    threshold: float = Field(description="Rows with this probability or more are called positive.")
    false_positive_rate: float
    true_positive_rate: float


class QualityWindow(BaseModel):
    """The quality of a version in a period."""

    version: int
    from_: datetime = Field(alias="from")
    to: datetime
    rows: int = Field(description="Rows with an outcome: the metrics cover only these.")
    metrics: dict[str, EstimateBody] = Field(
        description="accuracy, balanced_accuracy, precision, recall, f1, roc_auc, average_precision, log_loss, brier; "
        "of a regression mae, rmse, r2, bias. As scikit-learn has them; macro means where there are several classes."
    )
    calibration: list[CalibrationBody] = Field(
        description=("Binary models: predicted probabilities and observed rates.")
    )
    roc: list[RocBody] = Field(
        description="Binary models: the ROC curve, the highest threshold first; of 101 thresholds at most."
    )
    card: dict[str, float] = Field(description="The metrics in the version's card.")
    card_of: Literal["reference"] | None = Field(
        description="`reference`: the card's metrics are those of the reference rows, and so too good; else null."
    )


class QualityBody(BaseModel):
    """The quality of a model, by version."""

    model: str
    windows: list[QualityWindow] = Field(description="Every version with outcomes in the period, newest first.")
    card: dict[str, float] = Field(description="The metrics in the card of the requested or serving version.")
    card_of: Literal["reference"] | None = Field(
        description="`reference`: these are metrics of the reference rows, and so too good; else null."
    )


class KpiDay(BaseModel):
    """The scores of a version on one day, in UTC."""

    day: str
    version: int
    rows: int
    mean_score: float | None = Field(description="Mean of the probability; for a regression, of the prediction.")
    positive_rate: float | None = Field(description="Share decided as the positive class; binary models only.")
    near_threshold: float | None = Field(description="Share within `margin` of the threshold; binary models only.")


class ConfusionBody(BaseModel):
    """Decisions against outcomes."""

    rows: int
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    cost: float | None = Field(description="Cost of false positives and negatives, by the weights of the request.")


class LatencyBody(BaseModel):
    """How long recent single rows took, from acceptance to the stored result."""

    p50: float = Field(description="ms")
    p95: float = Field(description="ms")
    jobs: float = Field(description="Number of measured jobs.")


class KpiVersion(BaseModel):
    """The value of a version's decisions."""

    version: int
    threshold: float | None = Field(description="The threshold of the request, or the card's.")
    confusion: ConfusionBody | None = Field(
        description=("Null without known outcomes, and for models that are not binary.")
    )
    expected_latency_ms: LatencyBody | None


class KpiBody(BaseModel):
    """Business figures."""

    model: str
    window: PeriodBody
    versions: list[KpiVersion]
    days: list[KpiDay] = Field(description="By day, then version.")


class BinBody(BaseModel):
    """One bin of a feature."""

    label: str
    reference: int = Field(description="Rows of the reference in the bin.")
    window: int = Field(description="Rows of the window in the bin.")


class DistributionItem(BaseModel):
    """The distribution of a feature."""

    feature: str
    kind: Literal["number", "category"]
    bins: list[BinBody]


class DistributionPage(BaseModel):
    """The distribution of features, in the window and in the reference."""

    model: str
    version: int
    window: PeriodBody
    rows: int
    reference_rows: int
    items: list[DistributionItem]
    next: str | None = Field(description="Path of the next page; null on the last one.")
