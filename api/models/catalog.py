"""The API's snapshot of models, aliases, keys and workers: read every few seconds, replaced as a whole.

A request never asks the database what a model is. What was added a moment ago is looked for once when it is missed.
"""

import logging
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, select

from shared.background import Background
from shared.cards.card import Card
from shared.cards.examples import without_people
from shared.cards.validator import RowValidator
from shared.comparison.shadow_state import ShadowState, list_shadows
from shared.config.settings import Settings
from shared.errors import Conflict, NotFound, Unavailable
from shared.jobs.queries.jobs import StoredJob
from shared.jobs.submission import NO_VERSION
from shared.monitoring.suspensions import Suspension, list_suspended
from shared.observability.timed_tasks import RECOVER, seconds_since
from shared.tables import ApiKey, ModelAlias, ModelArchive, ModelVersion, Worker

log = logging.getLogger(__name__)

CHAMPION = "champion"
MISS_SECONDS = 3.0  # how long an answer about something that nobody knows may wait for the database
WORKER_ALIVE = timedelta(seconds=20)  # four heartbeats


@dataclass(frozen=True, slots=True)
class Version:
    """A registered model version with its compiled validator."""

    id: int
    sha256: str
    card: Card
    validator: RowValidator
    scorer: dict[str, Any]
    created_at: datetime

    @property
    def label(self) -> str:
        """`name@version`."""
        return f"{self.card.name}@{self.card.version}"

    @property
    def explained_by(self) -> str | None:
        """How its rows are explained; None where they are not, or it was not found out when it was registered."""
        method: str | None = self.scorer.get("explanation", {}).get("method")
        return method

    @property
    def explanation_refusal(self) -> str | None:
        """Why no row can be explained, after the version's name; None where rows can be, or it was not found out."""
        refused: str | None = self.scorer.get("explanation", {}).get("refused")
        return refused


