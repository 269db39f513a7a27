"""Counting scored rows into the bins of their version, beside the requests and exactly once.

Each version has a watermark: the outputs up to its id are counted. A round reads the next outputs without any lock, and
then moves the watermark and adds to the counters and to the packed scores in one transaction, which undoes itself when
somebody else has moved the watermark meanwhile. Versions that are new, or whose reference has changed, begin at the
first output there is. A stride that has fewer outputs than were read is read again: rows were erased meanwhile.
"""

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import ColumnElement, Connection, Engine, case, delete, func, select, update
from sqlalchemy.orm import Session

from shared.cards.card import Card
from shared.database.engine import reader
from shared.errors import GuichetError
from shared.faults import Fault
from shared.monitoring.drift.counters import add_counts, insert_into
from shared.monitoring.drift.profiles import Profile, make_profile, score_values
from shared.monitoring.scores import add_scores
from shared.monitoring.settled import settled_id
from shared.packages.fetching import ensure_local
from shared.packages.package import REFERENCE_FILE
from shared.packages.sample import canonical_rows, read_rows
from shared.scoring.outputs import Output
from shared.tables import (
    FeatureCount,
    FeatureProfile,
    ModelAlias,
    ModelArchive,
    ModelInput,
    ModelOutput,
    ModelVersion,
    ReferenceRow,
    ReferenceSet,
    ScorePart,
)

log = logging.getLogger(__name__)

STRIDE = 1_000  # ids that are looked at in one round
SAMPLE = "sample"  # the source of a profile that was made of the package's own rows
MAX_REFERENCE_ROWS = 10_000  # of loaded reference data, evenly spread
RETRY_SECONDS = 600.0  # until a reference that could not be read is tried again

Rows = list[dict[str, Any]]
_Scored = tuple[int, float, float | None, float | None]  # input id, prediction, probability, threshold
# Scores reference rows (n dicts) on a version; None where the version is not loaded in this process.
ScoreReference = Callable[[int, Rows], Sequence[Output | Fault] | None]


@dataclass(frozen=True, slots=True)
class _Position:
    """Versions whose outputs are counted up to the same id."""

    counted_through: int
    versions: dict[int, datetime]  # with when their profiles were made
    until: int  # where the next watermark stands: from there on they go together


