"""A model package on disk: `model.joblib`, its card `model.json` and its sample `reference.jsonl`.

A pickle runs code when it is read, so the artefact's SHA-256 is checked before the first byte is unpickled, and only
the bytes that were checked are (shared/packages/artefacts/verified_file.py).
"""

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import pickle
import re
import shutil
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from shared.cards.card import Card
from shared.cards.features import FeatureType
from shared.csv.format import CsvOptions
from shared.encoding.pipelines import objects_within
from shared.errors import ArtefactError, CardError
from shared.files import open_file
from shared.packages.agreement import check_agreement, check_task, class_names, feature_names
from shared.packages.artefacts.joblib_file import (
    LIBRARIES,
    NOT_SERVED,
    SERVED,
    Content,
    check_booster,
    check_start,
    content_of,
)
from shared.packages.artefacts.sklearn_versions import (
    SCIKIT_LEARN,
    load_with_shims,
    patch_attributes,
    reads_otherwise,
    recorded_version,
)
from shared.packages.artefacts.verified_file import BLOCK_BYTES, VerifiedFile
from shared.packages.sample import (
    ReferenceRows,
    canonical_rows,
    check_target,
    read_rows,
    rows_text,
    sample,
    write_rows,
)
from shared.tables import ModelVersion
from shared.validation_errors import first_faults

MODEL_FILE = "model.joblib"
CARD_FILE = "model.json"
REFERENCE_FILE = "reference.jsonl"
DRAFT = ".new-"  # how the folder is called in which a package is written
FRESH_SECONDS = 5
UNHASHED = "0" * 64  # the SHA-256 in the card of a model that is not saved yet
START_BYTES = 200  # of a file, which tell what it is if it is no joblib file

_NO_ATTRIBUTE = re.compile(r"(?:Can't get attribute|Can't get) '([^']+)' on <module '([^']+)'")
_MAIN = threading.RLock()  # held while `__main__` means something else

log = logging.getLogger(__name__)


Complete = Callable[[ReferenceRows, Mapping[str, FeatureType | None]], ReferenceRows]


def as_they_are(file_rows: ReferenceRows, _: Mapping[str, FeatureType | None]) -> ReferenceRows:
    """Return reference rows with the columns of their file, whatever the model's features are."""
    return file_rows


