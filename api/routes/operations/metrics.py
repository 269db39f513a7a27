"""Numbers of the whole service: `/metrics` for Prometheus, `/metrics/system` for a window."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.deps import ListCaller, ServicesDep
from api.http.conditional import preferred_type
from api.http.responses import json_response
from api.jobs.requests import find_version
from api.monitoring.scrape import prometheus_metrics, scraper_of, summary
from api.monitoring.system import read_system, window_of
from api.monitoring.windows import selected_versions
from api.schemas.answers import PROBLEM
from api.schemas.moments import Moment
from api.schemas.operations import MetricsSummary, SystemMetrics
from shared.observability.exposition import expose

router = APIRouter(tags=["operations"])

TEXT, OPEN_METRICS, JSON = "text/plain", "application/openmetrics-text", "application/json"
REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {**PROBLEM, "description": "No API key, or an unknown one."},
    403: {**PROBLEM, "description": "The key lacks the scope `read`."},
    422: {**PROBLEM, "description": "The window is not valid."},
    503: {**PROBLEM, "description": "The database does not answer."},
}


@router.get(
    "/metrics",
    responses={
        200: {
            "model": MetricsSummary,
            "content": {TEXT: {"schema": {"type": "string"}}, OPEN_METRICS: {"schema": {"type": "string"}}},
            "description": "Prometheus' text format; with `Accept: application/json` a summary.",
        },
        **REFUSALS,
    },
    response_model=None,
)
async def get_metrics(request: Request, services: ServicesDep, caller: ListCaller) -> Response:
    """Return the numbers of all processes of the service, at most two seconds old, from any of them.

    Prometheus' text format, OpenMetrics or JSON, as the Accept header says.
    """
    figures = await run_in_threadpool(scraper_of(services).figures, services)
    accept = request.headers.get("accept")
    if preferred_type(accept, (TEXT, OPEN_METRICS, JSON)) == JSON:
        return json_response(summary(figures, services))
    # A thousand lines take longer to write than the event loop may be held.
    body, media_type = await run_in_threadpool(lambda: expose(prometheus_metrics(figures, services), accept))
    return Response(body, headers={"Content-Type": media_type})


@router.get(
    "/metrics/system",
    responses={
        200: {"model": SystemMetrics},
        404: {**PROBLEM, "description": "No such model or version."},
        **REFUSALS,
    },
    response_model=None,
)
async def get_system_metrics(
    services: ServicesDep,
    caller: ListCaller,
    model: Annotated[
        str | None, Query(description="Model: `name`, `name@3` or `name@alias`; all models if left out")
    ] = None,
    since: Annotated[
        Moment | None, Query(alias="from", description=("Start of the window; 15 minutes ago if left out"))
    ] = None,
    until: Annotated[
        Moment | None, Query(alias="to", description="End of the window, exclusive; now if left out")
    ] = None,
) -> Response:
    """Report speed and health of the service in a window: requests, jobs, and the present queues.

    With `model`, those of its versions, or of the one that it names: requests are those for scores, and workers and
    connections remain those of the whole service.
    """
    window = window_of(since, until, now=datetime.now(UTC), default=timedelta(minutes=15))
    versions = None
    if model is not None:
        named = await find_version(services, model, None, archived=True)
        versions = selected_versions(services, named, model, None)
    figures = await run_in_threadpool(scraper_of(services).figures, services)
    return json_response(await run_in_threadpool(read_system, services, window, figures, versions))
