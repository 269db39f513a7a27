"""Deciding stored rows again in the background: a job of chunks, each of which is a run of stored decisions."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from api.auth.callers import Caller
from api.files.submit import owe_file_rows, spend_file, store_job
from api.jobs.json_body import read_json
from api.jobs.requests import read_fields, read_options, requested_version
from api.jobs.submissions import new_submission, set_idempotency_key, ticket_response
from api.models.catalog import Version
from api.schemas.models.replays import MAX_VALUES, ReplayBody
from api.services import Services
from shared.broker.names import Lane
from shared.cards.card import Card
from shared.comparison.fit import differences, takes_as_is
from shared.csv.format import CsvFormat
from shared.database.engine import reader
from shared.errors import Conflict, InvalidRequest, RowFaults, Unavailable
from shared.faults import Fault, did_you_mean, pointer
from shared.jobs.chunks import decisions
from shared.jobs.chunks.decisions import Decisions, Scope
from shared.jobs.chunks.transitions import CsvUpload, PackedChunk
from shared.monitoring.settled import settled_id
from shared.tables import JobKind, Replay

CHUNK_ROWS = 5_000
WEEK = timedelta(days=7)


async def submit_replay(services: Services, request: Request, caller: Caller) -> Response:
    """Commit a job that decides the stored rows of a window again; answer 202 with it.

    Raises RowFaults for a body that cannot be meant, NotFound for a version that is not there or is archived, Conflict
    for a window without decisions and for a version that takes other features than the rows have.
    """
    plain, raw = await read_json(request, max_bytes=services.settings.max_body_bytes)
    body = read_fields(ReplayBody, raw)
    version = await _deciding_version(services, body)
    faults: list[Fault] = []
    options = read_options(services, plain, version, faults)
    features = _values(body, version.card, faults)
    if faults:
        raise RowFaults("The replay cannot be made as it is described.", faults=faults)
    start, end = _window(body)
    services.runtime.check_room(Lane.BULK, version)
    await spend_file(services, request, caller)
    runs, deciding = await run_in_threadpool(_plan, services, version, body, start, end, features)
    row_count = sum(run.count for run in runs)
    submission = new_submission(services, request, caller, options, kind=JobKind.REPLAY, lane=Lane.BULK)
    set_idempotency_key(submission, request, caller)
    chosen: dict[str, Any] = {} if body.filter.version is None else {"version": body.filter.version}
    replay = {
        "job_id": submission.id,
        "starts_at": start,
        "ends_at": end,
        "filter": chosen | ({"features": features} if features else {}),
        "versions": [
            {"id": each.id, "version": each.card.version, "fits": takes_as_is(version.card, each.card)}
            for each in deciding
        ],
        "cost_fp": body.cost_fp,
        "cost_fn": body.cost_fn,
    }

    def keep(connection: Connection) -> None:
        connection.execute(insert(Replay).values(replay))

    with services.keys_in_flight.hold(submission):
        await owe_file_rows(services, request, caller, row_count - 1)
        if submission.idempotency_key is not None:
            submission.body_hash = hashlib.sha256(raw).hexdigest()
        upload = CsvUpload(CsvFormat(",", "utf-8", ".", (), None), row_count, 0)
        job = await run_in_threadpool(store_job, services, submission, upload, lambda: _chunks(runs), keep)
    services.runtime.notify_files(version.id)
    return ticket_response(services, request, job)


async def _deciding_version(services: Services, body: ReplayBody) -> Version:
    if body.version is None and "@" not in body.model:
        message = (
            f"say which version decides again: `{body.model[:70]}@3`, `{body.model[:70]}@challenger`, or `version`"
        )
        raise RowFaults("The replay names no version.", faults=[Fault("/model", "missing", message)])
    return await requested_version(services, {"model": body.model, "version": body.version}, None)


def _window(body: ReplayBody) -> tuple[datetime, datetime]:
    end = body.to or datetime.now(UTC)
    try:
        start = body.from_ or end - WEEK
        begins, ends = start.astimezone(UTC), end.astimezone(UTC)
        _ = begins - WEEK, ends + WEEK  # where the ids of a window are looked for, there is some slack
    except OverflowError:
        begins = ends = end
    if begins >= ends:
        fault = Fault("/from", "range", "must be before `to`, and both times that a calendar has")
        raise RowFaults("The window ends before it begins.", faults=[fault])
    return begins, ends


def _values(body: ReplayBody, card: Card, faults: list[Fault]) -> dict[str, list[Any]]:
    """Return the values that each feature of the filter may have; add a fault for each name that is no feature."""
    names = {feature.name for feature in card.row_features}
    allowed: dict[str, list[Any]] = {}
    for name, value in body.filter.features.items():
        values = value if isinstance(value, list) else [value]
        where = pointer("filter", "features", name)
        if name not in names:
            hint = did_you_mean(name, names)
            faults.append(Fault(where, "unknown_feature", f"is not a feature of {card.name}@{card.version}: {hint}"))
        elif not 1 <= len(values) <= MAX_VALUES:
            faults.append(Fault(where, "range", f"must have from 1 to {MAX_VALUES} values"))
        allowed[name] = values
    return allowed


def _plan(
    services: Services,
    version: Version,
    body: ReplayBody,
    start: datetime,
    end: datetime,
    features: Mapping[str, Sequence[Any]],
) -> tuple[list[Decisions], list[Version]]:
    """Return the decisions of the window in runs, and the versions that made them; for a thread."""
    name = version.card.name
    candidates = services.catalog.versions_of(name)
    if body.filter.version is not None:
        candidates = [each for each in candidates if each.card.version == body.filter.version]
        if not candidates:
            fault = Fault("/filter/version", "unknown", f"is no version of {name}: GET /models/{name} lists them")
            raise RowFaults("The filter names a version that is not there.", faults=[fault])
    last = settled_id(services.bulk_engine)
    if last is None:
        raise Unavailable("Rows are being stored just now: send the request again.", retry_after=2)
    scope = Scope([each.id for each in candidates], start, end, features, last)
    with reader(services.bulk_engine).connect() as connection:
        counts = decisions.count_by_version(connection, scope)
        deciding = [each for each in candidates if each.id in counts]
        _check_counts(services, version, deciding, sum(counts.values()), start, end)
        return decisions.plan(connection, scope, rows=CHUNK_ROWS), deciding


def _check_counts(
    services: Services, version: Version, deciding: Sequence[Version], count: int, start: datetime, end: datetime
) -> None:
    if not count:
        raise Conflict(
            f"No decision of {version.card.name} is stored from {start:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S} "
            "UTC that the filter accepts: choose another window by `from` and `to`, or another filter."
        )
    most = services.settings.max_csv_rows
    if count > most:
        raise InvalidRequest(
            f"The window has {count:,} decisions, and a replay at most {most:,} (MAX_CSV_ROWS): choose a shorter one.",
            faults=[Fault("/from", "range", f"must leave at most {most} decisions in the window")],
        )
    for other in deciding:
        if reasons := differences(version.card, other.card):
            raise Conflict(
                f"{version.label} cannot decide rows of {other.label}: {'; '.join(reasons)}. Replay a version that "
                "takes the same, or leave these rows out by `filter.version` or another window."
            )


def _chunks(runs: Sequence[Decisions]) -> Iterator[PackedChunk]:
    from shared.csv.packing import pack

    first = 0
    for run in runs:
        yield PackedChunk(first, run.count, pack(run.dump()))
        first += run.count
