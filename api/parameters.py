"""Query parameters: each route refuses unknown ones, and suggests the closest known name.

An ignored parameter would give a wrong answer: `/models/churn/predict?version=2` would be answered by version 1.
"""

import inspect
from collections.abc import Mapping

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request

from api.http.about import about_of
from api.jobs.requests import summarise
from api.schemas.native import BatchBody, SubmitBody
from shared.errors import InvalidRequest
from shared.faults import Fault, closest, pointer_to_unknown

# What callers write into the query of other services, and where it is said here.
_IN_BODY = '`{name}` is a field of the body: {{..., "{name}": ...}}'
_IN_BODY_OR_PATH = _IN_BODY + "; or name the version in the path: /models/NAME@VERSION/predict"
_IN_PATH = "the path names model and version: "
_HEADERS = {
    "wait": "send the header `Prefer: wait=SECONDS`",
    "idempotency_key": "send the header `Idempotency-Key`",
    "api_key": "send the header `X-API-Key`, and make a new key, for addresses are logged on their way",
    "format": "send the header `Accept`",
}


async def refuse_strangers(request: Request) -> None:
    """Raise InvalidRequest for query parameters that the route does not know, or that no database can look for."""
    if not request.scope["query_string"]:
        return
    route: APIRoute = request.scope["route"]
    # A page for browsers is not refused: whoever leads there may add what it likes to its address.
    if route.include_in_schema and not about_of(route).reads_query:
        faults = find_strangers(request) or _find_nul(request)
        if faults:
            raise InvalidRequest(summarise(faults), faults=faults)


def _find_nul(request: Request) -> list[Fault]:
    """Return a fault for each known parameter with the character NUL, which PostgreSQL takes in no text."""
    if b"%00" not in request.scope["query_string"]:  # the server takes no such byte itself
        return []
    return [
        Fault(f"/query{pointer_to_unknown(name)}", "text", "must not contain the character NUL")
        for name, value in request.query_params.multi_items()
        if "\x00" in value
    ]


def find_strangers(request: Request) -> list[Fault]:
    """Return a fault for each query parameter that the route of a request does not know."""
    route: APIRoute = request.scope["route"]
    names, elsewhere = known_parameters(route), {**_HEADERS, **_elsewhere(request, route)}
    return [
        Fault(f"/query{pointer_to_unknown(name)}", "unknown_parameter", _explain(name, names, elsewhere))
        for name in dict.fromkeys(request.query_params)
        if name not in names
    ]


def known_parameters(route: APIRoute) -> frozenset[str]:
    """Return the names of the query parameters that a route takes."""
    names: set[str] = set()
    dependants: list[Dependant] = [route.dependant]
    while dependants:
        dependant = dependants.pop()
        dependants += dependant.dependencies
        for parameter in dependant.query_params:
            kind = parameter.field_info.annotation
            names |= kind.model_fields.keys() if _is_model(kind) else {parameter.alias}  # type: ignore[union-attr]
    return frozenset(names)


def _is_model(kind: object) -> bool:
    return inspect.isclass(kind) and issubclass(kind, BaseModel)


def _explain(name: str, names: frozenset[str], elsewhere: Mapping[str, str]) -> str:
    text = "is not a query parameter of this request, which takes " + (", ".join(sorted(names)) or "none")
    # What lies elsewhere under this very name is meant rather than a parameter of a similar one.
    near = name if name in elsewhere else closest(name, [*names, *elsewhere], cutoff=0.7)
    if near is None:
        return text
    return f"{text}; did you mean `{near}`?" if near in names else f"{text}; {elsewhere[near].format(name=near)}"


def _elsewhere(request: Request, route: APIRoute) -> Mapping[str, str]:
    """Return names that callers may expect in the query, each with its right place."""
    about = about_of(route)
    protocol = request.app.state.paths.at(route.path).protocol
    version_path = about.version_path if protocol is None else protocol.version_path
    if version_path is not None:
        return dict.fromkeys(("model", "version"), _IN_PATH + version_path)
    if about.sends == "row" and not about.explains:
        return dict.fromkeys(SubmitBody.model_fields, _IN_BODY) | {"version": _IN_BODY_OR_PATH}
    return dict.fromkeys(BatchBody.model_fields, _IN_BODY) if about.sends == "rows" else {}
