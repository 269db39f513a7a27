"""Moving aliases: the target, the reason, the person, and the target before.

Every move is an entry of `alias_events` and of the audit log, in the transaction that makes it.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from shared.comparison.gate import Gate
from shared.errors import CardError, Conflict, PreconditionFailed
from shared.observability.audit import ALIAS_REMOVED, MODEL_PROMOTED, audit, operator
from shared.registry.versions import CHAMPION, NAME, NAME_RULE, list_versions, resolve
from shared.tables import AliasEvent, ModelAlias, ModelArchive, ModelVersion

MAX_REASON = 1_000  # characters


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes something, and why."""

    reason: str | None = None
    actor: str | None = None  # key:ID, or anyone; None: who runs this process
    request_id: str | None = None
    is_forced: bool = False  # in spite of the gate

    @property
    def by(self) -> str:
        """Who it is, as the tables have it."""
        return (self.actor or operator())[:200]


@dataclass(frozen=True, slots=True)
class AliasState:
    """What an alias means, and since when."""

    name: str
    alias: str
    version: int
    updated_at: datetime
    previous: int | None = None  # what a roll back leads to, where that was asked for and can serve

    @property
    def etag(self) -> str:
        """The entity tag of this state: another one after every move."""
        return f'"{self.version}-{self.updated_at.timestamp() * 1e6:.0f}"'


def find_alias(session: Session, name: str, alias: str) -> AliasState:
    """Return the state of an alias with the version before; raise NotFound with the names that exist."""
    state = _existing(session, name, alias, lock=False)[1]
    before = _before(session, state)
    kept = {row.version: row.id for row in list_versions(session, name)} if before is not None else {}
    can_serve = before in kept and session.get(ModelArchive, kept[before]) is None
    return replace(state, previous=before if can_serve else None)


def promote(
    session: Session,
    name: str,
    version: int,
    alias: str = CHAMPION,
    change: Change = Change(),
    *,
    expected: str | None = None,
    gate: Gate | None = None,
) -> ModelVersion:
    """Let the alias mean this version from now on; jobs that are already accepted keep the version they have.

    `expected` is the entity tag that the alias must have, `*` for any, or empty for an alias that is not there yet.
    A version that replaces the champion has to pass the gate, unless the change is forced, with a reason. Raises
    NotFound, Conflict for an archived version and for one that the gate refuses, PreconditionFailed when somebody was
    first.
    """
    if not NAME.fullmatch(alias):
        raise Conflict(f"{alias[:70]!r} cannot be an alias: {NAME_RULE}.")
    chosen = resolve(session, name, version)
    if session.get(ModelArchive, chosen.id) is not None:
        raise Conflict(f"{name}@{version} is archived: restore it before you point an alias to it.")
    current = _current(session, name, alias, lock=True)
    _check_expected(name, alias, None if current is None else current[1], expected)
    if current is not None and current[1].version == version:
        return chosen  # it does already
    overruled = None
    if gate is not None and alias == CHAMPION and current is not None:
        champion = session.get_one(ModelVersion, current[0].model_version_id)
        overruled = _pass_gate(session, gate, champion, chosen, change)
    now = datetime.now(UTC)
    if current is None:
        session.add(ModelAlias(name=name, alias=alias, model_version_id=chosen.id, updated_at=now))
    else:
        current[0].model_version_id = chosen.id
        current[0].updated_at = now
    session.flush()
    before = None if current is None else current[1].version
    _write_down(session, name, alias, before, version, now, change, overruled=overruled)
    return chosen


def _pass_gate(
    session: Session, gate: Gate, champion: ModelVersion, version: ModelVersion, change: Change
) -> str | None:
    """Return the refusal that a forced change overrules, None without one; raise Conflict for any other refusal."""
    if change.is_forced and not (change.reason or "").strip():
        raise Conflict("A forced promotion needs a reason: the audit log keeps it.")
    refusal = gate.refusal(session.connection(), champion, version)
    if refusal is not None and not change.is_forced:
        raise Conflict(f"{refusal}; or force the promotion, with a reason, which is audited.")
    return refusal


def roll_back(
    session: Session,
    name: str,
    alias: str = CHAMPION,
    change: Change = Change(),
    *,
    expected: str | None = None,
) -> ModelVersion:
    """Point an alias back to its version before the last move; raise Conflict if there is none, or it is deleted.

    A second roll back is not the first one undone: it goes one move further back.
    """
    _, state = _existing(session, name, alias, lock=True)
    _check_expected(name, alias, state, expected)
    before = _before(session, state)
    if before is None:
        raise Conflict(
            f"{name}@{alias} points to version {state.version}, as it did first: there is nothing to roll back to."
        )
    versions = [row.version for row in list_versions(session, name)]
    if before not in versions:
        others = ", ".join(str(number) for number in versions if number != state.version) or "none"
        raise Conflict(
            f"{name}@{alias} was version {before} before, which is deleted: promote another one by its number "
            f"({others})."
        )
    return promote(session, name, before, alias, change)


