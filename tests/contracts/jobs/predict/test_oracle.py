"""The service says what the pipeline itself says: 300 fresh rows of each example model, through the public door."""

import importlib
from pathlib import Path
from typing import Any

import httpx2
import joblib
import numpy as np
import pytest

from examples.frames import records

TOLERANCE = 1e-6
ROWS, SEED = 300, 987_654


@pytest.mark.parametrize("name", ["attrition", "credit", "energy"])
def test_batch_predicts_what_the_pipeline_predicts(client: httpx2.Client, models_dir: Path, name: str) -> None:
    data = importlib.import_module(f"examples.{name}.data")
    features = importlib.import_module(f"examples.{name}.features").FEATURES
    frame = data.generate(ROWS, seed=SEED)[[feature.name for feature in features]]
    rows = records(frame)
    if name == "credit":
        assert any(value is None for row in rows for value in row.values())
    model = client.get(f"/models/{name}").json()

    answer = client.post("/predict_batch", json={"model": name, "rows": rows})
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    assert [item["status"] for item in items] == ["succeeded"] * ROWS

    pipeline = joblib.load(artefact(models_dir, name, model["model_sha256"]))
    if name == "energy":
        check_close([item["prediction"] for item in items], pipeline.predict(frame))
        return
    expected = pipeline.predict_proba(frame)[:, 1]
    check_close([item["probability"] for item in items], expected)
    threshold = model["card"]["threshold"]
    decided = (expected >= threshold).astype(int).tolist()
    assert 0 < sum(decided) < ROWS
    assert [item["prediction"] for item in items] == decided
    assert {item["threshold"] for item in items} == {threshold}
    labels = list(model["card"]["labels"].values())
    assert [item["label"] for item in items] == [labels[decision] for decision in decided]


def artefact(models_dir: Path, name: str, sha256: str) -> Path:
    """The file that this runtime registered: each one may have trained its own."""
    for card in models_dir.glob(f"{name}/*/model.json"):
        if sha256 in card.read_text():
            return card.with_name("model.joblib")
    raise AssertionError(f"no package of {name} with the SHA-256 {sha256}")


def check_close(scores: list[float], expected: Any) -> None:
    assert np.max(np.abs(np.asarray(scores) - expected)) <= TOLERANCE
