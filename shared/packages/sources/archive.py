"""Zip archives of strangers, unpacked: no file leaves the folder, and no archive grows beyond a limit."""

import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from shared.errors import ArtefactError
from shared.packages.package import MODEL_FILE

MOST_FILES = 1_000
MLMODEL = "MLmodel"
ZIP = b"PK\x03\x04"
_STRAY = "__MACOSX"  # a folder that macOS adds to its archives


def is_archive(path: Path) -> bool:
    """Return whether a file begins like a zip archive."""
    with path.open("rb") as file:
        return file.read(len(ZIP)) == ZIP


def unpack(path: Path, folder: Path, *, max_bytes: int) -> None:
    """Unpack a zip archive into a new folder.

    Raises ArtefactError for a damaged or encrypted archive, for one that would write outside the folder, holds links
    or a name twice, and for one that is larger than `max_bytes` unpacked, or holds more than a thousand files.
    """
    name = path.name
    folder.mkdir()
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            _check(name, entries, max_bytes)
            for entry in entries:
                target = folder / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                # It gives no more bytes than the entry announces, which are counted above.
                with archive.open(entry) as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ArtefactError(f"{name} is no zip archive that can be read ({type(error).__name__}): zip it again.") from (
            error
        )
    except OSError as error:
        raise ArtefactError(
            f"{name} cannot be unpacked ({error.strerror}): zip the folder of the model again, and nothing else."
        ) from error


def _check(name: str, entries: list[zipfile.ZipInfo], max_bytes: int) -> None:
    if len(entries) > MOST_FILES:
        raise ArtefactError(f"{name} holds {len(entries)} files, which is no model: zip the model's own folder.")
    size = sum(entry.file_size for entry in entries)
    if size > max_bytes:
        raise ArtefactError(
            f"{name} holds {size / 1e6:,.0f} MB unpacked, and {max_bytes / 1e6:,.0f} MB are taken (MAX_MODEL_BYTES)."
        )
    seen = set()
    for entry in entries:
        shown = entry.filename[:70]
        parts = PurePosixPath(entry.filename).parts
        # orig_filename: zipfile cuts the other at a null byte.
        if not parts or ".." in parts or parts[0] == "/" or set(entry.orig_filename) & {"\\", "\0", ":"}:
            raise ArtefactError(f"{name} holds a file named {shown!r}, which would leave the folder: zip it again.")
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise ArtefactError(f"{name} holds {shown!r}, which is a link or a device: put the file itself there.")
        if entry.flag_bits & 1:
            raise ArtefactError(f"{name} is encrypted: zip the folder of the model without a password.")
        if entry.filename in seen:
            raise ArtefactError(f"{name} holds {shown!r} twice: zip the folder of the model again.")
        seen.add(entry.filename)


def model_within(folder: Path, name: str) -> Path:
    """Return the folder of the one model in an unpacked archive: with an MLmodel file, or else a `model.joblib`.

    Raises ArtefactError, with the archive's name, where there is none, or several.
    """
    for marker in (MLMODEL, MODEL_FILE):
        places = sorted(place.parent for place in folder.rglob(marker) if _STRAY not in place.relative_to(folder).parts)
        # What lies inside a model's folder is part of it.
        places = [place for place in places if not any(other in place.parents for other in places)]
        if len(places) == 1:
            return places[0]
        if places:
            raise ArtefactError(f"{name} holds {len(places)} models: upload each in an archive of its own.")
    raise ArtefactError(
        f"{name} holds neither {MLMODEL} nor {MODEL_FILE}: zip the folder that MLflow saved, or upload the joblib or "
        "skops file itself. Keras and PyTorch models are not served."
    )
