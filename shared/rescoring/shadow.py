"""Challengers score in the shadow: what other versions decided is scored again by each, after the answer.

What was stored since the last round is read from the tables, so that whoever answers does nothing for it. Scores, and
how far they have come, are one transaction: a process that is killed has written nothing, and of two that scored the
same rows one writes.
"""

import logging
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Engine, func, or_, select, update
from sqlalchemy.orm import Session

from shared.cards.card import Card
from shared.comparison.fit import differences, takes_as_is
from shared.config.settings import Settings
from shared.database.clock import clock
from shared.database.engine import reader
from shared.errors import ModelError
from shared.monitoring.settled import settled_id
from shared.packages.fetching import ensure_local
from shared.rescoring.shadow_process import (
    NOT_LOADED,
    Result,
    ShadowFailed,
    ShadowProcess,
    columns_of,
)
from shared.rescoring.shadow_rows import (
    Batch,
    Challenger,
    ShadowRow,
    begin,
    is_at,
    list_challengers,
    read_batch,
    store,
)
from shared.tables import ModelVersion, Shadow

IDLE_STRIDE = 1_000  # so many without a row of the model, and the mark follows
ROUND_SECONDS = 1.0  # at most, of one challenger
PIECE = 200  # rows that are scored at once
BURST_SECONDS = 2.0  # what was not scored in so long is not made up for
LEASE_SECONDS = 20.0  # after which another process goes on with a challenger
FAILURES = 3  # in a row, and a challenger is left alone
CRASHES = 20  # in all since its alias was moved

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Deciding:
    """The other versions of a model, as a challenger takes their rows."""

    count: int  # of versions: another count, and it is read anew
    fits: dict[int, bool] = field(default_factory=dict)  # by id: whether their rows fit as they are stored