@dataclass(frozen=True, slots=True)
class Key:
    """An API key that is valid now."""

    id: str
    name: str
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class LiveWorker:
    """A worker process heard of lately."""

    id: str
    lanes: list[str]
    models: list[str]
    refused: dict[str, str]  # name@version, or a store or thread -> why it could not be loaded, or what is wrong
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one moment."""

    by_id: dict[int, Version] = field(default_factory=dict)  # with the archived ones
    by_name: dict[str, dict[int, Version]] = field(default_factory=dict)  # those that serve
    archived: dict[str, dict[int, Version]] = field(default_factory=dict)  # those that do not
    aliases: dict[str, dict[str, int]] = field(default_factory=dict)  # name -> alias -> model version id
    keys: dict[str, Key] = field(default_factory=dict)  # SHA-256 -> key
    workers: list[LiveWorker] = field(default_factory=list)
    recovery_age: float | None = None  # seconds since workers took back what dead ones held, None if never
    read_at: float = 0.0  # by the monotonic clock
    widest: int = 0  # features that a caller sends in a row, of the version that takes the most
    read: dict[int, Version | None] = field(default_factory=dict)  # every version, deleted too; None: a broken card
    suspended: dict[int, Suspension] = field(default_factory=dict)  # model version id -> why its pipeline scores it
    shadows: dict[int, ShadowState] = field(default_factory=dict)  # model version id of a challenger -> its progress


class Catalog:
    """Holds the snapshot and renews it in a thread of its own."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._lock = threading.Lock()
        self._refresh_now = threading.Event()  # somebody wants it to be read now
        self._have_read = threading.Condition()
        self._read_at = 0.0
        self._thread = Background(self._run, name="catalog", wake=self._refresh_now.set)
        self.snapshot = Snapshot()
        self._answered = False  # whether the last reading succeeded

    def start(self) -> None:
        """Read once, then again every `refresh_seconds`."""
        self.refresh()
        self._thread.start()

    def stop(self) -> None:
        """Stop reading."""
        self._thread.stop(3)

    def refresh(self) -> None:
        """Read everything now; keep the old snapshot when the database does not answer."""
        with self._lock:
            self._refresh()

    def _refresh(self) -> None:
        read_at = time.monotonic()
        try:
            with self._engine.connect() as connection:
                self.snapshot = _read(connection, self.snapshot)
            self._answered = True
        except Exception as error:  # noqa: BLE001 - whatever it is, this thread has to live, and reads again
            if self._answered:
                log.warning("the registry could not be read (%r); the last snapshot stays", error)
            self._answered = False
        with self._have_read:
            self._read_at = read_at
            self._have_read.notify_all()

    def refresh_if_stale(self) -> bool:
        """Read again, because something was missed that may have been added a moment ago; for a thread.

        Those who miss something at the same time share one reading, which the catalog's own thread does: nobody waits
        for a silent database longer than MISS_SECONDS. Returns whether it answered by then.
        """
        asked_at = time.monotonic()
        if not self._thread.is_alive():
            self.refresh()
        self._refresh_now.set()
        with self._have_read:
            heard = self._have_read.wait_for(lambda: self._read_at >= asked_at, MISS_SECONDS)
        return heard and self._answered

    @property
    def is_connected(self) -> bool:
        """Whether the database answered lately: not, when it refuses, and not, when it is silent."""
        return self._answered and time.monotonic() - self._read_at < 3 * self._settings.refresh_seconds + 2

    def _run(self) -> None:
        while not self._thread.is_stopping:
            self._refresh_now.wait(self._settings.refresh_seconds)
            self._refresh_now.clear()
            if not self._thread.is_stopping:
                self.refresh()

    def default_model(self) -> str | None:
        """Return the name of the model of requests that name none."""
        names = self.snapshot.by_name
        if self._settings.default_model is not None:
            return self._settings.default_model
        return min(names, key=lambda name: min(version.id for version in names[name].values())) if names else None

    def find(self, name: str | None, version: int | None, *, archived: bool = False) -> Version | None:
        """Return the version that a request names, None if it does not exist.

        `name` is that of a model, or `name@3`, or `name@alias`; None means the default model. With `archived`, a number
        may name an archived version.
        """
        snapshot = self.snapshot
        name = name if name is not None else self.default_model()
        if name is None:
            return None
        alias = CHAMPION
        if "@" in name:
            name, number, alias = split_reference(name)
            if number is not None:
                if version not in (None, number):
                    return None
                version = number
        versions = snapshot.by_name.get(name, {})
        if archived and version is not None:
            versions = versions | snapshot.archived.get(name, {})
        if not versions:
            return None
        if version is not None:
            version_there = versions.get(version)
            named = snapshot.aliases.get(name, {}).get(alias)
            return (
                version_there
                if alias == CHAMPION or (version_there is not None and version_there.id == named)
                else None
            )
        model_version_id = snapshot.aliases.get(name, {}).get(alias)
        if model_version_id is not None:
            return snapshot.by_id[model_version_id]
        return versions[max(versions)] if alias == CHAMPION else None

    def version_of(self, job: StoredJob) -> Version:
        """Return the version that a job runs on; raise Conflict for one of no version."""
        if job.model_version_id == NO_VERSION:
            raise Conflict(f"This job ({job.kind}) has no rows: ask for its result.", job_id=job.id)
        return self.snapshot.by_id[job.model_version_id]

    def registered_by(self, job: StoredJob) -> Version | None:
        """Return the version that a job registered; None before the registration and after a deletion."""
        if job.registration is None or job.registration.model_version_id is None:
            return None
        return self.snapshot.by_id.get(job.registration.model_version_id)

    def is_archived(self, version: Version) -> bool:
        """Return whether a version is archived."""
        return version.card.version in self.snapshot.archived.get(version.card.name, {})

    def versions_of(self, name: str) -> list[Version]:
        """Return all versions of a model, also those that serve no more, the newest first."""
        versions = self.snapshot.by_name.get(name, {}) | self.snapshot.archived.get(name, {})
        return [versions[number] for number in sorted(versions, reverse=True)]

    def missing_version_error(self, name: str | None, version: int | None) -> NotFound | Unavailable:
        """Return the error for a version that does not exist, in words that name those that do."""
        names = self.snapshot.by_name
        if not self.is_connected:
            return silence()
        if not names:
            return Unavailable(
                "No model is registered: add one with `python -m shared.registry add model.joblib --reference rows.csv "
                "--name NAME`.",
                retry_after=10,
            )
        name = name if name is not None else self.default_model()
        name, _, suffix = (name or "").partition("@")
        number = int(suffix) if suffix.isascii() and suffix.isdigit() and len(suffix) < 10 else version
        put_away = self.snapshot.archived.get(name, {})
        if number in put_away or (put_away and name not in names):
            listing = f"serving: {', '.join(map(str, sorted(names.get(name, {})))) or 'none'}"
            which = f"Version {number} of {name} is" if number in put_away else f"All versions of {name} are"
            return NotFound(f"{which} archived: an operator can restore it. Versions that are {listing}.")
        if name not in names:
            return NotFound(f"There is no model of that name. Known models: {', '.join(sorted(names))}.")
        listing = f"Known versions: {', '.join(str(number) for number in sorted(names[name]))}."
        if not suffix:
            return NotFound(f"There is no such version of {name}. {listing}")
        aliases = ", ".join(sorted(self.snapshot.aliases.get(name, {}))) or "none"
        return NotFound(f"There is no such version or alias of {name}. {listing} Known aliases: {aliases}.")

    def recovery_age(self) -> float | None:
        """Return the seconds since workers last recovered jobs of dead ones, None before the first time."""
        snapshot = self.snapshot
        return None if snapshot.recovery_age is None else snapshot.recovery_age + time.monotonic() - snapshot.read_at

    def live_workers(self) -> list[LiveWorker]:
        """Return the worker processes heard of in the last 20 seconds."""
        horizon = datetime.now(UTC) - WORKER_ALIVE
        return [worker for worker in self.snapshot.workers if worker.seen_at > horizon]


