"""Outcomes, the counters of drift, and their alerts."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from shared.database.types import BigId, Json, JsonText, UtcDateTime
from shared.tables.base import Table


class Outcome(Table):
    """What became of a row: the ground truth. A revision is a new line; the earlier value stays."""

    __tablename__ = "outcomes"
    __table_args__ = (
        UniqueConstraint("input_id", "revision"),
        CheckConstraint("revision >= 1", name="revision_from_one"),
        Index(
            "uq_outcomes_current",
            "input_id",
            unique=True,
            postgresql_where=text("replaced_at IS NULL"),
            sqlite_where=text("replaced_at IS NULL"),
        ),
        {"comment": "Ground truth of scored rows, with every earlier value"},
    )

    id: Mapped[int] = mapped_column(BigId, Identity(always=False), primary_key=True, comment="Number of the outcome")
    input_id: Mapped[int] = mapped_column(
        ForeignKey("model_inputs.id", ondelete="CASCADE"), comment="The row that it is the truth of"
    )
    revision: Mapped[int] = mapped_column(SmallInteger, comment="1 for the first value of a row, then 2, 3, ...")
    actual: Mapped[float] = mapped_column(
        Float, comment="Class index as in model_outputs.prediction (binary: 0 or 1), or the number of a regression"
    )
    label: Mapped[str | None] = mapped_column(Text, comment="Name of the class; null for a regression")
    observed_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime, comment="When it was observed, if the caller said"
    )
    recorded_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.now(), comment="When it was stored")
    recorded_by: Mapped[str | None] = mapped_column(
        String(32), comment="Id of the API key that sent it; null where AUTH=open"
    )
    request_id: Mapped[str] = mapped_column(String(128), comment="X-Request-Id of the request that brought it")
    replaced_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime, comment="When a revision took its place; null for the value in force"
    )


class FeatureProfile(Table):
    """How the values of a version's reference data are spread: the bins that its counters use."""

    __tablename__ = "feature_profiles"
    __table_args__ = ({"comment": "Bins and reference counts of each model version, and how far its rows are counted"},)

    model_version_id: Mapped[int] = mapped_column(
        ForeignKey("model_versions.id", ondelete="CASCADE"), primary_key=True, comment="The version"
    )
    profile: Mapped[dict[str, Any]] = mapped_column(
        JsonText, comment="Bins of each feature, of the score and of the decision, with the counts of the reference"
    )
    source: Mapped[str] = mapped_column(
        String(64), comment="sample: the rows of the package; else the SHA-256 of the loaded reference data"
    )
    row_count: Mapped[int] = mapped_column(Integer, comment="Rows of the reference")
    counted_through: Mapped[int] = mapped_column(
        BigInteger, default=0, server_default="0", comment="Watermark: model_outputs up to this id are counted"
    )
    packed_through: Mapped[int] = mapped_column(
        BigInteger,
        default=0,
        server_default="0",
        comment="The same of score_parts; lower where an older release counted",
    )
    made_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.now(), comment="When it was made")


class FeatureCount(Table):
    """How many scored rows of a version fell into each bin in an hour or a day."""

    __tablename__ = "feature_counts"
    __table_args__ = (
        CheckConstraint("span IN ('hour', 'day')", name="span_known"),
        {"comment": "Counters of drift: scored rows by version, period and bin; no value of a row"},
    )

    model_version_id: Mapped[int] = mapped_column(
        ForeignKey("model_versions.id", ondelete="CASCADE"), primary_key=True, comment="The version that scored them"
    )
    span: Mapped[str] = mapped_column(String(4), primary_key=True, comment="hour, or day: the sum of its hours")
    starts_at: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True, comment="Begin of the period, in UTC")
    row_count: Mapped[int] = mapped_column(Integer, comment="Rows that were scored in it")
    counts: Mapped[list[int]] = mapped_column(
        JsonText, comment="Rows by bin: one number for each bin of the profile, in its order"
    )


