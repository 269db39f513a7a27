"""A sync service in this process, with models of one feature, `x`, for tests that look inside while it answers."""

from pathlib import Path
from typing import Any

import joblib
import numpy as np
from fastapi import FastAPI
from sklearn.linear_model import LogisticRegression

from api.main import create_app
from api.runtimes.sync import runtime as sync
from shared.config.settings import Settings
from shared.database.engine import make_engine, session_scope
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from tests.support.databases import migrated_file


def small_service(folder: Path, *names: str, **settings: Any) -> FastAPI:
    """Return a service whose models have these names; their packages are in folder/models."""
    url = f"sqlite:///{folder / 'guichet.db'}"
    (folder / "guichet.db").write_bytes(migrated_file())
    joblib.dump(LogisticRegression().fit(np.arange(20.0)[:, None], np.arange(20) > 9), folder / "model.joblib")
    (folder / "rows.csv").write_text("x\n" + "\n".join(map(str, np.arange(20.0))) + "\n")
    engine = make_engine(url)
    with session_scope(engine) as session:
        for name in names:
            add(
                session,
                folder / "model.joblib",
                AddOptions(reference=folder / "rows.csv", name=name),
                models_dir=folder / "models",
            )
    engine.dispose()
    sync.START_SECONDS = 120.0  # tests ask as soon as it has started, on busy machines too
    options = {"runtime": "sync", "auth": "open", "data_dir": folder, "database_url": url, **settings}
    return create_app(Settings(**options))
