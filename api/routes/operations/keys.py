"""API keys over HTTP, for administrators: listing, making, rotating, revoking. A secret is shown once, to its maker."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Request
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.auth.callers import Caller, Scope, make_key
from api.auth.keys import Author, add_key, check_grants, list_keys, revoke_key, rotate_key
from api.deps import AdminCaller, ServicesDep
from api.http.prefix import link
from api.http.responses import json_response, request_id_of
from api.jobs.json_body import read_json
from api.jobs.requests import read_fields
from api.models.changes import change
from api.schemas.answers import PROBLEM
from api.schemas.keys import KeyBody, KeyPage, NewKeyBody, SecretKeyBody
from api.services import Services
from shared.database.engine import session_scope
from shared.errors import Conflict
from shared.tables import ApiKey

router = APIRouter(tags=["keys"])

Result = TypeVar("Result")
KeyId = Annotated[str, Path(alias="id", max_length=32, description="The key's id, from GET /keys")]

_READING: dict[int | str, dict[str, Any]] = {
    401: {**PROBLEM, "description": "No API key, or an unknown one."},
    403: {**PROBLEM, "description": "The key lacks the scope `admin`, or the service may not change keys."},
    404: {**PROBLEM, "description": "No such key."},
    422: {**PROBLEM, "description": "A parameter or a field is not valid."},
    503: {**PROBLEM, "description": "The database does not answer."},
}
_CHANGING: dict[int | str, dict[str, Any]] = {
    **_READING,
    409: {
        **PROBLEM,
        "description": "The service asks for no keys (AUTH=open), the key is revoked, or it is the last one with the "
        "scope `admin`: `detail` says which.",
    },
}


@router.get("/keys", responses={200: {"model": KeyPage}, **_READING}, response_model=None)
async def get_keys(
    services: ServicesDep,
    caller: AdminCaller,
    is_valid: Annotated[
        bool | None, Query(alias="valid", description="true: only valid keys; false: only revoked ones")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1_000, description="Keys on a page")] = 100,
    cursor: Annotated[str | None, Query(max_length=32, description="Only older keys: from `next`")] = None,
) -> Response:
    """List the API keys, newest first, never their secrets; follow `next` for older ones."""

    def read() -> list[ApiKey]:
        with session_scope(services.reader, read_only=True) as session:
            return list_keys(session, is_valid=is_valid, cursor=cursor, limit=limit + 1)

    rows = await run_in_threadpool(read)
    more = None
    if len(rows) > limit:
        chosen = {} if is_valid is None else {"valid": str(is_valid).lower()}
        more = link("/keys?") + urlencode({**chosen, "limit": limit, "cursor": rows[limit - 1].id})
    return json_response({"items": [_body(row) for row in rows[:limit]], "next": more})


@router.post(
    "/keys",
    status_code=201,
    responses={
        201: {"model": SecretKeyBody, "description": "Made; `key` is not shown again."},
        **{status: answer for status, answer in _CHANGING.items() if status != 404},
        400: {**PROBLEM, "description": "The body is not plain JSON."},
        413: {**PROBLEM, "description": "Too many bytes."},
        415: {**PROBLEM, "description": "The body is not JSON."},
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{NewKeyBody.__name__}"}}},
        }
    },
    response_model=None,
)
async def post_key(request: Request, services: ServicesDep, caller: AdminCaller) -> Response:
    """Make an API key. Its secret is in the answer, and nowhere else; other processes know it within seconds."""
    _, raw = await read_json(request, max_bytes=services.settings.max_body_bytes)
    body = read_fields(NewKeyBody, raw)
    scopes = [scope for scope in Scope if scope in body.scopes]
    secret, _ = make_key()
    row = await _change(services, lambda session: add_key(session, body.name, scopes, secret, _author(request, caller)))
    return json_response({**_body(row), "key": secret}, status=201)


@router.post(
    "/keys/{id}/rotate",
    responses={200: {"model": SecretKeyBody, "description": "`key` is not shown again."}, **_CHANGING},
    response_model=None,
)
async def post_rotation(request: Request, services: ServicesDep, caller: AdminCaller, key_id: KeyId) -> Response:
    """Give a key a new secret; the old one is refused from now on. Its id, scopes and jobs stay."""
    row, secret = await _change(services, lambda session: rotate_key(session, key_id, _author(request, caller)))
    return json_response({**_body(row), "key": secret})


@router.delete("/keys/{id}", responses={200: {"model": KeyBody}, **_CHANGING}, response_model=None)
async def delete_key(request: Request, services: ServicesDep, caller: AdminCaller, key_id: KeyId) -> Response:
    """Revoke a key: it is refused from now on. Its jobs stay; revoking it again changes nothing."""
    author = _author(request, caller)
    row = await _change(services, lambda session: revoke_key(session, key_id, author, keeps_admin=True))
    return json_response(_body(row))


async def _change(services: Services, work: Callable[[Session], Result]) -> Result:
    """Change keys in one transaction, and let this process know it; raise Conflict where no key is asked for.

    Whoever could make keys while the service is open would have one when it no longer is.
    """
    if services.settings.auth == "open":
        raise Conflict(
            "This service asks for no keys (AUTH=open), and makes none over HTTP: set AUTH=keys, or use "
            "`python -m api.keys` on its machine."
        )

    def allowed(session: Session) -> Result:
        check_grants(session)
        return work(session)

    return await run_in_threadpool(change, services.bulk_engine, services.catalog, allowed)


def _author(request: Request, caller: Caller) -> Author:
    return Author(caller.actor, request_id_of(request))


def _body(row: ApiKey) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "scopes": row.scopes.split(","),
        "created_at": row.created_at,
        "revoked_at": row.revoked_at,
    }
