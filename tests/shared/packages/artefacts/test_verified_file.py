"""What is unpickled is what was hashed, whatever is written over the file in between."""

import hashlib
import io
import os

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from shared.errors import ArtefactError
from shared.packages import package
from shared.packages.artefacts.verified_file import BLOCK_BYTES, VerifiedFile

SIZE = 3 * BLOCK_BYTES


class Overwrites:
    """Unpickling it copies one file over the bytes of another, in place, as `cp` does."""

    def __init__(self, source, target):
        self.paths = str(source), str(target)

    def __reduce__(self):
        return overwrite, self.paths


class Canary:
    """Unpickling it creates a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def overwrite(source, target):
    with open(source, "rb") as new, open(target, "r+b") as old:
        old.write(new.read())


def hostile(path, size):
    """A file of this size that runs code wherever a reader begins to read it at a block's edge."""
    joblib.dump(Canary(path.with_name("ran")), path)
    path.write_bytes(path.read_bytes().ljust(BLOCK_BYTES, b"\0") * (size // BLOCK_BYTES + 1))
    os.truncate(path, size)


def test_file_overwritten_after_it_was_hashed_is_not_unpickled(tmp_path, monkeypatch):
    artefact, other = tmp_path / "model.joblib", tmp_path / "other"
    joblib.dump({"model": LinearRegression().fit([[1.0], [2.0]], [1, 2]), "more": np.zeros(SIZE)}, artefact)
    hostile(other, artefact.stat().st_size)
    digest = package.sha256_of(artefact)
    hash_whole = VerifiedFile.__init__

    def overwritten_then(self, *arguments):
        hash_whole(self, *arguments)
        overwrite(other, artefact)

    monkeypatch.setattr(VerifiedFile, "__init__", overwritten_then)
    with pytest.raises(ArtefactError, match="was overwritten while it was being loaded"):
        package.unpickle(artefact, sha256=digest)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("compress", [0, 3], ids=["plain", "compressed"])
def test_file_overwritten_while_it_is_unpickled_is_not_read_on(tmp_path, compress):
    artefact, other = tmp_path / "model.joblib", tmp_path / "other"
    noise = np.random.default_rng(1).integers(0, 256, SIZE, dtype=np.uint8)  # which no packing makes smaller
    joblib.dump([Overwrites(other, artefact), noise, noise[::2].copy()], artefact, compress=compress)
    hostile(other, artefact.stat().st_size)
    digest = package.sha256_of(artefact)
    with pytest.raises(ArtefactError, match="was overwritten while it was being loaded"):
        package.unpickle(artefact, sha256=digest)
    assert not (tmp_path / "ran").exists()


def test_file_cut_short_while_it_is_read_is_not_read_on(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(SIZE))
    with path.open("rb") as file:
        checked = io.BufferedReader(VerifiedFile(file.fileno(), "file"))
        checked.read(BLOCK_BYTES)
        os.truncate(path, SIZE - 1)
        with pytest.raises(ArtefactError):
            checked.read()


def test_verified_file_gives_what_the_file_gives(tmp_path):
    path = tmp_path / "file"
    content = os.urandom(2 * BLOCK_BYTES + 17)
    path.write_bytes(content)
    with path.open("rb") as file:
        raw = VerifiedFile(file.fileno(), "file")
        assert raw.sha256 == hashlib.sha256(content).hexdigest()
        checked = io.BufferedReader(raw, 64)
        assert checked.read() == content
        assert checked.read(1) == b""
        for place in (0, BLOCK_BYTES - 3, BLOCK_BYTES, 2 * BLOCK_BYTES + 10):
            assert checked.seek(place) == place
            assert checked.read(20) == content[place : place + 20]
        assert checked.seek(-7, os.SEEK_END) == len(content) - 7
        assert checked.read() == content[-7:]
