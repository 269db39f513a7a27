"""Pages that compare two versions: what a challenger says beside the champion, and replays of stored decisions."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.console.asking import Refused, Reply, ask, check_signed_in, read
from api.console.forms import moment_of, number_of, read_form
from api.console.pages.models import read_model
from api.console.pages.quality import window_of
from api.console.rendering import page, see_other
from shared.errors import NotFound

ENDED = ("succeeded", "failed", "canceled", "expired")
REFUSED = (404, 409, 422)  # answers that are shown beside a form


async def comparison_page(request: Request, name: str) -> Response:
    """Return what a model's challenger says of the rows that its champion decided, or why there is nothing."""
    model = await read_model(request, name.partition("@")[0])
    query = {part: request.query_params.get(part, "").strip() or None for part in ("cost_fp", "cost_fn", "decided_by")}
    path = f"/models/{name}/comparison"
    reply = await ask(request, "GET", path, query={**window_of(request), **query})
    if reply.status not in (200, 404, 409):
        raise Refused(reply)
    return await page(
        request,
        "comparison.html",
        name=name,
        model=model,
        report=reply.body if reply.status == 200 else None,
        refusal=reply.body if reply.status != 200 else None,
        window={part: request.query_params.get(part, "").strip() for part in ("from", "to")},
        costs={part: query[part] or "1" for part in ("cost_fp", "cost_fn")},
    )


# ── replays ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def replay_form(
    request: Request, name: str, *, fields: dict[str, str] | None = None, refusal: Reply | None = None
) -> Response:
    """Return the form that starts a replay by a version of a model."""
    await check_signed_in(request)
    _, _, version = name.partition("@")
    model = await read_model(request, name)
    entries = (await read(request, "/models"))["items"]
    versions: list[int] = next((entry["versions"] for entry in entries if entry["model"] == model["model"]), [])
    return await page(
        request,
        "replay.html",
        200 if refusal is None else refusal.status,
        name=model["model"],
        versions=sorted(versions, reverse=True),
        fields=fields or {"version": version if version.isdigit() else str(model["model_version"])},
        refusal=None if refusal is None else refusal.body,
    )


async def start_replay(request: Request, name: str) -> Response:
    """Start the replay of a form, and lead the browser to its page; a refusal is shown beside the form."""
    await read(request, f"/models/{name}")
    fields = await read_form(request)
    body = {
        "model": name,
        "version": number_of(fields.get("version", "")),
        "from": moment_of(fields.get("from", "")),
        "to": moment_of(fields.get("to", "")),
        "cost_fp": number_of(fields.get("cost_fp", "")),
        "cost_fn": number_of(fields.get("cost_fn", "")),
    }
    sent: dict[str, Any] = {part: value for part, value in body.items() if value is not None}
    if fields.get("decided_by", "").strip():
        sent["filter"] = {"version": number_of(fields["decided_by"])}
    reply = await ask(request, "POST", "/replays", json=sent)
    if reply.status in REFUSED:
        return await replay_form(request, name, fields=fields, refusal=reply)
    if reply.status >= 400:
        raise Refused(reply)
    return see_other(f"/console/replays/{reply.body['id']}")


async def replay_page(request: Request, job_id: str) -> Response:
    """Return the page of a replay: its progress, then its report; raise NotFound for another kind of job."""
    job, result = await read_job(request, job_id, kind="replay")
    return await page(request, "replay_report.html", job=job, has_ended=job["status"] in ENDED, report=result)


async def read_job(request: Request, job_id: str, *, kind: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return a job of this kind and its result, None while it has none; raise NotFound for another kind."""
    job = await read(request, f"/jobs/{job_id}")
    if job["kind"] != kind:
        raise NotFound(f"The job is no {kind}: /console/jobs/{job['id']} shows it.")
    return job, await read(request, f"/jobs/{job['id']}/result") if job["status"] == "succeeded" else None
