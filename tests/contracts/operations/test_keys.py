"""API keys: who may do what, whose jobs are whose, and that a key itself is kept nowhere."""

import hashlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, insert, select

from api.auth.callers import make_key
from shared.database.engine import make_engine, reader
from shared.tables import ApiKey
from tests.contracts.helpers import (
    apart,
    asks_for_key,
    check_accepted,
    check_problem,
    demands_key,
    logged,
    new_id,
    operations,
    stored_job,
    wait_for_keys,
)
from tests.support.stack import Stack

OPEN = ("/health", "/livez", "/readyz", "/ping", "/version", "/v2/health/live", "/v2/health/ready")


@dataclass(frozen=True)
class MadeKey:
    """A key as its owner got it."""

    id: str
    secret: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"}


@pytest.fixture(scope="module")
def guarded(sync: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The sync runtime's database behind an API that wants keys."""
    with apart(sync, tmp_path_factory.mktemp("guarded"), AUTH="keys") as stack:
        yield stack


@pytest.fixture(scope="module")
def database(guarded: Stack) -> Iterator[Engine]:
    engine = make_engine(guarded.database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def door(guarded: Stack) -> Iterator[httpx2.Client]:
    with guarded.client() as client:
        yield client


def create(stack: Stack, name: str, scopes: str | None = None) -> MadeKey:
    """Make a key as an operator does."""
    output = stack.run("api.keys", "create", "--name", name, *(["--scopes", scopes] if scopes else [])).stdout
    key_id, secret = re.search(r"id: +(\S+)", output), re.search(r"key: +(\S+)", output)
    assert key_id is not None
    assert secret is not None
    return MadeKey(key_id[1], secret[1])


def make(engine: Engine, scopes: str) -> MadeKey:
    """Make a key without the start of a process."""
    secret, digest = make_key()
    with engine.begin() as connection:
        connection.execute(insert(ApiKey).values(id=digest[:16], name="test", sha256=digest, scopes=scopes))
    return MadeKey(digest[:16], secret)


@pytest.fixture(scope="module")
def keys(guarded: Stack, database: Engine) -> dict[str, MadeKey]:
    """Keys of several callers."""
    made = {
        "alice": make(database, "predict,read"),
        "bob": make(database, "predict,read"),
        "reader": make(database, "read"),
        "predictor": make(database, "predict"),
        "admin": make(database, "admin"),
    }
    wait_for_keys(guarded, *(key.secret for key in made.values()))
    return made


# ── with and without a key ───────────────────────────────────────────────────────────────────────────────────────


# First of all: of callers whose key is unknown, no more than 100 entries a minute are stored one by one.
def test_refused_call_is_logged_without_its_key(door: httpx2.Client, database: Engine, guarded: Stack) -> None:
    request_id = new_id()
    secret, _ = make_key()
    door.get("/jobs", headers={"X-API-Key": secret, "X-Request-Id": request_id})
    entry = logged(database, request_id)
    assert (entry["status"], entry["code"], entry["owner"]) == (401, "unauthorized", None)
    assert secret not in str(dict(entry))
    assert secret not in guarded.logs(10_000)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic YTpi"},
        {"X-API-Key": ""},
        {"Authorization": "Bearer guichet_unknown"},
        {"Authorization": "guichet_unknown"},
        {"X-API-Key": "guichet_unknown"},
        {"X-API-Key": "é"},
        {"X-API-Key": "' OR '1'='1"},
        {"X-API-Key": "x" * 10_000},
    ],
    ids=lambda headers: str(headers)[:50],
)
def test_call_without_a_known_key_is_refused(
    door: httpx2.Client, attrition_row: dict[str, Any], headers: dict[str, str]
) -> None:
    answer = door.post("/predict", json={"features": attrition_row}, headers=httpx2.Headers(headers, encoding="utf-8"))
    check_problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "guichet_unknown" not in answer.text


def test_body_without_content_type_is_read_as_json_where_a_key_comes_with_it(
    door: httpx2.Client, attrition_row: dict[str, Any], keys: dict[str, MadeKey]
) -> None:
    """As `requests.post(url, data=json.dumps(body))` sends it; a web page has no key to send."""
    request = door.build_request("POST", "/predict", json={"features": attrition_row}, headers=keys["alice"].headers)
    del request.headers["content-type"]
    assert door.send(request).status_code in (200, 202)


