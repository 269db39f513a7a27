"""Drift, quality and alerts of models. For administrators: they cover everyone's rows."""

from dataclasses import asdict
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.deps import AdminCaller, ServicesDep
from api.http.prefix import link
from api.http.responses import json_response, request_id_of
from api.jobs.json_body import read_json
from api.jobs.requests import find_version, read_fields
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
from api.schemas.monitoring import AcknowledgeBody, AlertBody, AlertPage, DriftBody, QualityBody
from api.services import Services
from shared.database.engine import reader
from shared.monitoring.drift.alerts import acknowledge, list_alerts
from shared.monitoring.drift.comparison import THRESHOLDS
from shared.monitoring.drift.windows import Against, Window, find_drift, is_counted
from shared.monitoring.outcomes import find_judged
from shared.monitoring.quality import quality_of, roc_of

router = APIRouter(tags=["monitoring"])


@router.get(
    "/drift",
    responses={
        200: {"model": DriftBody},
        409: {**PROBLEM, "description": "The version has no profile yet, or its reference cannot be read."},
        **RESPONSES,
    },
    response_model=None,
)
async def get_drift(
    services: ServicesDep,
    caller: AdminCaller,
    model: Model = None,
    version: Number = None,
    from_: From = None,
    to: To = None,
    against: Annotated[
        Against,
        Query(
            description="`reference`: the rows that the version was trained on; `previous`: the window before; "
            "`same_weekday`: the same days of four earlier weeks"
        ),
    ] = "reference",
) -> Response:
    """Compare the rows of a window with those of the reference, feature by feature, with advice.

    It sums counters of whole hours; a level needs a PSI of 0.1, 0.2 or 0.3 and p < 0.01 after Benjamini and Hochberg.
    """
    named = await find_version(services, model, version, archived=True)
    window = read_window(from_, to, against)
    return json_response(await run_in_threadpool(_drift, services, named, window, against))


def _drift(services: Services, version: Version, window: Window, against: Against) -> dict[str, Any]:
    with services.reader.connect() as connection:
        stored = find_profile_of(connection, version)
        drift = find_drift(connection, version.id, stored.profile, window, against)
        is_complete = is_counted(connection, version.id, stored.counted_through, window.end)
    body = asdict(drift)
    return {
        "model": version.card.name,
        "version": version.card.version,
        "window": {"from": window.start, "to": window.end},
        "against": against,
        **body,
        "thresholds": THRESHOLDS,
        "is_complete": is_complete,
    }


@router.get("/metrics/model", responses={200: {"model": QualityBody}, **RESPONSES}, response_model=None)
async def get_model_metrics(
    services: ServicesDep,
    caller: AdminCaller,
    model: Model = None,
    version: Number = None,
    from_: From = None,
    to: To = None,
) -> Response:
    """Report the quality of a model on rows with a known outcome, beside the figures of its card.

    The answer covers each version that scored in the window, or the requested one; each figure has a 95 % interval.
    """
    named = await find_version(services, model, version, archived=True)
    window = read_window(from_, to)
    is_one = names_version(model, version)
    versions = selected_versions(services, named, model, version)
    windows = await run_in_threadpool(_quality, services, versions, window, keep_empty=is_one)
    card = {"card": named.card.metrics, "card_of": named.card.metrics_of}
    return json_response({"model": named.card.name, "windows": windows, **card})


def _quality(services: Services, versions: list[Version], window: Window, *, keep_empty: bool) -> list[dict[str, Any]]:
    items = []
    with reader(services.bulk_engine).connect() as connection:
        for version in versions:
            card = version.card
            judged = find_judged(connection, version.id, card, window.start, window.end)
            if not judged.actual and not keep_empty:
                continue
            metrics, bins = quality_of(card, judged)
            items.append(
                {
                    "version": card.version,
                    "from": window.start,
                    "to": window.end,
                    "rows": len(judged.actual),
                    "metrics": {name: asdict(estimate) for name, estimate in metrics.items()},
                    "calibration": [asdict(each) for each in bins],
                    "roc": [asdict(each) for each in roc_of(card, judged)],
                    "card": card.metrics,
                    "card_of": card.metrics_of,
                }
            )
    return items


