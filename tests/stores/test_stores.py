"""Model stores: what is fetched, put, refused and tried again, with a folder, a real S3 server and the hub's API."""

import errno
import time

import httpx2
import pytest

from shared.config.addresses import address_fault
from shared.errors import ArtefactError
from shared.packages import stores
from shared.packages.stores import fetch, is_writable, list_files, pin_revision, read_small, upload
from tests.stores.places import KEYS, Bucket, Repository, enter
from tests.support.stack import free_port


def test_files_are_listed_by_relative_name_and_fetched_with_their_folders(store, tmp_path):
    content = bytes(range(256)) * 400
    store.put("people/1/model.joblib", content)
    store.put("people/1/data/part", b"x")
    files = list_files(store.root)
    assert {name: file.size for name, file in files.items()} == {
        "people/1/model.joblib": 102_400,
        "people/1/data/part": 1,
    }
    assert list_files(f"{store.root}/people/1", depth=1).keys() == {"model.joblib"}
    assert list_files(f"{store.root}/people/1/model.joblib").keys() == {""}
    (tmp_path / "here").mkdir()
    fetch(store.root, files, tmp_path / "here")
    assert (tmp_path / "here/people/1/model.joblib").read_bytes() == content
    assert (tmp_path / "here/people/1/data/part").read_bytes() == b"x"


def test_mark_of_a_file_changes_with_its_content(store):
    store.put("model.joblib", b"one")
    before = list_files(store.root)["model.joblib"]
    assert list_files(store.root)["model.joblib"] == before
    store.put("model.joblib", b"two")
    after = list_files(store.root)["model.joblib"]
    assert after.size == before.size
    assert after.fingerprint != before.fingerprint


def test_empty_store_and_missing_file_are_one_sentence_that_says_what_to_do(store):
    for address in (store.root, f"{store.root}/people/1"):
        with pytest.raises(
            ArtefactError, match=r"There is nothing at .*: put it there, or check the address"
        ) as caught:
            list_files(address)
        assert address in caught.value.detail
    with pytest.raises(ArtefactError, match="There is nothing at"):
        read_small(f"{store.root}/model.json")


def test_package_is_put_where_the_store_can_be_written(store, tmp_path):
    (tmp_path / "model.json").write_text("{}")
    assert is_writable(store.root) == (not store.root.startswith("hf"))
    if is_writable(store.root):
        upload(tmp_path, ["model.json"], f"{store.root}/people/2")
        assert read_small(f"{store.root}/people/2/model.json") == b"{}"


def test_card_that_is_far_too_long_is_not_read(store):
    store.put("model.json", b" " * 100)
    with pytest.raises(ArtefactError, match="cannot be a card"):
        read_small(f"{store.root}/model.json", limit=99)


def test_address_on_the_hub_is_pinned_to_the_commit_of_now(hub, monkeypatch):
    repository = Repository(hub, "somebody/pinned")
    enter(monkeypatch, repository)
    repository.put("v/model.json", b"first")
    address = pin_revision("hf://somebody/pinned/v")
    repository.put("v/model.json", b"second")
    assert read_small("hf://somebody/pinned/v/model.json") == b"second"
    assert read_small(f"{address}/model.json") == b"first"
    assert pin_revision(address) == address
    assert pin_revision("s3://bucket/folder") == "s3://bucket/folder"


@pytest.mark.parametrize("status", [500, 503, 429])
def test_store_that_fails_for_a_moment_is_tried_again(hub_of_mine, monkeypatch, status):
    repository = Repository(hub_of_mine, "somebody/slow")
    enter(monkeypatch, repository)
    repository.put("model.json", b"{}")
    hub_of_mine.ails[:] = [status, status]
    assert list_files(repository.root).keys() == {"model.json"}
    assert hub_of_mine.ails == []


@pytest.mark.parametrize("address", [pytest.param("s3://bucket/models", marks=pytest.mark.long), "hf://me/people"])
def test_store_that_is_away_is_given_up_after_some_tries(monkeypatch, address):
    tries = []
    monkeypatch.setattr(stores, "sleep", tries.append)
    nobody = f"http://127.0.0.1:{free_port()}"
    for name, value in (KEYS | {"AWS_ENDPOINT_URL": nobody, "HF_ENDPOINT": nobody}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ArtefactError, match=rf"{address} does not answer \(.*\): check the address"):
        list_files(address)
    assert len(tries) == stores.TRIES - 1
    assert all(0 <= pause <= stores.PAUSE_SECONDS * 2**turn for turn, pause in enumerate(tries))


def test_private_repository_needs_the_token_and_gets_it_from_the_environment(hub_of_mine, monkeypatch):
    repository = Repository(hub_of_mine, "somebody/private")
    enter(monkeypatch, repository)
    repository.put("model.json", b"{}")
    hub_of_mine.token = "hf_right"
    with pytest.raises(ArtefactError, match="HF_TOKEN if the repository is private"):
        list_files(repository.root)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ArtefactError) as caught:
        list_files(repository.root)
    assert "hf_wrong" not in caught.value.detail
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert list_files(repository.root).keys() == {"model.json"}