def remove_alias(
    session: Session,
    name: str,
    alias: str,
    change: Change = Change(),
    *,
    expected: str | None = None,
) -> None:
    """Take an alias away; raise Conflict for the champion, NotFound, PreconditionFailed when somebody was first."""
    if alias == CHAMPION:
        raise Conflict(
            f"The {CHAMPION} of a model cannot be deleted, only moved: it answers requests that name no version."
        )
    row, state = _existing(session, name, alias, lock=True)
    _check_expected(name, alias, state, expected)
    session.delete(row)
    session.flush()
    _write_down(session, name, alias, state.version, None, datetime.now(UTC), change)


def list_events(
    session: Session,
    name: str,
    *,
    version: int | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    before: int | None = None,
    limit: int = 100,
) -> tuple[list[dict[str, Any]], int | None]:
    """Return the moves of a model's aliases, newest first, and the number of the last one if there are more.

    `before` is that number: only older ones are returned. With a `version`, only those to it or away from it; of a
    window, those from `start` (inclusive) to `end` (exclusive).
    """
    query = select(AliasEvent).where(AliasEvent.name == name).order_by(AliasEvent.id.desc()).limit(limit + 1)
    if version is not None:
        query = query.where((AliasEvent.from_version == version) | (AliasEvent.to_version == version))
    if start is not None:
        query = query.where(AliasEvent.created_at >= start)
    if end is not None:
        query = query.where(AliasEvent.created_at < end)
    if before is not None:
        query = query.where(AliasEvent.id < before)
    events = list(session.scalars(query))
    return [_event_body(event) for event in events[:limit]], events[limit - 1].id if len(events) > limit else None


def _event_body(event: AliasEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "created_at": event.created_at,
        "alias": event.alias,
        "from": event.from_version,
        "to": event.to_version,
        "reason": event.reason,
        "actor": event.actor,
        "request_id": event.request_id,
    }


def _before(session: Session, state: AliasState) -> int | None:
    """Return the version before the last move that was no roll back of another one: moves back are taken off."""
    moves = session.execute(
        select(AliasEvent.from_version, AliasEvent.to_version)
        .where(AliasEvent.name == state.name, AliasEvent.alias == state.alias)
        .order_by(AliasEvent.id)
    )
    trail: list[int] = []
    for before, after in moves:
        if not trail and before is not None:
            trail.append(before)
        if after is None:
            continue
        if len(trail) > 1 and trail[-2] == after:
            trail.pop()  # back to where it came from
        else:
            trail.append(after)
    return trail[-2] if len(trail) > 1 else None


def _existing(session: Session, name: str, alias: str, *, lock: bool) -> tuple[ModelAlias, AliasState]:
    """Return the row of an alias and its state; raise NotFound with the names that exist."""
    current = _current(session, name, alias, lock=lock)
    if current is None:
        resolve(session, name, alias=alias)  # which says what there is
        raise AssertionError("an alias that means a version has a row")
    return current


def _current(session: Session, name: str, alias: str, *, lock: bool) -> tuple[ModelAlias, AliasState] | None:
    """Return the row of an alias and its state; who is to move it locks it until the transaction ends."""
    query = select(ModelAlias).where(ModelAlias.name == name, ModelAlias.alias == alias)
    row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        return None
    version = session.get_one(ModelVersion, row.model_version_id).version
    return row, AliasState(name, alias, version, row.updated_at)


def _check_expected(name: str, alias: str, state: AliasState | None, expected: str | None) -> None:
    if expected is None or (state is not None and expected in ("*", state.etag)) or (state is None and expected == ""):
        return
    now = f"means version {state.version} since {state.updated_at:%Y-%m-%d %H:%M:%S}" if state else "is not there"
    raise PreconditionFailed(f"{name}@{alias} {now}, which is not what you saw: read it again, and decide again.")


def _write_down(
    session: Session,
    name: str,
    alias: str,
    before: int | None,
    after: int | None,
    now: datetime,
    change: Change,
    *,
    overruled: str | None = None,
) -> None:
    if change.reason is not None and len(change.reason) > MAX_REASON:
        raise CardError(f"A reason has {MAX_REASON} characters at most.")
    event = {"created_at": now, "name": name, "alias": alias, "from_version": before, "to_version": after}
    session.execute(
        insert(AliasEvent).values(**event, reason=change.reason, actor=change.by, request_id=change.request_id)
    )
    audit(
        session.connection(),
        ALIAS_REMOVED if after is None else MODEL_PROMOTED,
        f"{name}@{before if after is None else after}",
        actor=change.by,
        details={"alias": alias, "before": before, "reason": change.reason}
        | ({} if overruled is None else {"forced": True, "overruled": overruled}),
        request_id=change.request_id,
    )
