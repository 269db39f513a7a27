"""Pages of jobs: the list with its filters in the address, one job with its rows, and its files."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from api.console.asking import RawHeaders, Refused, ask, inner_scope, read, send
from api.console.filters import (
    NAMES,
    Unreadable,
    address_query,
    completions,
    parameters,
    read_box,
    write_box,
)
from api.console.forms import read_form
from api.console.language import read_moment
from api.console.pages.models import read_health
from api.console.rendering import page, problem_page, see_other
from shared.errors import InvalidRequest
from shared.tables import JobState

PAGE = 25  # jobs on a page
STATES = tuple(state.value for state in JobState)
SHOWN_ROWS = 100  # of a batch
PATIENCE = timedelta(seconds=3)  # with a job that is queued
ENDED = ("succeeded", "failed", "canceled", "expired")
FILES = ("output.csv", "errors.csv")
_OF_FILES = frozenset([b"accept-encoding", b"range", b"if-range", b"if-none-match"])


async def jobs_page(request: Request) -> Response:
    """Return a page of the reader's jobs: the address holds the filter and the place.

    What is written into the box leads to the address that says the same; the id of a job leads to its page.
    """
    box = request.query_params.get("q")
    if box is not None:
        try:
            chosen = read_box(box)
        except Unreadable as fault:
            return await _list(request, {}, box=box, fault=fault)
        if "job" in chosen:
            return see_other(f"/console/jobs/{chosen['job']}")
        return see_other(f"/console/jobs{address_query(chosen)}")
    chosen = {name: request.query_params.get(name, "").strip() for name in NAMES}
    return await _list(request, chosen, box=write_box(chosen))


async def _list(request: Request, chosen: dict[str, str], *, box: str, fault: Unreadable | None = None) -> Response:
    """Return the list, or the box alone with what is wrong about the filter."""
    before = request.query_params.get("before", "").strip() or None
    jobs: dict[str, Any] = {"items": [], "next": None}
    refusal: dict[str, Any] | None = None
    status = 200 if fault is None else 422
    if fault is None:
        query = {**parameters(chosen, now=datetime.now(UTC)), "before": before}
        reply = await ask(request, "GET", "/jobs", query={"limit": PAGE, **query})
        if reply.status in (404, 422):
            refusal, status = reply.body, reply.status
        elif reply.status >= 400:
            raise Refused(reply)
        else:
            jobs = reply.body
    models = [item["model"] for item in (await read(request, "/models"))["items"]]
    older = None if jobs["next"] is None else dict(parse_qsl(urlsplit(jobs["next"]).query))["before"]
    return await page(
        request,
        "jobs.html",
        status,
        jobs=jobs["items"],
        older=None if older is None else address_query(chosen, before=older),
        newest=address_query(chosen) if before else None,
        quick=[(state, address_query({**chosen, "status": state})) for state in ("", *STATES)],
        chosen=chosen,
        box=box,
        fault=fault,
        refusal=refusal,
        is_filtered=bool(write_box(chosen)) or bool(before),
        completions=completions(models),
    )


async def job_page(request: Request, job_id: str) -> Response:
    """Return the page of a job; its input is on it when it is asked for, and that is noted where reading it is."""
    job = await read(request, f"/jobs/{job_id}")
    shows_input = request.query_params.get("show") == "input"
    row = request.query_params.get("row", "0")
    lineage = await read(request, f"/jobs/{job_id}/lineage", row=row) if shows_input else None
    result = await _result(request, job)
    return await page(
        request,
        "job.html",
        job=job,
        health=await read_health(request) if _waits_long(job) else None,
        has_ended=job["status"] in ENDED,
        result=result,
        rows=[] if result is None else result.get("items", []),
        lineage=lineage,
        outcomes=await _outcomes(request, lineage),
        row=row,
        shown=SHOWN_ROWS,
    )


def _waits_long(job: dict[str, Any]) -> bool:
    """Tell whether a job waits for so long that its page says how the service is."""
    return job["status"] == "queued" and datetime.now(UTC) - read_moment(job["created_at"]) > PATIENCE


async def _result(request: Request, job: dict[str, Any]) -> dict[str, Any] | None:
    """Return the result of a job that has one, as its kind has it."""
    if job["status"] != "succeeded":
        return None
    reply = await ask(request, "GET", f"/jobs/{job['id']}/result")
    result: dict[str, Any] | None = reply.body if reply.status == 200 else None
    return result


async def _outcomes(request: Request, lineage: dict[str, Any] | None) -> list[str]:
    """Return what may have become of a row, where its model knows classes."""
    if lineage is None:
        return []
    version = lineage["version"]
    reply = await ask(request, "GET", f"/models/{version['model']}@{version['version']}")
    return list((reply.body["card"].get("labels") or {}).values()) if reply.status == 200 else []


async def note_outcome(request: Request, job_id: str) -> Response:
    """Store what became of a row of a job, and lead the browser back to it."""
    await read(request, f"/jobs/{job_id}")  # a stranger is refused before the form is read
    fields = await read_form(request)
    row = _row_of(fields)
    query = {"revise": True} if fields.get("revise") else {}
    body = {"actual": fields.get("actual", "").strip(), "row": row}
    reply = await ask(request, "POST", f"/jobs/{job_id}/outcome", query=query, json=body)
    if reply.status >= 400:
        raise Refused(reply)
    return see_other(f"/console/jobs/{job_id}", show="input", row=row)


async def explain_row(request: Request, job_id: str) -> Response:
    """Have a row of a job explained: lead the browser to the job that does so, or return a part of a page for htmx."""
    await read(request, f"/jobs/{job_id}")  # a stranger is refused before the form is read
    body = {"job_id": job_id, "row": _row_of(await read_form(request))}
    reply = await ask(request, "POST", "/explain", json=body, headers={"Prefer": "wait=10"})
    if request.headers.get("hx-request"):
        return await page(request, "reasons.html", 200 if reply.status < 400 else reply.status, reply=reply)
    if reply.status >= 400:
        raise Refused(reply)
    return see_other(f"/console/jobs/{reply.body['id' if reply.status == 202 else 'job_id']}")


def _row_of(fields: dict[str, str]) -> int:
    row = fields.get("row", "0")
    if not (row.isascii() and row.isdigit() and len(row) < 10):
        raise InvalidRequest("The row is not a number: open the page of the job and send the form from there.")
    return int(row)


async def change_job(request: Request, job_id: str, change: str) -> Response:
    """Cancel a job or take it up again, and lead the browser back to its page."""
    await send(request, f"/jobs/{job_id}/{change}")
    return see_other(f"/console/jobs/{job_id}")


class JobFile(Response):
    """A file of a job, passed on piece by piece as its route sends it; a refusal becomes a page."""

    def __init__(self, request: Request, job_id: str, file: str) -> None:
        super().__init__()
        raw: RawHeaders = [header for header in request.headers.raw if header[0] in _OF_FILES]
        raw.append((b"accept", b"*/*"))
        query = dict(request.query_params)
        self._request = request
        self._scope = inner_scope(request, "GET", f"/jobs/{job_id}/{file}", query=query, headers=raw)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, or the page that says why there is none."""
        refusal: Message = {}
        pieces = []

        async def pass_on(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                refusal.update(message)
            elif refusal:
                pieces.append(message.get("body", b""))
            else:
                await send(message)

        await self._request.app(self._scope, receive, pass_on)
        if refusal:
            response = await problem_page(
                self._request,
                refusal["status"],
                orjson.loads(b"".join(pieces)),
                retry_after=Headers(raw=refusal["headers"]).get("retry-after"),
            )
            await response(scope, receive, send)
