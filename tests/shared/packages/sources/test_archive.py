"""Archives of strangers: nothing leaves the folder, and nothing grows beyond the limit, whatever the archive says."""

import io
import struct
import zipfile

import pytest

from shared.errors import ArtefactError
from shared.packages.sources.archive import model_within, unpack


def archive_of(tmp_path, *entries):
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def refusal(path, folder, max_bytes=1_000_000):
    with pytest.raises(ArtefactError) as refused:
        unpack(path, folder, max_bytes=max_bytes)
    assert str(path.parent) + "/" not in refused.value.detail
    return refused.value.detail


def test_folder_of_a_model_is_unpacked_and_its_place_told(tmp_path):
    path = archive_of(tmp_path, ("run/model/MLmodel", b"x"), ("run/model/data/model.joblib", b"y"), ("a/", b""))
    unpack(path, tmp_path / "out", max_bytes=1_000)
    assert (tmp_path / "out/run/model/data/model.joblib").read_bytes() == b"y"
    assert model_within(tmp_path / "out", "model.zip") == tmp_path / "out/run/model"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "..\\x", "C:x", "a/../x"])
def test_name_that_may_lead_outside_is_refused(tmp_path, name):
    assert "would leave the folder" in refusal(archive_of(tmp_path, (name, b"x")), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".zip"] == ["out"]
    assert list((tmp_path / "out").iterdir()) == []


def test_archive_that_lies_of_its_size_fills_no_disk(tmp_path):
    """The bytes of a file end where its entry says; what is beyond is a damaged archive."""
    path = archive_of(tmp_path, ("model.joblib", bytes(50_000_000)))
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<L", 50_000_000), struct.pack("<L", 1_000)))
    assert "no zip archive that can be read" in refusal(path, tmp_path / "out")
    assert sum(file.stat().st_size for file in (tmp_path / "out").rglob("*") if file.is_file()) <= 1_000


def test_encrypted_archive_and_name_that_comes_twice_are_refused(tmp_path):
    path = archive_of(tmp_path, ("model.joblib", b"x"))
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02")
    content[place + 8] |= 1
    path.write_bytes(content)
    assert "is encrypted" in refusal(path, tmp_path / "out")
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = archive_of(tmp_path, ("model.joblib", b"x"), ("model.joblib", b"y"))
    assert "twice" in refusal(path, tmp_path / "out2")


def test_file_and_folder_of_one_name_are_refused(tmp_path):
    detail = refusal(archive_of(tmp_path, ("a", b"x"), ("a/b", b"y")), tmp_path / "out")
    assert "cannot be unpacked" in detail


def test_several_models_in_an_archive_are_refused(tmp_path):
    unpack(archive_of(tmp_path, ("a/MLmodel", b"x"), ("b/MLmodel", b"x")), tmp_path / "out", max_bytes=1_000)
    with pytest.raises(ArtefactError, match="holds 2 models: upload each"):
        model_within(tmp_path / "out", "model.zip")


def test_what_only_begins_as_an_archive_is_refused(tmp_path):
    path = tmp_path / "model.zip"
    path.write_bytes(b"PK\x03\x04" + io.BytesIO(b"x" * 100).read())
    assert "no zip archive that can be read" in refusal(path, tmp_path / "out")
