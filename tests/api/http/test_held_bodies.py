"""Large bodies that are answered at the same time: what they hold together is bounded, and small ones never wait."""

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp

from api.jobs.json_body import LARGE
from api.main import serve
from tests.support.small_service import small_service

HALF = b" " * 100_000
ROW = b'{"features":{"y":1}}'  # which the model does not know: it is read, and answered 422 without being scored
SETTINGS = {"max_body_bytes": 250_000, "max_bodies_bytes": 500_000}


@pytest.fixture(autouse=True)
def _no_waiting_for_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.runtimes.sync.runtime.START_SECONDS", 0)


class Sender:
    """A caller that sends what it is told to, and keeps the answer."""

    def __init__(self, app: ASGIApp, path: str = "/predict", *, address: str = "192.0.2.1", **headers: str) -> None:
        self._pieces: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        fields = {"host": "127.0.0.1", "content-type": "application/json", **headers}
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "root_path": "",
            "query_string": b"",
            "scheme": "http",
            "server": ("127.0.0.1", 80),
            "client": (address, 1),
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()],
        }
        self.task = asyncio.ensure_future(app(scope, self._pieces.get, self._keep))

    async def _keep(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        else:
            self.body += message["body"]

    def send(self, piece: bytes, *, more: bool = True) -> "Sender":
        self._pieces.put_nowait({"type": "http.request", "body": piece, "more_body": more})
        return self

    def leave(self) -> None:
        self._pieces.put_nowait({"type": "http.disconnect"})

    async def refusal(self) -> tuple[int, str]:
        await self.task
        assert self.headers[b"retry-after"] == b"5"
        answer = json.loads(self.body)
        return self.status, next(answer[word] for word in ("detail", "message", "error") if word in answer)


async def until_held(service: FastAPI, size: int) -> None:
    """Wait until the service has read so many bytes."""
    async with asyncio.timeout(30):
        while service.state.services.held_bodies.size != size:
            await asyncio.sleep(0.01)


def run(service: FastAPI, steps: Any) -> None:
    async def all_steps() -> None:
        async with service.router.lifespan_context(service):
            await steps(serve(service))
            await until_held(service, 0)

    asyncio.run(all_steps())


def test_large_bodies_beyond_what_a_process_holds_are_refused_and_small_ones_are_answered(tmp_path: Path) -> None:
    service = small_service(tmp_path, "a", **SETTINGS)

    async def steps(app: ASGIApp) -> None:
        paths = ("/predict", "/predict_batch", "/invocations", "/v2/models/a/infer", "/jobs")
        held = [Sender(app, path).send(HALF) for path in paths]
        await until_held(service, 500_000)
        for path in paths:
            status, detail = await Sender(app, path).send(HALF).refusal()
            assert status == 503
            assert "being answered hold" in detail
        packed = gzip.compress(HALF)
        status, detail = await Sender(app, content_encoding="gzip").send(packed, more=False).refusal()
        assert (status, "being answered hold" in detail) == (503, True)
        small = Sender(app).send(ROW.ljust(LARGE), more=False)
        await small.task
        assert small.status == 422
        # One leaves, one gets its answer: what they held is free again.
        held[0].leave()
        await held[0].task
        await held[4].send(ROW, more=False).task
        assert (held[0].status, held[4].status) == (400, 422)
        await until_held(service, 300_000)
        late = Sender(app).send(HALF).send(ROW, more=False)
        await late.task
        assert late.status == 422
        for one in held[1:4]:
            one.leave()
            await one.task

    run(service, steps)


def test_half_of_what_a_process_holds_is_one_callers_at_most(tmp_path: Path) -> None:
    service = small_service(tmp_path, "a", auth="predict-open", rate_per_minute=1_000_000, **SETTINGS)

    async def steps(app: ASGIApp) -> None:
        held = [Sender(app).send(HALF) for _ in range(2)]
        await until_held(service, 200_000)
        status, detail = await Sender(app).send(HALF).refusal()
        assert status == 429
        assert "when one of them is answered" in detail
        other = Sender(app, address="198.51.100.9").send(HALF).send(ROW, more=False)
        await other.task
        assert other.status == 422
        for one in held:
            one.leave()
            await one.task

    run(service, steps)


def test_announced_body_counts_before_it_comes(tmp_path: Path) -> None:
    service = small_service(tmp_path, **SETTINGS)

    async def steps(app: ASGIApp) -> None:
        senders = [Sender(app, content_length="200000") for _ in range(5)]
        await until_held(service, 400_000)
        assert [(await one.refusal())[0] for one in senders[2:]] == [503] * 3
        for one in senders[:2]:
            one.send(HALF).leave()
            await one.task

    run(service, steps)


def test_body_counts_from_the_size_at_which_it_is_large(tmp_path: Path) -> None:
    service = small_service(tmp_path, **SETTINGS)

    async def steps(app: ASGIApp) -> None:
        one, other = (Sender(app).send(b" " * size) for size in (LARGE, LARGE + 1))
        await until_held(service, LARGE + 1)
        other.leave()
        await other.task
        await until_held(service, 0)
        one.leave()
        await one.task

    run(service, steps)
