"""A thread that fetches, registers and loads new models while the service runs, without a restart."""

import logging
import math
import time
from dataclasses import dataclass
from pathlib import PurePosixPath

from pydantic import ValidationError
from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError

from shared.background import Background
from shared.cards.card import Card
from shared.config.settings import Settings
from shared.database.engine import is_sqlite, session_scope
from shared.errors import CardError, Conflict, GuichetError
from shared.observability.redaction import safe_text, without_words
from shared.packages import stores
from shared.packages.fetching import downloaded
from shared.packages.package import CARD_FILE, MODEL_FILE
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from shared.registry.loaded_models import Model, Versions
from shared.tables import ModelVersion
from shared.validation_errors import first_faults

LONGEST_PAUSE = 30.0  # seconds between two tries of a model that cannot be loaded
MAY_NOT_REGISTER = (
    "The role of DATABASE_URL may not register models: run `python -m scripts.create_db --app-registers` (with "
    "Compose, set MODELS_ACCESS=rw in .env, or APP_REGISTERS for `migrate`)."
)
_NOT_ALLOWED = "42501"  # SQLSTATE: insufficient privilege
REFUSED_SECONDS = 600.0  # between two tries of a package in the store that cannot be registered, if it is not altered

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Retry:
    """The time of the next try of a version that could not be loaded."""

    pause: float
    at: float = 0.0
    fingerprint: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class _Seen:
    """A package of the store that was looked at."""

    fingerprint: str
    again_at: float = math.inf  # when one that was refused is tried again, though it did not change