@dataclass(frozen=True, slots=True)
class Package:
    """A trained model with all that it is registered with."""

    card: Card
    estimator: Any  # a fitted scikit-learn compatible estimator or pipeline
    reference: list[dict[str, Any]]  # canonical rows that resemble what it was trained on
    file_rows: ReferenceRows | None = None  # those and all others, as their file has them
    lines: list[int] | None = None  # of each canonical row: its place in that file; None: they come from no file

    def place_of(self, row: int) -> str:
        """Return the place of a reference row in its file: `line 7`, or `row 6` of a table; `row` counts from 0."""
        if self.lines is None or self.file_rows is None:
            return f"row {row + 1}"
        return f"{self.file_rows.unit} {self.lines[row]}"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits; raise ArtefactError when it cannot be read."""
    with _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_estimator(directory: Path, card: Card) -> Any:  # noqa: ANN401 - estimators share no base class
    """Return the estimator of the package in `directory`, which must be the one that the card was written for.

    Raises ArtefactError when model.joblib is missing, is not the file with the card's SHA-256 (it is then never
    unpickled) or cannot be loaded, and CardError when the card describes another model.
    """
    path = directory / MODEL_FILE
    estimator = unpickle(path, sha256=card.sha256, libraries=card.libraries)
    check_agreement(card, estimator)
    return estimator


def unpickle(path: Path, *, sha256: str | None, libraries: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401
    """Return the object in a joblib file with this SHA-256; None trusts the file."""
    return unpickle_with_versions(path, sha256=sha256, libraries=libraries)[0]


def unpickle_with_versions(
    path: Path, *, sha256: str | None, libraries: Mapping[str, str] | None = None
) -> tuple[Any, dict[str, str]]:
    """Unpickle a joblib file as `unpickle` does; return also the library versions that the file itself tells.

    Only that of scikit-learn is told, and only where another one is installed here; it is then warned of.
    """
    content, saved_versions = read_artefact(path, sha256=sha256, libraries=libraries)
    return content.estimator, saved_versions


def read_artefact(
    path: Path, *, sha256: str | None, libraries: Mapping[str, str] | None = None
) -> tuple[Content, dict[str, str]]:
    """Return the estimator in a joblib file with its other contents, and the library versions in the file."""
    with _opened(path) as opened:
        file = opened if sha256 is None else _verified(opened, path, sha256)
        recorded = dict(libraries or {})
        warn_version_mismatch(path, recorded)
        check_start(path, file.peek(START_BYTES)[:START_BYTES])
        thing, saved_versions = _read_pickle(path, file, recorded)
    content = content_of(thing, path)
    patch_attributes(objects_within(content.estimator))
    if SCIKIT_LEARN not in recorded:
        warn_version_mismatch(path, saved_versions)
    if saved_versions and (what := reads_otherwise(content.estimator)):
        raise ArtefactError(
            f"{path} holds {what}: it would give other scores than those that it was trained to. "
            f"{version_advice(saved_versions)}"
        )
    return content, saved_versions


def _verified(file: BufferedReader, path: Path, sha256: str) -> BufferedReader:
    """Return the file with exactly the bytes that have this SHA-256, whatever happens to it meanwhile."""
    checked = VerifiedFile(file.fileno(), str(path))
    if checked.sha256 != sha256:
        raise ArtefactError(
            f"{path} was not loaded: its SHA-256 is {checked.sha256[:12]}…, and {sha256[:12]}… was registered. The "
            "file was altered, cut short or swapped; restore the original, or add this one as a new version with "
            "`python -m shared.registry add`."
        )
    return BufferedReader(checked, BLOCK_BYTES)


def read_thing(path: Path, *, stand_in: ModuleType | None = None, sha256: str | None = None) -> Any:  # noqa: ANN401
    """Return the content of a joblib file, after checking its SHA-256 unless its origin is trusted (None).

    `stand_in` has what its notebook defined itself.
    """
    with _opened(path) as opened:
        file = opened if sha256 is None else _verified(opened, path, sha256)
        check_start(path, file.peek(START_BYTES)[:START_BYTES])
        return _read_pickle(path, file, {}, stand_in)[0]


def _read_pickle(
    path: Path, file: BufferedReader, libraries: Mapping[str, str], stand_in: ModuleType | None = None
) -> tuple[Any, dict[str, str]]:
    import joblib  # heavy: most of this module does without

    saved_versions: dict[str, str] = {}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="xgboost|lightgbm")
            # warn_version_mismatch says it once, in our words, for every library.
            with recorded_version() as saved_versions, main_stood_in(stand_in):
                return load_with_shims(joblib.load, file), saved_versions
    except ArtefactError:  # the file was overwritten meanwhile
        raise
    except ModuleNotFoundError as error:
        raise ArtefactError(f"{path} {_missing(error.name or '', {**libraries, **saved_versions})}.") from error
    except EOFError as error:
        raise ArtefactError(f"{path} is not a complete joblib file (it is cut off): copy all of it again.") from error
    except (pickle.UnpicklingError, ValueError, KeyError, IndexError) as error:
        reason = f"({type(error).__name__}: {str(error).partition(chr(10))[0]})"
        if saved_versions:
            raise ArtefactError(f"{path} cannot be loaded {reason}: {version_advice(saved_versions)}") from error
        raise ArtefactError(
            f"{path} is not a complete joblib file ({type(error).__name__}): save it again with joblib.dump."
        ) from error
    except AttributeError as error:
        raise ArtefactError(_lacking(path, error, {**libraries, **saved_versions})) from error
    except Exception as error:  # unpickling runs the libraries' own code, which may raise anything
        advice = version_advice({**libraries, **saved_versions}) or (
            "train and save it again with the library versions that are installed here."
        )
        raise ArtefactError(f"{path} cannot be loaded ({type(error).__name__}: {error}): {advice}") from error


def version_advice(libraries: Mapping[str, str]) -> str:
    """Return advice on a model of another scikit-learn than the installed one, as a sentence; else empty."""
    saved, installed = libraries.get(SCIKIT_LEARN), importlib.metadata.version(SCIKIT_LEARN)
    if saved in (None, installed):
        return ""
    return (
        f"scikit-learn {saved} saved it, and {installed} is installed here. Train and save it again with {installed}: "
        f"another one cannot be installed beside the service."
    )


def _missing(module: str, libraries: Mapping[str, str]) -> str:
    """Name the missing package of a file; only libraries that are known to serve are to be installed."""
    root, dot, _ = module.partition(".")
    if root in NOT_SERVED:
        return f"holds {NOT_SERVED[root]}: this service serves {SERVED}"
    if dot and importlib.util.find_spec(root) is not None:
        saved = libraries.get(SCIKIT_LEARN) if root == "sklearn" else libraries.get(root)
        other = f" of {saved}" if saved else ""
        return (
            f"needs the module {module!r}{other}, which the {root!r} here lacks: train and save it again with the one "
            "that is here"
        )
    if root in libraries:
        version = libraries[root]
        advice = f"in the version that the card names (`python -m pip install {root}=={version}`)"
        return f"needs the Python package {root!r}: install it, {advice}"
    if root in LIBRARIES:
        advice = f"in the version that the model was trained with (`python -m pip install {LIBRARIES[root]}`)"
        return f"needs the Python package {LIBRARIES[root]!r}: install it, {advice}"
    return (
        f"needs the module {module!r}, which is not installed here. Where it is code of your own, name the folder that "
        f"holds {root}.py or {root}/ with --code: the model then carries it along. Where it is a library, install the "
        "one that the model was trained with, by the name that its documentation gives"
    )


def _lacking(path: Path, error: AttributeError, libraries: Mapping[str, str]) -> str:
    """Return the missing name of a pickle and its module, both from the unpickler's AttributeError."""
    match = _NO_ATTRIBUTE.search(str(error))
    if match is None:
        reason = f"({type(error).__name__}: {error})"
        advice = (
            version_advice(libraries) or "train and save it again with the library versions that are installed here."
        )
        return f"{path} cannot be loaded {reason}: {advice}"
    name, module = match.groups()
    if module == "__main__":
        return (
            f"{path} needs {name!r}, which the script or notebook that saved it defined itself (__main__). Put it into "
            f"a module (a file features.py, say), import it from there and save the model again; or name a file that "
            f"defines {name!r} with --code features.py: the model then carries it along."
        )
    if module.partition(".")[0] in (*sys.stdlib_module_names, "sklearn", "numpy", "pandas", *LIBRARIES, *libraries):
        advice = (
            version_advice(libraries) or "train and save it again with the library versions that are installed here."
        )
        return f"{path} needs {name!r} of {module}, which the one here lacks: {advice}"
    return (
        f"{path} needs {name!r} of the module {module!r}, and the one that is found here has no such name: name the "
        "folder with the right one with --code."
    )


