"""The API's entry: `create_app` puts settings, services, routes and errors together, `serve` the layers around."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, Depends, FastAPI
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp, Scope

from api import openapi
from api.errors import handlers
from api.fast_path import FastPath
from api.http.about import Paths
from api.http.middleware import RequestContext
from api.http.prefix import Prefix
from api.http.security_headers import SecurityHeaders
from api.known_names import KnownNames
from api.logs.request_log import RouteNames
from api.logs.tracing import tracer
from api.parameters import refuse_strangers
from api.routes import mlflow, open_inference, welcome
from api.routes.console import models as console_models
from api.routes.console import operations as console_operations
from api.routes.console import pages as console
from api.routes.jobs import csv_downloads, csv_uploads, events, explanations, predict, reproductions
from api.routes.jobs import stored as jobs
from api.routes.models import comparisons, examples, registry, replays, trainings, uploads
from api.routes.models import registered as models
from api.routes.monitoring import kpis, outcomes
from api.routes.monitoring import reports as monitoring
from api.routes.operations import health, keys, logs, metrics
from api.runtimes.followers import on_shutdown
from api.services import Services
from shared.config.settings import Settings, get_settings
from shared.observability.tracing import start as start_tracing
from shared.version import VERSION

ROUTERS: tuple[APIRouter, ...] = (
    predict.router,
    explanations.router,
    csv_uploads.router,
    jobs.router,
    csv_downloads.router,
    events.router,
    outcomes.router,
    models.router,
    uploads.router,
    trainings.router,
    registry.router,
    replays.router,
    reproductions.router,
    comparisons.router,
    monitoring.router,
    kpis.router,
    examples.router,
    open_inference.router,
    mlflow.router,
    metrics.router,
    logs.router,
    keys.router,
    health.router,
    welcome.router,
)
# For people: they answer with pages, and are not documented. The last one takes every path below /console.
PAGES: tuple[APIRouter, ...] = (console_models.router, console_operations.router, console.router)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application; its threads and connections start with the server's lifespan."""
    settings = settings or get_settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services = Services(settings, routes=[*(route for router in ROUTERS for route in router.routes), *app.routes])
        app.state.services = services
        services.start()
        try:
            with on_shutdown(services.close):
                yield
        finally:
            services.close()
            await asyncio.sleep(0.2)  # requests that the server has just canceled answer where to poll
            await asyncio.to_thread(services.stop)

    # The offline variant serves Swagger UI and ReDoc from the wheel: /docs needs no other server.
    app: FastAPI = FastAPIOffline(
        title="Guichet",
        version=VERSION,
        lifespan=lifespan,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,  # what generated clients call their methods
    )
    app.state.settings = settings
    for router in ROUTERS:
        app.include_router(router, dependencies=[Depends(refuse_strangers)])
    for router in PAGES:
        app.include_router(router)
    app.state.paths = Paths(ROUTERS)
    handlers.install(app)
    openapi.install(app, ROUTERS)
    return app


def serve(app: FastAPI) -> ASGIApp:
    """Return the ASGI application: the request's context around everything, and the fast path beside FastAPI."""
    settings: Settings = app.state.settings
    inner: ASGIApp = FastPath(app, ROUTERS)
    if settings.auth == "open":
        inner = KnownNames(inner, app, settings.host_names)
    prefix = Prefix(settings.root_path, proxy_hops=settings.proxy_hops)

    def note(scope: Scope, method: str, path: str, status: int, size: int, seconds: float) -> None:
        app.state.services.request_log.note(scope, method, path, status, size, seconds)

    headers = SecurityHeaders(settings.frame_ancestors)
    if settings.tracing == "off":
        return RequestContext(inner, prefix, headers, note)
    names = RouteNames([*(route for router in ROUTERS for route in router.routes), *app.routes])
    return RequestContext(inner, prefix, headers, note, tracer(start_tracing("guichet-api"), names))