class ScorePart(Table):
    """Scores of a version from one hour: a packed copy of rows of model_outputs."""

    __tablename__ = "score_parts"
    __table_args__ = ({"comment": "Packed copy of scores by version and hour, for questions about many of them"},)

    model_version_id: Mapped[int] = mapped_column(
        ForeignKey("model_versions.id", ondelete="CASCADE"), primary_key=True, comment="The version that scored them"
    )
    starts_at: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True, comment="Begin of the hour, in UTC")
    part: Mapped[int] = mapped_column(
        Integer, primary_key=True, autoincrement=False, comment="Place among the parts of the hour, from 0"
    )
    row_count: Mapped[int] = mapped_column(Integer, comment="Scores in it")
    threshold: Mapped[float | None] = mapped_column(Float, comment="Binary: the threshold that decided all of them")
    input_ids: Mapped[bytes] = mapped_column(LargeBinary, comment="Ids of model_inputs: int64, little-endian")
    scores: Mapped[bytes] = mapped_column(
        LargeBinary, comment="Probabilities, of a regression its numbers: float64, little-endian; NaN: none"
    )
    decisions: Mapped[bytes] = mapped_column(
        LargeBinary, comment="Class indexes: int16, little-endian; empty for a regression"
    )


class Alert(Table):
    """Something that somebody should look at; open until it is no longer so."""

    __tablename__ = "alerts"
    __table_args__ = (
        Index(
            "uq_alerts_open",
            "model_version_id",
            "kind",
            "subject",
            unique=True,
            postgresql_where=text("closed_at IS NULL"),
            sqlite_where=text("closed_at IS NULL"),
        ),
        {"comment": "Alerts of the timed checks: one open alert for each version, kind and subject"},
    )

    id: Mapped[int] = mapped_column(BigId, Identity(always=False), primary_key=True, comment="Number of the alert")
    model_version_id: Mapped[int] = mapped_column(
        ForeignKey("model_versions.id", ondelete="CASCADE"), comment="The version that it is about"
    )
    kind: Mapped[str] = mapped_column(String(16), comment="What was checked: drift, or self_audit")
    subject: Mapped[str] = mapped_column(String(200), comment="The feature, `score` or `decision`")
    level: Mapped[str] = mapped_column(String(16), comment="low, moderate or high, as it was found last")
    details: Mapped[dict[str, Any]] = mapped_column(Json, comment="The figures behind the level: window, PSI, p-value")
    opened_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.now(), comment="When it was raised")
    seen_at: Mapped[datetime] = mapped_column(
        UtcDateTime, server_default=func.now(), comment="When the check found it last"
    )
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime, comment="When the check found it no longer")
    acknowledged_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime, comment="When somebody said that they know of it; null again when it has become worse"
    )
    acknowledged_by: Mapped[str | None] = mapped_column(String(200), comment="Who: key:ID, or anyone where AUTH=open")
    acknowledged_level: Mapped[str | None] = mapped_column(String(16), comment="Its level at that time")
    reason: Mapped[str | None] = mapped_column(Text, comment="What they said: why it may stand, what is being done")


class Incident(Table):
    """A row whose stored score differs from the pipeline's: the fast scorer was wrong."""

    __tablename__ = "incidents"
    __table_args__ = ({"comment": "Rows that the self-audit scored otherwise: the first thousand of each alert"},)

    id: Mapped[int] = mapped_column(BigId, Identity(always=False), primary_key=True, comment="Number of the incident")
    alert_id: Mapped[int] = mapped_column(
        ForeignKey("alerts.id", ondelete="CASCADE"), index=True, comment="Its alert, of the kind self_audit"
    )
    input_id: Mapped[int] = mapped_column(
        ForeignKey("model_inputs.id", ondelete="CASCADE"), index=True, comment="The row"
    )
    prediction: Mapped[float] = mapped_column(Float, comment="What was stored, as in model_outputs")
    probability: Mapped[float | None] = mapped_column(Float, comment="What was stored, as in model_outputs")
    expected_prediction: Mapped[float | None] = mapped_column(
        Float, comment="What the pipeline gives; null: it refuses the row"
    )
    expected_probability: Mapped[float | None] = mapped_column(Float, comment="What the pipeline gives")
    difference: Mapped[float | None] = mapped_column(
        Float, comment="Largest distance of the numbers, relative for those beyond 1; null: it refuses the row"
    )
    found_at: Mapped[datetime] = mapped_column(UtcDateTime, comment="When it was found")
