"""Comparisons of two versions: replays of stored decisions with their pairs, and challengers with their scores."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
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
)
from sqlalchemy.orm import Mapped, mapped_column

from shared.database.types import BigId, Json, UtcDateTime
from shared.tables.base import Table


class Replay(Table):
    """What a job of the kind `replay` decides again: its version is the job's."""

    __tablename__ = "replays"
    __table_args__ = ({"comment": "Replays: which stored decisions a job decides again by its own version"},)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, comment="Its job")
    starts_at: Mapped[datetime] = mapped_column(UtcDateTime, comment="Begin of the window of decisions")
    ends_at: Mapped[datetime] = mapped_column(UtcDateTime, comment="End of the window, which is not in it")
    filter: Mapped[dict[str, Any]] = mapped_column(
        Json, comment="Which of them: {version?, features?: name to the values that count}"
    )
    versions: Mapped[list[dict[str, Any]]] = mapped_column(
        Json, comment="Versions that decided: [{id, version, fits}]; fits: their rows are those of the job's version"
    )
    cost_fp: Mapped[float] = mapped_column(Float, comment="Cost of a false positive in the report")
    cost_fn: Mapped[float] = mapped_column(Float, comment="Cost of a false negative in the report")


class ScorePairs(Table):
    """Pairs of scores of the same rows, packed, with what is counted of them."""

    __tablename__ = "score_pairs"
    __table_args__ = (
        UniqueConstraint("job_id", "first_row", "decided_by_id"),
        {"comment": "Rows that two versions scored, by the parts of a replay"},
    )

    id: Mapped[int] = mapped_column(BigId, Identity(always=False), primary_key=True, comment="Number of the part")
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), comment="The replay")
    model_version_id: Mapped[int] = mapped_column(
        ForeignKey("model_versions.id", ondelete="CASCADE"), comment="The version that scored the rows again"
    )
    decided_by_id: Mapped[int] = mapped_column(
        ForeignKey("model_versions.id", ondelete="CASCADE"), comment="The version that decided them"
    )
    starts_at: Mapped[datetime] = mapped_column(UtcDateTime, comment="When the first of them was decided")
    first_row: Mapped[int] = mapped_column(BigInteger, comment="Place of the chunk in the replay, from 0")
    row_count: Mapped[int] = mapped_column(Integer, comment="Pairs in it")
    tally: Mapped[bytes] = mapped_column(
        LargeBinary, comment="Flips, shift, segments, largest disagreements: JSON, compressed by zstd"
    )
    pairs: Mapped[bytes] = mapped_column(
        LargeBinary,
        comment="Count, input ids, scores before and after, classes before and after: zstd of int64, float64, int16",
    )


class Shadow(Table):
    """How far the scores of a challenger have come, and how it behaves."""

    __tablename__ = "shadows"
    __table_args__ = (
        {"comment": "Challengers: how far each has scored what other versions decided, and its failures"},
    )

    model_version_id: Mapped[int] = mapped_column(
        ForeignKey("model_versions.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
        comment="The version that is, or was, the challenger",
    )
    alias_at: Mapped[datetime] = mapped_column(
        UtcDateTime, comment="When the alias was moved to it: a later move begins anew"
    )
    mark: Mapped[int] = mapped_column(
        BigInteger, comment="Watermark: decisions up to this id of model_outputs are scored, refused or skipped"
    )
    moved_at: Mapped[datetime] = mapped_column(UtcDateTime, comment="When the mark was moved last")
    lag_seconds: Mapped[float] = mapped_column(
        Float, comment="Age of the oldest decision that waited then, in seconds; 0: none was left"
    )
    scored_count: Mapped[int] = mapped_column(BigInteger, comment="Rows that it has scored since alias_at")
    refused_count: Mapped[int] = mapped_column(BigInteger, comment="Rows that it refused since then, or failed on")
    skipped_count: Mapped[int] = mapped_column(
        BigInteger, comment="Rows that were left out since then because it could not keep up"
    )
    failure_count: Mapped[int] = mapped_column(
        SmallInteger, comment="How often in a row it crashed, hung, ate its memory or could not be loaded"
    )
    crash_count: Mapped[int] = mapped_column(Integer, comment="How often in all since alias_at")
    reason: Mapped[str | None] = mapped_column(Text, comment="What happened the last time")
    stopped_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime, comment="When it was left alone, until its alias is moved; null: it is scored"
    )
    leased_by: Mapped[str | None] = mapped_column(String(128), comment="Process that has it scored")
    lease_expires_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime, comment="When another process may go on with it"
    )


class ShadowScore(Table):
    """The score of a challenger for a row that another version decided. It goes with the row."""

    __tablename__ = "shadow_scores"
    __table_args__ = (
        Index("ix_shadow_scores_window", "model_version_id", "decided_at"),
        {"comment": "Scores of challengers, which no caller gets; each goes with the row that it is of"},
    )

    output_id: Mapped[int] = mapped_column(
        ForeignKey("model_outputs.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
        comment="The decision; its input is the row",
    )
    model_version_id: Mapped[int] = mapped_column(
        ForeignKey("model_versions.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
        comment="The challenger",
    )
    decided_at: Mapped[datetime] = mapped_column(UtcDateTime, comment="When it was decided, as in model_outputs")
    prediction: Mapped[float | None] = mapped_column(
        Float, comment="As in model_outputs; null: it refused the row, or failed on it"
    )
    label: Mapped[str | None] = mapped_column(Text, comment="Name of the predicted class")
    probability: Mapped[float | None] = mapped_column(Float, comment="As in model_outputs")
    fault: Mapped[str | None] = mapped_column(String(64), comment="Why there is no score: the code of the fault")
