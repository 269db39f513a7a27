"""Uploaded models: the jobs `register`. Each is claimed alone, proved in a process of its own, and made a version.

The same in both runtimes: a worker of the bulk lane calls it, or a thread of the sync runtime. The proof's folder lies
in MODELS_DIR, where there has to be room for the package anyway; whoever is killed leaves it to the next one.
"""

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from shared.config.settings import Settings
from shared.database.engine import reader
from shared.database.messages import explain_database_error
from shared.errors import GuichetError
from shared.jobs import registrations
from shared.jobs.registrations import Upload
from shared.jobs.transitions import Claim
from shared.observability.logs import bound

if TYPE_CHECKING:
    from shared.packages.sources.candidates import AddOptions
    from shared.registry.adding import Proved

log = logging.getLogger(__name__)

FOLDER = ".registering-"  # how the folder of a proof begins; names with a dot are no models
PAUSE_SECONDS = 1.0  # between two tries to store the end of a job
PATIENCE_SECONDS = 900.0


class Lost(Exception):
    """Another holds the job by now: nothing of it may be kept."""


def claim_next(engine: Engine, settings: Settings, *, worker: str) -> Claim | None:
    """Claim the first job of no version that waits, and remove the pieces of canceled ones; None without one."""
    with reader(engine).connect() as connection:  # nearly always there are none: nothing is locked to see that
        if not registrations.count_unfinished(connection) and not registrations.is_waiting(connection):
            return None
    with engine.begin() as connection:
        registrations.forget_files(connection)
        return registrations.claim(connection, worker=worker, lease_seconds=settings.lease_seconds)


@dataclass(frozen=True, slots=True)
class Way:
    """How files become a version: what a kind of job that is claimed by `claim_next` does with them."""

    prove: "Callable[[Engine, Settings, Claim, Path, dict[str, str], Upload, Callable[[], bool]], Proved]"
    publish: "Callable[[Engine, Settings, Claim, Upload, Proved], bool]"


def register(
    engine: Engine, settings: Settings, held: Claim, *, is_stopping: Callable[[], bool] = lambda: False
) -> bool:
    """Make a version of the upload of a claimed job, as `work_on` does."""
    return work_on(engine, settings, held, UPLOADS, is_stopping=is_stopping)


def work_on(
    engine: Engine, settings: Settings, held: Claim, way: Way, *, is_stopping: Callable[[], bool] = lambda: False
) -> bool:
    """Prove the upload of a claimed job and make it a version, or end the job as failed with the reason.

    Return whether the job has ended; False: another holds it, or this process stops.
    """
    from shared.packages.package import sweep

    with bound(job_id=held.job_id, request_id=held.request_id):
        with engine.connect() as connection:
            upload = registrations.find_upload(connection, held.job_id)
        try:
            return _work_on(engine, settings, held, upload, way, is_stopping)
        finally:
            sweep(settings.models, FOLDER)  # of an attempt whose worker was killed


def _work_on(
    engine: Engine, settings: Settings, held: Claim, upload: Upload, way: Way, is_stopping: Callable[[], bool]
) -> bool:
    from shared.packages.package import draft_folder
    from shared.registry.proof import NotProved, NotWanted

    is_wanted = waiting_for(engine, held, is_stopping)
    try:
        settings.models.mkdir(parents=True, exist_ok=True)
        with draft_folder(settings.models, f"{FOLDER}{held.job_id}-") as folder:
            files = _lay_down(engine, held, upload, folder)
            proved = way.prove(engine, settings, held, folder, files, upload, is_wanted)
            _check_name(upload, proved)
            return way.publish(engine, settings, held, upload, proved)
    except NotWanted:
        return not is_stopping() and store_end(engine, lambda connection: registrations.cancel(connection, held))
    except NotProved as reason:
        code, message = reason.code, reason.message
    except GuichetError as error:
        code, message = "model_refused", error.detail.rstrip(".")
    except DBAPIError as error:
        if error.connection_invalidated:
            raise  # its lease runs out, and another tries again
        code, message = "not_registered", explain_database_error(error).rstrip(".")
    except OSError as error:
        code = "not_registered"
        message = f"MODELS_DIR cannot be written here ({error.strerror}): give the service the right to, or room"
    message = message.replace(str(settings.models), "MODELS_DIR")  # where that is, no caller has to know
    log.warning("an upload became no version of %s (%s)", upload.name, code)
    return store_end(engine, lambda connection: registrations.fail(connection, held, code=code, message=message))