class Counting:
    """Makes the profiles of versions and counts their scored rows; one for each counting process."""

    def __init__(self, engine: Engine, models_dir: Path, store: str | None, score: ScoreReference) -> None:
        self._engine = engine
        self._models_dir = models_dir
        self._store = store
        self._score = score
        self._retry_at: dict[int, float] = {}  # model version id -> when its reference may be tried again
        self._profiles: dict[int, tuple[datetime, Profile, Card]] = {}

    def run(self, *, seconds: float, pause: float = 0.0, is_stopping: Callable[[], bool] = lambda: False) -> int:
        """Count scored rows, for so many seconds at most; return their number.

        Rests for `pause` seconds after each round: requests come first. Raises SQLAlchemyError when the database
        cannot be asked; nothing is then counted twice or left out.
        """
        deadline = time.monotonic() + seconds
        self._make_profiles()
        last = settled_id(self._engine)
        counted = 0
        while last is not None and not is_stopping():
            piece = self.count_next(last)
            if piece is None or time.monotonic() > deadline:
                break
            counted += piece
            time.sleep(pause)
        return counted

    def count_next(self, last: int) -> int | None:
        """Count one stride of outputs, none beyond `last`; return the number of rows, None when nothing is left."""
        position = self._find_position(last)
        if position is None:
            return None
        end = min(position.counted_through + STRIDE, position.until)
        periods, scored = self._count(position, end)
        with self._engine.begin() as connection:
            moved = connection.execute(
                update(FeatureProfile)
                .where(
                    FeatureProfile.model_version_id.in_(position.versions),
                    FeatureProfile.counted_through == position.counted_through,
                    FeatureProfile.packed_through == position.counted_through,
                    FeatureProfile.made_at <= max(position.versions.values()),
                )
                .values(counted_through=end, packed_through=end)
            )
            rows_read = sum(rows for rows, _ in periods.values())
            if moved.rowcount != len(position.versions) or _count_outputs(connection, position, end) != rows_read:
                connection.rollback()  # somebody else has counted or erased them, or a profile is new
                return 0
            for (version, start), (rows, counts) in sorted(periods.items()):
                add_counts(connection, version, start, rows, counts)
            for (version, start), packed in sorted(scored.items()):
                is_regression = self._profiles[version][2].task == "regression"
                add_scores(connection, version, start, packed, is_regression=is_regression)
        return rows_read

    def _find_position(self, last: int) -> _Position | None:
        with reader(self._engine).connect() as connection:
            positions = connection.execute(
                select(FeatureProfile.counted_through, FeatureProfile.model_version_id, FeatureProfile.made_at)
                .where(FeatureProfile.counted_through < last)
                .order_by(FeatureProfile.counted_through, FeatureProfile.model_version_id)
            ).all()
        if not positions:
            return None
        position = positions[0][0]
        return _Position(
            position,
            {version: made_at for place, version, made_at in positions if place == position},
            min([last, *(place for place, *_ in positions if place > position)]),
        )

    def _count(
        self, position: _Position, end: int
    ) -> tuple[dict[tuple[int, datetime], tuple[int, list[int]]], dict[tuple[int, datetime], list[_Scored]]]:
        """Return, by version and hour of the outputs of a stride, rows and counters, and the scores themselves."""
        query = (
            select(
                ModelOutput.model_version_id,
                ModelOutput.created_at,
                ModelOutput.prediction,
                ModelOutput.label,
                ModelOutput.probability,
                ModelOutput.threshold,
                ModelInput.id,
                ModelInput.features,
            )
            .join(ModelInput, ModelInput.id == ModelOutput.input_id)
            .where(*_of_stride(position, end))
        )
        grouped: dict[tuple[int, datetime], tuple[Rows, Rows]] = defaultdict(lambda: ([], []))
        scored: dict[tuple[int, datetime], list[_Scored]] = defaultdict(list)
        with reader(self._engine).connect() as connection:
            profiles = {
                version: self._profile_of(connection, version, made_at)
                for version, made_at in position.versions.items()
            }
            for version, at, prediction, label, probability, threshold, input_id, features in connection.execute(query):
                _, card = profiles[version]
                hour = at.replace(minute=0, second=0, microsecond=0)
                scored[version, hour].append((input_id, prediction, probability, threshold))
                rows, scores = grouped[version, hour]
                rows.append(features)
                scores.append(score_values(card, prediction=prediction, label=label, probability=probability))
        counted = {
            (version, hour): (len(rows), profiles[version][0].count(rows, scores))
            for (version, hour), (rows, scores) in grouped.items()
        }
        return counted, scored

    def _profile_of(self, connection: Connection, version: int, made_at: datetime) -> tuple[Profile, Card]:
        if version not in self._profiles or self._profiles[version][0] != made_at:
            made_at, stored, card = connection.execute(
                select(FeatureProfile.made_at, FeatureProfile.profile, ModelVersion.card)
                .join(ModelVersion, ModelVersion.id == FeatureProfile.model_version_id)
                .where(FeatureProfile.model_version_id == version)
            ).one()
            self._profiles[version] = (made_at, Profile.load(stored), Card.model_validate(card))
        _, profile, card = self._profiles[version]
        return profile, card

    # ── profiles ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _make_profiles(self) -> None:
        """Make the profile of each version that has none, or whose reference data are others now.

        Also where an older release has counted, which packs no scores: its rows are counted anew.
        """
        profile, data = FeatureProfile, ReferenceSet
        deleted = select(ModelArchive.model_version_id).where(ModelArchive.deleted_at.is_not(None))  # with their files
        is_whole = profile.packed_through == profile.counted_through
        source = case((is_whole, profile.source)).label("source")
        query = (
            select(ModelVersion, source, data.id, data.sha256, data.row_count)
            .outerjoin(profile, profile.model_version_id == ModelVersion.id)
            .outerjoin(data, data.model_name == ModelVersion.name)
            .where(source.is_(None) | (source != func.coalesce(data.sha256, source)))
            .where(ModelVersion.id.not_in(deleted))
        )
        with Session(reader(self._engine)) as session:
            wanting = session.execute(query).all()
            # Every process loads them; another version may never be loaded here, and does without scores.
            champions = set(session.scalars(select(ModelAlias.model_version_id).where(ModelAlias.alias == "champion")))
        for version, source, set_id, sha256, row_count in wanting:
            if self._retry_at.get(version.id, 0.0) > time.monotonic():
                continue
            try:
                self._make_profile(version, source, set_id, sha256, row_count, must_score=version.id in champions)
            except (GuichetError, OSError, ValidationError) as error:
                self._retry_at[version.id] = time.monotonic() + RETRY_SECONDS
                detail = error.detail if isinstance(error, GuichetError) else type(error).__name__
                log.warning("%s@%s has no profile, and no drift: %s", version.name, version.version, detail)

    def _make_profile(
        self,
        version: ModelVersion,
        source: str | None,
        set_id: int | None,
        sha256: str | None,
        row_count: int | None,
        *,
        must_score: bool,
    ) -> None:
        card = Card.model_validate(version.card | {"sha256": version.sha256})
        rows = None if set_id is None else _loaded_reference(self._engine, card, set_id, row_count or 0)
        if rows is None and source is not None:  # the data are another version's; this one keeps its sample
            self._retry_at[version.id] = time.monotonic() + RETRY_SECONDS
            return
        made_of = SAMPLE if rows is None or sha256 is None else sha256
        if rows is None:
            rows = _sample(version, card, self._models_dir, self._store)
        outputs = self._score(version.id, rows)
        if outputs is None and must_score:
            return  # it is being loaded: the next run has its scores
        profile = profile_of(card, rows, outputs)
        with self._engine.begin() as connection:
            store_profile(connection, version.id, profile, source=made_of)


