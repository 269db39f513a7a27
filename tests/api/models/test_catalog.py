"""The API's picture of the registry, when the registry is not as it should be."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from api.models.catalog import Catalog
from shared.config.settings import Settings
from shared.errors import NotFound, Unavailable
from tests.support.databases import sqlite_engine

CARD = (
    '{"name": "m", "version": 3, "task": "regression", "sha256": "' + "0" * 64 + '", '
    '"features": [{"name": "x", "type": "number"}]}'
)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with sqlite_engine(tmp_path) as engine:  # its versions 1 and 2 have cards that do not hold
        yield engine


@pytest.fixture
def catalog(engine: Engine, tmp_path: Path) -> Catalog:
    return Catalog(engine, Settings(runtime="sync", data_dir=tmp_path))


def add(engine: Engine, *statements: str, **values: object) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement), values)


def test_broken_card_hides_no_other_model(engine, catalog):
    add(
        engine,
        "INSERT INTO model_versions (id, name, version, sha256, uri, card, scorer) "
        "VALUES (3, 'm', 3, :sha256, 'm/3', :card, '{}')",
        sha256="0" * 64,
        card=CARD,
    )
    catalog.refresh()
    assert catalog.is_connected
    assert set(catalog.snapshot.by_id) == {3}
    assert catalog.find("m", None) is catalog.snapshot.by_id[3]


def test_broken_card_is_read_and_reported_once(engine, catalog, caplog):
    catalog.refresh()
    catalog.refresh()
    assert [record.args[0] for record in caplog.records if "does not hold" in record.msg] == [1, 2]


def test_alias_of_a_version_that_is_not_served_is_left_out(engine, catalog):
    add(engine, "INSERT INTO model_aliases (name, alias, model_version_id) VALUES ('m', 'champion', 1)")
    catalog.refresh()
    assert catalog.snapshot.aliases == {}
    assert catalog.find("m", None) is None


def test_silent_or_missing_database_is_not_taken_for_an_empty_registry(engine, catalog):
    assert isinstance(catalog.missing_version_error(None, None), Unavailable)
    assert "database" in catalog.missing_version_error("m", None).detail
    catalog.refresh()
    assert "registered" in catalog.missing_version_error(None, None).detail
    assert not isinstance(catalog.missing_version_error(None, None), NotFound)
