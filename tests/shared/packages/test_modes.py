"""Who else on the machine may read a package: nobody where the umask says so, the user of a worker elsewhere."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shared.cards.card import Card
from shared.packages.package import sha256_of, write_package


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize(("mask", "folder", "file"), [(0o077, 0o700, 0o600), (0o022, 0o755, 0o644)])
def test_package_is_as_open_as_the_umask_lets_it_be(tmp_path: Path, mask: int, folder: int, file: int) -> None:
    artefact = tmp_path / "model.joblib"
    artefact.write_bytes(b"x")
    features = [{"name": "x", "type": "number"}]
    card = Card.model_validate(
        {"name": "churn", "version": 1, "task": "regression", "sha256": sha256_of(artefact), "features": features}
    )
    with umask(mask):
        package = write_package(tmp_path / "models", card, artefact, [{"x": 1.0}])
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "models", package.parent, package)} == {folder}
    assert {path.stat().st_mode & 0o777 for path in package.iterdir()} == {file}
