"""A packed copy of stored scores, by version and hour, for queries over a million scores.

A row of `model_outputs` takes PostgreSQL a microsecond to read and another to sort or sum; packed, it is 18 bytes that
NumPy sums. The copy is written with the counters of drift, in the transaction of their watermark, so that it holds each
score up to the watermark exactly once. What lies beyond it is read from the rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, and_, delete, insert, select, update

from shared.database.binary_copy import copy_rows, read_bigint, read_float, read_time
from shared.tables import FeatureProfile, ScorePart

LEAST_ROWS = 1_000  # a part with fewer is written again with more: short ones would be as many as the rows
BATCH = 100  # parts that are fetched at once

_ID, _SCORE, _DECISION = np.dtype("<i8"), np.dtype("<f8"), np.dtype("<i2")


@dataclass(slots=True)
class Scores:
    """n scores of one version that were decided by one threshold, within one day in UTC."""

    day: str  # as 2026-03-01
    threshold: float | None
    input_ids: NDArray[np.int64]  # empty where they were not asked for
    scores: NDArray[np.float64]  # probability, or the number of a regression; NaN: the model gives none
    decisions: NDArray[
        np.int16
    ]  # index of the class as in model_outputs.prediction; empty as above, or for a regression


def add_scores(
    connection: Connection,
    model_version_id: int,
    hour: datetime,
    rows: Sequence[tuple[int, float, float | None, float | None]],
    *,
    is_regression: bool,
) -> None:
    """Add scores of one version and hour: input id, prediction, probability, threshold of each; the caller commits."""
    ordered = sorted(rows, key=lambda row: (row[3] is not None, row[3] or 0.0, row[0]))
    for threshold, group in groupby(ordered, key=lambda row: row[3]):
        ids, predictions, probabilities, _ = zip(*group, strict=True)
        scores = predictions if is_regression else [np.nan if each is None else each for each in probabilities]
        packed = {
            "row_count": len(ids),
            "input_ids": np.array(ids, _ID).tobytes(),
            "scores": np.array(scores, _SCORE).tobytes(),
            "decisions": b"" if is_regression else np.array(predictions, _DECISION).tobytes(),
        }
        _append(connection, {"model_version_id": model_version_id, "starts_at": hour, "threshold": threshold}, packed)


def _append(connection: Connection, about: dict[str, Any], packed: dict[str, Any]) -> None:
    """Add to the last part of an hour while that is short and of the same threshold, or begin the next one."""
    of_hour = and_(ScorePart.model_version_id == about["model_version_id"], ScorePart.starts_at == about["starts_at"])
    last = connection.execute(
        select(ScorePart.__table__).where(of_hour).order_by(ScorePart.part.desc()).limit(1)
    ).one_or_none()
    if last is not None and last.threshold == about["threshold"] and last.row_count < LEAST_ROWS:
        joined = {
            name: last.row_count + value if name == "row_count" else bytes(getattr(last, name)) + value
            for name, value in packed.items()
        }
        connection.execute(update(ScorePart).where(of_hour, ScorePart.part == last.part).values(joined))
    else:
        part = 0 if last is None else last.part + 1
        connection.execute(insert(ScorePart).values(**about, **packed, part=part))


def drop_scores(connection: Connection, model_version_id: int, hour: datetime, input_ids: Sequence[int]) -> None:
    """Take the scores of some inputs out of the parts of an hour; the caller commits, and holds the watermark."""
    dropped = np.array(input_ids, _ID)
    of_hour = and_(ScorePart.model_version_id == model_version_id, ScorePart.starts_at == hour)
    for part in connection.execute(select(ScorePart.__table__).where(of_hour)).all():
        is_kept = np.isin(np.frombuffer(part.input_ids, _ID), dropped, invert=True)
        if is_kept.all():
            continue
        this = and_(of_hour, ScorePart.part == part.part)
        if not is_kept.any():
            connection.execute(delete(ScorePart).where(this))
            continue
        columns: dict[str, np.dtype[Any]] = {"input_ids": _ID, "scores": _SCORE, "decisions": _DECISION}
        packed: dict[str, Any] = {
            name: np.frombuffer(getattr(part, name), kind)[is_kept].tobytes() if getattr(part, name) else b""
            for name, kind in columns.items()
        }
        connection.execute(update(ScorePart).where(this).values(row_count=int(is_kept.sum()), **packed))


class StoredScores:
    """The packed scores of a version in a window of whole hours, day by day, and how far they reach.

    `packed_through` is known once the days were read: outputs with a higher id are in no part.
    """

    def __init__(
        self,
        connection: Connection,
        model_version_id: int,
        start: datetime,
        end: datetime,
        *,
        with_ids: bool = False,
        with_decisions: bool = False,
    ) -> None:
        self.packed_through = 0
        self._connection = connection
        # What is not asked for is not fetched: most of the time goes into bytes on their way.
        packed = (("scores", True), ("input_ids", with_ids), ("decisions", with_decisions))
        self._names = [name for name, is_wanted in packed if is_wanted]
        columns = [ScorePart.starts_at, ScorePart.threshold, *(getattr(ScorePart, name) for name in self._names)]
        # One statement, and so one moment: the watermark is that of the parts.
        self._query = (
            select(FeatureProfile.packed_through, *columns)
            .outerjoin(
                ScorePart,
                and_(
                    ScorePart.model_version_id == FeatureProfile.model_version_id,
                    ScorePart.starts_at >= start,
                    ScorePart.starts_at < end,
                ),
            )
            .where(FeatureProfile.model_version_id == model_version_id)
            .order_by(ScorePart.starts_at, ScorePart.part)
        )

    def days(self) -> Iterator[Scores]:
        """Yield the scores in order of time, those of a day and threshold together."""
        for (day, threshold), group in groupby(self._rows(), key=self._place):
            if day is None:
                continue
            columns = dict(zip(self._names, zip(*(row[3:] for row in group), strict=True), strict=True))

            def joined(name: str, kind: "np.dtype[Any]", columns: dict[str, Any] = columns) -> NDArray[Any]:
                return np.frombuffer(b"".join(columns.get(name, ())), kind)

            yield Scores(
                day.isoformat(),
                threshold,
                joined("input_ids", _ID),
                joined("scores", _SCORE),
                joined("decisions", _DECISION),
            )

    def _rows(self) -> Iterator[Sequence[Any]]:
        if self._connection.dialect.name == "sqlite":
            yield from self._connection.execute(self._query.execution_options(yield_per=BATCH))
            return
        for through, starts_at, threshold, *packed in copy_rows(self._connection, self._query):
            assert through is not None
            yield (
                read_bigint(through),
                None if starts_at is None else read_time(starts_at),
                None if threshold is None else read_float(threshold),
                *packed,
            )

    def _place(self, row: Sequence[Any]) -> tuple[date | None, float | None]:
        self.packed_through, starts_at, threshold = row[:3]
        return None if starts_at is None else starts_at.date(), threshold
