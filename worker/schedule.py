"""What the beat does, and how often."""

from shared.config import get_settings
from shared.queue import Lane, TaskName

SCHEDULE = {
    "recover": {
        "task": TaskName.RECOVER,
        "schedule": get_settings().recover_seconds,
        # A beat that nobody consumed is worthless when the next one is there; but a worker that scores files as well
        # is busy for `drain_seconds` at a time, and the beat has to outlive that.
        "options": {
            "queue": Lane.MAINTENANCE.value,
            "expires": get_settings().recover_seconds + 3 * get_settings().drain_seconds,
        },
    },
    "forget_idempotency_keys": {
        "task": TaskName.FORGET,
        "schedule": 3600.0,
        "options": {"queue": Lane.MAINTENANCE.value, "expires": 3600.0},
    },
}