def waiting_for(engine: Engine, held: Claim, is_stopping: Callable[[], bool]) -> Callable[[], bool]:
    """Return what tells whether anybody still waits for a claimed job: it was not canceled, and we do not stop."""

    def is_wanted() -> bool:
        if is_stopping():
            return False
        # A database that is away says nothing: the process goes on.
        with contextlib.suppress(DBAPIError), engine.connect() as connection:
            return not registrations.is_canceled(connection, held)
        return True

    return is_wanted


def _prove(
    engine: Engine,
    settings: Settings,
    held: Claim,
    folder: Path,
    files: dict[str, str],
    upload: Upload,
    is_wanted: Callable[[], bool],
) -> "Proved":
    from shared.registry.proof import Limits, prove_apart

    limits = Limits(held.timeout_seconds, settings.model_proof_bytes, settings.max_model_bytes)
    return prove_apart(folder, files, upload.options, limits, is_wanted=is_wanted)


def _lay_down(engine: Engine, held: Claim, upload: Upload, folder: Path) -> dict[str, str]:
    """Write the files of an upload into a folder; return their names by the field that they came in."""
    for field, file in upload.files.items():
        # Each piece is read in a transaction of its own: none is open while the disk is written.
        with engine.connect() as connection, (folder / file.name).open("xb") as target:
            for piece in registrations.read_file(connection, held.job_id, field):
                target.write(piece)
    return {field: file.name for field, file in upload.files.items()}


def _check_name(upload: Upload, proved: "Proved") -> None:
    from shared.registry.proof import NotProved

    version = upload.options.get("version")
    if proved.card.name != upload.name or version not in (None, proved.card.version):
        raise NotProved("model_refused", "the proof came to a model of another name or version than was uploaded")


def _publish(engine: Engine, settings: Settings, held: Claim, upload: Upload, proved: "Proved") -> bool:
    from shared.packages.sources.candidates import AddOptions

    options = AddOptions(version=upload.options.get("version"))
    return publish_proved(engine, settings, held, upload, proved, options, reason="its first version, by upload")


def publish_proved(
    engine: Engine,
    settings: Settings,
    held: Claim,
    upload: Upload,
    proved: "Proved",
    options: "AddOptions",
    *,
    reason: str,
    keep: Callable[[Connection], None] = lambda _: None,
) -> bool:
    """Write the package, the version, what `keep` stores, and the end of its job; return whether that was still ours.

    Nothing of it is registered where the job is another's by now.
    """
    from shared.packages.fetching import upload_package
    from shared.registry.adding import publish
    from shared.registry.aliases import Change
    from shared.registry.versions import CHAMPION

    change = Change(reason, upload.actor, held.request_id)
    try:
        with Session(engine) as session, session.begin():
            before = _alias_version(session, upload.name)
            row = publish(session, proved, options, uri=None, models_dir=settings.models, change=change)
            upload_package(row, settings.models, settings.models_uri)
            session.flush()
            moved = CHAMPION if before is None and _alias_version(session, upload.name) == row.id else None
            keep(session.connection())
            if not registrations.succeed(session.connection(), held, model_version_id=row.id, alias=moved):
                raise Lost
            label = f"{row.name}@{row.version}"
    except Lost:
        log.warning("an upload was proved by another meanwhile: nothing of it was registered here")
        return False
    log.info("an upload became %s", label)
    return True


def _alias_version(session: Session, name: str) -> int | None:
    from sqlalchemy import select

    from shared.registry.versions import CHAMPION
    from shared.tables import ModelAlias

    return session.scalar(
        select(ModelAlias.model_version_id).where(ModelAlias.name == name, ModelAlias.alias == CHAMPION)
    )


def store_end(engine: Engine, end: Callable[[Any], bool]) -> bool:
    """Store the end of a job, as soon as the database takes it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with engine.begin() as connection:
                return end(connection)
        except DBAPIError as error:
            if not error.connection_invalidated or time.monotonic() > deadline:
                raise
            log.warning("the end of an upload could not be stored (%s); it is tried again", type(error).__name__)
            time.sleep(PAUSE_SECONDS)


UPLOADS = Way(_prove, _publish)