@contextmanager
def main_stood_in(stand_in: ModuleType | None = None) -> Iterator[None]:
    """Let `__main__` mean an empty module, or this one, while a file is unpickled.

    What a notebook defined itself must not be found among the functions of whatever program reads the file: a `load`
    of theirs is not ours.
    """
    with _MAIN:
        program = sys.modules["__main__"]
        sys.modules["__main__"] = stand_in or ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = program


def warn_version_mismatch(path: Path, libraries: Mapping[str, str]) -> list[str]:
    """Log one warning for libraries that differ from those at training; return `name trained -> installed`."""
    differing = []
    for name, trained in libraries.items():
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed = "not installed"
        if installed != trained:
            differing.append(f"{name} {trained} -> {installed}")
    if differing:
        log.warning(
            "%s was trained with other library versions (%s); only scores from there, in a column that --scores "
            "names, can prove that it gives the same here",
            path,
            ", ".join(differing),
        )
    return differing


def read_package(
    artefact: Path,
    card_path: Path,
    reference: Path | None,
    changes: Mapping[str, Any],
    *,
    answers: Sequence[str] = (),
    csv_options: CsvOptions | None = None,
    is_assembled: bool = False,
    complete: Complete = as_they_are,
) -> Package:
    """Return the package of an artefact and its card with `changes` to the card; the SHA-256 is the card's.

    Without reference rows, the examples of the card make one. `answers` are columns of the rows that are no features
    and may hold numbers; `csv_options` hold the known format of their file. `is_assembled` tells that the artefact
    was made of the file that the card was written for and others; `complete` adds columns that the file lacks.
    """
    card = Card.load(card_path)
    if is_assembled:  # of a file that had the card's SHA-256 when it was read
        card = card.model_copy(update={"sha256": sha256_of(artefact)})
    estimator, saved_versions = unpickle_with_versions(artefact, sha256=card.sha256, libraries=card.libraries)
    if "task" in changes:
        check_task(changes["task"], estimator)
    try:
        card = Card.model_validate(
            card.model_dump() | dict(changes) | {"libraries": {**card.libraries, **saved_versions}}
        )
    except ValidationError as error:
        raise CardError(f"The card of {card.name} would not be valid: {first_faults(error)}.") from error
    check_agreement(card, estimator)
    file_rows = _reference_rows(card, reference, answers, csv_options)
    if file_rows is None:
        file_rows = ReferenceRows([_example(card)], [1])
    else:
        file_rows = complete(file_rows, {feature.name: feature.type for feature in card.features})
    if "target" in changes and reference is not None and reference.suffix not in {".jsonl", ".ndjson"}:
        check_target(changes["target"], file_rows.rows)  # a package's own rows, JSON lines, never hold the target
    rows = canonical_rows(
        card,
        file_rows.rows,
        source=str(reference or card_path),
        numbers=file_rows.numbers,
        lines=file_rows.lines,
        unit=file_rows.unit,
    )
    return Package(card, estimator, rows, file_rows, sample(file_rows.lines))


