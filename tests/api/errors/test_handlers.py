"""From an exception to its answer, and to the entry of error_logs: nothing secret in either, and no flood."""

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy.exc import DataError

from api.errors.handlers import STORED_FAULTS, STORED_PLACES, install
from api.http.about import Paths
from shared.errors import NotFound, RowFaults
from shared.faults import Fault

SECRET = "hunter2"


class Service:
    """An app with the handlers, whose error_logs is a list."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.guesses: list[object] = []
        self.error: Exception = RuntimeError()
        self.app = FastAPI()
        install(self.app)
        self.app.state.paths = Paths([self.app.router])
        self.app.state.services = SimpleNamespace(
            refusals=SimpleNamespace(add=self.entries.append),
            settings=SimpleNamespace(rate_per_minute=10, proxy_hops=0),
            quota=self,
        )

        @self.app.get("/things/{number}")
        def read(number: int, size: int = 1) -> None:
            raise self.error

        @self.app.put("/things/{number}")
        def write(number: int) -> None:
            raise self.error

    async def owe_guess(self, caller: object) -> None:
        self.guesses.append(caller)

    def ask(self, method: str, path: str) -> httpx2.Response:
        async def whole(scope, receive, send) -> None:
            await self.app({**scope, "request_id": "r1", "owner": "me"}, receive, send)

        async def send() -> httpx2.Response:
            transport = httpx2.ASGITransport(whole, raise_app_exceptions=False)
            async with httpx2.AsyncClient(transport=transport, base_url="http://x") as http:
                return await http.request(method, path)

        return asyncio.run(send())


@pytest.fixture
def service() -> Service:
    return Service()


def test_refusal_is_stored_as_it_is_answered(service):
    service.error = RowFaults("Wrong.", faults=[Fault("/age", "type", "must be a number")], job_id="j1")
    answer = service.ask("GET", "/things/1")
    assert answer.status_code == 422
    (entry,) = service.entries
    assert entry == {
        "request_id": "r1",
        "method": "GET",
        "path": "/things/1",
        "status": 422,
        "code": "invalid_row",
        "detail": "Wrong.",
        "faults": service.error.faults,
        "job_id": "j1",
        "owner": "me",
        "type": None,
        "stack": None,
    }
    assert service.guesses == []


@pytest.mark.parametrize(("count", "stored"), [(1, 1), (101, 101), (102, 101), (100_000, 101)])
def test_stored_faults_have_a_limit_and_the_last_entry_counts_them_all(service, count, stored):
    service.error = RowFaults("Wrong.", faults=[Fault("/age", "type", "must be a number")] * min(count, 1_000))
    service.error.fault_count = count
    service.ask("GET", "/things/1")
    faults = service.entries[0]["faults"]
    assert len(faults) == stored <= STORED_FAULTS + 1
    if count > stored:
        assert faults[-1] == Fault("", "more_faults", f"there are {count} faults in all")


def test_crash_is_answered_without_its_message_and_stored_with_its_places(service):
    service.error = RuntimeError(SECRET)
    answer = service.ask("GET", "/things/1")
    assert answer.status_code == 500
    assert answer.json()["detail"] == "The service failed on this request; its log has the reason."
    (entry,) = service.entries
    assert entry["type"] == "RuntimeError"
    assert entry["stack"]
    assert len(entry["stack"]) <= STORED_PLACES * 200
    assert SECRET not in answer.text + str(entry)


def test_database_that_fails_is_a_503_to_try_again(service):
    service.error = DataError(f"SELECT '{SECRET}'", {"name": SECRET}, Exception(SECRET))
    answer = service.ask("GET", "/things/1")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert service.entries[0]["type"] == "DataError"
    assert SECRET not in answer.text + str(service.entries)


@pytest.mark.parametrize(
    ("path", "name"),
    [(f"/things/{SECRET}", "number"), (f"/things/1?size={SECRET}", "size"), ("/things/1?size=", "size")],
)
def test_parameter_that_is_not_valid_is_named_and_its_value_is_not_repeated(service, path, name):
    answer = service.ask("GET", path)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:guichet:error:invalid_request")
    assert answer.json()["detail"].startswith(f"The parameter `{name}`: ")
    assert SECRET not in answer.json()["detail"] + str(answer.json()["errors"])


def test_unknown_path_and_method_are_refused_with_where_to_look(service):
    missing = service.ask("GET", "/thing")
    assert (missing.status_code, missing.json()["type"]) == (404, "urn:guichet:error:not_found")
    assert "/docs" in missing.json()["detail"]
    wrong = service.ask("DELETE", "/things/1")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD, PUT")
    assert [entry["status"] for entry in service.entries] == [404, 405]


def test_unknown_object_counts_as_a_guess(service):
    service.error = NotFound("No such thing.")
    assert service.ask("GET", "/things/1").status_code == 404
    assert len(service.guesses) == 1
