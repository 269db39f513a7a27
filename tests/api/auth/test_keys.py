"""API keys: made once, kept as hashes, refused as soon as they are revoked."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from starlette.requests import Request

from api.auth.callers import Caller, Scope, hash_key, identify, make_key
from api.keys import create, list_keys, main, revoke
from api.models.catalog import Catalog
from shared.config.settings import Settings
from shared.database.engine import get_engine
from shared.errors import Forbidden, Unauthorized
from tests.support.databases import empty_keys, migrate, settings_for, settings_of


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('keys') / 'guichet.db'}"
    migrate(url)
    return url


@pytest.fixture(autouse=True)
def _database(url: str) -> Iterator[None]:
    with settings_of(**settings_for(url)):
        empty_keys(get_engine())
        yield


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    catalog = Catalog(get_engine(), Settings(runtime="sync", data_dir=tmp_path))
    catalog.refresh()
    return catalog


def request(**headers: str) -> Request:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": pairs})


def whoami(request: Request, catalog: Catalog, *scopes: Scope) -> Caller:
    return asyncio.run(identify(request, catalog, *scopes))


def test_keys_are_long_random_and_never_the_same():
    keys = {make_key()[0] for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("guichet_") and len(key) >= 8 + 43 for key in keys)


def test_only_the_hash_of_a_key_is_stored():
    key_id, key = create("a program", [Scope.PREDICT])
    with get_engine().connect() as connection:
        (row,) = connection.execute(text("SELECT * FROM api_keys")).mappings().all()
    assert row["id"] == key_id
    assert row["sha256"] == hash_key(key)
    assert not any(key.removeprefix("guichet_") in str(value) for value in row.values())


def test_caller_with_a_key_is_known_by_either_header(catalog):
    key_id, key = create("a program", [Scope.PREDICT, Scope.READ])
    catalog.refresh()
    for headers in ({"authorization": f"Bearer {key}"}, {"authorization": f"bearer  {key} "}, {"x_api_key": key}):
        caller = whoami(request(**headers), catalog, Scope.PREDICT)
        assert (caller.id, caller.is_admin, caller.sees) == (key_id, False, key_id)


def test_key_made_a_moment_ago_is_known_without_waiting(catalog):
    key_id, key = create("a program", [Scope.PREDICT])
    assert whoami(request(x_api_key=key), catalog, Scope.PREDICT).id == key_id


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Basic Z3VpY2hldDp4"},
        {"x_api_key": ""},
        {"x_api_key": "guichet_unknown"},
        {"authorization": "Bearer ' OR 1=1 --"},
        {"authorization": "Bearer \u00e9"},
    ],
)
def test_caller_without_a_known_key_is_unauthorized(catalog, headers):
    create("a program", [Scope.PREDICT])
    with pytest.raises(Unauthorized):
        whoami(request(**headers), catalog, Scope.READ)


def test_hash_of_a_key_is_no_key(catalog):
    _, key = create("a program", [Scope.ADMIN])
    catalog.refresh()
    with pytest.raises(Unauthorized):
        whoami(request(x_api_key=hash_key(key)), catalog, Scope.READ)


def test_revoked_key_is_unauthorized(catalog):
    key_id, key = create("a program", [Scope.ADMIN])
    catalog.refresh()
    assert revoke(key_id)
    catalog.refresh()
    with pytest.raises(Unauthorized):
        whoami(request(x_api_key=key), catalog, Scope.READ)


def test_key_without_the_scope_is_forbidden(catalog):
    _, key = create("a reader", [Scope.READ])
    catalog.refresh()
    for scope in (Scope.PREDICT, Scope.ADMIN):
        with pytest.raises(Forbidden, match=scope.value):
            whoami(request(x_api_key=key), catalog, scope)


def test_admin_key_may_do_everything_and_sees_everyones_jobs(catalog):
    _, key = create("the operator", [Scope.ADMIN])
    catalog.refresh()
    for scope in Scope:
        caller = whoami(request(x_api_key=key), catalog, scope)
        assert (caller.is_admin, caller.sees) == (True, None)


def test_key_with_one_of_several_scopes_is_enough(catalog):
    key_id, key = create("a program", [Scope.PREDICT])
    catalog.refresh()
    assert whoami(request(x_api_key=key), catalog, Scope.READ, Scope.PREDICT).id == key_id


def test_key_is_revoked_once():
    key_id, _ = create("a program", [Scope.READ])
    assert revoke(key_id)
    assert not revoke(key_id)
    assert not revoke("unknown")


def test_commands_make_list_and_revoke_keys_and_show_the_secret_once(capsys):
    assert main(["create", "--name", "billing", "--scopes", "predict, read"]) == 0
    made = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if ": " in line)
    key_id, key = made["id"].strip(), made["key"].strip()
    assert hash_key(key) == list_keys()[0].sha256
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert "billing" in listed
    assert "predict,read" in listed
    assert "valid" in listed
    assert key not in listed
    assert list_keys()[0].sha256 not in listed
    assert main(["revoke", key_id]) == 0
    capsys.readouterr()
    assert main(["revoke", key_id]) == 1
    assert key_id in capsys.readouterr().err
    main(["list"])
    assert "revoked" in capsys.readouterr().out


@pytest.mark.parametrize("scopes", ["", "predict,", "root", "PREDICT", "predict;read"])
def test_unknown_scope_makes_no_key(scopes, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["create", "--name", "x", "--scopes", scopes])
    assert caught.value.code == 2
    assert "scopes are predict, read, admin" in capsys.readouterr().err
    assert list_keys() == []


def test_key_in_a_file_is_not_printed_and_replaces_the_last_one_of_its_name(tmp_path, capsys, catalog):
    _, other = create("somebody", [Scope.READ])
    file = tmp_path / "key"
    made = []
    for _ in range(2):
        assert main(["create", "--name", "prometheus", "--scopes", "read", "--replace", "--to", str(file)]) == 0
        made.append(file.read_text())
        assert made[-1] not in capsys.readouterr().out
    catalog.refresh()
    assert whoami(request(x_api_key=made[1]), catalog, Scope.READ).id is not None
    assert whoami(request(x_api_key=other), catalog, Scope.READ).id is not None
    with pytest.raises(Unauthorized):
        whoami(request(x_api_key=made[0]), catalog, Scope.READ)
    assert main(["create", "--name", "prometheus", "--replace", "--to", str(tmp_path / "none" / "key")]) == 1
    assert "cannot be kept" in capsys.readouterr().err
    catalog.refresh()
    assert whoami(request(x_api_key=made[1]), catalog, Scope.READ).id is not None
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


# ── a key that was made elsewhere ────────────────────────────────────────────────────────────────────────────────


def admit(monkeypatch: pytest.MonkeyPatch, key: str, *arguments: str) -> int:
    monkeypatch.setenv("ADMIN_KEY", key)
    return main(["admit", "--name", "operator", *arguments])


def test_generated_key_is_let_in_and_the_next_one_ends_it(monkeypatch, capsys, catalog):
    assert main(["generate"]) == 0
    first = capsys.readouterr().out.strip()
    assert [admit(monkeypatch, first), admit(monkeypatch, first)] == [0, 0]
    catalog.refresh()
    assert whoami(request(x_api_key=first), catalog, Scope.PREDICT).is_admin
    assert len(list_keys()) == 1
    second, _ = make_key()
    assert admit(monkeypatch, second) == 0
    catalog.refresh()
    with pytest.raises(Unauthorized):
        whoami(request(x_api_key=first), catalog, Scope.PREDICT)
    assert whoami(request(x_api_key=second), catalog, Scope.PREDICT).is_admin
    assert admit(monkeypatch, first) == 0  # taken back
    catalog.refresh()
    assert whoami(request(x_api_key=first), catalog, Scope.PREDICT).is_admin
    shown = capsys.readouterr()
    assert first not in shown.out + shown.err


def test_empty_key_ends_what_was_let_in_under_its_name_and_nothing_else(monkeypatch, catalog):
    _, other = create("somebody", [Scope.READ])
    key, _ = make_key()
    assert [admit(monkeypatch, key), admit(monkeypatch, "")] == [0, 0]
    catalog.refresh()
    with pytest.raises(Unauthorized):
        whoami(request(x_api_key=key), catalog, Scope.READ)
    assert whoami(request(x_api_key=other), catalog, Scope.READ).id is not None


@pytest.mark.parametrize("key", ["changeme", "guichet_short", "x" * 51, "guichet_" + "é" * 43])
def test_key_that_somebody_thought_up_is_not_let_in(monkeypatch, capsys, key):
    assert admit(monkeypatch, key) == 1
    assert "api.keys generate" in capsys.readouterr().err
    assert list_keys() == []
