"""The challenger of a model beside its champion: the report of a window."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from api.models.catalog import Version
from api.monitoring.windows import WEEK
from api.services import Services
from shared.comparison.fit import differences
from shared.comparison.shadow_state import CHALLENGER, ShadowState, list_shadows
from shared.database.engine import reader
from shared.errors import Conflict, InvalidRequest
from shared.faults import Fault


@dataclass(frozen=True, slots=True)
class Question:
    """Two versions of one model, a window, and the costs of a false positive and of a false negative."""

    champion: Version
    challenger: Version
    start: datetime
    end: datetime
    costs: tuple[float, float]


def check(question: Question) -> None:
    """Raise Conflict where the challenger cannot be compared with the champion."""
    champion, challenger = question.champion, question.challenger
    if challenger.id == champion.id:
        raise Conflict(
            f"{challenger.label} is the champion itself: nothing is compared since it was promoted. What it scored "
            "before is still there: say by `decided_by` which version decided then."
        )
    if reasons := differences(challenger.card, champion.card):
        raise Conflict(
            f"{challenger.label} cannot score rows of {champion.label}: {'; '.join(reasons)}. Point the alias "
            f"`{CHALLENGER}` to a version that takes the same features."
        )


def read_moments(start: datetime | None, end: datetime | None) -> tuple[datetime, datetime]:
    """Return begin and end of a window, to the microsecond; raise InvalidRequest if it ends before it begins."""
    ends = end or datetime.now(UTC) + timedelta(seconds=1)
    try:
        begins = start or ends - WEEK
        begins, ends = begins.astimezone(UTC), ends.astimezone(UTC)
    except OverflowError:
        begins = ends
    if begins >= ends:
        message = "must be before `to`, and both times that a calendar has"
        raise InvalidRequest(f"`from` {message}.", faults=[Fault("/query/from", "range", message)])
    return begins, ends


def report_on(services: Services, question: Question) -> dict[str, Any]:
    """Return the report on what the champion decided and the challenger scored; for a thread.

    Raises Conflict, with what to do, where there is no such row.
    """
    from shared.comparison.shadow_report import Side, collect_shadow, count_by_version  # numpy comes with it

    champion, challenger = question.champion, question.challenger
    start, end = question.start, question.end
    with reader(services.bulk_engine).connect() as connection:
        state = list_shadows(connection).get(challenger.id)
        counts = count_by_version(connection, challenger.id, start, end)
        if not counts.get(champion.id):
            others = sorted(
                version.card.version
                for version in services.catalog.versions_of(champion.card.name)
                if version.id in counts
            )
            raise Conflict(_nothing(services, question, others, state))
        shadowed = collect_shadow(
            connection,
            Side(champion.id, champion.card),
            Side(challenger.id, challenger.card),
            start,
            end,
            costs=question.costs,
        )
    report = shadowed.collected.report(challenger.card)
    notes = list(report.pop("notes"))
    if shadowed.left_out:
        notes.append(f"These are the newest rows: {shadowed.left_out} older ones of the window are left out.")
    if not shadowed.has_segments:
        notes.append(f"{challenger.label} has no profile of its reference yet, and so there are no segments.")
    if state is not None:
        notes += _notes_of(state, challenger)
    return {
        "model": champion.card.name,
        "model_version": challenger.card.version,
        "champion": champion.card.version,
        "shadow": shadow_body(state),
        **report,
        "notes": notes,
    }


def _notes_of(state: ShadowState, challenger: Version) -> list[str]:
    notes = []
    if state.skipped:
        notes.append(
            f"{challenger.label} could not keep up: {state.skipped} rows since {state.since:%Y-%m-%d %H:%M:%S} are "
            "left out, drawn by chance (SHADOW_ROWS_PER_SECOND)."
        )
    if state.state == "behind":
        notes.append(f"{challenger.label} is {state.lag_seconds:.0f} s behind.")
    sentence = state.sentence(challenger.label)
    return notes if sentence is None else [*notes, sentence]


def _nothing(services: Services, question: Question, others: list[int], state: ShadowState | None) -> str:
    """Return why there is no pair, and what to do."""
    champion, challenger = question.champion, question.challenger
    window = f"from {question.start:%Y-%m-%d %H:%M:%S} to {question.end:%Y-%m-%d %H:%M:%S} UTC"
    message = f"No row that {champion.label} decided {window} was scored by {challenger.label}."
    if others:
        return f"{message} It scored rows of other versions: ask with decided_by={others[-1]}."
    stopped = None if state is None else state.sentence(challenger.label)
    if stopped is not None:
        return f"{message} {stopped}"
    if not services.settings.shadow_rows_per_second:
        return f"{message} Challengers score nothing while SHADOW_ROWS_PER_SECOND is 0."
    files = "" if services.settings.shadow_file_share else " (no files)"
    since = "" if state is None else f", which was {state.since:%Y-%m-%d %H:%M:%S} UTC"
    return (
        f"{message} Rows of callers that wait{files} are scored from when the alias `{CHALLENGER}` is set{since}, "
        "a second or two after their answer. POST /replays decides earlier rows, and those of files."
    )


def shadow_body(state: ShadowState | None) -> dict[str, Any] | None:
    """Return the progress of a challenger as JSON; None before it has begun."""
    if state is None:
        return None
    return {
        "state": state.state,
        "since": state.since,
        "scored": state.scored,
        "refused": state.refused,
        "skipped": state.skipped,
        "lag_seconds": state.lag_seconds,
        "failures": state.failures,
        "reason": state.reason,
        "stopped_at": state.stopped_at,
    }
