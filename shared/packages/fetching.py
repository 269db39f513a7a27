"""The folder of a registered model's package, and its download from a store into MODELS_DIR."""

import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shared.cards.card import Card
from shared.config.addresses import is_address
from shared.errors import ArtefactError, Conflict, GuichetError
from shared.packages import stores
from shared.packages.package import (
    CARD_FILE,
    MODEL_FILE,
    REFERENCE_FILE,
    check_reference,
    is_complete,
    references_of,
    sha256_of,
)
from shared.packages.sample import write_rows
from shared.tables import ModelVersion

STALE_SECONDS = 86_400  # what a killed process left of a download is removed after a day
FILES = (MODEL_FILE, REFERENCE_FILE, CARD_FILE)  # the card last: who sees it in a store sees a whole package

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """A model that was fetched to be registered."""

    path: Path  # the file or folder, as if it had been here all the time
    address: str | None  # where the same package can be fetched again; None when it is not a whole one


def local_folder(row: ModelVersion, models_dir: Path) -> Path:
    """Return the folder of a version's package in MODELS_DIR, whether it is there or not."""
    return models_dir / (f"{row.name}/{row.version}" if is_address(row.uri) else row.uri)


def store_address(row: ModelVersion, store: str | None) -> str | None:
    """Return the store address of a version's package, None without one."""
    if is_address(row.uri):
        return row.uri
    return None if store is None else stores.join(store, row.uri)


def ensure_local(row: ModelVersion, models_dir: Path, store: str | None) -> Path:
    """Return the folder of a version's package; fetch it where it is missing or damaged, and a store has it.

    Its SHA-256 is that of the database, or nothing is put in place. Raises ArtefactError with what to do.
    """
    folder = local_folder(row, models_dir)
    address = store_address(row, store)
    if address is None or is_complete(folder, row.sha256, references_of(row)):
        return folder  # whether it is whole, or what it lacks, is said by who reads it
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(folder):
            if not is_complete(folder, row.sha256, references_of(row)):  # another process may just have fetched it
                _fetch(row, address, folder)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder


def upload_package(row: ModelVersion, models_dir: Path, store: str | None) -> None:
    """Copy a version's package into the store, so that every host can fetch it; call it before the COMMIT.

    Raises Conflict where the store has another artefact under this name and version.
    """
    if store is None or is_address(row.uri):
        return
    address, folder = stores.join(store, row.uri), local_folder(row, models_dir)
    if not stores.is_writable(store):
        log.warning(
            "%s@%s stays in %s: %s is only read; upload the package there with the tools of the hub",
            row.name,
            row.version,
            folder,
            store,
        )
        return
    try:
        present = Card.model_validate_json(stores.read_small(stores.join(address, CARD_FILE))).sha256
    except (ArtefactError, ValueError):
        present = None  # nothing there, or the rest of an upload that broke off; a store that is away says so below
    if present is not None and present != row.sha256:
        raise Conflict(
            f"{address} holds another artefact than {row.name}@{row.version}: versions are immutable. Register this "
            "one under the next number with --version."
        )
    if present is None:
        stores.upload(folder, FILES, address)


@contextmanager
def downloaded(address: str, models_dir: Path) -> Iterator[Source]:
    """Yield the model at an address, downloaded into a folder of MODELS_DIR that is removed at the end of the block.

    The address is that of a folder (a package, or one that MLflow saved) or of a joblib file, whose card and reference
    rows are fetched too when they lie beside it.
    """
    address = stores.pin_revision(address.rstrip("/"))
    files = stores.list_files(address)
    name = ""
    if list(files) == [""]:
        address, _, name = address.rpartition("/")
        beside = stores.list_files(address, depth=1)
        files = {each: beside[each] for each in {name, CARD_FILE, REFERENCE_FILE} if each in beside}
    with _incoming(models_dir) as folder:
        stores.fetch(address, files, folder)
        is_package = {MODEL_FILE, CARD_FILE} <= files.keys() and name in ("", MODEL_FILE)
        try:
            yield Source(folder / name, address if is_package else None)
        except GuichetError as error:  # what is wrong with it is to be mended in the store: here it is gone in a moment
            error.detail = error.detail.replace(str(folder), address)
            raise


@contextmanager
def _incoming(models_dir: Path) -> Iterator[Path]:
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        _sweep(models_dir, ".incoming-*")
        made = tempfile.TemporaryDirectory(prefix=".incoming-", dir=models_dir)
    except OSError as error:
        raise _unwritable(models_dir, error) from error
    with made as folder:
        yield Path(folder)


def _unwritable(folder: Path, error: OSError) -> ArtefactError:
    return ArtefactError(
        f"{folder} cannot be written ({error.strerror}): set MODELS_DIR to a folder that this process may write."
    )


def _fetch(row: ModelVersion, address: str, folder: Path) -> None:
    files = stores.list_files(address, depth=1)
    if MODEL_FILE not in files:
        raise ArtefactError(
            f"There is no {MODEL_FILE} at {address}: put the package of {row.name}@{row.version} there."
        )
    _sweep(folder.parent, f".{folder.name}-*")
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        stores.fetch(address, {name: files[name] for name in (MODEL_FILE, REFERENCE_FILE) if name in files}, draft)
        digest = sha256_of(draft / MODEL_FILE)
        if digest != row.sha256:
            raise ArtefactError(
                f"{stores.join(address, MODEL_FILE)} was not loaded: its SHA-256 is {digest[:12]}…, and "
                f"{row.sha256[:12]}… was registered. The file was altered, cut short or swapped; restore the original, "
                "or add this one as a new version with `python -m shared.registry add`."
            )
        card = Card.model_validate(row.card)
        if REFERENCE_FILE not in files:
            write_rows(draft / REFERENCE_FILE, [card.example()])
        check_reference(draft, references_of(row))
        card.dump(draft / CARD_FILE)
        draft.chmod(0o755)  # mkdtemp lets only its maker in; another process may run as another user
        _replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    log.info("%s@%s was fetched from %s", row.name, row.version, address)


def _sweep(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        if path.is_dir() and time.time() - path.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _replace(draft: Path, folder: Path) -> None:
    if folder.exists():
        log.warning("%s was not the registered package; it is replaced by the store's", folder)
        damaged = draft.with_name(f"{draft.name}-damaged")
        folder.rename(damaged)
        draft.rename(folder)
        shutil.rmtree(damaged, ignore_errors=True)
    else:
        draft.rename(folder)


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Let one process at a time fetch a package; the lock ends with its holder, however that ends."""
    descriptor = os.open(folder.with_name(f".{folder.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
