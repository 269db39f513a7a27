"""Models that arrive while the service runs: what is loaded, registered, refused and tried again."""

import shutil
import time

import pytest
from sqlalchemy import select

from shared.config.settings import Settings
from shared.database.engine import reader, session_scope
from shared.errors import ArtefactError
from shared.packages.sources.candidates import AddOptions
from shared.registry import watcher
from shared.registry.adding import add
from shared.registry.aliases import promote
from shared.registry.loaded_models import ModelCache
from shared.registry.versions import aliases_of, list_versions
from shared.registry.watcher import ModelWatcher
from shared.tables import ModelVersion
from tests.stores.places import Folder, put_package


@pytest.fixture
def place(tmp_path):
    return Folder(tmp_path / "store")


@pytest.fixture
def service(engine, tmp_path):
    """Make the models of a process and what brings them; a round of it is one call of `poll`."""

    def make(store=None, **changes):
        options = {"runtime": "sync", "data_dir": tmp_path / "data", "models_uri": store, "models_check_seconds": 1e-6}
        settings = Settings(**options | changes)
        models = ModelCache(reader(engine), settings.models, store)
        return models, ModelWatcher(models, settings, engine=engine)

    return make


def register_elsewhere(engine, packages, tmp_path, version=1):
    with session_scope(engine) as session:
        return add(
            session, packages / f"people/{version}", AddOptions(version=version), models_dir=tmp_path / "elsewhere"
        ).id


def labels(engine):
    with session_scope(engine, read_only=True) as session:
        return [f"{row.name}@{row.version}" for row in list_versions(session)]


def test_champion_is_loaded_when_its_package_arrives_in_the_store(engine, service, place, packages, tmp_path):
    model_version_id = register_elsewhere(engine, packages, tmp_path)
    models, arriving = service(place.root)
    models.preload()
    assert models.refused["people@1"] == f"It is being fetched from {place.root}/people/1."
    arriving.poll()
    assert "There is nothing at" in models.refused["people@1"]
    assert models.names() == []
    put_package(place, packages / "people/1", "people/1")
    arriving._retries.clear()  # its pause is over
    arriving.poll()
    assert models.names() == ["people@1"]
    assert models.refused == {}
    assert models.get(model_version_id).card.name == "people"


def test_row_does_not_wait_for_a_model_that_is_fetched(engine, service, place, packages, tmp_path, monkeypatch):
    model_version_id = register_elsewhere(engine, packages, tmp_path)
    models, _ = service(place.root)
    monkeypatch.setattr("shared.packages.stores.list_files", lambda *_, **__: pytest.fail("a store was asked"))
    with pytest.raises(ArtefactError, match="It is being fetched from"):
        models.get(model_version_id)
    assert models.not_loaded() == {model_version_id}


def test_package_that_is_copied_into_models_dir_is_loaded_at_once(engine, service, packages, tmp_path):
    register_elsewhere(engine, packages, tmp_path)
    models, arriving = service()
    arriving.poll()
    assert " is missing: copy the package there" in models.refused["people@1"]
    arriving.poll()
    shutil.copytree(packages / "people/1", tmp_path / "data/models/people/1")
    arriving.poll()
    assert models.names() == ["people@1"]


def test_model_that_cannot_be_loaded_is_tried_less_and_less_often(engine, service, packages, tmp_path, monkeypatch):
    register_elsewhere(engine, packages, tmp_path)
    models, arriving = service()
    now = [1000.0]
    monkeypatch.setattr(watcher.time, "monotonic", lambda: now[0])
    tries = []
    fetch_and_load = models.fetch_and_load
    monkeypatch.setattr(models, "fetch_and_load", lambda number: tries.append(now[0] - 1000) or fetch_and_load(number))
    for _ in range(100):
        arriving.poll()
        now[0] += 1
    assert tries == [0, 2, 6, 14, 30, 60, 90]


def test_version_that_is_promoted_is_loaded_before_it_is_asked_for(engine, service, packages, tmp_path):
    models, arriving = service(models_dir=tmp_path / "elsewhere")
    for version in (1, 2):
        register_elsewhere(engine, packages, tmp_path, version)
    arriving.poll()
    assert models.names() == ["people@1"]
    with session_scope(engine) as session:
        promote(session, "people", 2)
    arriving.poll()
    assert models.names() == ["people@1", "people@2"]


def test_packages_of_the_store_are_registered_and_the_first_serves(engine, service, place, packages):
    models, arriving = service(place.root)
    arriving.poll()
    assert "There is nothing at" in models.refused[place.root]
    put_package(place, packages / "people/1", "people/1")
    arriving.poll()
    assert (labels(engine), models.names(), models.refused) == (["people@1"], ["people@1"], {})
    put_package(place, packages / "people/2", "people/2")
    arriving.poll()
    with session_scope(engine, read_only=True) as session:
        rows = list_versions(session)
        assert [(row.version, row.uri) for row in rows] == [(1, "people/1"), (2, "people/2")]
        assert aliases_of(session) == {rows[0].id: ["champion"]}
    assert models.names() == ["people@1"]


