"""Straight to the handler for the routes that carry the load.

FastAPI's routing, dependency injection and exception layers cost more than everything that we do for a request
(docs/decisions/0007-shortcut.md). FastAPI documents these routes and would serve them just so; here the same functions
are called with the same arguments, and the same error handlers answer for them.
"""

from collections.abc import Awaitable, Callable

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.errors.handlers import respond
from api.http.prefix import route_path

Handler = Callable[[Request], Awaitable[Response]]
Finder = Callable[[str, str], Handler | None]


class FastPath:
    """Calls the handler that a finder knows for a method and path; everything else goes to the application."""

    def __init__(self, app: FastAPI, *finders: Finder) -> None:
        self._app = app
        self._finders = finders

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        # A query goes the long way: none of these routes has parameters, and the application says so.
        is_direct = scope["type"] == "http" and not scope["query_string"]
        handler = self._find(scope["method"], route_path(scope)) if is_direct else None
        if handler is None:
            await self._app(scope, receive, send)
            return
        scope["app"] = self._app
        request = Request(scope, receive, send)
        try:
            response = await handler(request)
        except Exception as error:  # noqa: BLE001 - every error is answered, by the application's own handlers
            response = await respond(request, error)
        await response(scope, receive, send)

    def _find(self, method: str, path: str) -> Handler | None:
        for find in self._finders:
            if (handler := find(method, path)) is not None:
                return handler
        return None
