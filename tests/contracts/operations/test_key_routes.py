"""API keys over HTTP: an administrator lists, makes, rotates and revokes them, on both runtimes."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, delete, insert, select

from api.auth.callers import hash_key, make_key
from shared.database.engine import make_engine, reader
from shared.tables import ApiKey, AuditLog
from tests.contracts.helpers import apart, check_accepted, check_problem, faults_of, new_id, wait_for_keys
from tests.support.stack import Stack


@pytest.fixture(scope="module", params=["queue", "sync"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Each runtime behind an API that wants keys."""
    with apart(request.getfixturevalue(request.param), tmp_path_factory.mktemp("keys"), AUTH="keys") as made:
        yield made


@pytest.fixture
def database(guarded: Stack) -> Iterator[Engine]:
    made = make_engine(guarded.database_url)
    yield made
    made.dispose()


@pytest.fixture
def door(guarded: Stack, database: Engine) -> Iterator[httpx2.Client]:
    """A client with the only key that there is, of an administrator."""
    secret, digest = make_key()
    with database.begin() as connection:
        connection.execute(delete(ApiKey))
        connection.execute(insert(ApiKey).values(id=digest[:16], name="root", sha256=digest, scopes="admin"))
    wait_for_keys(guarded, secret)
    with guarded.client(Authorization=f"Bearer {secret}") as client:
        yield client


def make(door: httpx2.Client, **body: Any) -> dict[str, Any]:
    answer = door.post("/keys", json=body)
    assert answer.status_code == 201, answer.text
    key: dict[str, Any] = answer.json()
    return key


def uses(door: httpx2.Client, secret: str, path: str = "/models") -> int:
    return door.get(path, headers={"Authorization": f"Bearer {secret}"}).status_code


def notes(database: Engine, key_id: str) -> list[tuple[str, str, Any, Any]]:
    with reader(database).connect() as connection:
        query = select(AuditLog.action, AuditLog.actor, AuditLog.details, AuditLog.request_id)
        return [tuple(row) for row in connection.execute(query.where(AuditLog.target == f"key:{key_id}"))]


def test_key_is_made_shown_once_and_audited(door: httpx2.Client, database: Engine, guarded: Stack) -> None:
    request_id = new_id()
    answer = door.post("/keys", json={"name": "a program"}, headers={"X-Request-Id": request_id})
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    key = answer.json()
    assert key.keys() == {"id", "name", "scopes", "created_at", "revoked_at", "key"}
    assert (key["name"], key["scopes"], key["revoked_at"]) == ("a program", ["predict", "read"], None)
    assert uses(door, key["key"]) == 200  # at once, in the process that made it
    assert uses(door, key["key"], "/keys") == 403
    listed = door.get("/keys").json()["items"]
    assert listed[0] == {name: value for name, value in key.items() if name != "key"}
    assert key["key"] not in door.get("/keys").text
    assert key["key"] not in guarded.logs(10_000)
    with reader(database).connect() as connection:
        assert connection.scalar(select(ApiKey.sha256).where(ApiKey.id == key["id"])) == hash_key(key["key"])
    root = listed[-1]["id"]
    details = {"name": "a program", "scopes": ["predict", "read"]}
    assert notes(database, key["id"]) == [("key.created", f"key:{root}", details, request_id)]


def test_rotated_key_has_a_new_secret_and_the_same_jobs(
    door: httpx2.Client, database: Engine, attrition_row: dict[str, Any]
) -> None:
    key = make(door, name="Ana", scopes=["read", "predict"])
    old = {"Authorization": f"Bearer {key['key']}"}
    job = check_accepted(door.post("/jobs", json={"features": attrition_row}, headers=old))["id"]
    answer = door.post(f"/keys/{key['id']}/rotate")
    assert answer.status_code == 200, answer.text
    rotated = answer.json()
    assert {**rotated, "key": ""} == {**key, "key": ""}
    assert rotated["key"] != key["key"]
    assert uses(door, key["key"]) == 401
    assert uses(door, rotated["key"], f"/jobs/{job}") == 200
    assert [note[0] for note in notes(database, key["id"])] == ["key.created", "key.rotated"]


