"""The models that this process has loaded, by model version id."""

import gc
import logging
import threading
from collections import defaultdict
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared.cards.card import Card
from shared.errors import ArtefactError, ModelError, NotFound
from shared.observability.logs import told
from shared.packages.fetching import address_of, ensure_local, local_folder
from shared.packages.package import is_complete, references_of
from shared.registry.adding import LoadedModel, load
from shared.tables import ModelAlias, ModelVersion

log = logging.getLogger(__name__)


class HasCard(Protocol):
    """A model version that is ready to score, in this process or another."""

    @property
    def card(self) -> Card:
        """The model's card."""
        ...


Model = TypeVar("Model", bound=HasCard)


class Versions(Generic[Model]):
    """Loads a version when it is first needed, and keeps it: versions are immutable.

    What has to come from a store first is fetched by a thread (shared/registry/watcher.py), never while a row waits for
    it.
    """

    def __init__(self, engine: Engine, directory: Path, store: str | None = None) -> None:
        self._engine = engine
        self._directory = directory
        self._store = store
        self._loaded: dict[int, Model] = {}
        self._locks: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)
        self.refused: dict[str, str] = {}  # name@version -> why it could not be loaded
        self.loading: set[str] = set()  # name@version of what is being loaded
        self.wanted: set[int] = set()  # versions that were asked for and could not be loaded

    def _open(self, version: ModelVersion) -> Model:
        """Load a version that lies in MODELS_DIR."""
        raise NotImplementedError

    def find(self, model_version_id: int) -> Model | None:
        """Return a version if it is loaded."""
        return self._loaded.get(model_version_id)

    def loaded(self) -> list[Model]:
        """Return every version that is loaded."""
        return list(self._loaded.values())

    def get(self, model_version_id: int) -> Model:
        """Return a loaded version; raise NotFound, or ModelError when its package cannot be used, or not yet."""
        model = self._loaded.get(model_version_id)
        return model if model is not None else self._load(model_version_id, fetch=False)

    def bring(self, model_version_id: int) -> Model:
        """Return a loaded version, fetched from its store if need be, which may take minutes."""
        model = self._loaded.get(model_version_id)
        return model if model is not None else self._load(model_version_id, fetch=True)

    def _load(self, model_version_id: int, *, fetch: bool) -> Model:
        with Session(self._engine) as session:
            version = session.get(ModelVersion, model_version_id)
        if version is None:
            raise NotFound(f"no model version has the id {model_version_id}")
        label = f"{version.name}@{version.version}"
        try:
            if fetch:
                ensure_local(version, self._directory, self._store)
            else:
                self._check_here(version, label)
            with self._locks[model_version_id]:
                if model_version_id not in self._loaded:
                    self.loading.add(label)
                    try:
                        self._loaded[model_version_id] = self._open(version)
                    finally:
                        self.loading.discard(label)
        except Exception as error:
            self.refused[label] = error.detail if isinstance(error, ModelError) else told(error)
            self.wanted.add(model_version_id)
            raise
        self.refused.pop(label, None)
        self.wanted.discard(model_version_id)
        return self._loaded[model_version_id]

    def _check_here(self, version: ModelVersion, label: str) -> None:
        address = address_of(version, self._store)
        if address is not None and not is_complete(
            local_folder(version, self._directory), version.sha256, references_of(version)
        ):
            raise ArtefactError(self.refused.get(label) or f"It is being fetched from {address}.")

    def champions(self) -> list[int]:
        """Return the ids of the versions that serve by default."""
        with Session(self._engine) as session:
            query = select(ModelAlias.model_version_id).where(ModelAlias.alias == "champion").distinct()
            return list(session.scalars(query))

    def missing(self) -> set[int]:
        """Return the ids of the versions that should be loaded and are not."""
        return {*self.champions(), *self.wanted} - self._loaded.keys()

    def traces(self, model_version_id: int) -> tuple[tuple[int, int], ...]:
        """Return size and time of each file of a version in MODELS_DIR: other traces, and it is worth another try."""
        with Session(self._engine) as session:
            version = session.get(ModelVersion, model_version_id)
        if version is None:
            return ()
        folder = local_folder(version, self._directory)
        found = [path.stat() for path in sorted(folder.glob("*")) if path.is_file()]
        return tuple((stat.st_size, stat.st_mtime_ns) for stat in found)

    def preload(self) -> None:
        """Load every champion now, so that the first row need not wait; a broken one is logged and tried again."""
        try:
            champions = self.champions()
        except SQLAlchemyError:
            log.exception("the registry could not be read; models are loaded when they are needed")
            return
        for model_version_id in champions:
            try:
                self.get(model_version_id)
            except Exception as error:  # noqa: BLE001 - whatever it is, the process has to start for the other models
                log.warning("model version %s was not loaded; it is tried again: %s", model_version_id, error)

    def names(self) -> list[str]:
        """Return the loaded versions as `name@version`."""
        return sorted(f"{model.card.name}@{model.card.version}" for model in list(self._loaded.values()))


class ModelCache(Versions[LoadedModel]):
    """The models that this process itself holds."""

    def _open(self, version: ModelVersion) -> LoadedModel:
        return load_here(version, self._directory)


def load_here(version: ModelVersion, directory: Path) -> LoadedModel:
    """Load a version into this process; raises as `shared.registry.load` does."""
    model = load(version, directory)
    # What a model holds lives as long as the process: the collector need not walk it again and again.
    gc.collect()
    gc.freeze()
    log.info("loaded %s@%s, scored by %s", version.name, version.version, model.scorer.kind)
    return model
