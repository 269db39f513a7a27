"""A running service whose model comes from a store: it starts without, says so, and takes it up when it arrives."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import create_database
from tests.contracts.helpers import check_problem
from tests.stores.places import Bucket, put_package
from tests.support.stack import Stack, environment, free_port

pytestmark = pytest.mark.long


@contextmanager
def running(folder, env, *, runtime, database_url, redis_url="") -> Iterator[Stack]:
    folder.mkdir(exist_ok=True)
    port = free_port()
    made = environment(
        folder, runtime=runtime, port=port, database_url=database_url, models=folder / "models", redis_url=redis_url
    )
    stack = Stack(runtime, made | {"DEFAULT_MODEL": "", "MODELS_CHECK_SECONDS": "0.5"} | env, folder, port)
    stack.run("alembic", "upgrade", "head")
    try:
        stack.start("api", "api")
        if runtime == "queue":
            stack.start_worker("all", lanes="interactive,bulk,maintenance")
        stack.wait_until_answers("/livez")
        yield stack
    finally:
        stack.stop_all()


@pytest.fixture(params=["sync", "queue"])
def where(request, tmp_path) -> dict[str, str]:
    """Database and broker of a new service of each runtime."""
    if request.param == "sync":
        return {"runtime": "sync", "database_url": f"sqlite:///{tmp_path / 'guichet.db'}"}
    name = f"stores_{time.monotonic_ns()}"
    create_database(request.getfixturevalue("session_postgres"), name)
    url = request.getfixturevalue("session_postgres").url_of(name)
    # In its first database the workers of another stack may listen, and would take the wake-ups.
    broker = request.getfixturevalue("session_redis").url.removesuffix("/0") + "/1"
    return {"runtime": "queue", "database_url": url, "redis_url": broker}


def wait_for(client, check, *, seconds=60):
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, json.dumps(client.get("/health").json(), indent=1)
        time.sleep(0.2)


def reasons(client) -> str:
    return " ".join(client.get("/health").json()["reasons"])


def test_service_starts_without_its_model_and_takes_it_up_when_it_arrives(tmp_path, where, store, packages):
    with running(tmp_path / "here", store.env | {"MODELS_URI": store.root}, **where) as stack, stack.client() as client:
        wait_for(client, lambda: f"There is nothing at {store.root}" in reasons(client))
        health, ready = client.get("/health"), client.get("/readyz")
        assert (health.status_code, ready.status_code) == (503, 503)
        assert health.json()["model_loaded"] is False
        assert ready.headers["retry-after"]
        row = json.loads((packages / "people/1/reference.jsonl").read_text().splitlines()[0])
        check_problem(client.post("/predict", json={"features": row}), 503, "unavailable")

        put_package(store, packages / "people/1", "people/1")
        wait_for(
            client, lambda: client.get("/readyz").status_code == 200 and client.get("/health").json()["model_loaded"]
        )
        answer = client.post("/predict", json={"features": row}, headers={"Prefer": "wait=20"})
        assert answer.status_code == 200
        assert (answer.json()["model"], answer.json()["model_version"]) == ("people", 1)

        # Another host has the same database and an empty folder; the file in the store was altered meanwhile.
        original = (packages / "people/1/model.joblib").read_bytes()
        store.put("people/1/model.joblib", b"altered" + original)
        stack.stop_all()
        shutil.rmtree(tmp_path / "here/models")
        stack.start("api", "api")
        if where["runtime"] == "queue":
            stack.start_worker("all", lanes="interactive,bulk,maintenance")
        stack.wait_until_answers("/livez")
        wait_for(client, lambda: "its SHA-256 is" in reasons(client))
        wait_for(client, lambda: client.get("/readyz").status_code == 503)  # the worker of before is forgotten
        assert client.get("/health").json()["model_loaded"] is False
        accepted = client.post("/jobs", json={"features": row})
        assert accepted.status_code == (202 if where["runtime"] == "queue" else 503)

        store.put("people/1/model.joblib", original)
        wait_for(
            client, lambda: client.get("/readyz").status_code == 200 and client.get("/health").json()["model_loaded"]
        )
        if where["runtime"] == "queue":
            done = client.get(accepted.headers["location"], headers={"Prefer": "wait=20"}).json()
            assert done["status"] == "succeeded"


def test_model_that_one_host_adds_from_an_address_serves_on_another(tmp_path, store, packages):
    add_here_and_serve_there(tmp_path, store, packages, store.env)


def test_model_that_one_host_puts_into_the_store_serves_on_another(tmp_path, s3, packages):
    store = Bucket(s3, f"a{time.monotonic_ns()}")
    add_here_and_serve_there(tmp_path, store, packages, store.env | {"MODELS_URI": f"{store.root}/kept"})
    assert b'"name": "people"' in store.get("kept/people/2/model.json")


def add_here_and_serve_there(tmp_path, store, packages, env) -> None:
    put_package(store, packages / "people/2", "new")
    where = {"runtime": "sync", "database_url": f"sqlite:///{tmp_path / 'guichet.db'}"}
    with running(tmp_path / "one", env, **where) as stack, stack.client() as client:
        done = stack.run("shared.registry", "add", f"{store.root}/new")
        assert "people@2 (champion): binary" in done.stdout
        wait_for(client, lambda: client.get("/readyz").status_code == 200)
    with running(tmp_path / "two", env, **where) as stack, stack.client() as client:
        wait_for(client, lambda: client.get("/health").json()["model_loaded"])
        assert "people@2: sound" in stack.run("shared.registry", "verify").stdout


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "needs credentials, and there are none"),
        ({"MODELS_URI": "s3://no-such-bucket/models"}, "There is nothing at s3://no-such-bucket/models"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "does not answer"),
    ],
)
def test_service_says_what_is_wrong_with_its_store(tmp_path, s3, changes, message):
    env = {"AWS_ENDPOINT_URL": s3, "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    env |= {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret", "MODELS_URI": "s3://bucket/models"}
    where = {"runtime": "sync", "database_url": f"sqlite:///{tmp_path / 'guichet.db'}"}
    with running(tmp_path / "here", env | changes, **where) as stack, stack.client() as client:
        wait_for(client, lambda: message in reasons(client))
        assert client.get("/readyz").status_code == 503
        added = stack.run("shared.registry", "add", (env | changes)["MODELS_URI"], check=False)
        assert added.returncode == 1
        assert added.stderr.startswith("error: ")
        assert message in added.stderr
        assert added.stderr.count("\n") == 1


def test_address_that_is_none_stops_the_start_with_one_sentence(tmp_path):
    env = environment(tmp_path, runtime="sync", port=free_port(), database_url="", models=tmp_path / "models")
    stack = Stack("sync", env | {"MODELS_URI": "ftp://host/models"}, tmp_path, 1)
    done = stack.run("api", check=False)
    assert done.returncode == 1
    assert "MODELS_URI: 'ftp://host/models' is no address of a model store: write file:///folder" in done.stderr