class Shadowing:
    """Has challengers score, round by round; one for each process that may."""

    def __init__(self, engine: Engine, settings: Settings, *, holder: str) -> None:
        self._engine = engine
        self._settings = settings
        self._holder = holder
        self._processes: dict[int, ShadowProcess] = {}  # by version id
        self._leased_until: dict[int, float] = {}  # by the monotonic clock
        self._retry_at: dict[int, float] = {}
        self._alone: dict[int, int] = {}  # how many rows are scored one by one, after a failure of all at once
        self._room: dict[int, tuple[float, float]] = {}  # rows that may be scored, at a time of the monotonic clock
        self._deciding: dict[int, _Deciding] = {}
        self._is_closed = False

    def run(self) -> int:
        """Have every challenger score what was decided since; return the number of rows.

        Raises SQLAlchemyError without a database: then nothing is lost, and the next round does it.
        """
        with reader(self._engine).connect() as connection:
            challengers = list_challengers(connection)
        active = [each for each in challengers if not each.is_stopped]
        self._end_processes(but={each.version_id for each in active})
        if not active:
            return 0
        last = settled_id(self._engine)
        if last is None:  # somebody takes long to store: the next round sees to it
            return 0
        done = 0
        random.shuffle(active)  # a slow one does not always come before the others
        for challenger in active:
            if challenger.mark is None:
                with self._engine.begin() as connection:
                    begin(connection, challenger, last)
        for challenger in active:
            if challenger.mark is not None:
                done += self._advance(challenger, last)
        return done

    def close(self) -> None:
        """End the processes of challengers, also in the middle of a call."""
        self._is_closed = True
        self._end_processes(but=set())

    # ── one challenger ───────────────────────────────────────────────────────────────────────────────────────────

    def _advance(self, challenger: Challenger, last: int) -> int:
        """Have one challenger score, for a second or so; return the number of rows."""
        version, done = challenger.version_id, 0
        until = time.monotonic() + ROUND_SECONDS
        while (
            challenger.mark is not None
            and challenger.mark < last
            and not self._is_closed
            and max(time.monotonic(), self._retry_at.get(version, 0.0)) < until
            and self._hold(challenger, LEASE_SECONDS)
        ):
            batch = self._step(challenger, last)
            if batch is None:
                break
            done += len(batch.rows)
            challenger = replace(challenger, mark=batch.end, failures=0 if batch.rows else challenger.failures)
            if batch.rows and not self._alone.get(version):
                break
        return done

    def _step(self, challenger: Challenger, last: int) -> Batch | None:
        """Score the next rows, and return them; None where there are none, or nothing was stored of them."""
        version, mark = challenger.version_id, challenger.mark
        room = self._room_of(version)
        if room < 1 or mark is None:
            return None
        alone = self._alone.get(version, 0)
        try:
            process = self._processes.get(version)
            if process is not None and not process.is_ready():
                return None
        except ShadowFailed as failure:
            self._note_failure(challenger, None, failure)
            return None
        with reader(self._engine).connect() as connection:
            fits = self._decided_by(connection, challenger)
            share = self._settings.shadow_file_share
            batch = read_batch(connection, mark, last, list(fits), most=room, is_alone=alone > 0, file_share=share)
        if not batch.rows and batch.end < mark + IDLE_STRIDE:
            return None  # rows of other models, say: the mark need not follow each
        try:
            if process is None and batch.rows:
                process = self._start(challenger)
                if not process.is_ready():
                    return None  # the next rounds ask again: others need not wait for it
            results = [] if process is None else self._score(challenger, process, batch.rows, fits)
        except ShadowFailed as failure:
            self._note_failure(challenger, batch, failure)
            return None
        with self._engine.begin() as connection:
            if not store(connection, challenger, batch, results):
                return None
        self._alone[version] = max(0, alone - len(batch.rows))
        self._room[version] = (self._room[version][0] - len(batch.rows), self._room[version][1])
        return batch

    def _room_of(self, version: int) -> int:
        """Return how many rows a challenger may score now."""
        rate, now = self._settings.shadow_rows_per_second, time.monotonic()
        rows, at = self._room.get(version, (0.0, now - 1.0))
        rows = min(rows + rate * (now - at), rate * BURST_SECONDS)
        self._room[version] = (rows, now)
        return int(rows)

    def _hold(self, challenger: Challenger, seconds: float) -> bool:
        """Take or renew the lease of a challenger, so that one process loads it; return whether it is ours."""
        now = time.monotonic()
        if challenger.holder == self._holder and now + seconds / 2 < self._leased_until.get(challenger.version_id, 0.0):
            return True
        with self._engine.begin() as connection:
            is_free = or_(
                Shadow.leased_by.is_(None),
                Shadow.leased_by == self._holder,
                Shadow.lease_expires_at < clock(connection),
            )
            is_ours = connection.execute(
                update(Shadow)
                .where(Shadow.model_version_id == challenger.version_id, is_free)
                .values(leased_by=self._holder, lease_expires_at=clock(connection, seconds))
            ).rowcount
        if is_ours:
            self._leased_until[challenger.version_id] = now + seconds
        return bool(is_ours)

    def _decided_by(self, connection: Connection, challenger: Challenger) -> dict[int, bool]:
        """Return the versions whose rows it takes, and whether these fit as they are stored."""
        deciding = self._deciding.get(challenger.version_id)
        same_name = ModelVersion.name == challenger.name
        count = connection.scalar(select(func.count()).select_from(ModelVersion).where(same_name)) or 0
        if deciding is None or deciding.count != count:
            query = select(ModelVersion.id, ModelVersion.card).where(same_name)
            cards = {version: card for version, stored in connection.execute(query) if (card := _card(stored))}
            own = cards.pop(challenger.version_id, None)
            deciding = self._deciding[challenger.version_id] = _Deciding(count)
            if own is not None:
                deciding.fits = {
                    version: takes_as_is(own, card) for version, card in cards.items() if not differences(own, card)
                }
        return deciding.fits

    def _score(
        self, challenger: Challenger, process: ShadowProcess, rows: Sequence[ShadowRow], fits: Mapping[int, bool]
    ) -> list[Result]:
        results: list[Result] = []
        for first in range(0, len(rows), PIECE):
            piece = rows[first : first + PIECE]
            self._hold(challenger, LEASE_SECONDS)
            results += process.score(
                [row.features for row in piece],
                [place for place, row in enumerate(piece) if not fits[row.decided_by]],
                self._settings.shadow_timeout_seconds,
                is_exact=challenger.is_suspended,
            )
        return results

    def _start(self, challenger: Challenger) -> ShadowProcess:
        """Start the process of a challenger, which then loads its model; raise ShadowFailed where it cannot."""
        with Session(reader(self._engine)) as session:
            version = session.get_one(ModelVersion, challenger.version_id)
        directory: Path = self._settings.models
        try:
            ensure_local(version, directory, self._settings.models_uri)
        except ModelError as error:
            raise ShadowFailed(NOT_LOADED, f"It cannot be loaded: {error.detail}") from error
        log.info("the challenger %s is being loaded in a process of its own", challenger.label)
        process = ShadowProcess(
            columns_of(version),
            directory,
            memory_mb=self._settings.shadow_memory_mb,
            niceness=self._settings.shadow_niceness,
        )
        self._processes[challenger.version_id] = process
        return process

    def _note_failure(self, challenger: Challenger, batch: Batch | None, failure: ShadowFailed) -> None:
        """Write a failure down, of rows or of loading; a row that failed alone is not tried again."""
        version = challenger.version_id
        self._processes.pop(version, None)  # it has ended
        if self._is_closed:
            return  # we have ended it
        log.warning("the challenger %s failed: %s", challenger.label, failure.reason)
        failures, crashes = challenger.failures + 1, challenger.crashes + 1
        is_last = failures >= FAILURES or crashes >= CRASHES
        with self._engine.begin() as connection:
            values: dict[str, Any] = {
                "failure_count": failures,
                "crash_count": crashes,
                "reason": failure.reason[:1_000],
                "stopped_at": clock(connection) if is_last else None,
            }
            count = 0 if batch is None or failure.code == NOT_LOADED else len(batch.rows)
            if batch is not None and count == 1 and self._alone.get(version):
                store(connection, challenger, batch, [failure.code], values=values)
                self._alone[version] -= 1
            else:
                connection.execute(update(Shadow).where(is_at(challenger)).values(values))
                self._alone[version] = count or self._alone.get(version, 0)
        self._retry_at[version] = time.monotonic() + 2.0**failures
        if is_last:
            log.error("the challenger %s is left alone: it failed %d times in a row", challenger.label, failures)

    def _end_processes(self, but: set[int]) -> None:
        for version in [version for version in self._processes if version not in but]:
            self._processes.pop(version).close()


def _card(stored: Mapping[str, Any]) -> Card | None:
    """Return a stored card; None where it does not hold, and its version is not served."""
    try:
        return Card.model_validate(stored)
    except ValidationError:
        return None
