"""Explanations of scores."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Float, ForeignKey, Identity, Index, String, Text, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from shared.database.types import BigId, Json, UtcDateTime
from shared.tables.base import Table


class StoredExplanation(Table):
    """The explanation of one input by one model version."""

    __tablename__ = "explanations"
    __table_args__ = (
        UniqueConstraint("input_id", "model_version_id"),
        CheckConstraint("scale IN ('log_odds', 'probability', 'target', 'log_target', 'margin')", name="scale_known"),
        Index("ix_explanations_row", "model_version_id", "row_sha256"),
        {"comment": "What each feature of a row adds to its score: one for each input and model version"},
    )

    id: Mapped[int] = mapped_column(
        BigId, Identity(always=False), primary_key=True, comment="Number of the explanation"
    )
    input_id: Mapped[int] = mapped_column(
        ForeignKey("model_inputs.id", ondelete="CASCADE"), comment="The input that was explained"
    )
    model_version_id: Mapped[int] = mapped_column(
        ForeignKey("model_versions.id"), comment="The version whose score was explained"
    )
    row_sha256: Mapped[str] = mapped_column(
        String(64), comment="SHA-256 of the row in canonical form: the same row of another job is found by it"
    )
    method: Mapped[str] = mapped_column(
        String(32), comment="tree_interventional, tree_path_dependent, linear, enumeration or permutation_sampling"
    )
    scale: Mapped[str] = mapped_column(String(16), comment="log_odds, probability, target, log_target or margin")
    label: Mapped[str | None] = mapped_column(Text, comment="The class whose score was explained; null for regression")
    base_value: Mapped[float] = mapped_column(Float, comment="Value without knowing the row")
    value: Mapped[float] = mapped_column(Float, comment="Value of the row: base_value and all contributions")
    prediction: Mapped[float] = mapped_column(Float, comment="The score that was explained, as in model_outputs")
    probability: Mapped[float | None] = mapped_column(Float, comment="Its probability, as in model_outputs")
    reference: Mapped[dict[str, Any]] = mapped_column(
        Json, comment="The population it was compared with: {rows, source, seed}"
    )
    contributions: Mapped[list[dict[str, Any]]] = mapped_column(
        Json,
        comment="By feature, the largest first: {feature, value, contribution, reference, text, standard_error?}",
    )
    top: Mapped[list[str]] = mapped_column(Json, comment="The largest of them in words")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.now(), comment="When it was stored")
