"""From an exception to its answer, and to error_logs.

Every fault of a request is told, up to 1,000 in the answer (api/errors/formats.py) and 100 in error_logs. The sentence
of an answer, and the last entry of a log, say how many there are when there are more.
"""

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from api.auth.rate_limit import payer
from api.errors.formats import error_response, status_of
from api.http.prefix import route_path
from api.http.responses import request_id_of
from api.services import services_of
from shared.errors import GuichetError, InvalidRequest, NotFound, Unauthorized, Unavailable
from shared.faults import Fault
from shared.observability.redaction import places_of

log = logging.getLogger(__name__)

# So many say what kind of mistake it was; all the faults of a hostile body are hundreds of thousands, and each refused
# request would leave megabytes in a table that is made to be kept.
STORED_FAULTS = 100
STORED_PLACES = 8  # of each exception behind a failure: its beginning and its end
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def install(app: FastAPI) -> None:
    """Answer every exception."""
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)


async def respond(request: Request, error: Exception) -> Response:
    """Return the answer to any exception."""
    for kind, handler in _HANDLERS.items():
        if isinstance(error, kind):
            return await handler(request, error)
    raise error


def _answer(request: Request, error: GuichetError, *, cause: Exception | None = None) -> Response:
    """Answer with an error, and note it; `cause` is the exception that a failure came from, if it is another one."""
    status = status_of(request, error)
    raised = None if status < HTTPStatus.INTERNAL_SERVER_ERROR else cause or error
    services_of(request).refusals.add(
        {
            "request_id": request_id_of(request),
            "method": request.method,
            "path": request.scope["path"],
            "status": status,
            "code": error.code,
            "detail": error.detail,
            "faults": _stored(error) or None,
            "job_id": error.job_id,
            "owner": request.scope.get("owner"),
            "type": None if raised is None else type(raised).__name__,
            "stack": None if raised is None else places_of(raised, most=STORED_PLACES),
        }
    )
    return error_response(request, error)


def _stored(error: GuichetError) -> list[Fault]:
    if error.fault_count <= STORED_FAULTS + 1:  # the last entry may be one that says already that there are more
        return error.faults
    return [*error.faults[:STORED_FAULTS], Fault("", "more_faults", f"there are {error.fault_count} faults in all")]


async def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, GuichetError)
    if isinstance(error, NotFound | Unauthorized):
        await _owe_guess(request)
    return _answer(request, error)


async def _owe_guess(request: Request) -> None:
    """Count a request for an unknown object, or with an unknown key, as a guess."""
    services = services_of(request)
    settings = services.settings
    if settings.rate_per_minute:
        await services.quota.owe_guess(payer(request, request.scope.get("owner"), proxy_hops=settings.proxy_hops))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    problem = GuichetError(_sentence(error))
    status = HTTPStatus(error.status_code)
    problem.status, problem.title, problem.code = status.value, status.phrase, status.phrase.lower().replace(" ", "_")  # type: ignore[misc]
    response = _answer(request, problem)
    response.headers.update(error.headers or {})
    if status == HTTPStatus.METHOD_NOT_ALLOWED:  # the framework names those of one of the path's routes
        response.headers["Allow"] = ", ".join(_methods_at(request))
    return response


def _methods_at(request: Request) -> list[str]:
    """Return the methods that the path of a request takes: /jobs/cancel is not the job `cancel` of /jobs/{id}."""
    place = {"type": "http", "headers": [], **{key: request.scope[key] for key in ("path", "root_path")}}
    own = request.app.state.paths.methods_of(route_path(request.scope))
    methods = [
        method
        for method in _METHODS
        if (not own or method in own)
        and any(route.matches({**place, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]
    return ["GET", "HEAD", *methods[1:]] if "GET" in methods and "HEAD" not in methods else methods


def _sentence(error: HTTPException) -> str:
    if error.status_code == HTTPStatus.NOT_FOUND:
        return "There is nothing at this path: /docs lists what there is."
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return "This path does not take this method: the Allow header and /docs say which it takes."
    return str(error.detail)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # FastAPI's own answer repeats the input, which may be secret, or NaN, which would make it a 500.
    faults = [
        Fault("/" + "/".join(str(part) for part in fault["loc"]), fault["type"], fault["msg"])
        for fault in error.errors()
    ]
    place = f"The parameter `{faults[0].pointer.rpartition('/')[2]}`:"
    return _answer(
        request, InvalidRequest(f"{place} {faults[0].message[0].lower()}{faults[0].message[1:]}.", faults=faults)
    )


async def _on_database_error(request: Request, error: Exception) -> Response:
    log.error("the database failed a request: %s", type(error).__name__)
    refusal = Unavailable("The database does not answer: try again in a moment.", retry_after=2)
    return _answer(request, refusal, cause=error)


async def _on_crash(request: Request, error: Exception) -> Response:
    log.error("request %s failed", request_id_of(request), exc_info=error)
    refusal = GuichetError("The service failed on this request; its log has the reason.")
    return _answer(request, refusal, cause=error)


_HANDLERS: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    GuichetError: _on_refusal,
    HTTPException: _on_http_exception,
    RequestValidationError: _on_invalid_request,
    SQLAlchemyError: _on_database_error,
    Exception: _on_crash,
}
