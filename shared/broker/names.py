"""The names of lanes: a process that sends and reads no messages needs them too, and does without Celery."""

from enum import StrEnum


class Lane(StrEnum):
    """A Celery queue, consumed by workers of its own."""

    INTERACTIVE = "interactive"  # single rows and small batches: somebody waits
    BULK = "bulk"  # large batches: nobody waits
    MAINTENANCE = "maintenance"  # recovery and housekeeping
