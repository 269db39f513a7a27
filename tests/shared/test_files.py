"""Files that operators name: what is no file is refused at once, and not waited for."""

import os
import socket
from pathlib import Path

import pytest

from shared.cards.card import Card
from shared.errors import ArtefactError, CardError, InvalidRequest
from shared.files import open_file, read_file
from shared.packages.contract import read_contract
from shared.packages.package import read_thing, sha256_of, unpickle
from shared.packages.sample import read_rows
from shared.reference.load import _open


@pytest.fixture(params=["pipe", "socket", "device", "folder"])
def strange(request, tmp_path: Path):
    """Something that is no file, under the name of one."""
    path = tmp_path / "thing"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    elif request.param == "folder":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            yield path
            return
    yield path


@pytest.mark.parametrize("read", [sha256_of, read_thing, lambda path: unpickle(path, sha256="0" * 64)])
def test_artefact_that_is_no_file_is_refused_in_a_sentence(strange: Path, read) -> None:
    with pytest.raises(ArtefactError, match=f"{strange} cannot be read"):
        read(strange)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_rows_that_are_no_file_are_refused_in_a_sentence(strange: Path, suffix: str) -> None:
    path = strange.with_suffix(suffix)
    strange.rename(path)
    with pytest.raises(CardError, match="cannot be read"):
        read_rows(path)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        _open(path)


@pytest.mark.parametrize("read", [Card.load, read_contract])
def test_card_or_contract_that_is_no_file_is_refused_in_a_sentence(strange: Path, read) -> None:
    with pytest.raises(CardError, match="cannot be read"):
        read(strange)


def test_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_file(path, limit=5) == b"12345"
    with pytest.raises(OSError, match="It is larger than"):
        read_file(path, limit=4)
    with open_file(path) as file:
        assert file.read() == b"12345"
