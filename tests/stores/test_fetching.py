"""Packages of registered models: fetched where they are missing, checked before they are put in place."""

import json
import os
import shutil

import pytest

from shared.database.engine import session_scope
from shared.errors import ArtefactError, Conflict
from shared.packages import fetching
from shared.packages.fetching import downloaded, ensure_local, local_folder, upload_package
from shared.packages.package import is_complete
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from shared.registry.loading import load, verify
from tests.stores.places import Folder, put_package

FILES = {"model.joblib", "model.json", "reference.jsonl"}


def add_from(engine, source, models, *, uri=None, **options):
    with session_scope(engine) as session:
        return add(session, source, AddOptions(**options), uri=uri, models_dir=models)


@pytest.fixture
def models(tmp_path):
    return tmp_path / "models"


@pytest.fixture
def row(engine, packages, tmp_path):
    """people@1, registered on another host: its package is not here."""
    return add_from(engine, packages / "people/1", tmp_path / "elsewhere")


def test_missing_package_is_fetched_whole_and_loads(row, store, packages, models):
    put_package(store, packages / "people/1", "people/1")
    folder = ensure_local(row, models, store.root)
    assert folder == models / "people/1"
    assert {path.name for path in folder.iterdir()} == FILES
    assert load(row, models).card.name == "people"
    store.put("people/1/model.joblib", b"never asked for again")
    assert ensure_local(row, models, store.root) == folder
    assert [path.name for path in (models / "people").iterdir() if path.suffix != ".lock"] == ["1"]


def test_package_at_an_address_of_its_own_needs_no_store(row, store, packages, models):
    put_package(store, packages / "people/1", "somewhere")
    row.uri = f"{store.root}/somewhere"
    assert is_complete(ensure_local(row, models, None), row.sha256)
    assert local_folder(row, models) == models / "people/1"


def test_altered_file_in_the_store_is_not_put_in_place(row, store, packages, models):
    put_package(store, packages / "people/1", "people/1")
    store.put("people/1/model.joblib", (packages / "people/2/model.joblib").read_bytes())
    with pytest.raises(ArtefactError, match=r"was not loaded: its SHA-256 is .{12}…, and .{12}… was registered"):
        ensure_local(row, models, store.root)
    assert [path.name for path in (models / "people").iterdir() if path.suffix != ".lock"] == []


def test_damaged_copy_here_is_replaced_by_the_stores(row, tmp_path, packages, models):
    store = Folder(tmp_path / "store")
    put_package(store, packages / "people/1", "people/1")
    folder = ensure_local(row, models, store.root)
    (folder / "model.joblib").write_bytes(b"damaged")
    assert is_complete(ensure_local(row, models, store.root), row.sha256)
    assert [path.name for path in folder.parent.iterdir() if path.suffix != ".lock"] == ["1"]


def test_store_without_the_model_is_told_in_one_sentence(row, tmp_path, packages, models):
    store = Folder(tmp_path / "store")
    put_package(store, packages / "people/1", "people/1", only=("model.json",))
    with pytest.raises(
        ArtefactError, match=r"There is no model.joblib at file:.*: put the package of people@1 there\."
    ):
        ensure_local(row, models, store.root)


def test_store_without_reference_rows_gets_the_cards_examples(row, tmp_path, packages, models):
    store = Folder(tmp_path / "store")
    put_package(store, packages / "people/1", "people/1", only=("model.json", "model.joblib"))
    ensure_local(row, models, store.root)
    assert len(load(row, models).reference) == 1


def test_rest_of_a_download_that_was_killed_is_removed_after_a_day(row, tmp_path, packages, models):
    store = Folder(tmp_path / "store")
    put_package(store, packages / "people/1", "people/1")
    old, new = models / "people/.1-old", models / "people/.1-new"
    for rest in (old, new):
        rest.mkdir(parents=True)
        (rest / "model.joblib").write_bytes(b"half")
    os.utime(old, (0, 0))
    ensure_local(row, models, store.root)
    assert not old.exists()
    assert new.exists()  # it may be a download that goes on


def test_folder_that_cannot_be_written_is_told_in_one_sentence(row, tmp_path):
    (tmp_path / "models").write_text("in the way")
    with pytest.raises(ArtefactError, match=r"cannot be written .*: set MODELS_DIR to a folder that this process may"):
        ensure_local(row, tmp_path / "models", (tmp_path / "store").as_uri())
    with pytest.raises(ArtefactError, match="set MODELS_DIR"), downloaded(tmp_path.as_uri(), tmp_path / "models"):
        pass


def test_package_is_put_in_the_store_once_and_never_over_another(row, tmp_path, packages):
    store = Folder(tmp_path / "store")
    upload_package(row, tmp_path / "elsewhere", store.root)
    assert {path.name for path in (store.path / "people/1").iterdir()} == FILES
    upload_package(row, tmp_path / "elsewhere", store.root)
    shutil.copy(packages / "people/2/model.json", store.path / "people/1/model.json")
    with pytest.raises(Conflict, match="holds another artefact than people@1: versions are immutable"):
        upload_package(row, tmp_path / "elsewhere", store.root)


def test_package_stays_here_where_the_store_is_only_read(row, tmp_path, caplog):
    upload_package(row, tmp_path / "elsewhere", "hf://me/people")
    assert "is only read; upload the package there with the tools of the hub" in caplog.text


def test_model_is_added_from_an_address_and_found_there_again(engine, store, packages, models, tmp_path):
    put_package(store, packages / "people/1", "new")
    with downloaded(f"{store.root}/new/", models) as source:
        row = add_from(engine, source.path, models, uri=source.address)
    assert row.uri.startswith(f"{store.root.partition('@')[0]}")
    assert list(models.glob(".incoming-*")) == []
    assert is_complete(ensure_local(row, tmp_path / "another host", None), row.sha256)


def test_joblib_file_at_an_address_brings_its_card_along(engine, tmp_path, packages, models):
    store = Folder(tmp_path / "store")
    put_package(store, packages / "people/1", "new")
    store.put("new/other.joblib", b"")
    with downloaded(f"{store.root}/new/model.joblib", models) as source:
        assert {path.name for path in source.path.parent.iterdir()} == FILES
        assert source.address == f"{store.root}/new"
    with downloaded(f"{store.root}/new/other.joblib", models) as source:
        assert source.path.name == "other.joblib"
        assert source.address is None  # the card beside it is another model's


def test_processes_fetch_one_package_one_after_the_other(row, tmp_path, packages, models, monkeypatch):
    store = Folder(tmp_path / "store")
    put_package(store, packages / "people/1", "people/1")
    calls = []
    fetch = fetching._fetch

    def counted(*arguments):
        calls.append(arguments)
        fetch(*arguments)
        ensure_local(row, models, store.root)  # whoever waited for the lock finds it there

    monkeypatch.setattr(fetching, "_fetch", counted)
    ensure_local(row, models, store.root)
    assert len(calls) == 1


def test_verify_fetches_what_it_checks(engine, tmp_path, packages, models, monkeypatch):
    from tests.support.databases import settings_of

    store = Folder(tmp_path / "store")
    put_package(store, packages / "people/1", "people/1")
    add_from(engine, packages / "people/1", tmp_path / "elsewhere")
    with (
        settings_of(RUNTIME="sync", MODELS_DIR=str(models), MODELS_URI=store.root),
        session_scope(engine, read_only=True) as session,
    ):
        assert verify(session, "people", 1)["model"] == "people@1"
    assert json.loads((models / "people/1/model.json").read_text())["name"] == "people"
