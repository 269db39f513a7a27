"""Direct calls of route functions, for the routes with the most traffic.

FastAPI's routing, dependency injection and exception layers cost more than everything that we do for a request
(docs/decisions/0007-shortcut.md). FastAPI documents these routes and would serve them just so; here the same functions
are called with the same arguments, and the same error handlers answer for them.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.deps import predictor
from api.errors.handlers import respond
from api.http.about import about_of, api_routes
from api.http.prefix import route_path
from api.services import services_of

Endpoint = Callable[..., Awaitable[Response]]


class FastPath:
    """Calls the functions of fast routes directly; everything else goes to the application."""

    def __init__(self, app: FastAPI, routers: Iterable[APIRouter]) -> None:
        self._app = app
        self._endpoints: dict[tuple[str, str], Endpoint] = {}  # by method and path, where that names nothing
        self._patterns: dict[str, list[tuple[re.Pattern[str], Endpoint]]] = {}  # by method, where paths name a model
        for route in api_routes(routers):
            if about_of(route).is_fast:
                _check_arguments(route)
                for method in route.methods or ():
                    if route.param_convertors:
                        self._patterns.setdefault(method, []).append((route.path_regex, route.endpoint))
                    else:
                        self._endpoints[method, route.path] = route.endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        # A query goes the long way: none of these routes has parameters, and the application says so.
        is_direct = scope["type"] == "http" and not scope["query_string"]
        endpoint, named = self._find(scope["method"], route_path(scope)) if is_direct else (None, {})
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        scope["app"] = self._app
        request = Request(scope, receive, send)
        try:
            response = await endpoint(request, services_of(request), await predictor(request), **named)
        except Exception as error:  # noqa: BLE001 - every error is answered, by the application's own handlers
            response = await respond(request, error)
        await response(scope, receive, send)

    def _find(self, method: str, path: str) -> tuple[Endpoint | None, dict[str, str]]:
        """Return the function for a path, with the path's parameters."""
        endpoint = self._endpoints.get((method, path))
        if endpoint is not None:
            return endpoint, {}
        for pattern, endpoint in self._patterns.get(method, ()):
            if (match := pattern.fullmatch(path)) is not None:
                return endpoint, match.groupdict()
        return None, {}


def _check_arguments(route: APIRoute) -> None:
    """Raise AssertionError for a route to which FastAPI would pass other arguments."""
    names = ["request", "services", "caller", *route.param_convertors]
    assert list(inspect.signature(route.endpoint).parameters) == names, f"{route.path} is not fast: {names}"
    assert predictor in {dependency.call for dependency in route.dependant.dependencies}, f"{route.path} is not fast"
