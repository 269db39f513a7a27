"""On held-out data of the examples a training is within one standard error of a script written by hand."""

import csv
import io
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score, root_mean_squared_error

from examples.attrition import data as attrition
from examples.attrition import train as attrition_script
from examples.credit import data as credit
from examples.credit import train as credit_script
from examples.energy import data as energy
from examples.energy import train as energy_script
from examples.turnover import data as turnover
from examples.turnover import train as turnover_script
from shared.encoding.estimator_inputs import make_frame_input
from shared.scoring.threads import one_thread
from shared.training.options import TrainingOptions
from shared.training.table import read_table
from shared.training.train import train

ROWS, HELD_OUT = 2_000, 4_000
DRAWS = 4
EXAMPLES: dict[str, tuple[ModuleType, ModuleType]] = {
    "attrition": (attrition, attrition_script),
    "credit": (credit, credit_script),
    "energy": (energy, energy_script),
    "turnover": (turnover, turnover_script),
}


def _csv(frame: pd.DataFrame) -> bytes:
    text = io.StringIO()
    frame.to_csv(text, index=False, quoting=csv.QUOTE_MINIMAL)
    return text.getvalue().encode()


def _figure(answers: np.ndarray, scores: np.ndarray, task: str) -> float:
    return -root_mean_squared_error(answers, scores) if task == "regression" else float(roc_auc_score(answers, scores))


@pytest.mark.long
@pytest.mark.parametrize("name", EXAMPLES)
def test_training_is_as_good_as_a_script_within_a_standard_error(name: str, tmp_path: Any) -> None:
    data, script = EXAMPLES[name]
    features = [feature.name for feature in script.FEATURES]
    columns = [*features, data.TARGET]
    rows, unseen = data.generate(ROWS)[columns], data.generate(HELD_OUT, seed=99)[columns]
    (tmp_path / "rows.csv").write_bytes(_csv(rows))
    (tmp_path / "unseen.csv").write_bytes(_csv(unseen))
    options = TrainingOptions(name=name, target=data.TARGET, draws=DRAWS, seed=1)
    table = read_table(tmp_path / "rows.csv", options)
    trained = train(table, options, sha256="0" * 64).package
    types = {column.name: column.kind for column in table.columns}
    held = read_table(tmp_path / "unseen.csv", TrainingOptions(name=name, target=data.TARGET, types=types))
    answers = np.asarray(held.answers)
    with one_thread():
        frame = make_frame_input(trained.card, trained.estimator)(held.rows())
        by_hand = script.pipeline().fit(rows[features], rows[data.TARGET])
        if table.task == "regression":
            ours, theirs = trained.estimator.predict(frame), by_hand.predict(unseen[features])
        else:
            ours = trained.estimator.predict_proba(frame)[:, 1]
            theirs = by_hand.predict_proba(unseen[features])[:, 1]
    rng = np.random.default_rng(0)
    samples = (rng.integers(0, len(answers), len(answers)) for _ in range(200))
    error = float(np.std([_figure(answers[drawn], theirs[drawn], table.task) for drawn in samples], ddof=1))
    mine, their = (_figure(answers, scores, table.task) for scores in (ours, theirs))
    assert mine >= their - error, f"{name}: trained {mine:.5f}, by hand {their:.5f}, standard error {error:.5f}"
