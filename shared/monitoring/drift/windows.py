"""Windows: the counters of a version in a period, and the period to compare it with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, and_, or_, select

from shared.monitoring.drift.comparison import Drift, compare
from shared.monitoring.drift.profiles import Profile
from shared.tables import FeatureCount, FeatureProfile, ModelOutput

Against = Literal["reference", "previous", "same_weekday"]

HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
WEEKS = 4  # that `same_weekday` looks back


@dataclass(frozen=True, slots=True)
class Window:
    """A period of whole hours in UTC: `start` is in it, `end` is not."""

    start: datetime
    end: datetime

    @classmethod
    def around(cls, start: datetime, end: datetime) -> "Window":
        """Return the whole hours that hold a period."""
        begin, last = start.astimezone(UTC), end.astimezone(UTC)
        whole = last.replace(minute=0, second=0, microsecond=0)
        return cls(begin.replace(minute=0, second=0, microsecond=0), whole if whole == last else whole + HOUR)

    def before(self, against: Against) -> list["Window"]:
        """Return the earlier windows that this one is compared with.

        `previous` is as long and ends where this one begins; `same_weekday` is the same days and hours of each of four
        earlier weeks (of whole weeks that do not overlap, where the window is longer than one).
        """
        length = self.end - self.start
        if against == "previous":
            return [Window(self.start - length, self.start)]
        step = WEEK * max(1, math.ceil(length / WEEK))
        return [Window(self.start - step * place, self.end - step * place) for place in range(1, WEEKS + 1)]


@dataclass(frozen=True, slots=True)
class StoredProfile:
    """The stored profile of a version."""

    profile: Profile
    source: str
    counted_through: int
    made_at: datetime


_profiles: dict[int, tuple[datetime, Profile]] = {}  # by model version id: a profile is read far more often than made


def find_profile(connection: Connection, model_version_id: int) -> StoredProfile | None:
    """Return the profile of a version, None while it has none."""
    row = connection.execute(
        select(FeatureProfile.made_at, FeatureProfile.source, FeatureProfile.counted_through).where(
            FeatureProfile.model_version_id == model_version_id
        )
    ).one_or_none()
    if row is None:
        return None
    cached = _profiles.get(model_version_id)
    if cached is None or cached[0] != row.made_at:
        stored: dict[str, Any] | None = connection.scalar(
            select(FeatureProfile.profile).where(
                FeatureProfile.model_version_id == model_version_id, FeatureProfile.made_at == row.made_at
            )
        )
        if stored is None:  # made anew at this moment
            return find_profile(connection, model_version_id)
        cached = _profiles[model_version_id] = (row.made_at, Profile.load(stored))
    return StoredProfile(cached[1], row.source, row.counted_through, row.made_at)


def sum_counts(
    connection: Connection, model_version_id: int, windows: Sequence[Window]
) -> tuple[int, list[int] | None]:
    """Return rows and counters of some windows together; no counters where no row was scored in them.

    Whole days come from the counters of days, what is left at the ends from those of hours.
    """
    table = FeatureCount
    conditions = []
    for window in windows:
        first = window.start.replace(hour=0)
        first = first if first == window.start else first + DAY
        last = max(first, window.end.replace(hour=0))
        conditions.append(and_(table.span == "day", table.starts_at >= first, table.starts_at < last))
        for start, end in ((window.start, min(first, window.end)), (max(last, window.start), window.end)):
            if start < end:
                conditions.append(and_(table.span == "hour", table.starts_at >= start, table.starts_at < end))
    pairs = connection.execute(
        select(table.row_count, table.counts).where(table.model_version_id == model_version_id, or_(*conditions))
    ).all()
    if not pairs:
        return 0, None
    total = list(map(sum, zip(*(counts for _, counts in pairs), strict=True)))  # numpy would take longer
    return sum(rows for rows, _ in pairs), total


def is_counted(connection: Connection, model_version_id: int, counted_through: int, end: datetime) -> bool:
    """Return whether every row that a version scored before `end` is in its counters."""
    left = select(ModelOutput.id).where(
        ModelOutput.id > counted_through,
        ModelOutput.model_version_id == model_version_id,
        ModelOutput.created_at < end,
    )
    return connection.scalar(left.limit(1)) is None


def find_drift(
    connection: Connection, model_version_id: int, profile: Profile, window: Window, against: Against
) -> Drift:
    """Compare the rows that a version scored in a window with its reference, or with those of earlier windows."""
    nothing = [0] * sum(bins.width for bins in profile.all)
    rows, counts = sum_counts(connection, model_version_id, [window])
    if against == "reference":
        return compare(profile, counts or nothing, rows=rows, baseline=None, baseline_rows=profile.rows)
    before, baseline = sum_counts(connection, model_version_id, window.before(against))
    return compare(profile, counts or nothing, rows=rows, baseline=baseline or nothing, baseline_rows=before)
