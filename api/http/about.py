"""Metadata of a route for the layers around it: `@About(...)` marks its function, so that no layer lists paths."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from fastapi import APIRouter
from fastapi.routing import APIRoute

from shared.errors import GuichetError

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Protocol:
    """A protocol of other servers, named by its routes: its error format, without the status 422."""

    error_schema: str  # its name in the OpenAPI document
    error_body: Callable[[GuichetError], dict[str, Any]]
    prefix: str | None = None  # every path below it is the protocol's, also where there is nothing
    has_bytes: bool = False  # a body without a Content-Type need not be JSON
    version_path: str | None = None  # how its paths name a version, for who writes that into the query


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Facts about a route that FastAPI does not know."""

    sends: Literal["row", "rows", "tensors", "dataframe", "file"] | None = None  # what of a model is in its body
    explains: bool = False  # and not of every model: some cannot be explained
    protocol: Protocol | None = None  # None: errors are problem documents, or what a model's card says
    is_fast: bool = False  # it carries the load: api/fast_path.py calls it without FastAPI's layers
    version_path: str | None = None  # how its path names a version, for who writes that into the query
    reads_query: bool = False  # it looks at its query itself, and answers while the body still comes

    def __call__(self, function: Function) -> Function:
        """Mark the function of a route; as a decorator, it goes below the router's own."""
        function.about = self  # type: ignore[attr-defined]
        return function


NOTHING = About()
OF_A_MODEL = About(version_path="/models/NAME@VERSION")  # it tells about one model, or about all


def about_of(route: APIRoute) -> About:
    """Return the metadata of a route."""
    mark: About = getattr(route.endpoint, "about", NOTHING)
    return mark


def api_routes(routers: Iterable[APIRouter]) -> list[APIRoute]:
    """Return the routes of some routers in order."""
    return [route for router in routers for route in router.routes if isinstance(route, APIRoute)]


class Paths:
    """Facts about a path, available before its route is matched."""

    def __init__(self, routers: Iterable[APIRouter]) -> None:
        routers = tuple(routers)
        self._methods: dict[str, set[str]] = {}
        for route in api_routes(routers):
            if "{" not in route.path:
                self._methods.setdefault(route.path, set()).update(route.methods or ())
        marked = [(route.path_regex, about_of(route)) for route in api_routes(routers) if about_of(route) != NOTHING]
        protocols = {mark.protocol for _, mark in marked if mark.protocol is not None}
        below = [
            (re.compile(re.escape(protocol.prefix) + "(/.*)?", re.DOTALL), About(protocol=protocol))
            for protocol in protocols
            if protocol.prefix is not None
        ]
        self._marks = [*marked, *below]

    def methods_of(self, path: str) -> set[str]:
        """Return the methods of a path that has routes of its own, without parameters; empty for any other."""
        return self._methods.get(path, set())

    def at(self, path: str) -> About:
        """Return the metadata of the route at a path, or the protocol that owns all paths below it."""
        return next((mark for pattern, mark in self._marks if pattern.fullmatch(path)), NOTHING)
