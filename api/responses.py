"""Answers: JSON by orjson, and errors as RFC 9457 problem documents."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from shared.errors import GuichetError

# How OpenAPI describes an error answer; api/openapi.py brings the schema.
PROBLEM: dict[str, Any] = {
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
}


def json_response(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer; times are RFC 3339 in UTC."""
    return Response(
        orjson.dumps(body, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS),
        status,
        headers,
        media_type="application/json",
    )


def problem_response(request: Request, error: GuichetError) -> Response:
    """Return an error as application/problem+json: what, why, what to do; never the caller's values."""
    body: dict[str, Any] = {
        "type": f"urn:guichet:error:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": request.url.path,
        "request_id": request_id_of(request),
    }
    if error.job_id is not None:
        body["job_id"] = error.job_id
    if error.faults:
        body["errors"] = error.faults
    headers = {"Cache-Control": "no-store"}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(orjson.dumps(body), error.status, headers, media_type="application/problem+json")


def request_id_of(request: Request) -> str:
    """Return the request id that the middleware gave this request."""
    return str(request.scope["request_id"])
