"""The pairs of a challenger: its scores in the shadow, each beside the decision that was made of the same row."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import orjson
from sqlalchemy import Connection, Text, and_, cast, func, select

from shared.cards.card import Card
from shared.cards.features import FeatureType
from shared.comparison.judged import Judged
from shared.comparison.pairs import Pairs
from shared.comparison.segments import Segments
from shared.comparison.storage import Collected, any_outcome
from shared.comparison.tally import Tally, changes
from shared.encoding.columns import Columns
from shared.monitoring.drift.windows import find_profile
from shared.tables import ModelInput, ModelOutput, ShadowScore

MAX_ROWS = 100_000  # of a report; of more, the newest
PAGE = 5_000  # rows that are read at once


@dataclass(frozen=True, slots=True)
class Side:
    """A version of the comparison."""

    id: int
    card: Card


@dataclass(frozen=True, slots=True)
class Shadowed:
    """The pairs of a window, and how many rows there are that the report leaves out."""

    collected: Collected
    left_out: int
    has_segments: bool


def count_by_version(connection: Connection, challenger_id: int, start: datetime, end: datetime) -> dict[int, int]:
    """Return how many rows of a window the challenger scored or refused, by the version that decided them."""
    query = (
        select(ModelOutput.model_version_id, func.count())
        .join(ShadowScore, ShadowScore.output_id == ModelOutput.id)
        .where(_in_window(challenger_id, start, end))
        .group_by(ModelOutput.model_version_id)
    )
    return {version: count for version, count in connection.execute(query)}  # noqa: C416 - rows, as mypy knows them


def collect_shadow(
    connection: Connection,
    champion: Side,
    challenger: Side,
    start: datetime,
    end: datetime,
    *,
    costs: tuple[float, float] = (1.0, 1.0),
    most: int = MAX_ROWS,
) -> Shadowed:
    """Add up the pairs of what the champion decided in a window, the newest `most` of them."""
    query = (
        select(ShadowScore.output_id)
        .join(ModelOutput, ModelOutput.id == ShadowScore.output_id)
        .where(_in_window(challenger.id, start, end), ModelOutput.model_version_id == champion.id)
    )
    ids = sorted(connection.scalars(query.order_by(ShadowScore.output_id.desc()).limit(most)).all())
    left_out = 0 if len(ids) < most else max(0, (connection.scalar(_counted(query)) or 0) - len(ids))
    kinds, segments = _segments(connection, champion.card, challenger)
    has_outcomes = any_outcome(connection)
    task = challenger.card.task
    collected = Collected(Tally(task), Judged(task, costs), {})
    for first in range(0, len(ids), PAGE):
        pairs, rows, refused = _read(connection, challenger, ids[first : first + PAGE])
        tally = Tally.of(task, pairs, refused=refused)
        if segments is not None and len(pairs):
            tally.segments = segments.count(Columns.of(rows, kinds), *changes(task, pairs))
        collected.add(connection, champion.card.version, tally, pairs if has_outcomes else None)
    collected.find_places(connection)
    collected.about = {"window": {"from": start, "to": end}}
    return Shadowed(collected, left_out, segments is not None)


def _in_window(challenger_id: int, start: datetime, end: datetime) -> Any:  # noqa: ANN401 - a condition
    return and_(
        ShadowScore.model_version_id == challenger_id, ShadowScore.decided_at >= start, ShadowScore.decided_at < end
    )


def _counted(query: Any) -> Any:  # noqa: ANN401 - queries
    return select(func.count()).select_from(query.subquery())


def _read(connection: Connection, challenger: Side, ids: list[int]) -> tuple[Pairs, list[dict[str, Any]], int]:
    """Return pairs and their rows by the ids of the decisions, and the number of rows that the challenger refused."""
    query = (
        select(
            ModelOutput.input_id,
            ModelOutput.prediction,
            ModelOutput.probability,
            ShadowScore.prediction,
            ShadowScore.probability,
            cast(ModelInput.features, Text),
        )
        .join(ShadowScore, ShadowScore.output_id == ModelOutput.id)
        .join(ModelInput, ModelInput.id == ModelOutput.input_id)
        .where(ModelOutput.id.in_(ids), ShadowScore.model_version_id == challenger.id)
        .order_by(ModelOutput.id)
    )
    read = connection.execute(query).all()
    scored = [row for row in read if row[3] is not None]
    if not scored:
        return Pairs.empty(), [], len(read)
    inputs, before, chance_before, after, chance_after, texts = zip(*scored, strict=True)
    is_number = challenger.card.task == "regression"
    none = np.empty(0, np.int16)
    pairs = Pairs(
        np.array(inputs, np.int64),
        np.array(before if is_number else chance_before, np.float64),  # None becomes NaN
        np.array(after if is_number else chance_after, np.float64),
        none if is_number else np.array(before, np.float64).astype(np.int16),
        none if is_number else np.array(after, np.float64).astype(np.int16),
    )
    return pairs, [orjson.loads(text) for text in texts], len(read) - len(scored)


def _segments(
    connection: Connection, decided_by: Card, challenger: Side
) -> tuple[dict[str, FeatureType], Segments | None]:
    """Return the features that both versions have, and their segments by the challenger's profile, if it has one."""
    theirs = {feature.name: feature.type for feature in decided_by.row_features}
    kinds = {
        feature.name: feature.type
        for feature in challenger.card.row_features
        if theirs.get(feature.name) == feature.type
    }
    stored = find_profile(connection, challenger.id)
    if stored is None:
        return kinds, None
    return kinds, Segments([bins for bins in stored.profile.features if bins.name in kinds])