def read_reference(engine: Engine, version: ModelVersion, models_dir: Path, store: str | None) -> Rows:
    """Return the rows that a version is compared with: its model's reference data, else its package's own sample.

    Raises ArtefactError or CardError where there are none that can be read.
    """
    card = Card.model_validate(version.card | {"sha256": version.sha256})
    with reader(engine).connect() as connection:
        query = select(ReferenceSet.id, ReferenceSet.row_count).where(ReferenceSet.model_name == version.name)
        data = connection.execute(query).one_or_none()
    rows = None if data is None else _loaded_reference(engine, card, data.id, data.row_count)
    return rows if rows is not None else _sample(version, card, models_dir, store)


def _loaded_reference(engine: Engine, card: Card, set_id: int, row_count: int) -> Rows | None:
    """Return rows of loaded reference data, evenly spread; None where they lack a feature of this version."""
    step = max(1, math.ceil(row_count / MAX_REFERENCE_ROWS))
    query = select(ReferenceRow.features).where(ReferenceRow.set_id == set_id, ReferenceRow.row_no % step == 0)
    with reader(engine).connect() as connection:
        rows: Rows = list(connection.scalars(query.order_by(ReferenceRow.row_no)))
    names = {feature.name for feature in card.row_features}
    return rows if rows and names <= rows[0].keys() else None


def _sample(version: ModelVersion, card: Card, models_dir: Path, store: str | None) -> Rows:
    path = ensure_local(version, models_dir, store) / REFERENCE_FILE
    return canonical_rows(card, read_rows(path).rows, source=str(path))


def store_profile(connection: Connection, model_version_id: int, profile: Profile, *, source: str) -> None:
    """Store a version's profile instead of its earlier one, and delete its counters: its rows are counted anew."""
    connection.execute(delete(FeatureCount).where(FeatureCount.model_version_id == model_version_id))
    connection.execute(delete(ScorePart).where(ScorePart.model_version_id == model_version_id))
    connection.execute(delete(FeatureProfile).where(FeatureProfile.model_version_id == model_version_id))
    values = {
        "model_version_id": model_version_id,
        "profile": profile.dump(),
        "source": source,
        "row_count": profile.rows,
        "made_at": datetime.now(UTC),
    }
    connection.execute(insert_into(connection, FeatureProfile).values(values).on_conflict_do_nothing())


def _count_outputs(connection: Connection, position: _Position, end: int) -> int:
    """Return the number of outputs that a stride has now."""
    count = select(func.count()).select_from(ModelOutput).where(*_of_stride(position, end))
    return connection.scalar(count) or 0


def _of_stride(position: _Position, end: int) -> tuple[ColumnElement[bool], ...]:
    return (
        ModelOutput.id > position.counted_through,
        ModelOutput.id <= end,
        ModelOutput.model_version_id.in_(position.versions),
    )


def profile_of(card: Card, rows: Rows, outputs: Sequence[Output | Fault] | None) -> Profile:
    """Return the profile of reference rows with what a version scored of them; None: they were not scored."""
    scored = None if outputs is None else [_score_of(card, each) for each in outputs if isinstance(each, Output)]
    return make_profile(card, rows, scored)


def _score_of(card: Card, output: Output) -> dict[str, Any]:
    return score_values(card, prediction=output.prediction, label=output.label, probability=output.probability)
