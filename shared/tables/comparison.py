"""Comparisons of two versions: replays of stored decisions, and the pairs of scores that they come to."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Float, ForeignKey, Identity, Index, Integer, LargeBinary, UniqueConstraint, text
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
        Index(
            "ix_score_pairs_shadow",
            "model_version_id",
            "starts_at",
            postgresql_where=text("job_id IS NULL"),
            sqlite_where=text("job_id IS NULL"),
        ),
        {"comment": "Rows that two versions scored: by a replay, or by a challenger in the shadow"},
    )

    id: Mapped[int] = mapped_column(BigId, Identity(always=False), primary_key=True, comment="Number of the part")
    job_id: Mapped[str | None] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), comment="The replay; null: a challenger's shadow"
    )
    model_version_id: Mapped[int] = mapped_column(
        ForeignKey("model_versions.id", ondelete="CASCADE"), comment="The version that scored the rows again"
    )
    decided_by_id: Mapped[int] = mapped_column(
        ForeignKey("model_versions.id", ondelete="CASCADE"), comment="The version that decided them"
    )
    starts_at: Mapped[datetime] = mapped_column(UtcDateTime, comment="When the first of them was decided")
    first_row: Mapped[int] = mapped_column(
        BigInteger, comment="Place of the chunk in the replay, from 0; of a shadow the first id of model_outputs"
    )
    row_count: Mapped[int] = mapped_column(Integer, comment="Pairs in it")
    tally: Mapped[bytes] = mapped_column(
        LargeBinary, comment="Flips, shift, segments, largest disagreements: JSON, compressed by zstd"
    )
    pairs: Mapped[bytes] = mapped_column(
        LargeBinary,
        comment="Count, input ids, scores before and after, classes before and after: zstd of int64, float64, int16",
    )
