"""Changes of the jobs that were chosen, or of all that match the filter, after a page that has the count."""

from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.console.asking import Refused, ask, read, send
from api.console.filters import NAMES, address_query, parameters, write_box
from api.console.forms import read_form
from api.console.rendering import page
from api.http.prefix import link
from shared.errors import InvalidRequest

CHOSEN = "job:"  # before the id of a job, in the name of its box
VERBS = ("cancel", "retry")


async def change_page(request: Request) -> Response:
    """Return the page that asks whether so many jobs are meant, or that says what became of them."""
    await read(request, "/jobs", limit=1)  # a stranger is refused before the form is read
    fields = await read_form(request)
    verb, _, scope = fields.get("change", "").partition("_")
    if verb not in VERBS or scope not in ("", "all"):
        raise InvalidRequest("This page takes its own form only: open the list of jobs and send it from there.")
    filters = {name: fields.get(name, "") for name in NAMES}
    change = _change_all if scope else _change_chosen
    values = await change(request, verb, fields, filters)
    shown: dict[str, Any] = {
        "outcome": None,
        "count": 0,
        "is_lower_bound": False,
        "is_all": bool(scope),
        "box": write_box(filters) if scope else "",
        "kept": {},
    }
    back = link("/console/jobs") + address_query(filters)
    return await page(request, "change.html", **(shown | values | {"verb": verb, "back": back}))


async def _change_chosen(
    request: Request, verb: str, fields: dict[str, str], filters: dict[str, str]
) -> dict[str, Any]:
    """Change one job after the other, each by its own route, once that is confirmed."""
    ids = [name.removeprefix(CHOSEN) for name in fields if name.startswith(CHOSEN)]
    kept = {name: value for name, value in filters.items() if value} | {CHOSEN + job_id: "on" for job_id in ids}
    if "confirmed" not in fields or not ids:
        return {"count": len(ids), "kept": kept | {"change": verb, "confirmed": "yes"}}
    reasons = []
    for job_id in ids:
        reply = await ask(request, "POST", f"/jobs/{job_id}/{verb}", json={})
        if reply.status in (404, 409, 410):
            reasons.append((job_id, reply.body["detail"]))
        elif reply.status >= 400:
            raise Refused(reply)
    outcome = {"changed": len(ids) - len(reasons), "refused": len(reasons), "reasons": reasons, "has_more": False}
    return {"outcome": outcome}


async def _change_all(request: Request, verb: str, fields: dict[str, str], filters: dict[str, str]) -> dict[str, Any]:
    """Count what matches, or change what was counted: `asked_at` holds the moment that lengths of time count from."""
    asked_at = fields.get("asked_at") or datetime.now(UTC).isoformat()
    body: dict[str, Any] = {**parameters(filters, now=_moment(asked_at))}
    kept = {name: value for name, value in filters.items() if value}
    kept |= {"change": f"{verb}_all", "asked_at": asked_at}
    if confirm := fields.get("confirm"):
        outcome = await send(request, f"/jobs/{verb}", body | {"confirm": confirm})
        return {"outcome": outcome | {"reasons": []}, "kept": kept | {"confirm": confirm}}
    counted = await send(request, f"/jobs/{verb}", body)
    return {
        "count": counted["count"],
        "is_lower_bound": counted["is_lower_bound"],
        "kept": kept | {"confirm": counted["confirm"]},
    }


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest("The form is damaged: open the list of jobs and send it from there.") from None
