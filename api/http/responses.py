"""Answers as JSON, by orjson."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

# How OpenAPI describes an error answer; api/openapi.py brings the schema.
PROBLEM: dict[str, Any] = {
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
}


def header(description: str, kind: str = "string", *, always: bool = False) -> dict[str, Any]:
    """Return how OpenAPI describes a header of an answer; `always` if no such answer is without it."""
    return {"description": description, "schema": {"type": kind}, **({"required": True} if always else {})}


APPLIED: dict[str, Any] = {"Preference-Applied": header("What of `Prefer` was done (RFC 7240)")}
# Beside a job that goes on.
TICKET: dict[str, Any] = {
    "Location": header("Where to poll: `/jobs/{id}`", always=True),
    "Retry-After": header("Seconds after which it is worth polling", "integer", always=True),
    **APPLIED,
}
# Beside what a job came to.
ENDED_AS: dict[str, Any] = {"Content-Location": header("The job: `/jobs/{id}`", always=True), **APPLIED}


def json_response(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer; times are RFC 3339 in UTC."""
    return Response(
        orjson.dumps(body, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS),
        status,
        headers,
        media_type="application/json",
    )


def request_id_of(request: Request) -> str:
    """Return the request id that the middleware gave this request."""
    return str(request.scope["request_id"])
