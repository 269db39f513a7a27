"""The progress of challengers, for /health, the page of the alias and the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, and_, select

from shared.reasons import Reason
from shared.tables import ModelAlias, Shadow

CHALLENGER = "challenger"
BEHIND_SECONDS = 30.0  # a decision that waits longer: from then on a sample of them is scored

State = Literal["scoring", "behind", "failing", "stopped"]


@dataclass(frozen=True, slots=True)
class ShadowState:
    """How far a challenger has come since its alias was moved to it."""

    since: datetime
    moved_at: datetime
    lag_seconds: float
    scored: int
    refused: int
    skipped: int
    failures: int  # in a row
    reason: str | None  # what happened the last time
    stopped_at: datetime | None

    @property
    def state(self) -> State:
        """What it does now."""
        if self.stopped_at is not None:
            return "stopped"
        if self.failures:
            return "failing"
        return "behind" if self.lag_seconds > BEHIND_SECONDS else "scoring"

    def sentence(self, label: str, *, in_full: bool = True) -> Reason | None:
        """Return what an operator has to know of it, and what to do; None where all is well.

        The reason may hold paths: it is left out unless `in_full`.
        """
        if self.stopped_at is None:
            return None
        since = f"{self.stopped_at:%Y-%m-%d %H:%M:%S}"
        detail = f"{self.reason}" if in_full else None
        return Reason("challenger_stopped", model=label, since=since, detail=detail)


def list_shadows(connection: Connection) -> dict[int, ShadowState]:
    """Return the state of each version that is a challenger now and has begun, by its id."""
    return {row[0]: _state_of(row) for row in connection.execute(_STATES)}


def find_shadow(connection: Connection, name: str) -> ShadowState | None:
    """Return the state of a model's challenger; None where it has not begun."""
    row = connection.execute(_STATES.where(ModelAlias.name == name)).one_or_none()
    return None if row is None else _state_of(row)


def _state_of(row: Sequence[Any]) -> ShadowState:
    return ShadowState(*row[1:])


# Only states since the alias was moved the last time.
_STATES = select(
    Shadow.model_version_id,
    Shadow.alias_at,
    Shadow.moved_at,
    Shadow.lag_seconds,
    Shadow.scored_count,
    Shadow.refused_count,
    Shadow.skipped_count,
    Shadow.failure_count,
    Shadow.reason,
    Shadow.stopped_at,
).join(
    ModelAlias,
    and_(
        ModelAlias.model_version_id == Shadow.model_version_id,
        ModelAlias.alias == CHALLENGER,
        ModelAlias.updated_at == Shadow.alias_at,
    ),
)
