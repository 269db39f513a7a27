"""Dependencies of routes, as annotated aliases."""

from enum import Enum
from typing import Annotated

from fastapi import Depends, Path, Request
from fastapi.routing import APIRoute

from api.auth.callers import ANYONE, VISITOR, Caller, Scope, hash_key, identify, sent_key
from api.auth.rate_limit import payer
from api.services import Services, services_of
from shared.errors import GuichetError

# All of them are coroutines: FastAPI would run plain functions in a thread, which costs more than they do.


async def _services(request: Request) -> Services:
    return services_of(request)


ServicesDep = Annotated[Services, Depends(_services)]


async def authenticate(request: Request, *scopes: Scope, visitors: bool = False) -> Caller:
    """Return the caller, checked for one of the scopes; with AUTH=predict-open, `visitors` may come without a key."""
    services = services_of(request)
    auth = services.settings.auth
    if auth == "open":
        return ANYONE
    if visitors and auth == "predict-open" and not sent_key(request):
        return VISITOR
    if services.settings.rate_per_minute and not is_known(request):  # a guess, or a key that was made a moment ago
        await spend_read(request, None)
    return await identify(request, services.catalog, *scopes)


def is_known(request: Request) -> bool:
    """Return whether a request has a valid key, or needs none; such callers may read paths and addresses."""
    services = services_of(request)
    return services.settings.auth == "open" or hash_key(sent_key(request)) in services.catalog.snapshot.keys


async def spend_row(request: Request, caller: Caller) -> None:
    """Count a submission of one row; raise TooManyRequests when its caller is over the quota."""
    services = services_of(request)
    if services.settings.rate_per_minute:
        await services.quota.spend_row(payer(request, caller.id, proxy_hops=services.settings.proxy_hops))


async def spend_read(request: Request, caller: Caller | None) -> None:
    """Count a request that reads; raise TooManyRequests when its caller is over the quota."""
    services = services_of(request)
    if services.settings.rate_per_minute:
        key = None if caller is None else caller.id
        await services.quota.spend_read(payer(request, key, proxy_hops=services.settings.proxy_hops))


async def predictor(request: Request) -> Caller:
    """Return the caller of a submission, counted against its quota."""
    caller = await authenticate(request, Scope.PREDICT, visitors=True)
    await spend_row(request, caller)
    return caller


async def _reader(request: Request) -> Caller:
    caller = await authenticate(request, Scope.READ, Scope.PREDICT, visitors=True)
    await spend_read(request, caller)
    return caller


async def may_read(request: Request) -> bool:
    """Return whether the caller may read the models; public pages show less to others."""
    try:
        await authenticate(request, Scope.READ, Scope.PREDICT, visitors=True)
    except GuichetError:
        return False
    return True


async def _changer(request: Request) -> Caller:
    caller = await authenticate(request, Scope.PREDICT)
    await spend_read(request, caller)
    return caller


async def _lister(request: Request) -> Caller:
    caller = await authenticate(request, Scope.READ, Scope.PREDICT)
    await spend_read(request, caller)
    return caller


async def _administrator(request: Request) -> Caller:
    caller = await authenticate(request, Scope.ADMIN)
    await spend_read(request, caller)
    return caller


PredictCaller = Annotated[Caller, Depends(predictor)]  # submits
ReadCaller = Annotated[Caller, Depends(_reader)]  # reads models, and jobs whose id it knows
ChangeCaller = Annotated[Caller, Depends(_changer)]  # changes what is there already: never a visitor
ListCaller = Annotated[Caller, Depends(_lister)]  # asks which jobs there are: never a visitor
AdminCaller = Annotated[Caller, Depends(_administrator)]  # reads what was made of everyone's rows

JobId = Annotated[str, Path(alias="id", description="Job id, from the answer to the submission")]
ModelName = Annotated[str, Path(description="Model: `name`, `name@3` or `name@alias`")]


class Asks(Enum):
    """Which callers a route lets in."""

    NOTHING = "nothing"  # everyone
    KEY_OR_VISITOR = "key or visitor"  # a key with the scope; where AUTH=predict-open, also who has none
    KEY = "key"  # a key with the scope


_ASKS = {
    predictor: (Asks.KEY_OR_VISITOR, "`predict`"),
    _reader: (Asks.KEY_OR_VISITOR, "`read` or `predict`"),
    _changer: (Asks.KEY, "`predict`"),
    _lister: (Asks.KEY, "`read` or `predict`"),
    _administrator: (Asks.KEY, "`admin`"),
}


def asks(route: APIRoute) -> tuple[Asks, str]:
    """Return the callers that a route lets in, from its function's dependencies, and the scope of their keys."""
    levels = [_ASKS[dependency.call] for dependency in route.dependant.dependencies if dependency.call in _ASKS]
    assert len(levels) <= 1, route.path
    return levels[0] if levels else (Asks.NOTHING, "")
