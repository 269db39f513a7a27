"""Around every request: an id, the trace context, safe headers, the path prefix, and HEAD wherever there is GET.

Plain ASGI: it costs a few microseconds.
"""

import re
import time
from collections.abc import Callable
from typing import Protocol

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from api.http.cookies import with_own_cookies
from api.http.prefix import Prefix, route_path
from api.http.security_headers import Pages, SecurityHeaders, may_be_kept
from shared.observability.logs import begin

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_NO_STORE = (b"cache-control", b"no-store")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

LEFT = 499  # the caller left before the answer began

# What is told of each request: its scope, method, path, the answer's status and bytes, and seconds.
Note = Callable[[Scope, str, str, int, int, float], None]


class Span(Protocol):
    """The span of a request, where requests are traced."""

    @property
    def traceparent(self) -> str:
        """What names it, for the spans below it."""

    def end(self, scope: Scope, method: str, path: str, status: int) -> None:
        """End the span with the attributes of every request."""


Trace = Callable[[str | None], Span]  # begins one, below that of the caller's traceparent


class RequestContext:
    """Takes X-Request-Id and traceparent (W3C Trace Context) from the caller, or makes an id, and returns them."""

    def __init__(
        self, app: ASGIApp, prefix: Prefix, headers: SecurityHeaders, note: Note, trace: Trace | None = None
    ) -> None:
        self._app = app
        self._note = note
        self._trace = trace
        self._pages = Pages(app, headers)
        self._prefix = prefix
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = traceparent = None
        has_cookies = False
        for name, value in scope["headers"]:  # one walk: most requests have none of them
            if name == b"x-request-id" and request_id is None:
                request_id = value.decode("latin-1")
            elif name == b"traceparent" and traceparent is None:
                traceparent = value.decode("latin-1")
            elif name == b"cookie":
                has_cookies = True
        if has_cookies:
            scope["headers"] = with_own_cookies(scope["headers"])
        # An id that could not be stored, logged or sent back safely is replaced, not refused.
        if request_id is None or not _REQUEST_ID.fullmatch(request_id):
            request_id = str(uuid7())
        if traceparent is not None and not _TRACEPARENT.fullmatch(traceparent):
            traceparent = None
        scope["request_id"] = request_id
        begin(request_id=request_id)
        span = None if self._trace is None else self._trace(traceparent)
        scope["traceparent"] = traceparent if span is None else span.traceparent
        if prefix := self._prefix.of(scope):
            scope = self._prefix.put_on(scope, prefix)
        path = route_path(scope)
        began = time.perf_counter()
        status, size = LEFT, 0
        headers_of_path = self._headers.of(path)
        extra = [(b"x-request-id", request_id.encode()), *headers_of_path]
        if traceparent is not None:
            extra.append((b"traceparent", traceparent.encode()))

        async def send_with_headers(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"]
                if not may_be_kept(path):
                    for name, _ in headers:
                        if name == b"cache-control":
                            break
                    else:
                        extra.append(_NO_STORE)
                message["headers"] = [*headers, *extra]
            else:
                size += len(message.get("body", b""))
            await send(message)

        app = self._pages if headers_of_path is self._headers.page else self._app
        inner = scope
        try:
            if scope["method"] == "HEAD":
                inner = _as_get(scope)
                await app(inner, receive, _without_body(send_with_headers))
            else:
                await app(scope, receive, send_with_headers)
        except Exception:
            status = 500  # which the server answers
            raise
        finally:
            self._note(inner, scope["method"], path, status, size, time.perf_counter() - began)
            if span is not None:
                span.end(inner, scope["method"], path, status)


def is_head(request: Request) -> bool:
    """Return whether a request handled as GET was HEAD, so that the body of its answer is not read."""
    return request.method == "HEAD" or "head" in request.scope


def _as_get(scope: Scope) -> Scope:
    """Return the scope of the GET that corresponds to a HEAD (RFC 9110, 9.3.2), without its range (14.2)."""
    headers = [header for header in scope["headers"] if header[0] != b"range"]
    return {**scope, "method": "GET", "headers": headers, "head": True}


def _without_body(send: Send) -> Send:
    """Return a `send` that ends the answer with its headers; a stream hears that nobody listens, and stops."""

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b""})

    return send_head