def test_store_that_is_one_package_is_registered_with_its_address(engine, service, store, packages, tmp_path):
    put_package(store, packages / "people/1")
    models, arriving = service(store.root)
    arriving.poll()
    assert models.names() == ["people@1"]
    with session_scope(engine, read_only=True) as session:
        uri = session.scalars(select(ModelVersion.uri)).one()
    assert uri.partition("@")[0] == store.root
    again, _ = service(store.root, data_dir=tmp_path / "another host")
    again.fetch_and_load(1)
    assert again.names() == ["people@1"]


def test_half_a_package_is_not_registered(engine, service, place, packages):
    models, arriving = service(place.root)
    put_package(place, packages / "people/1", "people/1", only=("model.joblib", "reference.jsonl"))
    arriving.poll()
    assert "There is no model package at" in models.refused[place.root]
    put_package(place, packages / "people/1", "people/1")
    arriving.poll()
    assert labels(engine) == ["people@1"]


@pytest.mark.parametrize("draft", [".incoming-x1", "people/.1-x1"])
def test_draft_of_another_service_is_not_registered(engine, service, place, packages, draft):
    models, arriving = service(place.root)
    put_package(place, packages / "people/1", draft)
    arriving.poll()
    assert labels(engine) == []
    assert "There is no model package at" in models.refused[place.root]


def test_altered_package_is_refused_until_it_is_put_right_and_hinders_no_other(engine, service, place, packages):
    put_package(place, packages / "people/1", "a")
    put_package(place, packages / "people/2", "b")
    place.put("a/model.joblib", b"altered")
    models, arriving = service(place.root)
    arriving.poll()
    assert labels(engine) == ["people@2"]
    assert models.refused[f"{place.root}/a"].startswith(f"{place.root}/a/model.joblib was not loaded: its SHA-256 is")
    put_package(place, packages / "people/1", "a")
    arriving.poll()
    assert labels(engine) == ["people@1", "people@2"]
    assert models.refused == {}


def test_first_model_is_said_to_be_on_its_way(service, place, packages, monkeypatch):
    put_package(place, packages / "people/1", "people/1")
    models, arriving = service(place.root)
    reasons = []
    downloaded = watcher.downloaded
    monkeypatch.setattr(
        watcher, "downloaded", lambda *arguments: reasons.append(dict(models.refused)) or downloaded(*arguments)
    )
    arriving.poll()
    address = f"{place.root}/people/1"
    assert reasons == [{address: f"{address} is being fetched."}]
    assert models.refused == {}


def test_refused_package_that_is_taken_away_is_not_told_of_any_more(service, place, packages):
    put_package(place, packages / "people/1", "a")
    put_package(place, packages / "people/2", "b")
    place.put("a/model.joblib", b"altered")
    models, arriving = service(place.root)
    arriving.poll()
    assert list(models.refused) == [f"{place.root}/a"]
    shutil.rmtree(place.path / "a")
    arriving.poll()
    assert models.refused == {}


def test_package_that_was_refused_is_not_fetched_again_and_again(service, place, packages, monkeypatch):
    put_package(place, packages / "people/1", "a")
    place.put("a/model.joblib", b"altered")
    _, arriving = service(place.root)
    arriving.poll()
    monkeypatch.setattr(watcher, "downloaded", lambda *_: pytest.fail("it was fetched again"))
    arriving.poll()


def test_other_artefact_under_a_registered_version_is_refused(engine, service, place, packages):
    put_package(place, packages / "people/1", "people/1")
    models, arriving = service(place.root)
    arriving.poll()
    for name in ("model.joblib", "model.json"):
        content = (packages / "people/2" / name).read_bytes().replace(b'"version": 2', b'"version": 1')
        place.put(f"people/1/{name}", content)
    arriving.poll()
    assert "another artefact is registered as that" in models.refused[f"{place.root}/people/1"]
    assert models.names() == ["people@1"]


def test_card_that_is_not_valid_is_told_in_one_sentence(service, place, packages):
    put_package(place, packages / "people/1", "a")
    place.put("a/model.json", b'{"name": "people"}')
    models, arriving = service(place.root)
    arriving.poll()
    assert models.refused[f"{place.root}/a"].startswith(f"{place.root}/a/model.json is not a valid card: ")


def test_thread_brings_models_until_it_is_stopped(engine, service, place, packages):
    models, arriving = service(place.root, refresh_seconds=0.05)
    arriving.start()
    try:
        put_package(place, packages / "people/1", "people/1")
        deadline = time.monotonic() + 20
        while not models.names():
            assert time.monotonic() < deadline, models.refused
            time.sleep(0.05)
    finally:
        arriving.stop()
    assert not arriving._thread.is_alive()
