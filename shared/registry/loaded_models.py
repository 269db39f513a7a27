"""The models that are loaded in this process, by model version id."""

import gc
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared.cards.card import Card
from shared.errors import ArtefactError, ModelError, NotFound
from shared.observability.redaction import safe_text
from shared.packages.fetching import ensure_local, local_folder, store_address
from shared.packages.package import is_complete, references_of
from shared.registry.load_marks import marked
from shared.registry.loading import LoadedModel, load
from shared.tables import ModelAlias, ModelVersion

log = logging.getLogger(__name__)

QUICK_LOAD_SECONDS = 60.0  # for a model on which others wait: at the start of a worker, or when its first job has come
LOAD_SECONDS = 600.0  # beside other models
WAIT_SECONDS = 2.0  # for a load that another thread has just begun; the jobs of one that takes longer wait in the queue


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
        self.requested: set[int] = set()  # versions that were asked for and could not be loaded

    def _open(self, version: ModelVersion, *, patient: bool) -> Model:
        """Load a version that lies in MODELS_DIR; nobody waits for one that is loaded `patient`."""
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

    def fetch_and_load(self, model_version_id: int) -> Model:
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
            with self._exclusive(model_version_id):
                if model_version_id not in self._loaded:
                    self.loading.add(label)
                    try:
                        self._loaded[model_version_id] = self._open(version, patient=fetch)
                    finally:
                        self.loading.discard(label)
        except Exception as error:
            self.refused[label] = error.detail if isinstance(error, ModelError) else safe_text(error)
            self.requested.add(model_version_id)
            raise
        self.refused.pop(label, None)
        self.requested.discard(model_version_id)
        return self._loaded[model_version_id]

    @contextmanager
    def _exclusive(self, model_version_id: int) -> Iterator[None]:
        """Let one thread at a time load a version; raise ArtefactError for callers that must not wait."""
        with self._locks[model_version_id]:
            yield

    def _check_here(self, version: ModelVersion, label: str) -> None:
        address = store_address(version, self._store)
        if address is not None and not is_complete(
            local_folder(version, self._directory), version.sha256, references_of(version)
        ):
            raise ArtefactError(self.refused.get(label) or f"It is being fetched from {address}.")

    def champion_ids(self) -> list[int]:
        """Return the ids of the versions that serve by default."""
        with Session(self._engine) as session:
            query = select(ModelAlias.model_version_id).where(ModelAlias.alias == "champion").distinct()
            return list(session.scalars(query))

    def not_loaded(self) -> set[int]:
        """Return the ids of the versions that should be loaded and are not."""
        return {*self.champion_ids(), *self.requested} - self._loaded.keys()

    def fingerprint(self, model_version_id: int) -> tuple[tuple[int, int], ...]:
        """Return size and time of each file of a version in MODELS_DIR; a changed fingerprint is worth another try."""
        with Session(self._engine) as session:
            version = session.get(ModelVersion, model_version_id)
        if version is None:
            return ()
        folder = local_folder(version, self._directory)
        files = [path.stat() for path in sorted(folder.glob("*")) if path.is_file()]
        return tuple((stat.st_size, stat.st_mtime_ns) for stat in files)

    def preload(self) -> None:
        """Load every champion now, so that the first row need not wait; a broken one is logged and tried again."""
        try:
            ids = self.champion_ids()
        except SQLAlchemyError:
            log.exception("the registry could not be read; models are loaded when they are needed")
            return
        for model_version_id in ids:
            try:
                self.get(model_version_id)
            except Exception as error:  # noqa: BLE001 - whatever it is, the process has to start for the other models
                log.warning("model version %s was not loaded; it is tried again: %s", model_version_id, error)

    def names(self) -> list[str]:
        """Return the loaded versions as `name@version`."""
        return sorted(f"{model.card.name}@{model.card.version}" for model in list(self._loaded.values()))


Guard = Callable[[str, float, Callable[[], None]], AbstractContextManager[object]]  # label, seconds, what ends it


class ModelCache(Versions[LoadedModel]):
    """The models that this process holds.

    `guard` gives a block that loads a model a time limit, and ends the process after it: Python cannot interrupt a load
    that hangs. The next process of the worker skips the model, and serves the others.
    """

    guard: Guard = staticmethod(lambda label, seconds, ending: nullcontext())

    def __init__(self, engine: Engine, directory: Path, store: str | None = None) -> None:
        super().__init__(engine, directory, store)
        self._began: dict[int, float] = {}  # model version id -> when the load began that goes on now

    @contextmanager
    def _exclusive(self, model_version_id: int) -> Iterator[None]:
        lock = self._locks[model_version_id]
        began = self._began.get(model_version_id)
        is_new = began is None or time.monotonic() - began < WAIT_SECONDS
        if not lock.acquire(timeout=WAIT_SECONDS if is_new else 0.0):
            raise ArtefactError("It is still being loaded, and its jobs wait.")
        self._began[model_version_id] = time.monotonic()
        try:
            yield
        finally:
            del self._began[model_version_id]
            lock.release()

    def _open(self, version: ModelVersion, *, patient: bool) -> LoadedModel:
        label = f"{version.name}@{version.version}"
        seconds = LOAD_SECONDS if patient else QUICK_LOAD_SECONDS
        with (
            marked(version.id, patient=patient) as note_slow,
            # What is too slow for the patient is no better than what crashes.
            self.guard(label, seconds, note_slow if not patient else lambda: None),
        ):
            return load_here(version, self._directory)


def load_here(version: ModelVersion, directory: Path) -> LoadedModel:
    """Load a version into this process; raises as `load` does."""
    began = time.monotonic()
    model = load(version, directory)
    # What a model holds lives as long as the process: the collector need not walk it again and again.
    gc.collect()
    gc.freeze()
    duration = {"duration_ms": round((time.monotonic() - began) * 1000)}
    log.info("loaded %s@%s, scored by %s", version.name, version.version, model.scorer.kind, extra=duration)
    return model
