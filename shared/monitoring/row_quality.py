"""How unusual a row is in its version's reference, and how certain its decision is (`?include=quality`).

It reads what is stored: the row, its score, and the profile of the version. Nothing of it is computed while scoring.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, and_, select

from shared.monitoring.drift.profiles import Profile, Surprise
from shared.monitoring.drift.windows import find_profile
from shared.tables import ModelInput, ModelOutput


@dataclass(frozen=True, slots=True)
class Outside:
    """A number out of the reference's range."""

    feature: str
    side: Literal["below", "above"]


@dataclass(frozen=True, slots=True)
class RowQuality:
    """The unusual values of a row, by feature."""

    unusual: float | None  # 0 to 1: share of the reference's rows that are less unusual; None: an older profile
    outside: list[Outside]
    unseen: list[str]  # features with a category that the reference has not
    missing: list[str]  # features without a value
    missing_share: float  # of the features
    confidence: float | None  # 0 to 1, see `confidence_of`


class RowExaminer:
    """Judges rows of one version by its profile."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._surprise = Surprise(profile.features)

    def examine(self, row: Mapping[str, Any], *, probability: float | None, threshold: float | None) -> RowQuality:
        """Return the quality of a row in canonical form, with the probability and threshold of its score."""
        places = self._surprise.places(row)
        outside, unseen, missing = [], [], []
        for bins, place in zip(self._profile.features, places, strict=True):
            if place == 0:
                missing.append(bins.name)
            elif bins.kind == "number":
                if place == 1 or place == bins.width - 1:
                    outside.append(Outside(bins.name, "below" if place == 1 else "above"))
            elif place == bins.width - 1 and not bins.is_open:
                unseen.append(bins.name)
        surprises = self._profile.surprises
        return RowQuality(
            bisect_left(surprises, self._surprise.of(places)) / len(surprises) if surprises else None,
            outside,
            unseen,
            missing,
            len(missing) / (len(places) or 1),
            None if probability is None else confidence_of(self._profile.scores, probability, threshold),
        )


def confidence_of(scores: Sequence[float], probability: float, threshold: float | None) -> float | None:
    """Return the share of the reference's rows with the same decision whose score is nearer to the threshold.

    `scores` are the reference's, ascending. None where there is no threshold, or no such row.
    """
    if threshold is None:
        return None
    border = bisect_left(scores, threshold)
    if probability >= threshold:
        alike, nearer = len(scores) - border, bisect_left(scores, probability) - border
    else:
        alike, nearer = border, border - bisect_right(scores, probability)
    return nearer / alike if alike else None


def find_row_quality(connection: Connection, job_id: str, model_version_id: int) -> dict[int, RowQuality] | None:
    """Return the quality of each scored row of a job by its place; None while its version has no profile."""
    stored = find_profile(connection, model_version_id)
    if stored is None:
        return None
    examiner = RowExaminer(stored.profile)
    query = (
        select(ModelInput.row_index, ModelInput.features, ModelOutput.probability, ModelOutput.threshold)
        .join(
            ModelOutput,
            and_(ModelOutput.input_id == ModelInput.id, ModelOutput.model_version_id == model_version_id),
        )
        .where(ModelInput.job_id == job_id)
    )
    return {
        row: examiner.examine(features, probability=probability, threshold=threshold)
        for row, features, probability, threshold in connection.execute(query)
    }
