"""Formats of errors: a problem document (RFC 9457), or the form of the path's protocol or of the model's card.

Whatever the form, the caller's values are never in it. Where faults are listed, every one is, up to 1,000: beyond, the
sentence says how many there are in all. FastAPI's form has no sentence, so that its last entry says it.
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from api.http.about import Protocol
from api.http.prefix import route_path
from api.http.responses import request_id_of
from api.http.wording import error_format
from shared.errors import MAX_FAULTS, GuichetError, RowFaults
from shared.faults import Fault, unpointer

Form = Callable[[GuichetError], dict[str, Any]]


def error_response(request: Request, error: GuichetError) -> Response:
    """Return an error as its caller reads it: what, why, what to do."""
    status = status_of(request, error)
    form = _form_of(request, error)
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    body = _problem(request, error, status) if form is None else form(error)
    kind = "application/problem+json" if form is None else "application/json"
    return Response(orjson.dumps(body), status, headers, media_type=kind)


def status_of(request: Request, error: GuichetError) -> int:
    """Return the status of an error's answer: the protocol may have its own, or the card for rows that do not fit."""
    if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
        return error.status
    if _protocol_of(request) is not None:
        return HTTPStatus.BAD_REQUEST  # neither knows 422
    refusal = error_format(request) if isinstance(error, RowFaults) else None
    return error.status if refusal is None else refusal.status


def _form_of(request: Request, error: GuichetError) -> Form | None:
    """Return the format of this error, None for a problem document."""
    protocol = _protocol_of(request)
    if protocol is not None:
        return protocol.error_body
    refusal = error_format(request) if isinstance(error, RowFaults) else None
    return None if refusal is None else _CARD_FORMS.get(refusal.body)


def _problem(request: Request, error: GuichetError, status: int) -> dict[str, Any]:
    body: dict[str, Any] = {
        "type": f"urn:guichet:error:{error.code}",
        "title": error.title,
        "status": status,
        "detail": _with_count(error),
        "instance": request.scope["path"],
        "request_id": request_id_of(request),
    }
    if error.job_id is not None:
        body["job_id"] = error.job_id
    if error.faults:
        body["errors"] = error.faults[:MAX_FAULTS]
    return body


def _with_count(error: GuichetError) -> str:
    count = error.fault_count
    more = f" The first {MAX_FAULTS} of its {count} faults are listed." if count > MAX_FAULTS else ""
    return error.detail + more


# ── other forms ──────────────────────────────────────────────────────────────────────────────────────────────────


def _protocol_of(request: Request) -> Protocol | None:
    protocol: Protocol | None = request.app.state.paths.at(route_path(request.scope)).protocol
    return protocol


def _detail(error: GuichetError) -> dict[str, Any]:
    return {"detail": error.detail}


def _message(error: GuichetError) -> dict[str, Any]:
    """Return the first fault alone, like a service that stops at its first fault."""
    return {"detail": error.faults[0].clause() if error.faults else error.detail}


def _fastapi(error: GuichetError) -> dict[str, Any]:
    """Return the faults as FastAPI's own validation lists them."""
    listed = error.faults[:MAX_FAULTS]
    if len(listed) < error.fault_count:
        listed = [*listed, Fault("", "more_faults", f"there are {error.fault_count} faults in all")]
    return {
        "detail": [
            {"type": fault.code, "loc": ["body", *_steps(fault.pointer)], "msg": fault.message} for fault in listed
        ]
    }


def _steps(pointer: str) -> list[str | int]:
    steps = unpointer(pointer) if pointer else []
    return [int(step) if step.isascii() and step.isdigit() else step for step in steps]


_CARD_FORMS: dict[str, Form] = {"detail": _detail, "message": _message, "fastapi": _fastapi}
