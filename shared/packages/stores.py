"""Stores of model packages: folders at `file://`, `s3://` and `hf://` addresses, read and written through fsspec.

Credentials and endpoints are those of the stores' own tools: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and
AWS_ENDPOINT_URL; HF_TOKEN and HF_ENDPOINT. What fails for a moment is tried again; what fails for good is one sentence.
"""

import errno
import logging
import os
import random
import shutil
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from time import sleep
from typing import Any, NamedTuple, TypeVar

from shared.config.addresses import address_fault
from shared.errors import ArtefactError

TRIES = 4
PAUSE_SECONDS = 0.5  # before the second try; twice as long before each further one, at random between nothing and that
MOST_FILES = 1_000  # in a folder that is fetched: a package holds three files, an MLflow folder a dozen

Result = TypeVar("Result")

log = logging.getLogger(__name__)


class StoredFile(NamedTuple):
    """A file in a store."""

    size: int  # bytes
    fingerprint: str  # changes when the content does, as far as the store tells


def join(address: str, name: str) -> str:
    """Return the address of a file or folder below another."""
    return f"{address.rstrip('/')}/{name}"


def list_files(address: str, *, depth: int | None = None) -> dict[str, StoredFile]:
    """Return the files below an address by relative name; where the address is that of a file, its name is ''.

    Raises ArtefactError when there is none, or the store refuses or does not answer.
    """

    def list_once() -> dict[str, StoredFile]:
        system, root = _opened(address)
        entries = system.find(root, maxdepth=depth, detail=True)
        if not entries:
            raise FileNotFoundError(address)
        return {_relative(name, root): _stored_file(entry) for name, entry in entries.items()}

    return _with_retries(address, list_once)


def fetch(address: str, files: Mapping[str, StoredFile], folder: Path) -> None:
    """Copy these files below an address into a folder; raise ArtefactError when one cannot be."""
    if len(files) > MOST_FILES:
        raise ArtefactError(f"{address} holds {len(files)} files, which is no model: name the model's own folder.")
    needed, free = sum(file.size for file in files.values()), shutil.disk_usage(folder).free
    if needed > free:
        raise ArtefactError(
            f"{address} takes {needed / 1e6:,.0f} MB, and {folder} has {free / 1e6:,.0f} MB left: make room, or set "
            "MODELS_DIR to another disk."
        )
    for name in files:
        if ".." in PurePosixPath(name).parts:
            raise ArtefactError(f"{address} holds a file named {name!r}, which would leave the folder: rename it.")
        _with_retries(join(address, name), partial(_copy, join(address, name), folder / name))


def read_small(address: str, *, limit: int = 10_000_000) -> bytes:
    """Return the content of a file at an address, e.g. of a card."""

    def read() -> bytes:
        system, path = _opened(address)
        with system.open(path, "rb") as file:
            content: bytes = file.read(limit + 1)
        return content

    content = _with_retries(address, read)
    if len(content) > limit:
        raise ArtefactError(f"{address} is larger than {limit / 1e6:.0f} MB: it cannot be a card.")
    return content


def upload(folder: Path, names: Iterable[str], address: str) -> None:
    """Copy files of a folder to an address, in this order; raise ArtefactError when the store refuses."""
    for name in names:
        _with_retries(join(address, name), partial(_send, folder / name, join(address, name)))


def is_writable(address: str) -> bool:
    """Return whether packages can be put there: a repository on the hub is written by its owner's tools, by commits."""
    return not address.startswith("hf://")


def pin_revision(address: str) -> str:
    """Return the address at which the same files will be found later: on the hub, that of the present commit."""
    if not address.startswith("hf://"):
        return address

    def pin() -> str:
        system, root = _opened(address)
        place = system.resolve_path(root)
        from huggingface_hub import HfApi  # heavy

        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
        commit = api.repo_info(place.repo_id, repo_type=place.repo_type, revision=place.revision).sha
        kind = "" if place.repo_type == "model" else f"{place.repo_type}s/"
        return f"hf://{kind}{place.repo_id}@{commit}/{place.path_in_repo}".rstrip("/")

    return _with_retries(address, pin)