def _reference_rows(
    card: Card, reference: Path | None, answers: Sequence[str], csv_options: CsvOptions | None
) -> ReferenceRows | None:
    from shared.csv.uploads.columns import ExpectedColumns

    return None if reference is None else read_rows(reference, ExpectedColumns.of(card, answers), csv_options)


def _example(card: Card) -> dict[str, Any]:
    silent = [feature.name for feature in card.sent_features if feature.example is None and not feature.nullable]
    if silent:
        raise CardError(
            f"The card of {card.name} gives no example for {', '.join(silent[:5])}: name a file of reference rows "
            "with --reference, or write the examples."
        )
    return {feature.name: feature.example for feature in card.sent_features}


def infer_package(
    artefact: Path,
    reference: Path | None,
    changes: Mapping[str, Any],
    *,
    without: str | None = None,
    csv_options: CsvOptions | None = None,
    complete: Complete = as_they_are,
) -> Package:
    """Return the package of a bare artefact, whose card is inferred from it and its reference rows.

    The column `without` of the rows is none that a nameless model was trained on; `complete` adds columns that their
    file lacks, where the model names its features.
    """
    from shared.packages.card_inference import (  # needs numpy; a package with a card does not
        expected_columns,
        infer_card,
    )

    if reference is None:
        raise CardError(
            f"{artefact} comes without a card: give --reference rows.csv, from which one is written, or --card."
        )
    if "name" not in changes:
        raise CardError(f"{artefact} comes without a card: give the model a name with --name.")
    sha256 = sha256_of(artefact)
    content, saved_versions = read_artefact(artefact, sha256=sha256)
    estimator, changes = content.estimator, content_changes(content) | dict(changes)
    expected = expected_columns(estimator)
    kinds = dict(expected.kinds) or dict.fromkeys(content.columns or ())
    file_rows = complete(read_rows(reference, expected, csv_options), kinds)
    rows = _named_columns(content, file_rows.rows, reference, changes.get("target"))
    if without not in (feature_names(estimator) or ()):
        rows = [{name: value for name, value in row.items() if name != without} for row in rows]
    card = infer_card(estimator, rows, sha256=sha256, numbers=file_rows.numbers, **({"version": 1} | dict(changes)))
    if content.notes:
        card = card.model_copy(update={"notes": " ".join([card.notes, *content.notes])})
    if saved_versions:  # the versions of the other libraries, where it was saved, are not known
        card = card.model_copy(update={"libraries": saved_versions})
    check_agreement(card, estimator)
    canonical = canonical_rows(
        card, rows, source=str(reference), numbers=file_rows.numbers, lines=file_rows.lines, unit=file_rows.unit
    )
    if content.booster is not None:
        from shared.encoding.estimator_inputs import make_frame_input  # needs pandas

        check_booster(content, make_frame_input(card, estimator)(canonical))
    return Package(card, estimator, canonical, file_rows, sample(file_rows.lines))


def content_changes(content: Content) -> dict[str, Any]:
    """Return the threshold and the labels beside an estimator in its file, which belong into its card."""
    classes = class_names(content.estimator) or []
    changes: dict[str, Any] = {}
    if content.threshold is not None and len(classes) == 2:
        changes |= {"threshold": content.threshold, "decided_by": "probability"}  # and not as the model itself would
    if content.labels:
        changes["labels"] = content.labels
    return changes


def _named_columns(
    content: Content, rows: list[dict[str, Any]], source: Path, target: str | None
) -> list[dict[str, Any]]:
    """Return the rows with the columns and the order that the file names, where the estimator knows no names."""
    names = content.columns
    if names is None or getattr(content.estimator, "n_features_in_", len(names)) != len(names):
        return rows
    absent = [name for name in names if name not in rows[0]]
    if absent:
        raise CardError(
            f"{source} lacks {len(absent)} of the {len(names)} columns that the model's file names "
            f"({', '.join(absent[:5])}): give rows with every column that it was trained on."
        )
    kept = [*names, *([target] if target is not None and target in rows[0] else [])]
    return [{name: row.get(name) for name in kept} for row in rows]


