"""A service that follows a script: each request gets the next step, an answer or a broken connection."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import httpx2
from guichet import AsyncClient, Client

JOB_ID = "01a1fc6e-b8ef-76d6-a1a8-7ba162c421cb"
URL = "http://guichet.test/prefix"

Step = httpx2.Response | httpx2.RequestError | Callable[[httpx2.Request], httpx2.Response]


class Script:
    """The steps that are left, and the requests that came, each with the body that it had."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.requests: list[httpx2.Request] = []
        self.bodies: list[bytes] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        self.bodies.append(request.read())
        return self._next(request)

    async def later(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        self.bodies.append(await request.aread())
        return self._next(request)

    def _next(self, request: httpx2.Request) -> httpx2.Response:
        assert self.steps, f"{request.method} {request.url} is not in the script"
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, httpx2.Response) else step(request)

    def client(self, **options: Any) -> Client:
        return Client(URL, transport=httpx2.MockTransport(self), **options)

    def async_client(self, **options: Any) -> AsyncClient:
        return AsyncClient(URL, transport=httpx2.MockTransport(self.later), **options)

    def headers(self, name: str) -> list[str | None]:
        """Return a header of every request."""
        return [request.headers.get(name) for request in self.requests]


class Cut(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body whose connection breaks after some pieces, or ends."""

    def __init__(self, pieces: Sequence[bytes], error: httpx2.RequestError | None) -> None:
        self.pieces = pieces
        self.error = error

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        if self.error is not None:
            raise self.error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
        if self.error is not None:
            raise self.error


def broken(text: str = "reset") -> httpx2.ReadError:
    return httpx2.ReadError(text)


def job(status: str = "queued", kind: str = "predict", **more: Any) -> dict[str, Any]:
    """Return the body of a job."""
    total = more.pop("total", 1)
    failed = more.pop("failed", 0)
    done = status == "succeeded"
    return {
        "id": JOB_ID,
        "kind": kind,
        "status": status,
        "model": "attrition",
        "model_version": 1,
        "model_sha256": "0" * 64,
        "created_at": "2026-01-02T03:04:05.678Z",
        "started_at": None,
        "finished_at": "2026-01-02T03:04:06Z" if done else None,
        "expires_at": None,
        "attempts": 1,
        "counts": {
            "total": total,
            "succeeded": total - failed if done else 0,
            "failed": failed,
            "pending": 0 if done else total - failed,
        },
        "queue": {"position": 1, "eta_seconds": None} if status == "queued" else None,
        "has_failures": failed > 0,
        "request_id": "r",
        "links": {},
        **more,
    }


def result(**more: Any) -> dict[str, Any]:
    """Return the body of a result."""
    return {
        "job_id": JOB_ID,
        "request_id": "r",
        "model": "attrition",
        "model_version": 1,
        "prediction": 1,
        "label": "Part",
        "probability": 0.75,
        "threshold": 0.5,
        "latency_ms": 3.5,
        **more,
    }


def answer(status: int, body: object, **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.Response(status, json=body, headers=named)


def problem(status: int, code: str, detail: str = "It is so.", *, retry_after: int | None = None, **more: Any):
    body = {
        "type": f"urn:guichet:error:{code}",
        "title": code,
        "status": status,
        "detail": detail,
        "instance": "/",
        "request_id": "r",
        **more,
    }
    headers = {"content-type": "application/problem+json"}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return httpx2.Response(status, content=json.dumps(body), headers=headers)


def event(number: int, kind: str, *, done: int = 0, total: int = 10, status: str = "running") -> bytes:
    """Return an event as the service writes it."""
    data = {
        "status": status,
        "counts": {"total": total, "succeeded": done, "failed": 0, "pending": total - done},
        "progress": {
            "rows_done": done,
            "rows_per_second": 5.0,
            "eta_seconds": 1.0,
            "chunks_done": 0,
            "chunks_total": 1,
        },
    }
    return f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def events(*pieces: bytes, error: httpx2.RequestError | None = None) -> httpx2.Response:
    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Cut(pieces, error))


def run(coroutine: Any) -> Any:
    """Run a coroutine of the asynchronous client to its end."""
    return asyncio.run(coroutine)
