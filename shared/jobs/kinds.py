"""The kinds of jobs: how a worker claims them, where they queue, and which requests about them are allowed.

docs/contributing.md names the files of a new kind; tests/structure/test_kinds.py reports missing ones.
"""

from dataclasses import dataclass
from enum import StrEnum

from shared.broker.names import Lane
from shared.tables import JobKind


class Claiming(StrEnum):
    """How the work of a kind is claimed."""

    TOGETHER = "together"  # many jobs at once, of all kinds that one handler computes
    ALONE = "alone"  # one job at a time
    APART = "apart"  # one at a time, of no version (shared/handlers/registrations.py)
    BY_CHUNK = "by_chunk"  # chunk by chunk (shared/jobs/chunks/transitions.py): the job itself is never claimed


@dataclass(frozen=True, slots=True)
class Kind:
    """What the service has to know about a kind of job; `kind_of` finds it by the name in the table."""

    claiming: Claiming
    lane: Lane | None = None  # None: interactive up to INTERACTIVE_ROWS rows, else bulk
    is_single: bool = False  # one row: its score is read with the job, and stands in the job's body
    logs_events: bool = False  # in job_events; the events of other jobs are made from their row
    can_resume: bool = False  # its caller may ask for the rest of the rows; the trigger on jobs has to allow it too

    @property
    def is_chunked(self) -> bool:
        """Whether the job is done in chunks, and its output is a file."""
        return self.claiming == Claiming.BY_CHUNK


KINDS: dict[str, Kind] = {
    JobKind.PREDICT: Kind(Claiming.TOGETHER, is_single=True),
    JobKind.BATCH: Kind(Claiming.TOGETHER),
    JobKind.CSV: Kind(Claiming.BY_CHUNK, lane=Lane.BULK, logs_events=True, can_resume=True),
    JobKind.EXPLAIN: Kind(Claiming.TOGETHER),
    JobKind.EXPLAIN_BATCH: Kind(Claiming.BY_CHUNK, lane=Lane.BULK, logs_events=True, can_resume=True),
    JobKind.REPLAY: Kind(Claiming.BY_CHUNK, lane=Lane.BULK, logs_events=True, can_resume=True),
    JobKind.REGISTER: Kind(Claiming.APART, lane=Lane.BULK),
    JobKind.TRAIN: Kind(Claiming.APART, lane=Lane.BULK),
    JobKind.REPRODUCE: Kind(Claiming.APART, lane=Lane.BULK),
}
# A newer release has stored the job, in a rolling upgrade or before it was taken back: it is shown, and left alone.
UNKNOWN = Kind(Claiming.ALONE)

CHUNKED = tuple(name for name, kind in KINDS.items() if kind.is_chunked)
APART = tuple(name for name, kind in KINDS.items() if kind.claiming == Claiming.APART)
CLAIMED_BY_JOB = tuple(name for name, kind in KINDS.items() if not kind.is_chunked)
SINGLE = tuple(name for name, kind in KINDS.items() if kind.is_single)
RESUMABLE = tuple(name for name, kind in KINDS.items() if kind.can_resume)


def kind_of(name: str) -> Kind:
    """Return the kind with this name; `UNKNOWN` for one of a newer release."""
    return KINDS.get(name, UNKNOWN)


def lane_of(name: str, *, row_count: int, interactive_rows: int) -> Lane:
    """Return the lane of a new job with this number of rows."""
    fixed = kind_of(name).lane
    if fixed is not None:
        return fixed
    return Lane.INTERACTIVE if row_count <= interactive_rows else Lane.BULK
