"""Bodies of monitoring for OpenAPI."""

from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

DriftLevel = Literal["none", "low", "moderate", "high", "too_few_rows"]


class PeriodBody(BaseModel):
    """A period in UTC: whole hours."""

    from_: datetime = Field(alias="from", description="Begin; it is in the period.")
    to: datetime = Field(description="End; it is not.")


class FeatureDriftBody(BaseModel):
    """What has become of one feature."""

    feature: str
    psi: float = Field(
        description="Population stability index over the feature's bins, missing included; 0.5 is added to each bin."
    )
    p_value: float = Field(description="Of the G-test that both sides come from one population.")
    adjusted_p_value: float = Field(description="The same after Benjamini and Hochberg over all features.")
    ks_lower_bound: float | None = Field(
        description="The Kolmogorov-Smirnov statistic is at least this; null for categories, which have no order."
    )
    missing_share: float = Field(description="Share of the window's rows without a value.")
    missing_delta: float = Field(description="That share, less the one that it is compared with.")
    unseen: int = Field(description="Values out of the reference's range, or of no category of it.")
    level: DriftLevel


class DriftBody(BaseModel):
    """How far a window's rows are from those that they are compared with."""

    model: str
    version: int
    window: PeriodBody
    against: Literal["reference", "previous", "same_weekday"]
    rows: int = Field(description="Rows that were scored in the window.")
    reference_rows: int = Field(description="Rows that they are compared with.")
    level: DriftLevel = Field(description="The highest of all levels below.")
    advice: str = Field(description="What to do.")
    features: list[FeatureDriftBody] = Field(description="Every feature, the largest PSI first.")
    score: FeatureDriftBody | None = Field(description="The same of the score; null where there is none to compare.")
    decision: FeatureDriftBody | None = Field(description="The same of the decision; null for a regression.")
    decision_rate: dict[str, float] = Field(description="Share of each label among the window's decisions.")
    thresholds: dict[str, float] = Field(description="PSI from which on a level is given, if the p-value agrees.")
    is_complete: bool = Field(description="Whether everything that was scored up to the end of the window is counted.")


class AlertBody(BaseModel):
    """Something that somebody should look at."""

    id: int
    model: str
    version: int
    kind: Literal["drift"]
    subject: str = Field(description="The feature, `score` or `decision`.")
    level: Literal["low", "moderate", "high"]
    details: dict[str, Any] = Field(description="The figures behind the level, and the window that they are of.")
    opened_at: datetime
    seen_at: datetime = Field(description="When the hourly check found it last.")
    closed_at: datetime | None = Field(description="When the check found it no longer; null while it is open.")
    acknowledged_at: datetime | None = Field(description="When somebody acknowledged it; null again when it got worse.")
    acknowledged_by: str | None = Field(description="Who: `key:ID`, or `anyone` where no key is asked for.")
    reason: str | None = Field(description="What they said.")


class AcknowledgeBody(BaseModel):
    """Why an alert may stand."""

    model_config = ConfigDict(extra="forbid", strict=True, str_strip_whitespace=True)

    reason: str = Field(min_length=1, max_length=500, description="Why it may stand, or what is being done about it.")


class AlertPage(BaseModel):
    """A page of alerts."""

    items: list[AlertBody]
    next: str | None = Field(description="Where the next page is; null on the last one.")


class OutcomeBody(BaseModel):
    """What became of a row."""

    model_config = ConfigDict(extra="forbid", strict=True)

    actual: str | int | float | bool = Field(
        description="The class, as the model or its labels call it; of a regression the number."
    )
    row: int | None = Field(
        None, ge=0, le=2**31 - 1, description="Place of the row in its job, from 0; left out for a job of one row."
    )
    observed_at: AwareDatetime | None = Field(None, description="When it was observed, RFC 3339 with its offset.")


class StoredOutcome(BaseModel):
    """What is known of the truth of a row."""

    job_id: str
    row: int
    actual: str | float = Field(description="Label of the class; of a regression the number.")
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
    """What was made of a file of outcomes."""

    rows: int = Field(description="Lines of the file.")
    created: int
    unchanged: int = Field(description="Told before, with the same value.")
    revised: int = Field(description="Told before with another value, which is kept beside the new one.")
    refused: int
    errors: list[OutcomeError] = Field(description="The first thousand of the refused ones.")


class EstimateBody(BaseModel):
    """A metric with its 95 % interval; null where the rows do not define it."""

    value: float | None
    low: float | None
    high: float | None
    method: str = Field(description="Of the interval: wilson, mover, delong, logit, normal, delta, or a mean by class.")


class CalibrationBody(BaseModel):
    """Rows whose probability lies in one tenth of the scale."""

    low: float
    high: float
    rows: int
    mean_probability: float
    share: float = Field(description="Share of positive rows, with its Wilson interval.")
    share_low: float
    share_high: float


class QualityWindow(BaseModel):
    """How good a version was on what it scored in a period."""

    version: int
    from_: datetime = Field(alias="from")
    to: datetime
    rows: int = Field(description="Rows with an outcome: only these are judged.")
    metrics: dict[str, EstimateBody] = Field(
        description="accuracy, balanced_accuracy, precision, recall, f1, roc_auc, average_precision, log_loss, brier; "
        "of a regression mae, rmse, r2, bias. As scikit-learn has them; macro means where there are several classes."
    )
    calibration: list[CalibrationBody] = Field(description="Of a binary model: what was predicted, and what came.")
    card: dict[str, float] = Field(description="The metrics in the version's card.")


class QualityBody(BaseModel):
    """How good a model is, by version."""

    model: str
    windows: list[QualityWindow] = Field(description="Every version with outcomes in the period, newest first.")
    card: dict[str, float] = Field(description="The metrics in the card of the version that was asked for, or serves.")


class KpiDay(BaseModel):
    """What a version scored on one day, in UTC."""

    day: str
    version: int
    rows: int
    mean_score: float | None = Field(description="Of the probability; of a regression, of the prediction.")
    positive_rate: float | None = Field(description="Share decided as the positive class; binary models only.")
    near_threshold: float | None = Field(description="Share within `margin` of the threshold; binary models only.")


class ConfusionBody(BaseModel):
    """Decisions beside what came."""

    rows: int
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    cost: float | None = Field(description="False positives and negatives by the given weights.")


class LatencyBody(BaseModel):
    """How long recent single rows took, from acceptance to the stored result."""

    p50: float = Field(description="ms")
    p95: float = Field(description="ms")
    jobs: float = Field(description="How many were measured.")


class KpiVersion(BaseModel):
    """What a version's decisions were worth."""

    version: int
    threshold: float | None = Field(description="The one that was asked for, or the card's.")
    confusion: ConfusionBody | None = Field(description="Null where no outcome is known, or the model is not binary.")
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
    reference: int = Field(description="Rows of the reference in it.")
    window: int = Field(description="Rows of the window in it.")


class DistributionItem(BaseModel):
    """How the values of a feature are spread."""

    feature: str
    kind: Literal["number", "category"]
    bins: list[BinBody]


class DistributionPage(BaseModel):
    """How features are spread, in the window and in the reference."""

    model: str
    version: int
    window: PeriodBody
    rows: int
    reference_rows: int
    items: list[DistributionItem]
    next: str | None = Field(description="Where the next page is; null on the last one.")
