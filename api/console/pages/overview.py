"""The overview: how the service is, what it does now, and what failed lately."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.console.asking import Refused, read
from api.console.language import Words, language_of
from api.console.live import Reading, live_of
from api.console.pages.models import read_health
from api.console.plots import Gauge
from api.console.rendering import page
from api.console.session import viewer_of


async def overview_page(request: Request) -> Response:
    """Return the overview of the last 15 minutes, with what the reader's key may see."""
    viewer = viewer_of(request)
    live: Reading | None = None
    charts: list[Gauge] = []
    failed: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    trouble: dict[str, Any] | None = None
    if viewer.may_list:
        try:
            live = await live_of(request).look(request)
            failed = (await read(request, "/jobs", status="failed", limit=5))["items"]
            errors = (await read(request, "/logs/errors", limit=8))["items"] if viewer.is_admin else []
        except Refused as refusal:
            if refusal.reply.status in (401, 403):
                raise  # it is the reader's to mend
            live, trouble = None, refusal.reply.body
    elif viewer.needs_key and not viewer.may_read:
        await read(request, "/models")
    if live is not None:
        charts = live.charts(Words(language_of(request)))
    return await page(
        request,
        "overview.html",
        health=await read_health(request) if live is None else live.health,
        live=live,
        charts=charts,
        failed=failed,
        errors=errors,
        trouble=trouble,
    )
