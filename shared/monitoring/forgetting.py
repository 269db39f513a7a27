"""Taking scored rows out of the counters of drift and the packed scores, when their jobs are erased."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, select

from shared.cards.card import Card
from shared.monitoring.drift.counters import add_counts
from shared.monitoring.drift.profiles import Profile, score_values
from shared.monitoring.scores import drop_scores
from shared.tables import FeatureProfile, ModelInput, ModelOutput, ModelVersion

PIECE = 1_000  # outputs that are read at once


def forget_rows(connection: Connection, job_ids: Sequence[str]) -> None:
    """Take the scored rows of some jobs out of the counters and the packed scores of the versions that scored them.

    Call it in the transaction that deletes the rows, before it does. It holds the profiles of these versions: whoever
    counts waits, finds that the rows which it has read are fewer now, and reads them again.
    """
    versions = connection.scalars(
        select(ModelOutput.model_version_id)
        .join(ModelInput, ModelInput.id == ModelOutput.input_id)
        .where(ModelInput.job_id.in_(job_ids))
        .distinct()
    ).all()
    stored = connection.execute(
        select(FeatureProfile.__table__, ModelVersion.card)
        .join(ModelVersion, ModelVersion.id == FeatureProfile.model_version_id)
        .where(FeatureProfile.model_version_id.in_(versions))
        .order_by(FeatureProfile.model_version_id)
        .with_for_update(of=FeatureProfile.__table__)
    ).all()
    for row in stored:
        card = Card.model_validate(row.card)
        _forget(connection, job_ids, row, Profile.load(row.profile), card)


def _forget(connection: Connection, job_ids: Sequence[str], stored: Any, profile: Profile, card: Card) -> None:  # noqa: ANN401 - a row of feature_profiles
    version = stored.model_version_id
    packed: dict[datetime, list[int]] = defaultdict(list)  # ids of inputs by hour
    last = 0
    while True:
        outputs = connection.execute(
            select(ModelOutput.__table__, ModelInput.features)
            .join(ModelInput, ModelInput.id == ModelOutput.input_id)
            .where(
                ModelInput.job_id.in_(job_ids),
                ModelOutput.model_version_id == version,
                ModelOutput.id > last,
                ModelOutput.id <= max(stored.counted_through, stored.packed_through),
            )
            .order_by(ModelOutput.id)
            .limit(PIECE)
        ).all()
        if not outputs:
            break
        last = outputs[-1].id
        counted: dict[datetime, tuple[list[Any], list[Any]]] = defaultdict(lambda: ([], []))
        for output in outputs:
            hour = output.created_at.replace(minute=0, second=0, microsecond=0)
            if output.id <= stored.packed_through:
                packed[hour].append(output.input_id)
            if output.id <= stored.counted_through:
                rows, scores = counted[hour]
                rows.append(output.features)
                scores.append(
                    score_values(card, prediction=output.prediction, label=output.label, probability=output.probability)
                )
        for hour, (rows, scores) in sorted(counted.items()):
            counts = np.negative(profile.count(rows, scores)).tolist()
            add_counts(connection, version, hour, -len(rows), counts)
    for hour, input_ids in sorted(packed.items()):
        drop_scores(connection, version, hour, input_ids)
