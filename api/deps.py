"""What routes ask for, as annotated aliases."""

from typing import Annotated

from fastapi import Depends, Request

from api.auth import ANYONE, Caller, Scope, identify
from api.services import Services, services_of

# All of them are coroutines: FastAPI would run plain functions in a thread, which costs more than they do.


async def _services(request: Request) -> Services:
    return services_of(request)


ServicesDep = Annotated[Services, Depends(_services)]


async def authenticate(request: Request, *scopes: Scope) -> Caller:
    """Return who calls, checked for one of the scopes."""
    services = services_of(request)
    if services.settings.auth == "open":
        return ANYONE
    return await identify(request, services.catalog, *scopes)


async def _predictor(request: Request) -> Caller:
    return await authenticate(request, Scope.PREDICT)


async def _reader(request: Request) -> Caller:
    return await authenticate(request, Scope.READ, Scope.PREDICT)


PredictCaller = Annotated[Caller, Depends(_predictor)]
ReadCaller = Annotated[Caller, Depends(_reader)]
