"""The logs, for an admin key: requests, refusals and failures, and the audit log."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.deps import AdminCaller, ServicesDep
from api.http.prefix import link
from api.http.responses import json_response
from api.monitoring.logs import Log, page
from api.monitoring.system import in_utc
from api.schemas.answers import PROBLEM
from api.schemas.moments import Moment
from api.schemas.operations import AuditPage, ErrorPage, RequestPage
from api.services import Services
from shared.errors import InvalidRequest
from shared.faults import Fault
from shared.tables import AuditLog, ErrorLog, RequestLog

router = APIRouter(tags=["operations"])

REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {**PROBLEM, "description": "No API key, or an unknown one."},
    403: {**PROBLEM, "description": "The key lacks the scope `admin`."},
    422: {**PROBLEM, "description": "A filter is not valid."},
    503: {**PROBLEM, "description": "The database does not answer."},
}
Since = Annotated[Moment | None, Query(alias="from", description="Only entries of this moment or later")]
Until = Annotated[Moment | None, Query(alias="to", description="Only entries before this moment")]
Cursor = Annotated[int | None, Query(ge=0, le=2**63 - 1, description="Only entries older than this one: from `next`")]
Limit = Annotated[int, Query(ge=1, le=1_000, description="Entries on a page")]
Status = Annotated[int | None, Query(ge=100, le=599, description="HTTP status of the answer")]


def _text(description: str) -> Any:  # noqa: ANN401 - FastAPI's own type
    return Query(max_length=200, description=description)


RequestId = Annotated[str | None, _text("X-Request-Id of the request")]
Owner = Annotated[str | None, _text("Id of the caller's API key")]


@router.get("/logs/requests", responses={200: {"model": RequestPage}, **REFUSALS}, response_model=None)
async def get_request_log(
    services: ServicesDep,
    caller: AdminCaller,
    request_id: RequestId = None,
    owner: Owner = None,
    model: Annotated[str | None, _text("Requested model version, as `name@version`")] = None,
    route: Annotated[
        str | None, _text("Path of the route, e.g. `/jobs/{id}`; `(none)` for requests without one")
    ] = None,
    input_hash: Annotated[str | None, _text("HMAC-SHA-256 of the body, from another entry")] = None,
    status: Status = None,
    since: Since = None,
    until: Until = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """List requests, newest first: caller, route, time, status and duration."""
    filters = {
        "request_id": request_id,
        "owner": owner,
        "model": model,
        "route": route,
        "input_hash": input_hash,
        "status": status,
    }
    return await _answer(services, "/logs/requests", RequestLog, filters, since, until, cursor, limit)


@router.get("/logs/errors", responses={200: {"model": ErrorPage}, **REFUSALS}, response_model=None)
async def get_error_log(
    services: ServicesDep,
    caller: AdminCaller,
    request_id: RequestId = None,
    owner: Owner = None,
    code: Annotated[str | None, _text("Code of the error, e.g. `not_found`")] = None,
    status: Status = None,
    since: Since = None,
    until: Until = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """List refusals and failures, newest first, without any values of callers."""
    filters = {"request_id": request_id, "owner": owner, "code": code, "status": status}
    return await _answer(services, "/logs/errors", ErrorLog, filters, since, until, cursor, limit)


@router.get("/logs/audit", responses={200: {"model": AuditPage}, **REFUSALS}, response_model=None)
async def get_audit_log(
    services: ServicesDep,
    caller: AdminCaller,
    actor: Annotated[str | None, _text("Who did it: `key:ID` of an API key, or `command:USER@HOST`")] = None,
    action: Annotated[str | None, _text("Name of the action, e.g. `key.revoked`")] = None,
    target: Annotated[str | None, _text("Target of the action, e.g. `NAME@2`")] = None,
    request_id: RequestId = None,
    since: Since = None,
    until: Until = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """List changes of keys and models and exports of rows, newest first."""
    filters = {"actor": actor, "action": action, "target": target, "request_id": request_id}
    return await _answer(services, "/logs/audit", AuditLog, filters, since, until, cursor, limit)


async def _answer(
    services: Services,
    path: str,
    table: Log,
    filters: Mapping[str, Any],
    since: datetime | None,
    until: datetime | None,
    cursor: int | None,
    limit: int,
) -> Response:
    since, until = (None if moment is None else in_utc(moment) for moment in (since, until))
    if since is not None and until is not None and since > until:
        raise InvalidRequest("`from` must not be after `to`.", faults=[Fault("/query/from", "range", "is after `to`")])

    def read() -> tuple[list[dict[str, Any]], int | None]:
        with services.reader.connect() as connection:
            return page(connection, table, filters=filters, since=since, until=until, before=cursor, limit=limit)

    entries, following = await run_in_threadpool(read)
    place = {**filters, "from": since and since.isoformat(), "to": until and until.isoformat(), "limit": limit}
    query = {name: value for name, value in place.items() if value is not None}
    more = None if following is None else link(f"{path}?") + urlencode({**query, "cursor": following}, safe="@:")
    return json_response({"items": entries, "next": more})
