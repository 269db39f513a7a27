"""The overview: how the service is, what it does now, and what failed lately."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.console.asking import ask, read
from api.console.models import read_health
from api.console.rendering import page
from api.console.session import viewer_of


async def overview_page(request: Request) -> Response:
    """Return the overview of the last 15 minutes, with what the reader's key may see."""
    viewer = viewer_of(request)
    system: dict[str, Any] | None = None
    failed: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    trouble: dict[str, Any] | None = None
    if viewer.may_list:
        reply = await ask(request, "GET", "/metrics/system")
        if reply.status == 200:
            system = reply.body
            failed = (await read(request, "/jobs", status="failed", limit=5))["items"]
        elif reply.status in (401, 403):
            await read(request, "/metrics/system")  # raises the refusal, which is the reader's to mend
        else:
            trouble = reply.body
    elif viewer.needs_key and not viewer.may_read:
        await read(request, "/models")
    if viewer.is_admin and trouble is None:
        errors = (await read(request, "/logs/errors", limit=8))["items"]
    return await page(
        request,
        "overview.html",
        health=await read_health(request),
        system=system,
        failed=failed,
        errors=errors,
        trouble=trouble,
    )
