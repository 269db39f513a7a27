"""The version and the window of a monitoring request."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import Query
from sqlalchemy import Connection

from api.models.catalog import Version
from api.schemas.answers import PROBLEM
from api.schemas.moments import AwareMoment
from api.services import Services
from shared.errors import Conflict, InvalidRequest
from shared.faults import Fault
from shared.monitoring.drift.windows import Against, StoredProfile, Window, find_profile

WEEK = timedelta(days=7)
RESPONSES: dict[int | str, dict[str, Any]] = {
    401: {**PROBLEM, "description": "No API key, or an unknown one."},
    403: {**PROBLEM, "description": "The key lacks the scope `admin`: the figures cover everyone's rows."},
    404: {**PROBLEM, "description": "No such model or version."},
    422: {**PROBLEM, "description": "A parameter is not valid, or the window ends before it begins."},
    503: {**PROBLEM, "description": "The database does not answer."},
}

Model = Annotated[str | None, Query(description="Model: `name`, `name@3` or `name@alias`; the default one if left out")]
Number = Annotated[int | None, Query(ge=1, description="Model version; the champion when left out")]
From = Annotated[
    AwareMoment | None,
    Query(
        alias="from", description=("Start of the window, RFC 3339 with an offset; one week before its end if left out")
    ),
]
To = Annotated[AwareMoment | None, Query(description="End of the window, exclusive; now if left out")]


def read_window(start: datetime | None, end: datetime | None, against: Against = "reference") -> Window:
    """Return the whole hours of a window.

    Raises InvalidRequest if it ends before it begins, or if an earlier window to compare with is in no calendar.
    """
    try:
        if end is None:
            end = datetime.now(UTC) if start is None else max(datetime.now(UTC), start + timedelta(hours=1))
        start = end - WEEK if start is None else start
        window = Window.around(start, end)
        if against != "reference":
            window.before(against)
    except OverflowError:
        window = None
    if window is None or start is None or end is None or start >= end:
        message = "must be before `to`" if window is not None else "must be a time that a calendar has"
        raise InvalidRequest(
            f"`from` {message}: give both as RFC 3339 times, e.g. 2026-11-01T00:00:00Z.",
            faults=[Fault("/query/from", "range", message)],
        )
    return window


def selected_versions(services: Services, named: Version, model: str | None, version: int | None) -> list[Version]:
    """Return the one version that was named, or every version of the model, the newest first."""
    if names_version(model, version):
        return [named]
    return services.catalog.versions_of(named.card.name)


def names_version(model: str | None, version: int | None) -> bool:
    """Return whether a question names one version, by its number or in `name@3` or `name@alias`."""
    return version is not None or (model is not None and "@" in model)


def find_profile_of(connection: Connection, version: Version) -> StoredProfile:
    """Return the profile of a version; raise Conflict while it has none."""
    stored = find_profile(connection, version.id)
    if stored is None:
        raise Conflict(
            f"{version.label} has no profile of its reference yet: one that an earlier release registered gets it "
            "within a minute; if this lasts, the log says why, and MONITOR_SECONDS must not be 0."
        )
    return stored
