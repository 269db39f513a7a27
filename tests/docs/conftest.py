"""A service and a folder for readers of the tutorials: the repository as they have it, where they may write files."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stack import MODELS, ROOT, Stack, sync_stack


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Iterator[Stack]:
    """A sync runtime of its own: what other tests register is not in it."""
    folder = tmp_path_factory.mktemp("taught")
    shutil.copytree(trained / MODELS, folder / MODELS)
    with sync_stack(folder, folder / MODELS, trained) as stack:
        yield stack


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder that has everything that the repository has, by links."""
    for entry in ROOT.iterdir():
        if entry.name not in {".venv", "course"}:
            (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


@pytest.fixture
def reader_env(taught: Stack, desk: Path) -> dict[str, str]:
    """The environment of a reader: the address of the service, and nothing of the tests."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "HOME", "LANG", "TMP"))}
    return kept | {"GUICHET_URL": taught.url, "PYTHONPATH": str(desk), "LC_ALL": "C.UTF-8"}