def is_complete(directory: Path, sha256: str, references: Sequence[str] = ()) -> bool:
    """Return whether a folder holds the whole package of the artefact with this SHA-256.

    `references` are the allowed SHA-256 of its reference rows; any, if there are none.
    """
    names = (MODEL_FILE, CARD_FILE, REFERENCE_FILE)
    if not all((directory / name).is_file() for name in names) or sha256_of(directory / MODEL_FILE) != sha256:
        return False
    return not references or sha256_of(directory / REFERENCE_FILE) in references


def references_of(version: ModelVersion) -> list[str]:
    """Return the SHA-256 that a version's reference rows may have; none where an earlier release registered it.

    Where a store has lost them, the card's example stands in, which is the database's.
    """
    digests: list[str] = version.scorer.get("reference_sha256", [])
    if not digests:
        return []
    example = rows_text([Card.model_validate(version.card).example()])
    return [*digests, hashlib.sha256(example.encode()).hexdigest()]


def check_reference(directory: Path, references: Sequence[str]) -> None:
    """Raise ArtefactError where a package's reference rows are not those that were registered, if that is known.

    They prove the scorer and decide on which side of the threshold a tie falls: with others the answers may differ.
    """
    if references and sha256_of(directory / REFERENCE_FILE) not in references:
        raise ArtefactError(
            f"{directory / REFERENCE_FILE} is not the file that was registered, and its rows prove how the model is "
            "scored: restore it, or add the model again, from its original file."
        )


def write_package(models_dir: Path, card: Card, artefact: Path, reference: Sequence[Mapping[str, Any]]) -> Path:
    """Write the package `<models_dir>/<name>/<version>` from an artefact file, whole or not at all; return its folder.

    Where this artefact is already, its card and rows are brought up to date. Raises ArtefactError when another
    model is in its place, or the folder cannot be written.
    """
    try:
        return _write_package(models_dir / card.name / str(card.version), card, artefact, reference)
    except OSError as error:
        raise ArtefactError(
            f"{models_dir} cannot be written ({error.strerror}): give this user the right to, make room, or set "
            "MODELS_DIR to another folder."
        ) from error


def _write_package(target: Path, card: Card, artefact: Path, reference: Sequence[Mapping[str, Any]]) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with draft_folder(target.parent, DRAFT) as draft:
        shutil.copyfile(artefact, draft / MODEL_FILE)
        if sha256_of(draft / MODEL_FILE) != card.sha256:
            raise ArtefactError(f"{artefact} changed while it was being added: add it again once it is written.")
        card.dump(draft / CARD_FILE)
        write_rows(draft / REFERENCE_FILE, reference)
        for file in draft.iterdir():
            _flush(file)
        # mkdtemp lets only its maker in; a worker may run as another user, where the umask lets others in.
        draft.chmod(target.parent.stat().st_mode & 0o755)
        _put_in_place(draft, target, card)
        _flush(target.parent)
    return target


@contextmanager
def draft_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder whose name begins so, and remove it, and what killed processes have left of such folders."""
    sweep(parent, prefix)
    draft = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    lock = os.open(draft, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield draft
    finally:
        os.close(lock)
        shutil.rmtree(draft, ignore_errors=True)


def sweep(parent: Path, prefix: str) -> None:
    """Remove the draft folders that killed processes have left: nobody holds the lock on them any more."""
    for path in parent.glob(f"{prefix}*"):
        try:
            lock = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue  # its writer has just put it in place
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_fresh = time.time() - path.stat().st_mtime < FRESH_SECONDS  # its writer may be about to lock it
        except OSError:
            continue
        finally:
            os.close(lock)
        if not is_fresh:
            shutil.rmtree(path, ignore_errors=True)


def _put_in_place(draft: Path, target: Path, card: Card) -> None:
    try:
        draft.rename(target)  # atomic; fails when the target holds files
    except OSError as error:
        if not (target / MODEL_FILE).is_file() or not (target / CARD_FILE).is_file():
            raise ArtefactError(
                f"{target} is in the way and is not a complete package: move it elsewhere and try again."
            ) from error
        if sha256_of(target / MODEL_FILE) != card.sha256:
            raise ArtefactError(
                f"{target} holds another artefact than {card.name}@{card.version}: versions are immutable. Register "
                "this one under the next number, or move the folder away if it is damaged."
            ) from error
        for name in (REFERENCE_FILE, CARD_FILE):
            (draft / name).replace(target / name)


def _flush(path: Path) -> None:
    # A power cut after the database's COMMIT must not leave an empty file behind.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    try:
        file = open_file(path)
    except FileNotFoundError:
        raise ArtefactError(
            f"{path} is missing: copy the package there, or add the model with `python -m shared.registry add`."
        ) from None
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read ({error.strerror}): check the file and its rights.") from error
    with file:
        yield file
