"""Changes of models: the version of an alias, and the serving versions. For keys with the scope `admin`."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.auth.callers import Caller
from api.deps import AdminCaller, ReadCaller, ServicesDep
from api.http.prefix import link
from api.http.responses import json_response, request_id_of
from api.jobs.json_body import read_json
from api.jobs.requests import find_version, read_fields
from api.models.changes import change
from api.monitoring.comparison import shadow_body
from api.schemas.answers import PROBLEM, header
from api.schemas.models.registry import AliasBody, HistoryBody, PromotionBody, ReasonBody, VersionStateBody
from api.schemas.moments import AwareMoment
from api.services import Services
from shared.comparison.gate import Gate
from shared.comparison.shadow_state import CHALLENGER, ShadowState, find_shadow
from shared.database.engine import session_scope
from shared.errors import Conflict
from shared.registry.aliases import AliasState, Change, find_alias, list_events, promote, remove_alias, roll_back
from shared.registry.archiving import archive, delete, remove_files, restore
from shared.registry.versions import CHAMPION
from shared.tables import ModelVersion

router = APIRouter(tags=["models"])

Body = TypeVar("Body", bound=BaseModel)
Name = Annotated[str, Path(max_length=200, description="Name of the model, without a version")]
Alias = Annotated[str, Path(max_length=200, description="Name of the alias, e.g. `champion`")]
Number = Annotated[int, Path(ge=1, le=2**31 - 1, description="Version number")]
IfMatch = Annotated[str | None, Header(description="`ETag` of the alias: 412 if it was moved meanwhile; `*`: any")]
IfNoneMatch = Annotated[str | None, Header(description="`*`: only if the alias does not exist yet")]

_ETAG = {"ETag": header("ETag of the alias, for `If-Match`", always=True)}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {**PROBLEM, "description": "The body is not plain JSON."},
    401: {**PROBLEM, "description": "No API key, or an unknown one."},
    403: {**PROBLEM, "description": "The key lacks the scope `admin`."},
    404: {**PROBLEM, "description": "No such model, version or alias."},
    409: {
        **PROBLEM,
        "description": "The current state does not allow the change; `detail` gives the reason and the remedy.",
    },
    413: {**PROBLEM, "description": "Too many bytes."},
    415: {**PROBLEM, "description": "The body is not JSON."},
    422: {**PROBLEM, "description": "The body lacks a field, or has an unknown one."},
    503: {**PROBLEM, "description": "The database does not answer."},
}
_PRECONDITION: dict[int | str, dict[str, Any]] = {
    412: {**PROBLEM, "description": "The alias was moved meanwhile: its ETag is not the one in `If-Match`."}
}


def _body_of(model: type[BaseModel]) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


@router.get(
    "/models/{name}/aliases/{alias}",
    responses={200: {"model": AliasBody, "headers": _ETAG}, **{code: _REFUSALS[code] for code in (401, 403, 404, 503)}},
    response_model=None,
)
async def get_alias(services: ServicesDep, caller: ReadCaller, name: Name, alias: Alias) -> Response:
    """Read the version that an alias points to. Send its `ETag` in `If-Match` to avoid overwriting another change.

    For the alias `challenger`, the answer also has the progress of its shadow scoring.
    """

    def read() -> tuple[AliasState, ShadowState | None]:
        with session_scope(services.reader, read_only=True) as session:
            state = find_alias(session, name, alias)
            shadow = find_shadow(session.connection(), name) if alias == CHALLENGER else None
            return state, shadow

    state, shadow = await run_in_threadpool(read)
    return _alias(state, shadow)


@router.put(
    "/models/{name}/aliases/{alias}",
    responses={200: {"model": AliasBody, "headers": _ETAG}, **_REFUSALS, **_PRECONDITION},
    openapi_extra=_body_of(PromotionBody),
    response_model=None,
)
async def put_alias(
    request: Request,
    services: ServicesDep,
    caller: AdminCaller,
    name: Name,
    alias: Alias,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Point an alias to a version; for `champion`, promote it. Every process follows within 5 seconds.

    Jobs that are already accepted keep their version.
    A version that a worker could not load (sync runtime: this service) does not become the champion: 409 says why.
    With PROMOTION_GATE=replay, a version replaces the champion only after a fresh replay within the limits: 409 names
    the missing replay or the exceeded limit. `force` skips both checks.
    """
    body = await _read(services, request, PromotionBody)
    if alias == CHAMPION and not body.force:
        _check_loadable(services, f"{name}@{body.version}")
    expected = "" if if_none_match is not None and if_none_match.strip() == "*" else if_match

    def work(session: Session) -> AliasState:
        change = replace(_change(request, caller, body), is_forced=body.force)
        promote(session, name, body.version, alias, change, expected=expected, gate=Gate.of(services.settings))
        return find_alias(session, name, alias)

    return _alias(await _do(services, work))


