"""Numbers that processes have counted, and secrets that they share."""

from datetime import datetime

from sqlalchemy import Float, String, Text, func
from sqlalchemy.orm import Mapped, mapped_column

from shared.database.types import UtcDateTime
from shared.tables.base import Table


class MetricSample(Table):
    """One number of a metric: every process regularly adds its latest counts."""

    __tablename__ = "metric_samples"
    __table_args__ = ({"comment": "Counters and histograms, summed over all processes that there have been"},)

    name: Mapped[str] = mapped_column(String(64), primary_key=True, comment="Metric, without the prefix guichet_")
    labels: Mapped[str] = mapped_column(String(400), primary_key=True, comment="Values of its labels, a JSON list")
    part: Mapped[str] = mapped_column(
        String(24), primary_key=True, comment="count, sum, or the upper bound of a bucket of a histogram"
    )
    value: Mapped[float] = mapped_column(Float, comment="The number so far")


class ServiceSecret(Table):
    """A random secret that all processes of a service share."""

    __tablename__ = "service_secrets"
    __table_args__ = ({"comment": "Random secrets that the processes share; no view shows them"},)

    name: Mapped[str] = mapped_column(String(64), primary_key=True, comment="What it is for")
    value: Mapped[str] = mapped_column(Text, comment="Hexadecimal digits")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.now(), comment="When it was made")