def test_revoked_key_is_refused_at_once_and_stays_revoked(door: httpx2.Client, database: Engine) -> None:
    key = make(door, name="gone", scopes=["read"])
    assert uses(door, key["key"]) == 200
    answer = door.delete(f"/keys/{key['id']}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["revoked_at"] is not None
    assert "key" not in answer.json()
    assert uses(door, key["key"]) == 401
    assert door.delete(f"/keys/{key['id']}").json()["id"] == key["id"]
    assert [note[0] for note in notes(database, key["id"])] == ["key.created", "key.revoked"]
    assert "make a new one" in check_problem(door.post(f"/keys/{key['id']}/rotate"), 409)["detail"]
    assert [each["id"] for each in door.get("/keys?valid=false").json()["items"]] == [key["id"]]
    assert key["id"] not in [each["id"] for each in door.get("/keys?valid=true").json()["items"]]


def test_last_key_of_an_administrator_cannot_be_revoked_over_http(door: httpx2.Client) -> None:
    (root,) = door.get("/keys").json()["items"]
    assert "make another first" in check_problem(door.delete(f"/keys/{root['id']}"), 409)["detail"]
    other = make(door, name="second", scopes=["admin"])
    assert door.delete(f"/keys/{root['id']}").status_code == 200
    check_problem(door.get("/keys"), 401)
    assert uses(door, other["key"], "/keys") == 200


def test_keys_are_listed_page_by_page(door: httpx2.Client) -> None:
    made = [make(door, name=f"key {place}")["id"] for place in range(5)]
    path, listed, pages = "/keys?limit=2", [], 0
    while path:
        page = door.get(path).json()
        listed += [each["id"] for each in page["items"]]
        path, pages = page["next"], pages + 1
    assert pages == 3
    assert len(listed) == len(set(listed)) == 6
    assert set(made) < set(listed)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/name"),
        ({"name": " "}, "/name"),
        ({"name": "x" * 101}, "/name"),
        ({"name": 7}, "/name"),
        ({"name": "x", "scopes": []}, "/scopes"),
        ({"name": "x", "scopes": ["root"]}, "/scopes"),
        ({"name": "x", "scope": "read"}, "/scope"),
    ],
    ids=str,
)
def test_wrong_wish_is_refused_and_makes_no_key(door: httpx2.Client, body: dict[str, Any], pointer: str) -> None:
    problem = check_problem(door.post("/keys", json=body), 422)
    assert pointer in [place for place, _ in faults_of(problem)]
    assert len(door.get("/keys").json()["items"]) == 1


def test_key_that_there_is_not_is_not_found(door: httpx2.Client) -> None:
    check_problem(door.delete("/keys/nothing"), 404)
    check_problem(door.post("/keys/nothing/rotate"), 404)
    check_problem(door.get("/keys?cursor=nothing"), 404)
    check_problem(door.get("/keys?limit=0"), 422)


def test_only_an_administrator_sees_and_changes_keys(door: httpx2.Client) -> None:
    key = make(door, name="curious")
    headers = {"Authorization": f"Bearer {key['key']}"}
    for method, path in (("GET", "/keys"), ("POST", "/keys"), ("POST", "/keys/x/rotate"), ("DELETE", "/keys/x")):
        check_problem(door.request(method, path, headers=headers), 403)


def test_open_service_makes_no_keys(stack: Stack, client: httpx2.Client, engine: Engine) -> None:
    """Whoever could make one while it is open would have it when it is not."""
    for method, path in (("POST", "/keys"), ("POST", "/keys/x/rotate"), ("DELETE", "/keys/x")):
        body = {"json": {"name": "x", "scopes": ["admin"]}} if path == "/keys" else {}
        assert "AUTH=open" in check_problem(client.request(method, path, **body), 409)["detail"]
    with reader(engine).connect() as connection:
        assert connection.scalar(select(ApiKey.id).where(ApiKey.name == "x")) is None
