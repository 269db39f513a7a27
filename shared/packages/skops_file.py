"""A model in a skops file: a zip archive with a schema, of which only types that are trusted are built."""

import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from shared.errors import ArtefactError
from shared.files import open_file
from shared.packages.assembly import dump
from shared.packages.package import MODEL_FILE

HARMLESS = ("numpy.dtype",)  # in nearly every skops file, and unknown to skops
SCHEMA = "schema.json"  # what makes an archive one that skops wrote


def is_skops(path: Path) -> bool:
    """Return whether a file is one that skops wrote."""
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            return SCHEMA in archive.NameToInfo
    except (OSError, zipfile.BadZipFile):
        return False


@contextmanager
def joblib_of_skops(path: Path, *, trusted: Sequence[str], advice: str = "") -> Iterator[Path]:
    """Yield a joblib file of the estimator in a skops file; it is there only for the time.

    `trusted` names types that the file may hold beside those that skops knows; `advice` follows the error of a file
    that cannot be loaded. Raises ArtefactError where the file cannot be read, or holds other types.
    """
    import skops.io  # heavy
    from skops.io.exceptions import UntrustedTypesFoundException

    content = _content(path)  # once: what is looked through is what is loaded
    try:
        with warnings.catch_warnings():
            # The versions that saved it are warned of once, in our words.
            warnings.filterwarnings("ignore", message="Trying to unpickle estimator")
            estimator = skops.io.loads(content, trusted=list(trusted))
    except UntrustedTypesFoundException:
        unknown = skops.io.get_untrusted_types(data=content)
        untrusted = sorted(set(unknown) - set(trusted))
        raise ArtefactError(
            f"{path} holds types that skops does not know to be harmless ({', '.join(untrusted)}). If you "
            f"trust where they come from, say so with `--trust {','.join(untrusted)}`."
        ) from None
    except Exception as error:  # it runs the libraries' own code, which may raise anything
        raise ArtefactError(
            f"{path} cannot be loaded ({type(error).__name__}): train and save it again with the library "
            f"versions that are installed here.{advice}"
        ) from error
    with tempfile.TemporaryDirectory() as drafts:
        made = Path(drafts) / MODEL_FILE
        dump(estimator, made)
        yield made


def _content(path: Path) -> bytes:
    try:
        with open_file(path) as file:
            return file.read()
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read ({error.strerror}): copy the whole folder of the model.") from error