def _opened(address: str) -> tuple[Any, str]:
    """Return a fresh file system, which remembers no listing, and the path in it."""
    import fsspec  # heavy, and rarely needed

    options: dict[str, Any] = {}
    scheme = address.partition("://")[0]
    if scheme == "s3":
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        logging.getLogger("aiobotocore").setLevel(logging.WARNING)  # it tells where it found credentials, every time
        waits = {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 1}}
        options = {"endpoint_url": endpoint, "config_kwargs": waits, "use_listings_cache": False}
    elif scheme == "hf":
        options = {"endpoint": os.environ.get("HF_ENDPOINT") or None}
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # it tells of every request
    system = fsspec.filesystem(scheme, skip_instance_cache=True, **options)
    return system, system._strip_protocol(address)


def _copy(address: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    system, path = _opened(address)
    system.get_file(path, str(target))


def _send(source: Path, address: str) -> None:
    system, path = _opened(address)
    if address.startswith("file://"):
        system.makedirs(system._parent(path), exist_ok=True)
    system.put_file(str(source), path)


def _stored_file(entry: Mapping[str, Any]) -> StoredFile:
    parts = (entry.get(key) for key in ("size", "ETag", "blob_id", "mtime"))
    return StoredFile(int(entry.get("size") or 0), " ".join(str(value) for value in parts))


def _relative(name: str, root: str) -> str:
    return "" if name.rstrip("/") == root.rstrip("/") else name.removeprefix(root.rstrip("/")).lstrip("/")


def _with_retries(address: str, act: Callable[[], Result]) -> Result:
    """Do something with a store, several times if it fails for a moment; raise ArtefactError with what to do."""
    fault = address_fault(address)
    if fault is not None:
        raise ArtefactError(f"{fault}.")
    for attempt in range(1, TRIES + 1):
        try:
            return act()
        except ImportError as error:
            package = {"s3": "s3fs", "hf": "huggingface_hub"}.get(address.partition("://")[0], "fsspec")
            raise ArtefactError(
                f"{address} needs the Python package {package}: `python -m pip install {package}`."
            ) from error
        except Exception as error:  # each store has errors of its own
            log.info("%s failed: %s", address, _short(error))
            message = _permanent_error(address, error)
            if message is not None:
                raise ArtefactError(message) from error
            if attempt == TRIES:
                # /health tells it to everyone: not the endpoint, which stands in the error
                raise ArtefactError(
                    f"{address} does not answer ({type(error).__name__}): check the address and the network, and try "
                    "again; a service does so by itself."
                ) from error
            # full jitter: processes that were refused together do not come back together
            sleep(random.uniform(0, PAUSE_SECONDS * 2 ** (attempt - 1)))  # noqa: S311
    raise AssertionError("the last try returns or raises")


def _permanent_error(address: str, error: Exception) -> str | None:
    """Return advice on an error that a retry would meet again, None for all others."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    is_hub, is_local = address.startswith("hf://"), address.startswith("file://")
    keys = "HF_TOKEN" if is_hub else "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if "UnsupportedProtocol" in kinds or "Invalid endpoint" in str(error):  # not shown, as it may hold a password
        setting = "HF_ENDPOINT" if is_hub else "AWS_ENDPOINT_URL"
        return f"{address} cannot be asked, since {setting} is no URL: write http://host:port there."
    if kinds & {"NoCredentialsError", "PartialCredentialsError"}:
        return f"{address} needs credentials, and there are none: set {keys}."
    if not is_local and (isinstance(error, PermissionError) or status in (401, 403) or "GatedRepoError" in kinds):
        return f"{address} is refused to these credentials ({_short(error)}): check {keys}, and what they may read."
    if isinstance(error, FileNotFoundError) or status == 404:
        private = ", and HF_TOKEN if the repository is private" if is_hub else ""
        return f"There is nothing at {address}: put it there, or check the address{private}."
    if isinstance(error, OSError) and error.errno in _PERMANENT:
        return f"{address} cannot be read or written here ({_short(error)}): check the folder and its rights."
    is_wish = isinstance(error, ValueError) or bool(kinds & {"ProfileNotFound", "ParamValidationError"})
    if is_wish or (isinstance(error, OSError) and error.errno == errno.EINVAL):
        return f"{address} cannot be used ({_short(error)}): check the address and its settings."
    return None


_PERMANENT = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),
}


def _short(error: Exception) -> str:
    line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {line[:200]}" if line else type(error).__name__