@router.get("/alerts", responses={200: {"model": AlertPage}, **RESPONSES}, response_model=None)
async def get_alerts(
    services: ServicesDep,
    caller: AdminCaller,
    model: Annotated[
        str | None, Query(description="Only alerts of this model, or of `name@3` or `name@alias`", max_length=130)
    ] = None,
    kind: Annotated[Literal["drift", "self_audit"] | None, Query(description="Only alerts of this kind")] = None,
    is_open: Annotated[
        bool | None, Query(alias="open", description="true: only open alerts; false: only closed ones")
    ] = None,
    is_acknowledged: Annotated[
        bool | None,
        Query(alias="acknowledged", description="true: only acknowledged alerts; false: only the others"),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Alerts on a page")] = 50,
    before: Annotated[int | None, Query(ge=1, le=2**62, description="Only alerts with a lower id: the cursor")] = None,
) -> Response:
    """List alerts, newest first; follow `next` for older ones.

    An hourly check compares the last day of each version with its reference. It opens an alert for each feature that
    has a level, and closes it when the feature has none any more. The self-audit opens one when a fast scorer and the
    pipeline disagree on a row; the pipeline then scores the version until the alert is acknowledged.
    """

    name, number = model, None
    if model is not None and "@" in model:
        card = (await find_version(services, model, None, archived=True)).card
        name, number = card.name, card.version

    def read() -> list[Any]:
        with services.reader.connect() as connection:
            return list_alerts(
                connection,
                name=name,
                version=number,
                kind=kind,
                is_open=is_open,
                is_acknowledged=is_acknowledged,
                before=before,
                limit=limit + 1,
            )

    alerts = await run_in_threadpool(read)
    following = None
    if len(alerts) > limit:
        place = {"limit": limit, "before": alerts[limit - 1].id, "model": model, "kind": kind, "open": is_open}
        place["acknowledged"] = is_acknowledged
        query = {name: str(value).lower() if isinstance(value, bool) else value for name, value in place.items()}
        following = link("/alerts?") + urlencode({name: value for name, value in query.items() if value is not None})
    return json_response({"items": [_alert_body(row) for row in alerts[:limit]], "next": following})


@router.post(
    "/alerts/{id}/acknowledge",
    responses={
        200: {"model": AlertBody},
        409: {**PROBLEM, "description": "The alert is already acknowledged by someone else or with another reason."},
        **RESPONSES,
        404: {**PROBLEM, "description": "No such alert."},
        422: {**PROBLEM, "description": "The body has no reason, or has other fields."},
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/AcknowledgeBody"}}},
        }
    },
    response_model=None,
)
async def acknowledge_alert(
    request: Request,
    services: ServicesDep,
    caller: AdminCaller,
    alert_id: Annotated[int, Path(alias="id", ge=1, le=2**62, description="The alert's id, from GET /alerts")],
) -> Response:
    """Acknowledge an alert, with a reason: it stays open, but counts as handled.

    The hourly check closes it when the drift ends, and a higher level needs a new acknowledgement. The audit log
    records the key and the reason. Repeating the same request changes nothing. An alert of the self-audit is closed
    at once, and the fast scorer of its version serves again.
    """
    _, raw = await read_json(request, max_bytes=services.settings.max_body_bytes)
    body = read_fields(AcknowledgeBody, raw)

    def store() -> Any:  # noqa: ANN401 - a row of alerts
        with services.engine.begin() as connection:
            return acknowledge(
                connection, alert_id, by=caller.actor, reason=body.reason, request_id=request_id_of(request)
            )

    return json_response(_alert_body(await run_in_threadpool(store)))


def _alert_body(row: Any) -> dict[str, Any]:  # noqa: ANN401 - a row of alerts
    fields = ("kind", "subject", "level", "details", "opened_at", "seen_at", "closed_at")
    acknowledgement = ("acknowledged_at", "acknowledged_by", "reason")
    return {
        "id": row.id,
        "model": row.name,
        "version": row.version,
        **{name: getattr(row, name) for name in (*fields, *acknowledgement)},
    }
