"""Business figures: those of brute force over the rows, on both dialects, as decided and by another threshold."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from shared.database.engine import reader
from shared.monitoring.kpis import Scope, find_confusion, find_latency, list_days
from tests.shared.monitoring import test_counting
from tests.shared.monitoring.test_counting import NOON, rows, score, store

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
