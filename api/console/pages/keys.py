"""The page of API keys: an administrator lists, makes, rotates and revokes them. A new secret is on one page, once."""

from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from api.auth.callers import Scope, hash_key
from api.console.asking import Refused, ask, read, send
from api.console.forms import Faults, fault_places, read_form
from api.console.rendering import page, see_other
from api.console.session import adopt_key, begin_session, read_session, viewer_of
from api.services import services_of

PAGE = 50  # keys on a page


async def keys_page(
    request: Request,
    *,
    made: dict[str, Any] | None = None,
    is_rotated: bool = False,
    fields: dict[str, str] | None = None,
    faults: Faults | None = None,
    status: int = 200,
) -> Response:
    """Return the list of keys with what changes them; `made` is a key whose secret is shown now."""
    valid = {"true": True, "false": False}.get(request.query_params.get("valid", ""))
    cursor = request.query_params.get("cursor", "").strip() or None
    keys = await read(request, "/keys", valid=valid, cursor=cursor, limit=PAGE)
    older = None if keys["next"] is None else dict(parse_qsl(urlsplit(keys["next"]).query))["cursor"]
    return await page(
        request,
        "keys.html",
        status,
        keys=keys["items"],
        valid=valid,
        cursor=cursor,
        older=older,
        own=_own_id(request),
        scopes=[scope.value for scope in Scope],
        made=made,
        is_rotated=is_rotated,
        fields=fields or {"scope_predict": "1", "scope_read": "1"},
        faults=faults or {},
        may_change=viewer_of(request).needs_key,
    )


async def make_key(request: Request) -> Response:
    """Make a key of the form's name and scopes, and return the page that shows its secret."""
    await read(request, "/keys", limit=1)  # a stranger is refused before the form is read
    fields = await read_form(request)
    scopes = [scope.value for scope in Scope if fields.get(f"scope_{scope.value}")]
    reply = await ask(request, "POST", "/keys", json={"name": fields.get("name", ""), "scopes": scopes})
    if reply.status == 422 and reply.body.get("errors"):
        faults, _ = fault_places(reply.body["errors"], wrapper=None)
        return await keys_page(request, fields=fields, faults=faults, status=422)
    if reply.status >= 400:
        raise Refused(reply)
    return await keys_page(request, made=reply.body)


async def rotate_key(request: Request, key_id: str) -> Response:
    """Give a key a new secret, and return the page that shows it; the reader's own session goes on with it."""
    is_own = key_id == _own_id(request)  # asked before: its old secret is unknown afterwards
    made = await send(request, f"/keys/{key_id}/rotate")
    if is_own:
        adopt_key(request, made["key"])
    response = await keys_page(request, made=made, is_rotated=True)
    if is_own:
        begin_session(request, response, made["key"])
    return response


async def revoke_key(request: Request, key_id: str) -> Response:
    """Revoke a key, and lead the browser back to the list."""
    await send(request, f"/keys/{key_id}", method="DELETE")
    return see_other("/console/keys")


def _own_id(request: Request) -> str | None:
    """Return the id of the key of the reader's session."""
    session = read_session(request)
    key = services_of(request).catalog.snapshot.keys.get(hash_key(session.key)) if session.key else None
    return None if key is None else key.id