def _check_loadable(services: Services, label: str) -> None:
    """Raise Conflict for a version that was tried to be loaded, and nowhere was."""
    states = services.runtime.model_states()
    why = states.refused.get(label)
    if why is not None and label not in states.loaded:
        raise Conflict(
            f"{label} cannot be loaded, and as the champion would leave callers without answers: {why.rstrip('.')}. "
            "Mend that first, or force the promotion, with a reason."
        )


@router.delete(
    "/models/{name}/aliases/{alias}",
    status_code=204,
    responses={204: {"description": "Taken away."}, **_REFUSALS, **_PRECONDITION},
    openapi_extra=_body_of(ReasonBody),
    response_model=None,
)
async def delete_alias(
    request: Request, services: ServicesDep, caller: AdminCaller, name: Name, alias: Alias, if_match: IfMatch = None
) -> Response:
    """Delete an alias. The champion can only be moved: it serves requests that name no version."""
    body = await _read(services, request, ReasonBody)

    def work(session: Session) -> None:
        remove_alias(session, name, alias, _change(request, caller, body), expected=if_match)

    await _do(services, work)
    return Response(status_code=204)


@router.post(
    "/models/{name}/aliases/{alias}/rollback",
    responses={200: {"model": AliasBody, "headers": _ETAG}, **_REFUSALS, **_PRECONDITION},
    openapi_extra=_body_of(ReasonBody),
    response_model=None,
)
async def post_rollback(
    request: Request, services: ServicesDep, caller: AdminCaller, name: Name, alias: Alias, if_match: IfMatch = None
) -> Response:
    """Point an alias back to its version before the last move."""
    body = await _read(services, request, ReasonBody)

    def work(session: Session) -> AliasState:
        roll_back(session, name, alias, _change(request, caller, body), expected=if_match)
        return find_alias(session, name, alias)

    return _alias(await _do(services, work))


@router.get(
    "/models/{name}/history",
    responses={200: {"model": HistoryBody}, **{code: _REFUSALS[code] for code in (401, 403, 404, 422, 503)}},
    response_model=None,
)
async def get_history(
    services: ServicesDep,
    caller: AdminCaller,
    name: Annotated[str, Path(max_length=200, description="Name of the model: `name`, `name@3` or `name@alias`")],
    from_: Annotated[
        AwareMoment | None, Query(alias="from", description="Only moves of this moment or later, RFC 3339")
    ] = None,
    to: Annotated[AwareMoment | None, Query(description="Only moves before this moment")] = None,
    cursor: Annotated[int | None, Query(ge=0, le=2**63 - 1, description="Only older moves: from `next`")] = None,
    limit: Annotated[int, Query(ge=1, le=1_000, description="Moves on a page")] = 100,
) -> Response:
    """List how a model's aliases were moved, newest first: who, when, from, to, why.

    Of `name@3` or `name@alias`: the moves to that version, and away from it.
    """
    model, version = name, None
    if "@" in name:
        named = await find_version(services, name, None, archived=True)
        model, version = named.card.name, named.card.version
    elif not services.catalog.versions_of(name):
        await find_version(services, name, None)

    def read() -> tuple[list[dict[str, Any]], int | None]:
        with session_scope(services.reader, read_only=True) as session:
            return list_events(session, model, version=version, start=from_, end=to, before=cursor, limit=limit)

    items, following = await run_in_threadpool(read)
    window = {"from": from_, "to": to}
    place = {key: moment.isoformat() for key, moment in window.items() if moment is not None}
    query = urlencode(place | {"limit": limit, "cursor": following})
    more = None if following is None else link(f"/models/{name}/history?") + query
    return json_response({"items": items, "next": more})


