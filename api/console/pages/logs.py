"""Pages of the logs: requests, refusals and failures, and the audit log. The address holds filters and place."""

from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from api.console.asking import read
from api.console.pages.quality import window_of
from api.console.rendering import page
from shared.errors import NotFound

LOGS = ("requests", "errors", "audit")
PAGE = 50  # entries on a page
FILTERS = {
    "requests": ("request_id", "route", "status", "model", "owner"),
    "errors": ("request_id", "code", "status", "owner"),
    "audit": ("request_id", "action", "target", "actor"),
}
SHARED = ("request_id", "from", "to")  # what the other logs keep of a filter
HINTS = {
    "route": "/jobs/{id}",
    "status": "503",
    "model": "name@3",
    "code": "not_found",
    "action": "key.revoked",
    "target": "name@3",
    "actor": "key:ID",
}


async def logs_page(request: Request, log: str) -> Response:
    """Return a page of a log; raise NotFound for another one."""
    if log not in LOGS:
        await read(request, "/logs/requests", limit=1)  # a stranger is refused before it is told what there is
        raise NotFound("There are three logs: requests, errors, audit.")
    chosen = {name: request.query_params.get(name, "").strip() for name in (*FILTERS[log], "from", "to")}
    present = {name: value for name, value in chosen.items() if value}
    cursor = request.query_params.get("cursor", "").strip() or None
    entries = await read(request, f"/logs/{log}", **{**present, **window_of(request)}, cursor=cursor, limit=PAGE)
    older = None if entries["next"] is None else dict(parse_qsl(urlsplit(entries["next"]).query))["cursor"]
    return await page(
        request,
        "logs.html",
        log=log,
        logs=LOGS,
        entries=entries["items"],
        filters=FILTERS[log],
        hints=HINTS,
        chosen=chosen,
        query=urlencode(present),
        shared=urlencode({name: value for name, value in present.items() if name in SHARED}),
        cursor=cursor,
        older=None if older is None else urlencode({**present, "cursor": older}),
    )
