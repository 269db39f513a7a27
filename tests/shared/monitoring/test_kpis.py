"""Business figures: those of brute force over the rows, on both dialects, as decided and by another threshold.

They are the same whether all, some or none of the scores are in their packed copy.
"""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, text

from shared.database.engine import reader
from shared.monitoring import scores
from shared.monitoring.kpis import Day, Scope, find_confusion, find_latency, list_days
from tests.shared.monitoring import test_counting
from tests.shared.monitoring.test_counting import NOON, counting, rows, score, store

engine = test_counting.engine


@pytest.mark.parametrize("threshold", [None, 0.4])
def test_days_are_those_of_brute_force(engine: Engine, tmp_path: Path, threshold: float | None) -> None:
    batches = {"2026-03-05": rows(30), "2026-03-06": rows(20)}
    store(engine, batches["2026-03-05"], at=NOON)
    store(engine, batches["2026-03-06"], at=NOON + timedelta(hours=12))
    scope = Scope(1, "binary", "leaves", NOON - timedelta(days=1), NOON + timedelta(days=2), threshold)
    with reader(engine).connect() as connection:
        days = list_days(connection, scope, margin=0.1)
        assert find_confusion(connection, scope, cost_fp=1.0, cost_fn=None) is None
        assert find_latency(connection, 2) is None
    assert [(day.day, day.rows) for day in days] == [(day, len(batch)) for day, batch in batches.items()]
    for day, batch in zip(days, batches.values(), strict=True):
        chances = [score(row).probability or 0.0 for row in batch]
        assert day.mean_score == pytest.approx(sum(chances) / len(batch), abs=1e-12)
        positive = sum(chance >= (threshold or 0.5) for chance in chances)
        assert day.positive_rate == pytest.approx(positive / len(batch), abs=1e-12)
        near = sum(abs(chance - 0.4) <= 0.1 for chance in chances)
        assert day.near_threshold == (None if threshold is None else pytest.approx(near / len(batch), abs=1e-12))


def tell_outcomes(engine: Engine) -> None:
    """Tell the truth of every third row: the positive class of every other one of them, one of them revised."""
    with engine.begin() as connection:
        ids = connection.scalars(text("SELECT id FROM model_inputs ORDER BY id")).all()
        for place, number in enumerate(ids[::3]):
            for revision in (1, 2) if place == 4 else (1,):
                label = "leaves" if (place + revision) % 2 else "stays"
                replaced = "2026-03-07 00:00:00+00" if place == 4 and revision == 1 else None
                connection.execute(
                    text(
                        "INSERT INTO outcomes (input_id, revision, actual, label, request_id, recorded_at, "
                        "replaced_at) VALUES (:id, :revision, 0, :label, 'r', '2026-03-06 00:00:00', :replaced)"
                    ),
                    {"id": number, "revision": revision, "label": label, "replaced": replaced},
                )


def same(values: list[object]) -> list[object]:
    """Return what is equal to these figures, but for the order in which a mean was summed."""
    return [
        replace(each, mean_score=pytest.approx(each.mean_score, abs=1e-12)) if isinstance(each, Day) else each
        for each in values
    ]


def figures(engine: Engine, threshold: float | None) -> list[object]:
    scope = Scope(1, "binary", "leaves", NOON - timedelta(hours=3), NOON + timedelta(days=2), threshold)
    with reader(engine).connect() as connection:
        days: list[object] = list(list_days(connection, scope, margin=0.05))
        return [*days, find_confusion(connection, scope, cost_fp=1.0, cost_fn=5.0)]


@pytest.mark.parametrize("threshold", [None, 0.37])
def test_figures_are_the_same_however_many_scores_are_packed(
    engine: Engine, tmp_path: Path, threshold: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "LEAST_ROWS", 25)
    for hours, count in ((-5, 10), (0, 40), (0, 15), (1, 30), (14, 20)):
        store(engine, rows(count), at=NOON + timedelta(hours=hours))
    with engine.begin() as connection:  # a score without a probability, some that another threshold decided
        connection.execute(text("UPDATE model_outputs SET threshold = 0.5"))
        connection.execute(text("UPDATE model_outputs SET threshold = NULL, probability = NULL WHERE id = 20"))
        connection.execute(text("UPDATE model_outputs SET threshold = 0.45 WHERE id > 60 AND id < 80"))
    tell_outcomes(engine)
    by_rows = figures(engine, threshold)
    counting(engine, tmp_path).run(seconds=30)
    with reader(engine).connect() as connection:
        packed = connection.execute(text("SELECT row_count, scores FROM score_parts")).all()
    assert sum(row.row_count for row in packed) == 115
    assert len(packed) > 4
    assert sum(len(np.frombuffer(row.scores)) for row in packed) == 115
    assert figures(engine, threshold) == same(by_rows)
    store(engine, rows(12), at=NOON + timedelta(hours=1))
    tail = figures(engine, threshold)
    counting(engine, tmp_path).run(seconds=30)
    assert figures(engine, threshold) == same(tail)


def test_scores_that_an_older_release_counted_are_packed_by_counting_anew(engine: Engine, tmp_path: Path) -> None:
    store(engine, rows(30))
    counting(engine, tmp_path).run(seconds=30)
    before = figures(engine, None)
    store(engine, rows(10))
    with engine.begin() as connection:  # as a release does that knows nothing of packed scores
        connection.execute(text("UPDATE feature_profiles SET counted_through = 40"))
    assert figures(engine, None)[0] != before[0]
    counting(engine, tmp_path).run(seconds=30)
    with reader(engine).connect() as connection:
        assert connection.scalar(text("SELECT sum(row_count) FROM score_parts")) == 40
        assert connection.scalar(text("SELECT sum(row_count) FROM feature_counts WHERE span = 'day'")) == 40
        assert connection.scalar(text("SELECT packed_through FROM feature_profiles")) == 40
