"""The models that this process has loaded, by model version id."""

import gc
import logging
from pathlib import Path

from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared.errors import ModelError, NotFound
from shared.registry import LoadedModel, load
from shared.tables import ModelAlias, ModelVersion

log = logging.getLogger(__name__)


class Models:
    """Loads a version when it is first needed, and keeps it: versions are immutable."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        self._engine = engine
        self._directory = directory
        self._loaded: dict[int, LoadedModel] = {}
        self.refused: dict[str, str] = {}  # name@version -> why it could not be loaded

    def get(self, model_version_id: int) -> LoadedModel:
        """Return a loaded version; raise NotFound, or ModelError when its package cannot be used."""
        model = self._loaded.get(model_version_id)
        if model is None:
            with Session(self._engine) as session:
                version = session.get(ModelVersion, model_version_id)
            if version is None:
                raise NotFound(f"no model version has the id {model_version_id}")
            label = f"{version.name}@{version.version}"
            try:
                model = load(version, self._directory)
            except Exception as error:
                self.refused[label] = error.detail if isinstance(error, ModelError) else repr(error)
                raise
            self.refused.pop(label, None)
            self._loaded[model_version_id] = model
            # What a model holds lives as long as the process: the collector need not walk it again and again.
            gc.collect()
            gc.freeze()
            log.info("loaded %s, scored by %s", label, model.scorer.kind)
        return model

    def preload(self) -> None:
        """Load every champion now, so that the first row need not wait; a broken one is logged and tried again."""
        try:
            with Session(self._engine) as session:
                champions = session.scalars(
                    select(ModelAlias.model_version_id).where(ModelAlias.alias == "champion").distinct()
                ).all()
        except SQLAlchemyError:
            log.exception("the registry could not be read; models are loaded when they are needed")
            return
        for model_version_id in champions:
            try:
                self.get(model_version_id)
            except Exception:  # whatever it is, the process has to start for the other models
                log.exception("model version %s was not loaded; it is tried again when it is needed", model_version_id)

    def names(self) -> list[str]:
        """Return the loaded versions as `name@version`."""
        return sorted(f"{model.card.name}@{model.card.version}" for model in list(self._loaded.values()))