@pytest.mark.long
def test_missing_and_refused_credentials_of_s3_are_told_apart_and_tried_once(s3, monkeypatch):
    bucket = Bucket(s3, f"a{time.monotonic_ns()}")
    enter(monkeypatch, bucket)
    monkeypatch.setattr(stores, "sleep", lambda _: pytest.fail("it was tried again"))
    for name in KEYS:
        monkeypatch.delenv(name)
    with pytest.raises(ArtefactError, match="needs credentials, and there are none: set AWS_ACCESS_KEY_ID and AWS_"):
        list_files(bucket.root)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    httpx2.post(f"{s3}/moto-api/reset-auth", content=b"0").raise_for_status()  # from now on it knows who may do what
    try:
        with pytest.raises(
            ArtefactError, match=r"is refused to these credentials .*: check AWS_ACCESS_KEY_ID"
        ) as caught:
            list_files(bucket.root)
    finally:
        httpx2.post(f"{s3}/moto-api/reset-auth", content=b"inf").raise_for_status()
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in caught.value.detail


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("models", "file:///folder, s3://bucket/folder or hf://user/repo"),
        ("https://example.org/model", "file:///folder, s3://bucket/folder or hf://user/repo"),
        ("memory://models", "no address of a model store"),
        ("file://models", "three slashes"),
        ("s3://", "no bucket"),
        ("s3://key:hunter2@bucket/models", "credentials in AWS_ACCESS_KEY_ID"),
        ("hf://me", "no repository"),
        ("hf://me:hunter2@host/repo", "a token in HF_TOKEN"),
        ("https://me:hunter2@host/models", "no address of a model store"),
        ("file://me:hunter2@host/models", "three slashes"),
        ("s3://bucket/models?secret=hunter2", "credentials in the environment"),
    ],
)
def test_wrong_address_is_told_before_anything_is_asked(address, message):
    assert message in (address_fault(address) or "")
    assert "hunter2" not in (address_fault(address) or "")
    with pytest.raises(ArtefactError):
        list_files(address)


@pytest.mark.parametrize("address", ["file:///srv/models", "s3://bucket", "s3://bucket/a/b", "hf://me/repo@main/a"])
def test_right_address_has_no_fault(address):
    assert address_fault(address) is None


def test_file_that_would_leave_the_folder_is_not_fetched(tmp_path):
    with pytest.raises(ArtefactError, match="would leave the folder"):
        fetch("s3://bucket/models", {"../model.joblib": stores.StoredFile(1, "")}, tmp_path)


@pytest.mark.parametrize("name", ["a" * 300 + "/b", "file/b"])
def test_file_whose_folder_cannot_be_made_is_told_in_one_sentence(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(ArtefactError, match=r"cannot be read or written here \(.*: check the folder"):
        fetch("file:///srv/models", {name: stores.StoredFile(1, "")}, tmp_path)


@pytest.mark.parametrize("address", [pytest.param("s3://bucket/models", marks=pytest.mark.long), "hf://me/people"])
def test_endpoint_that_is_no_url_is_named_and_not_shown(monkeypatch, address):
    monkeypatch.setattr(stores, "sleep", lambda _: pytest.fail("it was tried again"))
    for name, value in (KEYS | {"AWS_ENDPOINT_URL": "hunter2:9000", "HF_ENDPOINT": "hunter2"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ArtefactError, match=r"_ENDPOINT(_URL)? is no URL: write http://host:port") as caught:
        list_files(address)
    assert "hunter2" not in caught.value.detail


def test_store_that_is_no_model_or_larger_than_the_disk_is_not_fetched(tmp_path):
    with pytest.raises(ArtefactError, match="1001 files, which is no model"):
        fetch("s3://bucket", {str(number): stores.StoredFile(1, "") for number in range(1001)}, tmp_path)
    with pytest.raises(ArtefactError, match="make room, or set MODELS_DIR to another disk"):
        fetch("s3://bucket", {"model.joblib": stores.StoredFile(10**18, "")}, tmp_path)


def test_full_disk_is_not_taken_for_a_network_that_fails(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stores, "_copy", full)
    with pytest.raises(ArtefactError, match=r"cannot be read or written here \(.*No space left on device"):
        fetch("file:///srv/models", {"model.joblib": stores.StoredFile(1, "")}, tmp_path)


def test_library_that_is_not_installed_is_named(monkeypatch):
    def missing(*_, **__):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.filesystem", missing)
    with pytest.raises(ArtefactError, match="s3://bucket/models needs the Python package s3fs: `python -m pip install"):
        list_files("s3://bucket/models")
