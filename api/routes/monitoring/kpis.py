"""Business figures, and the distribution of features. For administrators: they cover everyone's rows."""

from dataclasses import asdict
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.deps import AdminCaller, ServicesDep
from api.http.prefix import link
from api.http.responses import json_response
from api.jobs.requests import find_version, summarise
from api.models.catalog import Version
from api.monitoring.windows import (
    RESPONSES,
    From,
    Model,
    Number,
    To,
    find_profile_of,
    names_version,
    read_window,
    selected_versions,
)
from api.schemas.answers import PROBLEM
from api.schemas.monitoring import DistributionPage, KpiBody
from api.services import Services
from shared.database.engine import reader
from shared.errors import InvalidRequest, NotFound
from shared.faults import Fault, did_you_mean
from shared.monitoring.drift.windows import Window, sum_counts
from shared.monitoring.kpis import Scope, find_confusion, find_latency, list_days

router = APIRouter(tags=["monitoring"])

Weight = Annotated[float | None, Query(ge=0, le=1e12, allow_inf_nan=False)]


@router.get("/metrics/kpis", responses={200: {"model": KpiBody}, **RESPONSES}, response_model=None)
async def get_kpis(
    services: ServicesDep,
    caller: AdminCaller,
    model: Model = None,
    version: Number = None,
    from_: From = None,
    to: To = None,
    threshold: Annotated[
        float | None,
        Query(
            ge=0,
            le=1,
            allow_inf_nan=False,
            description=("Binary models: decide the stored probabilities by this threshold"),
        ),
    ] = None,
    margin: Annotated[
        float, Query(ge=0, le=1, allow_inf_nan=False, description="Distance from the threshold that counts as near")
    ] = 0.05,
    cost_fp: Annotated[Weight, Query(description="Cost of a false positive")] = None,
    cost_fn: Annotated[Weight, Query(description="Cost of a false negative")] = None,
) -> Response:
    """Report volume, decisions and scores day by day, and the cost of decisions with known outcomes.

    With `threshold`, stored probabilities are decided anew, and nothing is scored again.
    """
    named = await find_version(services, model, version, archived=True)
    window = read_window(from_, to)
    if named.card.task != "binary":
        _refuse_decisions(named, threshold=threshold, cost_fp=cost_fp, cost_fn=cost_fn)
    is_one = names_version(model, version)
    versions = selected_versions(services, named, model, version)
    scopes = [_scope(each, window, threshold) for each in versions]

    def read() -> dict[str, Any]:
        with reader(services.bulk_engine).connect() as connection:
            days = [list_days(connection, scope, margin=margin) for scope in scopes]
            return {
                "versions": [
                    _decisions(connection, each, scope, cost_fp=cost_fp, cost_fn=cost_fn)
                    for each, scope, day_sums in zip(versions, scopes, days, strict=True)
                    if day_sums or is_one
                ],
                "days": sorted(
                    (
                        {**asdict(day), "version": each.card.version}
                        for each, day_sums in zip(versions, days, strict=True)
                        for day in day_sums
                    ),
                    key=lambda day: (day["day"], day["version"]),
                ),
            }

    period = {"from": window.start, "to": window.end}
    return json_response({"model": named.card.name, "window": period, **await run_in_threadpool(read)})


def _refuse_decisions(version: Version, **options: float | None) -> None:
    """Raise InvalidRequest for options that only a binary model has."""
    message = f"is for binary models, and {version.label} is none: leave it out"
    faults = [Fault(f"/query/{name}", "task", message) for name, value in options.items() if value is not None]
    if faults:
        raise InvalidRequest(summarise(faults), faults=faults)


def _scope(version: Version, window: Window, threshold: float | None) -> Scope:
    labels = list(version.card.labels.values())
    positive = labels[1] if version.card.task == "binary" else None
    return Scope(version.id, version.card.task, positive, window.start, window.end, threshold)


def _decisions(
    connection: Connection, version: Version, scope: Scope, *, cost_fp: float | None, cost_fn: float | None
) -> dict[str, Any]:
    is_binary = version.card.task == "binary"
    confusion = find_confusion(connection, scope, cost_fp=cost_fp, cost_fn=cost_fn) if is_binary else None
    return {
        "version": version.card.version,
        "threshold": version.card.threshold if scope.threshold is None else scope.threshold,
        "confusion": None if confusion is None else asdict(confusion),
        "expected_latency_ms": find_latency(connection, version.id),
    }


@router.get(
    "/metrics/feature-distribution",
    responses={
        200: {"model": DistributionPage},
        409: {**PROBLEM, "description": "The version has no profile yet, or its reference cannot be read."},
        **RESPONSES,
    },
    response_model=None,
)
async def get_feature_distribution(
    services: ServicesDep,
    caller: AdminCaller,
    model: Model = None,
    version: Number = None,
    from_: From = None,
    to: To = None,
    feature: Annotated[
        str | None, Query(max_length=200, description="Only this feature, or `score` or `decision`")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Features on a page")] = 20,
    cursor: Annotated[int, Query(ge=0, le=100_000, description="Features before this page")] = 0,
) -> Response:
    """Report the distribution of features: rows by bin, in the window and in the reference; follow `next` for more."""
    named = await find_version(services, model, version, archived=True)
    window = read_window(from_, to)
    body = await run_in_threadpool(_distribution, services, named, window, feature, limit, cursor)
    if body["next"] is not None:
        place = {"model": model, "version": version, "from": from_ and from_.isoformat(), "to": to and to.isoformat()}
        page: dict[str, Any] = {name: value for name, value in place.items() if value is not None}
        body["next"] = link("/metrics/feature-distribution?") + urlencode(
            page | {"limit": limit, "cursor": body["next"]}
        )
    return json_response(body)


def _distribution(
    services: Services, version: Version, window: Window, feature: str | None, limit: int, cursor: int
) -> dict[str, Any]:
    with services.reader.connect() as connection:
        profile = find_profile_of(connection, version).profile
        rows, counts = sum_counts(connection, version.id, [window])
    spread = list(profile.split(counts or [0] * sum(bins.width for bins in profile.all)))
    if feature is not None:
        spread = [(bins, counts) for bins, counts in spread if bins.name == feature]
        if not spread:
            names = [bins.name for bins in profile.all]
            advice = did_you_mean(feature, names, otherwise="GET /models/NAME lists them")
            raise NotFound(f"{version.label} has no such feature: {advice}{'' if advice.endswith('?') else '.'}")
    page = spread[cursor : cursor + limit]
    return {
        "model": version.card.name,
        "version": version.card.version,
        "window": {"from": window.start, "to": window.end},
        "rows": rows,
        "reference_rows": profile.rows,
        "items": [
            {
                "feature": bins.name,
                "kind": bins.kind,
                "bins": [
                    {"label": label, "reference": before, "window": now}
                    for label, before, now in zip(bins.labels, bins.reference or [0] * bins.width, counts, strict=True)
                ],
            }
            for bins, counts in page
        ],
        "next": cursor + limit if cursor + limit < len(spread) else None,
    }