@router.post(
    "/models/{name}/versions/{version}/archive",
    responses={200: {"model": VersionStateBody}, **_REFUSALS},
    openapi_extra=_body_of(ReasonBody),
    response_model=None,
)
async def post_archive(
    request: Request, services: ServicesDep, caller: AdminCaller, name: Name, version: Number
) -> Response:
    """Archive a version: it takes no rows until it is restored, and its scores stay."""
    return await _move(request, services, caller, name, version, archive, "archived")


@router.post(
    "/models/{name}/versions/{version}/restore",
    responses={200: {"model": VersionStateBody}, **_REFUSALS},
    openapi_extra=_body_of(ReasonBody),
    response_model=None,
)
async def post_restore(
    request: Request, services: ServicesDep, caller: AdminCaller, name: Name, version: Number
) -> Response:
    """Let an archived version serve again."""
    return await _move(request, services, caller, name, version, restore, "serving")


@router.delete(
    "/models/{name}/versions/{version}",
    responses={200: {"model": VersionStateBody}, **_REFUSALS},
    openapi_extra=_body_of(ReasonBody),
    response_model=None,
)
async def delete_version(
    request: Request, services: ServicesDep, caller: AdminCaller, name: Name, version: Number
) -> Response:
    """Delete an archived version without any scores, with its files. Its number is not used again."""
    body = await _read(services, request, ReasonBody)
    row: ModelVersion = await _do(
        services, lambda session: delete(session, name, version, _change(request, caller, body))
    )
    left = await run_in_threadpool(remove_files, row, services.settings.models)
    note = None
    if left is not None:
        note = (
            "Its files could not be removed here: a worker of the lane `maintenance` that may write MODELS_DIR does it "
            "within an hour, or remove them by hand."
        )
    return json_response({"model": name, "version": version, "state": "deleted", "left": note})


async def _move(
    request: Request,
    services: Services,
    caller: Caller,
    name: str,
    version: int,
    move: Callable[[Session, str, int, Change], ModelVersion],
    state: str,
) -> Response:
    body = await _read(services, request, ReasonBody)
    await _do(services, lambda session: move(session, name, version, _change(request, caller, body)))
    return json_response({"model": name, "version": version, "state": state, "left": None})


async def _do(services: Services, work: Callable[[Session], Any]) -> Any:  # noqa: ANN401 - what the work returns
    return await run_in_threadpool(partial(change, services.bulk_engine, services.catalog, work))


async def _read(services: Services, request: Request, model: type[Body]) -> Body:
    _, raw = await read_json(request, max_bytes=services.settings.max_body_bytes)
    return read_fields(model, raw)


def _change(request: Request, caller: Caller, body: ReasonBody) -> Change:
    return Change(body.reason, caller.actor, request_id_of(request))


def _alias(state: AliasState, shadow: ShadowState | None = None) -> Response:
    body = {"model": state.name, "alias": state.alias, "version": state.version, "updated_at": state.updated_at}
    rest = {"previous": state.previous, "shadow": shadow_body(shadow)}
    return json_response(body | rest, headers={"ETag": state.etag})