def split_reference(reference: str) -> tuple[str, int | None, str]:
    """Return the model's name, the version's number if it is given, and the alias: of `name@3` and of `name@alias`."""
    name, _, suffix = reference.partition("@")
    if suffix.isascii() and suffix.isdigit() and len(suffix) < 10:
        return name, int(suffix), CHAMPION
    return name, None, suffix or "@"  # which is no alias: `name@` means nothing


def silence() -> Unavailable:
    """Return the answer while the database is silent or gone and the catalog cannot decide."""
    return Unavailable("The database does not answer: try again in a moment.", retry_after=2)


def _read(connection: Connection, old: Snapshot) -> Snapshot:
    by_id: dict[int, Version] = {}
    by_name: dict[str, dict[int, Version]] = {}
    ids = list(connection.scalars(select(ModelVersion.id)))
    new = [number for number in ids if number not in old.read]
    rows = connection.execute(
        select(
            ModelVersion.id,
            ModelVersion.sha256,
            ModelVersion.card,
            ModelVersion.scorer,
            ModelVersion.created_at,
        ).where(ModelVersion.id.in_(new))
    )
    read = {number: old.read[number] for number in ids if number in old.read}
    for number, sha256, stored_card, scorer, created_at in rows:
        try:
            card = without_people(Card.model_validate(stored_card))
            read[number] = Version(number, sha256, card, RowValidator(card), scorer, created_at)
        except Exception as error:  # noqa: BLE001 - one broken card must not hide every other model
            log.error("model version %s is not served: its card does not hold (%s)", number, type(error).__name__)
            read[number] = None
    for number in ids:
        version = read.get(number)
        if version is None:
            continue
        by_id[number] = version
        by_name.setdefault(version.card.name, {})[version.card.version] = version
    put_away = {
        row.model_version_id: row.deleted_at
        for row in connection.execute(select(ModelArchive.model_version_id, ModelArchive.deleted_at))
    }
    archived: dict[str, dict[int, Version]] = {}
    for number in [number for number in by_id if number in put_away]:
        version = by_id[number]
        del by_name[version.card.name][version.card.version]
        if not by_name[version.card.name]:
            del by_name[version.card.name]
        if put_away[number] is None:
            archived.setdefault(version.card.name, {})[version.card.version] = version
        else:
            del by_id[number]  # nothing refers to it
    aliases: dict[str, dict[str, int]] = {}
    for alias in connection.execute(select(ModelAlias.name, ModelAlias.alias, ModelAlias.model_version_id)):
        if alias[2] in by_id:  # read a moment after the versions: it may mean one that is not among them yet
            aliases.setdefault(alias[0], {})[alias[1]] = alias[2]
    keys = {
        row[0]: Key(row[1], row[2], frozenset(row[3].split(",")))
        for row in connection.execute(
            select(ApiKey.sha256, ApiKey.id, ApiKey.name, ApiKey.scopes).where(ApiKey.revoked_at.is_(None))
        )
    }
    workers = [
        LiveWorker(row[0], row[1].split(",") if row[1] else [], row[2], row[3], row[4])
        for row in connection.execute(
            select(Worker.id, Worker.lanes, Worker.models, Worker.refused, Worker.seen_at)
            .where(Worker.seen_at > datetime.now(UTC) - timedelta(hours=1))
            .order_by(Worker.id)
        )
    ]
    recovery_age = seconds_since(connection, RECOVER) if connection.dialect.name == "postgresql" else None
    widest = max((len(version.card.sent_features) for version in by_id.values()), default=0)
    return Snapshot(
        by_id,
        by_name,
        archived,
        aliases,
        keys,
        workers,
        recovery_age,
        time.monotonic(),
        widest,
        read,
        suspended={version: why for version, why in list_suspended(connection).items() if version in by_id},
        shadows={version: state for version, state in list_shadows(connection).items() if version in by_id},
    )
