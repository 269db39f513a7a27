"""What routes ask for, as annotated aliases."""

from typing import Annotated

from fastapi import Depends, Request

from api.auth import Caller, Scope, identify
from api.services import Services, services_of

# All of them are coroutines: FastAPI would run plain functions in a thread, which costs more than they do.


async def _services(request: Request) -> Services:
    return services_of(request)


ServicesDep = Annotated[Services, Depends(_services)]


def authenticate(request: Request, scope: Scope) -> Caller:
    """Return who calls, checked for a scope; remembered for error_logs."""
    services = services_of(request)
    caller = identify(request, services.catalog, scope=scope, is_open=services.settings.auth == "open")
    request.scope["owner"] = caller.id
    return caller


async def _predictor(request: Request) -> Caller:
    return authenticate(request, Scope.PREDICT)


async def _reader(request: Request) -> Caller:
    return authenticate(request, Scope.READ)


PredictCaller = Annotated[Caller, Depends(_predictor)]
ReadCaller = Annotated[Caller, Depends(_reader)]