def test_every_path_but_the_probes_wants_a_key(door: httpx2.Client) -> None:
    document = door.get("/openapi.json").json()
    checked = 0
    for path, item in document["paths"].items():
        if path in OPEN:
            continue
        for method in item:
            answer = door.request(method, re.sub(r"{\w+}", "1", path), json={} if method == "post" else None)
            assert answer.status_code == 401, f"{method} {path}"
            if path.startswith("/v2"):
                assert answer.json().keys() == {"error"}
            elif path.endswith("/invocations"):
                assert answer.json().keys() == {"error_code", "message"}
            else:
                check_problem(answer, 401, "unauthorized")
            checked += 1
    assert checked >= 10


def test_document_demands_a_key_where_the_service_does(door: httpx2.Client) -> None:
    document = door.get("/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    assert {scheme["type"] for scheme in schemes.values()} == {"http", "apiKey"}
    for path, method, operation in operations(document):
        assert operation["security"] == ([] if path in OPEN else [{name: []} for name in schemes]), path
        assert asks_for_key(door, path, method) is demands_key(operation), f"{method} {path}"


def test_models_are_described_to_those_who_may_read_them(door: httpx2.Client, guarded: Stack) -> None:
    """What a model takes is in the document of the API, and at the front door, for a key that may read."""
    key, useless = create(guarded, "reads documents", "read"), MadeKey("", "guichet_unknown")
    document = door.get("/openapi.json", headers=key.headers)
    assert '"attrition_row"' in document.text
    assert door.get("/", headers=key.headers).json()["default_model"] == "attrition"
    for headers in ({}, useless.headers):
        open_document = door.get("/openapi.json", headers=headers)
        assert open_document.status_code == 200
        assert "attrition" not in open_document.text
        assert open_document.json()["paths"].keys() == document.json()["paths"].keys()
        assert "attrition" not in door.get("/", headers=headers).text


@pytest.mark.parametrize("path", OPEN)
def test_probes_are_open_to_everyone(door: httpx2.Client, path: str) -> None:
    assert door.get(path).status_code == 200


def test_refusal_without_a_key_comes_before_the_body_is_read(door: httpx2.Client) -> None:
    answer = door.post("/predict", content=b"{", headers={"Content-Type": "text/plain"})
    check_problem(answer, 401, "unauthorized")


@pytest.mark.parametrize("scheme", ["Bearer {}", "bearer {}", "BEARER  {}"])
def test_key_is_taken_as_a_bearer_token(
    door: httpx2.Client, attrition_row: dict[str, Any], keys: dict[str, MadeKey], scheme: str
) -> None:
    headers = {"Authorization": scheme.format(keys["alice"].secret)}
    assert door.post("/predict", json={"features": attrition_row}, headers=headers).status_code == 200


def test_key_is_taken_from_its_own_header(
    door: httpx2.Client, database: Engine, attrition_row: dict[str, Any], keys: dict[str, MadeKey]
) -> None:
    answer = door.post("/predict", json={"features": attrition_row}, headers={"X-API-Key": keys["alice"].secret})
    assert answer.status_code == 200
    assert stored_job(database, answer.json()["job_id"])["owner"] == keys["alice"].id


# ── scopes and owners ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/predict", "/jobs", "/predict_batch", "/models/attrition/predict"])
def test_submission_with_a_key_that_only_reads_is_forbidden(
    door: httpx2.Client, database: Engine, keys: dict[str, MadeKey], path: str
) -> None:
    request_id = new_id()
    answer = door.post(path, json={}, headers=keys["reader"].headers | {"X-Request-Id": request_id})
    assert "`predict`" in check_problem(answer, 403, "forbidden")["detail"]
    assert logged(database, request_id)["status"] == 403


def test_key_that_only_reads_sees_the_models_in_the_open_inference_protocol_and_cannot_infer(
    door: httpx2.Client, keys: dict[str, MadeKey]
) -> None:
    for path in ("/v2", "/v2/models/attrition", "/v2/models/attrition/ready"):
        assert door.get(path, headers=keys["reader"].headers).status_code == 200
    answer = door.post("/v2/models/attrition/infer", json={}, headers=keys["reader"].headers)
    assert answer.status_code == 403
    assert "`predict`" in answer.json()["error"]
    assert door.post("/v2/models/attrition/infer", json={}, headers=keys["alice"].headers).status_code == 400


def test_forbidden_call_is_logged_with_the_id_of_its_key(
    door: httpx2.Client, database: Engine, keys: dict[str, MadeKey]
) -> None:
    request_id = new_id()
    door.post("/predict", json={}, headers=keys["reader"].headers | {"X-Request-Id": request_id})
    assert logged(database, request_id)["owner"] == keys["reader"].id


def test_refused_row_is_logged_with_the_id_of_its_key(
    door: httpx2.Client, database: Engine, keys: dict[str, MadeKey]
) -> None:
    request_id = new_id()
    door.post("/predict", json={}, headers=keys["alice"].headers | {"X-Request-Id": request_id})
    entry = logged(database, request_id)
    assert (entry["status"], entry["owner"]) == (422, keys["alice"].id)


def test_key_that_only_reads_sees_the_models(door: httpx2.Client, keys: dict[str, MadeKey]) -> None:
    assert door.get("/models", headers=keys["reader"].headers).status_code == 200
    assert door.get("/jobs", headers=keys["reader"].headers).json() == {"items": [], "next": None}


def test_key_that_only_predicts_reads_its_own_job(
    door: httpx2.Client, attrition_row: dict[str, Any], keys: dict[str, MadeKey]
) -> None:
    headers = keys["predictor"].headers
    job = check_accepted(door.post("/jobs", json={"features": attrition_row}, headers=headers))
    assert door.get(f"/jobs/{job['id']}", headers=headers).status_code == 200
    assert door.get(f"/jobs/{job['id']}/result", headers=headers).status_code == 200


def test_job_of_another_caller_does_not_exist(
    door: httpx2.Client, attrition_row: dict[str, Any], keys: dict[str, MadeKey]
) -> None:
    answer = door.post("/jobs", json={"features": attrition_row}, headers=keys["alice"].headers)
    job_id = check_accepted(answer)["id"]
    nobody = check_problem(
        door.get("/jobs/0195f5e8-7a3c-7def-8123-456789abcdef", headers=keys["bob"].headers), 404, "not_found"
    )
    for attempt in (
        door.get(f"/jobs/{job_id}", headers=keys["bob"].headers),
        door.get(f"/jobs/{job_id}/result", headers=keys["bob"].headers),
        door.post(f"/jobs/{job_id}/cancel", headers=keys["bob"].headers),
    ):
        assert check_problem(attempt, 404, "not_found")["detail"] == nobody["detail"]
    assert door.get(f"/jobs/{job_id}", headers=keys["alice"].headers).status_code == 200


def test_list_holds_the_callers_own_jobs_and_an_admins_everyones(
    door: httpx2.Client, attrition_row: dict[str, Any], keys: dict[str, MadeKey]
) -> None:
    ids = {
        name: check_accepted(door.post("/jobs", json={"features": attrition_row}, headers=keys[name].headers))["id"]
        for name in ("alice", "bob")
    }
    listed = {
        name: {job["id"] for job in door.get("/jobs?limit=200", headers=keys[name].headers).json()["items"]}
        for name in ("alice", "bob", "admin")
    }
    assert ids["alice"] in listed["alice"]
    assert ids["bob"] in listed["bob"]
    assert listed["alice"].isdisjoint(listed["bob"])
    assert set(ids.values()) <= listed["admin"]
    for job_id in ids.values():
        assert door.get(f"/jobs/{job_id}", headers=keys["admin"].headers).status_code == 200
        assert door.get(f"/jobs/{job_id}/result", headers=keys["admin"].headers).status_code == 200


@pytest.mark.parametrize(
    "path", ["/drift", "/alerts", "/metrics/model", "/metrics/kpis", "/metrics/feature-distribution"]
)
def test_figures_of_everyones_rows_are_for_admins(door: httpx2.Client, keys: dict[str, MadeKey], path: str) -> None:
    for who in ("alice", "reader", "predictor"):
        assert "`admin`" in check_problem(door.get(path, headers=keys[who].headers), 403, "forbidden")["detail"]
    assert door.get(path, headers=keys["admin"].headers).status_code in (200, 409)  # 409: no profile yet


def test_outcome_is_told_by_whoever_sent_the_row(
    door: httpx2.Client, attrition_row: dict[str, Any], keys: dict[str, MadeKey]
) -> None:
    alice, bob = keys["alice"].headers, keys["bob"].headers
    job_id = door.post("/predict", json={"features": attrition_row}, headers=alice).json()["job_id"]
    path = f"/jobs/{job_id}/outcome"
    check_problem(door.post(path, json={"actual": 1}, headers=bob), 404)
    check_problem(door.post(path, json={"actual": 1}, headers=keys["reader"].headers), 403)
    content = f"job_id,actual\n{job_id},1\n"
    refused = door.post("/outcomes", content=content, headers=bob | {"Content-Type": "text/csv"})
    assert "1 of 1 lines" in check_problem(refused, 422)["detail"]
    assert door.post(path, json={"actual": 1}, headers=alice).status_code == 201
    assert door.post(path, json={"actual": 1}, headers=keys["admin"].headers).status_code == 200


def test_admin_may_submit(door: httpx2.Client, attrition_row: dict[str, Any], keys: dict[str, MadeKey]) -> None:
    answer = door.post("/predict", json={"features": attrition_row}, headers=keys["admin"].headers)
    assert answer.status_code == 200


def test_idempotency_key_belongs_to_its_caller(
    door: httpx2.Client, attrition_row: dict[str, Any], keys: dict[str, MadeKey]
) -> None:
    wish = {"Idempotency-Key": new_id()}
    alice, bob, again = (
        check_accepted(door.post("/jobs", json={"features": attrition_row}, headers=keys[name].headers | wish))["id"]
        for name in ("alice", "bob", "alice")
    )
    assert alice == again
    assert alice != bob


# ── the life of a key ────────────────────────────────────────────────────────────────────────────────────────────


def test_key_made_on_the_command_line_works_until_it_is_revoked(
    guarded: Stack, door: httpx2.Client, database: Engine, attrition_row: dict[str, Any]
) -> None:
    key = create(guarded, "Équipe données")
    deadline = time.monotonic() + 3  # test_key_works_the_moment_it_is_committed asks for more
    while door.get("/models", headers=key.headers).status_code != 200:
        assert time.monotonic() < deadline, "a new key does not work"
    answer = door.post("/predict", json={"features": attrition_row}, headers=key.headers)
    assert answer.status_code == 200
    assert stored_job(database, answer.json()["job_id"])["owner"] == key.id

    listed = guarded.run("api.keys", "list").stdout
    [line] = [line for line in listed.splitlines() if line.startswith(key.id)]
    assert "predict,read" in line
    assert "valid" in line
    assert line.endswith("Équipe données")
    assert key.secret not in listed

    with reader(database).connect() as connection:
        row = connection.execute(select(ApiKey.__table__).where(ApiKey.id == key.id)).mappings().one()
    assert row["sha256"] == hashlib.sha256(key.secret.encode()).hexdigest()
    path = Path(guarded.database_url.removeprefix("sqlite:///"))
    files = list(path.parent.glob(path.name + "*"))
    assert path in files
    for file in files:
        assert key.secret.encode() not in file.read_bytes()
        assert key.secret.removeprefix("guichet_").encode() not in file.read_bytes()

    assert "is revoked" in guarded.run("api.keys", "revoke", key.id).stdout
    deadline = time.monotonic() + 3
    while (answer := door.get("/jobs", headers=key.headers)).status_code == 200:
        assert time.monotonic() < deadline, "a revoked key still works"
        time.sleep(0.05)
    check_problem(answer, 401, "unauthorized")
    again = guarded.run("api.keys", "revoke", key.id, check=False)
    assert again.returncode == 1
    assert key.id in again.stderr


def test_key_works_the_moment_it_is_committed(door: httpx2.Client, database: Engine) -> None:
    refused = 0
    for _ in range(6):
        key = make(database, "read")
        refused += door.get("/models", headers=key.headers).status_code != 200
        time.sleep(0.13)
    assert refused == 0


def test_unknown_scope_is_refused_on_the_command_line(guarded: Stack) -> None:
    done = guarded.run("api.keys", "create", "--name", "x", "--scopes", "predict,root", check=False)
    assert done.returncode == 2
    assert "predict, read, admin" in done.stderr
    assert "Traceback" not in done.stderr


# ── open only at home ────────────────────────────────────────────────────────────────────────────────────────────


def test_open_service_refuses_to_start_on_a_public_address(sync: Stack) -> None:
    done = sync.run(
        "api", check=False, HOST="::", AUTH="open"
    )  # tests/shared/config/test_settings.py has the other addresses
    assert done.returncode == 1
    assert "AUTH=open is for loopback addresses only" in done.stderr
    assert "::" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
