"""The console's pages for operators: the logs, and the API keys."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.console.page_route import PageRoute
from api.console.pages.keys import keys_page, make_key, revoke_key, rotate_key
from api.console.pages.logs import logs_page
from api.console.rendering import see_other

router = APIRouter(prefix="/console", route_class=PageRoute, include_in_schema=False)


@router.get("/logs", response_model=None)
async def get_logs(request: Request) -> Response:
    """Lead to the log that is asked for most."""
    return see_other("/console/logs/requests")


@router.get("/logs/{log}", response_model=None)
async def get_log_page(request: Request, log: str) -> Response:
    """Show a log."""
    return await logs_page(request, log)


@router.get("/keys", response_model=None)
async def get_keys_page(request: Request) -> Response:
    """Show the API keys."""
    return await keys_page(request)


@router.post("/keys", response_model=None)
async def post_key_page(request: Request) -> Response:
    """Make a key."""
    return await make_key(request)


@router.post("/keys/{key_id}/rotate", response_model=None)
async def post_rotation_page(request: Request, key_id: str) -> Response:
    """Give a key a new secret."""
    return await rotate_key(request, key_id)


@router.post("/keys/{key_id}/revoke", response_model=None)
async def post_revocation_page(request: Request, key_id: str) -> Response:
    """Revoke a key."""
    return await revoke_key(request, key_id)