class ModelWatcher:
    """A thread that checks every `refresh_seconds` for models to load, and less often for new packages in the store.

    Only a process that may register (`engine` can write) checks the store.
    """

    def __init__(self, models: Versions[Model], settings: Settings, *, engine: Engine | None = None) -> None:
        self._models = models
        self._settings = settings
        self._engine = engine
        self._retries: dict[int, _Retry] = {}
        self._seen: dict[str, _Seen] = {}  # by the folder in the store
        self._poll_at = 0.0
        self._thread = Background(self._run, name="arrivals")

    def start(self) -> None:
        """Begin to look; the first time at once."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; an unfinished download stays as a draft."""
        self._thread.stop(2)

    def _run(self) -> None:
        while True:
            try:
                self.poll()
            except SQLAlchemyError as error:
                log.debug("the registry could not be read for new models (%s)", type(error).__name__)
            except Exception:  # whatever it is, the next model may be a sound one
                log.exception("looking for models that arrived failed; it is tried again")
            if self._thread.wait(self._settings.refresh_seconds):
                return

    def poll(self) -> None:
        """Do one round: register new packages of the store, and load missing models."""
        now = time.monotonic()
        if self._engine is not None and self._settings.models_uri is not None and now >= self._poll_at:
            self._poll_at = now + self._settings.models_check_seconds
            self._poll_store(self._engine, self._settings.models_uri)
        not_loaded = self._models.not_loaded()
        for gone in self._retries.keys() - not_loaded:
            del self._retries[gone]
        for model_version_id in sorted(not_loaded):
            self._load_again(model_version_id)

    def _load_again(self, model_version_id: int) -> None:
        retry = self._retries.setdefault(model_version_id, _Retry(self._settings.refresh_seconds))
        fingerprint = self._models.fingerprint(model_version_id)
        if fingerprint == retry.fingerprint and time.monotonic() < retry.at:
            return
        try:
            self._models.fetch_and_load(model_version_id)
        except SQLAlchemyError:
            raise
        except Exception as error:  # noqa: BLE001 - the reason stands in Versions.refused, and in /health
            if fingerprint != retry.fingerprint or not retry.at:
                log.warning("model version %s cannot be loaded: %s", model_version_id, error)
            retry.fingerprint = self._models.fingerprint(model_version_id)
            retry.at = time.monotonic() + retry.pause
            retry.pause = min(LONGEST_PAUSE, 2 * retry.pause)

    def _poll_store(self, engine: Engine, store: str) -> None:
        try:
            cards = find_packages(store)
        except GuichetError as error:
            if self._models.refused.get(store) != error.detail:
                log.warning("%s", error.detail)
            self._models.refused[store] = error.detail
            return
        if cards:
            self._models.refused.pop(store, None)
        else:
            self._models.refused[store] = no_packages(store)
        for gone in self._seen.keys() - cards.keys():
            del self._seen[gone]
            self._models.refused.pop(_address(store, gone), None)
        for folder, fingerprint in cards.items():
            seen = self._seen.get(folder)
            if seen is None or seen.fingerprint != fingerprint or time.monotonic() >= seen.again_at:
                self._register_if_new(engine, store, folder, fingerprint)

    def _register_if_new(self, engine: Engine, store: str, folder: str, fingerprint: str) -> None:
        """Register a package of the store, if it is not registered yet; return the reason if that is impossible."""
        address = _address(store, folder)
        try:
            self._register(engine, address, folder)
        except Exception as error:
            is_forbidden = getattr(getattr(error, "orig", None), "pgcode", None) == _NOT_ALLOWED
            if isinstance(error, SQLAlchemyError) and not is_forbidden:
                raise
            # Else a package is anyone's code, and the next one may be sound.
            why = MAY_NOT_REGISTER if is_forbidden else without_words(safe_text(error), error)
            if self._models.refused.get(address) != why:
                log.warning("%s is not registered: %s", address, why)
            self._models.refused[address] = why
            self._seen[folder] = _Seen(fingerprint, time.monotonic() + REFUSED_SECONDS)
        else:
            self._models.refused.pop(address, None)
            self._seen[folder] = _Seen(fingerprint)

    def _register(self, engine: Engine, address: str, folder: str) -> None:
        card = _card(address)
        label = f"{card.name}@{card.version}"
        query = select(ModelVersion.sha256).where(ModelVersion.name == card.name, ModelVersion.version == card.version)
        with session_scope(engine, read_only=is_sqlite(engine)) as session:
            registered = session.scalar(query)
        if registered is None:
            if not self._models.names():  # it may take minutes, in which /health would tell to add what is on its way
                self._models.refused[address] = f"{address} is being fetched."
            with downloaded(address, self._settings.models) as source, session_scope(engine) as session:
                uri = None if folder == f"{card.name}/{card.version}" else source.address
                add(session, source.path, AddOptions(version=card.version), uri=uri, models_dir=self._settings.models)
            log.info("%s was registered from %s", label, address)
        elif registered != card.sha256:
            raise Conflict(
                f"{address} says that it is {label}, and another artefact is registered as that: versions are "
                "immutable. Put it there as the next version."
            )


def _address(store: str, folder: str) -> str:
    return stores.join(store, folder) if folder else store


def find_packages(store: str) -> dict[str, str]:
    """Return the package folders of a store, each with a fingerprint of its content.

    Names with a dot in front are drafts: the store may be the MODELS_DIR of another service, which is fetching.
    Raises ArtefactError where the store refuses or does not answer.
    """
    listed = stores.list_files(store, depth=3)
    files = {name: file for name, file in listed.items() if not name.startswith(".") and "/." not in name}
    folders = sorted(name.removesuffix(CARD_FILE) for name in files if PurePosixPath(name).name == CARD_FILE)
    return {
        folder.rstrip("/"): f"{files[folder + CARD_FILE].fingerprint} {files[folder + MODEL_FILE].fingerprint}"
        for folder in folders
        if folder + MODEL_FILE in files
    }


def no_packages(store: str) -> str:
    """Return advice on a store without packages."""
    return (
        f"There is no model package at {store}: put {MODEL_FILE} and its card {CARD_FILE} into a folder NAME/VERSION "
        "there."
    )


def _card(address: str) -> Card:
    path = stores.join(address, CARD_FILE)
    try:
        return Card.model_validate_json(stores.read_small(path))
    except ValidationError as error:
        raise CardError(f"{path} is not a valid card: {first_faults(error)}. Correct the file.") from None
