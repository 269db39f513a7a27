"""Answers as JSON, by orjson."""

from collections.abc import Mapping

import orjson
from starlette.requests import Request
from starlette.responses import Response


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
