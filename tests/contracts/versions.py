"""Models with several versions that disagree on some rows, for what compares versions."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import joblib
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sqlalchemy import Engine, select, update

from shared.database.engine import session_scope
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from shared.tables import ModelArchive, ModelVersion
from tests.contracts.helpers import wait_until

COUNT = 60
REGIONS = ("north", "south", "east")
COLUMNS = ["age", "region"]


def rows_of(count: int) -> list[dict[str, Any]]:
    return [{"age": 20 + place % 50, "region": REGIONS[place % 3]} for place in range(count)]


def fitted(weight: float, columns: list[str]) -> tuple[Any, pd.DataFrame]:
    """Return a classifier that thinks more of the north the greater its weight, and the rows that it was fitted to."""
    frame = pd.DataFrame(rows_of(COUNT)).assign(income=np.arange(COUNT) * 10.0)[columns]
    target = (frame["age"] + weight * (frame["region"] == "north") > 45).astype(int)
    transformer = make_column_transformer((OneHotEncoder(), ["region"]), remainder="passthrough")
    return make_pipeline(transformer, LogisticRegression(max_iter=2_000)).fit(frame, target), frame


def register(engine: Engine, models_dir: Path, folder: Path, name: str, estimator: Any, frame: pd.DataFrame) -> None:
    """Register the next version of a model."""
    joblib.dump(estimator, folder / "model.joblib")
    frame.to_csv(folder / "rows.csv", index=False)
    with session_scope(engine) as session:
        options = AddOptions(reference=folder / "rows.csv", name=name)
        add(session, folder / "model.joblib", options, models_dir=models_dir)


def decide(client: httpx2.Client, reference: str, rows: list[dict[str, Any]]) -> str:
    """Have rows decided; return the job."""
    scored = client.post(f"/models/{reference}/predict_batch", json={"rows": rows}, headers={"Prefer": "wait=30"})
    assert scored.status_code == 200, scored.text
    return str(scored.json()["job_id"])


def let_a_minute_pass(engine: Engine, name: str) -> None:
    """Let the archived versions of a model have been archived a minute earlier."""
    past = datetime.now(UTC) - timedelta(minutes=1)
    with session_scope(engine) as session:
        ids = select(ModelVersion.id).where(ModelVersion.name == name)
        session.execute(update(ModelArchive).where(ModelArchive.model_version_id.in_(ids)).values(archived_at=past))


def replayed(client: httpx2.Client, body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Submit a replay and wait for it; return its job and its result."""
    accepted = client.post("/replays", json=body)
    assert accepted.status_code == 202, accepted.text
    job = accepted.json()
    assert accepted.headers["location"] == f"/jobs/{job['id']}"
    ended = wait_until(
        lambda: (
            (replay := client.get(f"/jobs/{job['id']}", headers={"Prefer": "wait=10"}).json())
            and (replay if replay["finished_at"] else None)
        ),
        seconds=60,
    )
    assert ended["status"] == "succeeded", ended
    result = client.get(f"/jobs/{job['id']}/result")
    assert result.status_code == 200, result.text
    return ended, result.json()
