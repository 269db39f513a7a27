"""Bodies of comparisons: replays of stored decisions, and their report."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.models.registry import ShadowBody
from api.schemas.moments import AwareMoment
from api.schemas.monitoring import EstimateBody

MAX_VALUES = 100  # of one feature, and features of a filter


class ReplayFilter(BaseModel):
    """A filter of the window's decisions; without one, all of them count."""

    model_config = ConfigDict(extra="forbid", strict=True)
    version: int | None = Field(None, ge=1, le=2**31 - 1, description="Only decisions of this version.")
    features: dict[str, str | int | float | bool | list[str | int | float | bool | None] | None] = Field(
        default_factory=dict,
        max_length=MAX_VALUES,
        description='Only rows whose features have these values, e.g. `{"region": ["north", "east"], "senior": true}`.',
    )


class ReplayBody(BaseModel):
    """A replay: the version that scores again, and the stored rows that it scores."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model: str = Field(max_length=200, description="Model: `name@3` or `name@alias`, or `name` beside `version`.")
    version: int | None = Field(None, ge=1, le=2**31 - 1, description="The version that scores again.")
    from_: AwareMoment | None = Field(
        None, alias="from", description="Start of the window, RFC 3339; one week before its end when left out."
    )
    to: AwareMoment | None = Field(None, description="End of the window, exclusive; now when left out.")
    filter: ReplayFilter = Field(default_factory=ReplayFilter)
    cost_fp: float = Field(1.0, ge=0, le=1e12, description="Cost of a false positive, for the report.")
    cost_fn: float = Field(1.0, ge=0, le=1e12, description="Cost of a false negative, for the report.")
    expires_in: float | None = Field(
        None, ge=1, description="Longest time in the queue, in seconds; after that, the job expires."
    )
    timeout: float | None = Field(None, ge=1, description="Time limit of one chunk of rows, in seconds.")


class TransitionBody(BaseModel):
    """Rows that changed from one class to another."""

    from_: str = Field(alias="from")
    to: str
    rows: int


class DecisionsBody(BaseModel):
    """Number of decisions for a class."""

    label: str
    before: int
    after: int


class FlipsBody(BaseModel):
    """Rows that the two versions decide differently."""

    count: int
    up: int | None = Field(description="Two classes: from the negative to the positive one.")
    down: int | None
    p_value: float | None = Field(description="McNemar's exact test that both ways are equally likely.")
    transitions: list[TransitionBody] = Field(description="The most frequent ones.")
    decisions: list[DecisionsBody]


class MovedBody(BaseModel):
    """Rows whose probability moved by more than `by_more_than`."""

    by_more_than: float
    rows: int
    share: float


class ShiftBody(EstimateBody):
    """The difference of the two scores, second minus first: its mean with an interval."""

    rows: int = Field(description="Rows with both scores.")
    before: float = Field(description="Mean of the first score.")
    after: float
    deviation: float | None = Field(description="Standard deviation of the differences.")
    mean_absolute: float
    largest: float = Field(description="The largest absolute difference.")
    moved: list[MovedBody] | None = None


class SegmentBody(BaseModel):
    """Rows with one value, or in one range, of a feature. For a regression, `shift` is their mean shift."""

    feature: str
    segment: str
    rows: int
    flips: int | None = None
    up: int | None = None
    down: int | None = None
    share: EstimateBody | None = Field(None, description="Share of rows that flip.")
    p_value: float | None = Field(
        None, description="G-test that these rows flip as often as all others, after Benjamini and Hochberg."
    )
    shift: EstimateBody | None = None


class CostSide(BaseModel):
    """Cost of one version at its own threshold."""

    false_positives: int
    false_negatives: int
    cost: float


class CostBody(BaseModel):
    """Cost of both versions, on the rows with a known outcome."""

    rows: int
    weights: dict[str, float]
    before: CostSide
    after: CostSide
    difference: EstimateBody = Field(description="Difference, second minus first, with a normal interval.")


class QualityPair(BaseModel):
    """A measure of both versions, and their difference: second minus first."""

    before: float | None
    after: float | None
    difference: EstimateBody
    mended: int | None = Field(None, description="Rows that only the second has right.")
    spoilt: int | None = Field(None, description="Rows that only the first has right.")
    p_value: float | None = Field(None, description="Accuracy: McNemar's exact test; ROC AUC: DeLong's.")
    rows: int | None = Field(None, description="ROC AUC: rows in its calculation.")


class OutcomesBody(BaseModel):
    """Quality of both versions, on the rows with a known outcome."""

    rows: int
    accuracy: QualityPair | None = None
    roc_auc: QualityPair | None = None
    brier: QualityPair | None = None
    mae: QualityPair | None = None
    mse: QualityPair | None = None


class DisagreementBody(BaseModel):
    """A row whose two scores lie farthest apart."""

    job_id: str
    row: int
    before: float
    after: float
    difference: float
    label_before: str | None
    label_after: str | None


class VersionRows(BaseModel):
    """Pairs by the version that decided."""

    version: int
    rows: int


class WindowBody(BaseModel):
    """A period: `from` is inclusive, `to` is exclusive."""

    from_: datetime = Field(alias="from")
    to: datetime


class ComparisonBody(BaseModel):
    """Two versions on the same rows: `before` is the stored decision, `after` the other version's score."""

    model: str
    model_version: int = Field(description="The version whose scores are `after`.")
    window: WindowBody
    versions: list[VersionRows] = Field(description="The versions that decided.")
    pairs: int
    refused: int = Field(description="Rows that the version refuses or fails on; no other figure counts them.")
    agreement: EstimateBody | None = Field(description="Share of pairs with the same decision.")
    flips: FlipsBody | None
    score_shift: ShiftBody | None
    segments: list[SegmentBody] = Field(description="Segments with the strongest evidence of a change.")
    cost: CostBody | None
    outcomes: OutcomesBody | None
    largest: list[DisagreementBody]
    notes: list[str] = Field(description="Rows that the figures leave out, and the reasons.")


class ChallengerBody(ComparisonBody):
    """The champion's decisions (`before`) beside the challenger's scores of the same rows (`after`)."""

    champion: int = Field(description="The version that decided.")
    shadow: ShadowBody | None = Field(description="Progress of the challenger; null if it has scored nothing so far.")


class ReplayResult(ComparisonBody):
    """The result of a replay: stored rows, scored again by another version."""

    job_id: str
    request_id: str
    filter: dict[str, Any]
    links: dict[str, str]
    latency_ms: float | None
