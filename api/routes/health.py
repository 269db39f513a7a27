"""Whether the service lives, is ready, and how it is. Open to everyone: probes have no keys."""

import platform
import time
from functools import partial
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request
from starlette.responses import Response

from api.deps import ServicesDep, is_known
from api.health import model_state
from api.http.responses import json_response
from api.runtimes.acceptance import SILENT
from api.schemas.native import Alive, Health, Readiness, ServiceVersion
from api.services import Services
from shared.background import ended
from shared.broker.names import Lane
from shared.observability.timed_tasks import is_recovery_late
from shared.version import VERSION

router = APIRouter(tags=["health"])

NEEDED = ("catalog", "acceptance")  # threads without which nobody knows whether a request can be taken
_ASKING = CapacityLimiter(2)
STARTING_SECONDS = 30.0  # so long may the workers take to be heard of for the first time


@router.get("/health", responses={200: {"model": Health}, 503: {"model": Health}}, response_model=None)
async def health(request: Request, services: ServicesDep) -> Response:
    """Tell how the service is: database, broker, workers, and whether the default model is loaded.

    Without a valid key, where one is needed, workers are numbered, and why a model cannot be loaded is left out.
    """
    # It asks Redis, which may take half a second: not on the event loop, and not after all who wait for the database.
    body = await to_thread.run_sync(partial(describe, services, in_full=is_known(request)), limiter=_ASKING)
    return json_response(body, status=503 if body["status"] == "down" else 200)


@router.get("/livez", responses={200: {"model": Alive, "description": "The process lives."}}, response_model=None)
async def livez() -> Response:
    """Answer as long as the process does."""
    return json_response({"status": "ok"})


@router.get(
    "/readyz",
    responses={
        200: {"model": Readiness, "description": "Requests are welcome."},
        503: {"model": Readiness, "description": "Not now; `reasons` says why."},
    },
    response_model=None,
)
async def readyz(request: Request, services: ServicesDep) -> Response:
    """Tell whether a submission would be stored now. A broker that is down does not count: jobs are stored anyway."""
    reasons = blocking(services, in_full=is_known(request))
    if reasons:
        return json_response({"status": "down", "reasons": reasons}, status=503, headers={"Retry-After": "2"})
    return json_response({"status": "ok"})


@router.get(
    "/version",
    responses={200: {"model": ServiceVersion, "description": "Versions of the service and its runtime."}},
    response_model=None,
)
async def version(services: ServicesDep) -> Response:
    """Tell which version of the service this is."""
    return json_response(
        {
            "name": "guichet",
            "version": VERSION,
            "runtime": services.settings.runtime,
            "python": platform.python_version(),
        }
    )


def blocking(services: Services, *, in_full: bool = False) -> list[str]:
    """Return why no request can be taken now, one sentence each."""
    state = model_state(services, in_full=in_full)
    reasons = []
    if not services.catalog.is_connected:
        reasons.append(SILENT)
    reasons += [
        told for told in (services.acceptance.fault(), services.intake.trouble()) if told and told not in reasons
    ]
    reasons += [told for name, told in ended().items() if name in NEEDED]
    if not services.catalog.picture.by_name:
        reasons.append("No model is registered: add one with `python -m shared.registry add`.")
        reasons += state.reasons
    return reasons + state.blocking


def describe(services: Services, *, in_full: bool) -> dict[str, Any]:
    """Return the body of /health; `in_full` with what only those may read who know the service's machines."""
    state = model_state(services, in_full=in_full)
    reasons = blocking(services, in_full=in_full)
    down = bool(reasons)
    served = services.catalog.find(None, None)
    if served is None and services.catalog.picture.by_name:
        reasons.append(f"DEFAULT_MODEL names {services.settings.default_model}, which is not registered.")
    workers = services.catalog.live_workers() if services.queue is not None else []
    broker = recovery = None
    is_starting = False
    if services.queue is not None:
        broker = "ok" if services.queue.notifier.check() else "down"
        backlog = services.queue.backlog
        if broker == "down":
            reasons.append(f"Redis does not answer: jobs are stored{_and_wait(backlog.waiting())}.")
        is_starting = not down and not workers and time.monotonic() - services.started_at < STARTING_SECONDS
        if is_starting:
            reasons.append(f"The service is starting: no worker has been heard of yet{_and_wait(backlog.waiting())}.")
        elif not workers:
            reasons.append(f"No worker has been heard of for 20 seconds{_and_wait(backlog.waiting())}.")
        else:
            missing = [lane.value for lane in Lane if not any(lane.value in worker.lanes for worker in workers)]
            reasons += [f"No worker consumes the lane {lane}{_and_wait(backlog.waiting(lane))}." for lane in missing]
        age = services.catalog.recovery_age()
        is_new = time.monotonic() - services.started_at < STARTING_SECONDS and age is None
        recovery = "late" if is_recovery_late(services.settings, age) and not is_new else "ok"
        if recovery == "late":
            since = "ever" if age is None else f"for {age:.0f} s"
            reasons.append(f"Recovery is late: no worker has looked {since} for jobs that dead workers left.")
        reasons += [
            f"Jobs wait in the lane {lane}, and none was finished for 30 seconds." for lane in backlog.stalled_lanes()
        ]
    reasons += [reason for reason in (*ended().values(), *state.reasons) if reason not in reasons]
    return {
        "status": "down" if down else "starting" if is_starting else "degraded" if reasons else "ok",
        "model_loaded": state.is_loaded,
        "model": None if served is None else served.card.name,
        "model_version": None if served is None else served.card.version,
        "runtime": services.settings.runtime,
        "database": "ok" if services.catalog.is_connected else "down",
        "broker": broker,
        "recovery": recovery,
        "workers": [
            {
                "id": worker.id if in_full else str(number),
                "lanes": worker.lanes,
                "models": worker.models,
                "seen_at": worker.seen_at,
            }
            for number, worker in enumerate(workers, 1)
        ],
        "reasons": reasons,
    }


def _and_wait(count: int) -> str:
    """Return how a sentence goes on that says why jobs wait, if any do."""
    return "" if count == 0 else f", and {count} {'job waits' if count == 1 else 'jobs wait'}"
