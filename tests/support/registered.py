"""Models that a test registers in a database of its own, by the functions and by the command line."""

from pathlib import Path
from typing import Any

import joblib
import pytest
from sqlalchemy import Engine

from shared.config.settings import get_settings
from shared.database.engine import get_engine, session_scope
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from shared.registry.loading import LoadedModel, load
from shared.tables import Table
from tests.support.brief import prove_briefly


def added(engine: Engine, folder: Path, model: Any, rows: Any, **options: Any) -> LoadedModel:
    """Register a model as `m` with a DataFrame of reference rows, and return it loaded."""
    joblib.dump(model, folder / "model.joblib")
    rows.to_csv(folder / "rows.csv", index=False)
    with session_scope(engine) as session:
        version = add(
            session,
            folder / "model.joblib",
            AddOptions(reference=folder / "rows.csv", name="m", **options),
            models_dir=folder / "models",
        )
        return load(version, folder / "models")


def use_empty_registry(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the settings of this process be those of a new SQLite database in a folder, and proofs be brief."""
    patch.setenv("DATA_DIR", str(folder))
    patch.setenv("RUNTIME", "sync")
    for name in ("DATABASE_URL", "MODELS_DIR", "REDIS_URL"):
        patch.delenv(name, raising=False)
    prove_briefly(patch)
    get_settings.cache_clear()
    get_engine.cache_clear()
    Table.metadata.create_all(get_engine())
