"""The metrics of a card: of the reference rows, which it says, or those that its owner gives."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from sklearn.linear_model import LinearRegression, LogisticRegression
from sqlalchemy import Engine

from shared.monitoring.drift.windows import find_profile
from tests.support.brief import prove_briefly
from tests.support.databases import sqlite_engine
from tests.support.registered import added

RNG = np.random.default_rng(9)
ROWS = pd.DataFrame(RNG.normal(size=(300, 2)).round(6), columns=["a", "b"])
ANSWERS = (ROWS["a"] + RNG.normal(size=300) > 0).astype(int)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    prove_briefly(monkeypatch)
    with sqlite_engine(tmp_path) as engine:
        yield engine


def classifier() -> Any:
    return LogisticRegression().fit(ROWS, ANSWERS)


def test_reference_rows_with_answers_give_the_card_metrics_that_are_called_in_sample(
    engine: Engine, tmp_path: Path
) -> None:
    model = classifier()
    words = ANSWERS.map({0: "no", 1: "yes"})
    card = added(engine, tmp_path, model, ROWS.assign(left=words), target="left", labels={"0": "no", "1": "yes"}).card
    chances = model.predict_proba(ROWS)[:, 1]
    assert (card.metrics_of, card.metrics["rows"]) == ("reference", 300)
    assert card.metrics["accuracy"] == pytest.approx(metrics.accuracy_score(ANSWERS, chances >= 0.5), abs=1e-12)
    assert card.metrics["roc_auc"] == pytest.approx(metrics.roc_auc_score(ANSWERS, chances), abs=1e-12)
    assert card.metrics["log_loss"] == pytest.approx(metrics.log_loss(ANSWERS, chances), abs=1e-12)
    with engine.connect() as connection:
        stored = find_profile(connection, 3)  # the database has two versions already
    assert stored is not None
    assert (stored.profile.rows, [bins.name for bins in stored.profile.outputs]) == (300, ["score", "decision"])
    assert sum(stored.profile.outputs[1].reference) == 300


def test_metrics_of_a_regression_and_rows_without_an_answer(engine: Engine, tmp_path: Path) -> None:
    truth = ROWS["a"] * 3 + RNG.normal(size=300).round(6)
    model = LinearRegression().fit(ROWS, truth)
    kept = truth.where(ROWS.index % 10 != 0)
    card = added(engine, tmp_path, model, ROWS.assign(price=kept), target="price").card
    here = kept.notna()
    assert card.metrics["rows"] == 270
    expected = metrics.mean_absolute_error(truth[here], model.predict(ROWS)[here])
    assert card.metrics["mae"] == pytest.approx(expected, abs=1e-9)


def test_without_answers_there_are_no_metrics_and_those_that_the_owner_gives_stay(
    engine: Engine, tmp_path: Path
) -> None:
    assert added(engine, tmp_path, classifier(), ROWS).card.metrics == {}
    stated = {"roc_auc": 0.81, "lift": 3.0}
    card = added(engine, tmp_path, classifier(), ROWS.assign(left=ANSWERS), target="left", metrics=stated).card
    assert (card.metrics, card.metrics_of) == (stated, None)


def test_version_that_was_registered_without_metrics_is_found_again(engine: Engine, tmp_path: Path) -> None:
    first = added(engine, tmp_path, classifier(), ROWS.assign(left=ANSWERS), target="left").card
    with engine.begin() as connection:
        bare = first.model_dump(mode="json", exclude_none=True, exclude={"metrics", "metrics_of"})
        connection.exec_driver_sql("UPDATE model_versions SET card = ? WHERE id = 3", (json.dumps(bare),))
    again = added(engine, tmp_path, classifier(), ROWS.assign(left=ANSWERS), target="left").card
    assert again.version == first.version
