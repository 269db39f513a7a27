"""The names of lanes, without Celery: processes that neither send nor read messages import them too."""

from enum import StrEnum


class Lane(StrEnum):
    """A Celery queue, consumed by workers of its own."""

    INTERACTIVE = "interactive"  # single rows and small batches: somebody waits
    BULK = "bulk"  # large batches: nobody waits
    MAINTENANCE = "maintenance"  # recovery and housekeeping
