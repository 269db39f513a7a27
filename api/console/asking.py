"""Requests to the JSON routes inside this process, with the key of who reads the page.

The console has no other source: what a key may read or change is decided where every caller's request is, and noted in
the audit log there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import orjson
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Message, Receive, Scope

from api.console.session import read_session, viewer_of
from api.http.wording import NATIVE

RawHeaders = list[tuple[bytes, bytes]]

# What a route may read of the request to the page: who asks from where, and under which name of this service.
_PASSED = frozenset([b"host", b"user-agent", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"])
_OF_BODY = frozenset([b"content-type", b"content-length", b"content-encoding", b"transfer-encoding"])
_NOTED = ("owner", "served", "input")  # what routes leave for request_logs


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of a JSON route."""

    status: int
    headers: Headers
    content: bytes

    @property
    def body(self) -> Any:  # noqa: ANN401 - any JSON value
        """The parsed body."""
        return orjson.loads(self.content)


class Refused(Exception):
    """A JSON route answered with a problem document instead of what a page shows."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"status {reply.status}")
        self.reply = reply


async def ask(
    request: Request,
    method: str,
    path: str,
    *,
    query: Mapping[str, Any] | None = None,
    json: object = None,
    headers: Mapping[str, str] | None = None,
    key: str | None = None,
) -> Reply:
    """Return the answer of a route of this service, whatever its status.

    The key is that of the reader's session unless `key` is another. Parameters of the query that are None are left out.
    """
    content = b"" if json is None else orjson.dumps(json)
    raw = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))] if content else []
    raw += [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    pieces = iter([content])

    async def receive() -> Message:
        return {"type": "http.request", "body": next(pieces, b""), "more_body": False}

    return await _call(request, inner_scope(request, method, path, query=query, headers=raw, key=key), receive)


async def read(request: Request, path: str, **query: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return the body of a GET; raise Refused for any status of 400 or more."""
    return _accepted(await ask(request, "GET", path, query=query)).body


async def send(request: Request, path: str, json: object = None, *, method: str = "POST") -> Any:  # noqa: ANN401
    """Return the body of the answer to a request that changes something; raise Refused for 400 and more."""
    return _accepted(await ask(request, method, path, json={} if json is None else json)).body


async def check_signed_in(request: Request) -> None:
    """Raise Refused for a visitor without a key, whom pages for administrators lead to the sign-in."""
    viewer = viewer_of(request)
    if viewer.needs_key and not viewer.is_signed_in:
        await read(request, "/keys", limit=1)


async def pass_body_on(request: Request, path: str, *, query: Mapping[str, Any]) -> Reply:
    """Send the body of this request to a route as it comes, and return the answer, whatever its status."""
    raw = [(name, value) for name, value in request.headers.raw if name in _OF_BODY]
    return await _call(request, inner_scope(request, "POST", path, query=query, headers=raw), request.receive)


def inner_scope(
    request: Request,
    method: str,
    path: str,
    *,
    query: Mapping[str, Any] | None = None,
    headers: RawHeaders | None = None,
    key: str | None = None,
) -> Scope:
    """Return the scope of a request to a route, below the path prefix of the page's own request."""
    outer = request.scope
    key = read_session(request).key if key is None else key
    raw = [(name, value) for name, value in outer["headers"] if name in _PASSED]
    raw += headers or []
    if not any(name == b"accept" for name, _ in raw):
        raw.append((b"accept", f"{NATIVE}, application/json".encode()))  # the service's own words of every model
    if key:
        raw.append((b"authorization", b"Bearer " + key.encode()))
    whole = outer["root_path"] + path
    kept = ("asgi", "http_version", "scheme", "client", "server", "root_path", "request_id", "traceparent", "state")
    return {name: outer[name] for name in kept if name in outer} | {
        "type": "http",
        "method": method,
        "path": whole,
        "raw_path": whole.encode(),
        "query_string": urlencode([(name, _written(value)) for name, value in _present(query)]).encode(),
        "headers": raw,
    }


async def _call(request: Request, scope: Scope, receive: Receive) -> Reply:
    status, raw, pieces = 500, [], []

    async def take(message: Message) -> None:
        nonlocal status, raw
        if message["type"] == "http.response.start":
            status, raw = message["status"], message["headers"]
        else:
            pieces.append(message.get("body", b""))

    try:
        await request.app(scope, receive, take)
    except Exception:
        if not raw:
            raise
        # The application has answered and logged it: it raises once more, for a server that would log it too.
    for name in _NOTED:
        if name in scope:
            request.scope[name] = scope[name]
    return Reply(status, Headers(raw=raw), b"".join(pieces))


def _accepted(reply: Reply) -> Reply:
    if reply.status >= 400:
        raise Refused(reply)
    return reply


def _present(query: Mapping[str, Any] | None) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in (query or {}).items() if value is not None]


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
