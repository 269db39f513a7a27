"""Pages of jobs: the list with its filters in the address, one job with its rows, and its files."""

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from api.console.asking import RawHeaders, ask, inner_scope, read, send
from api.console.rendering import page, problem_page, see_other
from shared.tables import JobState

PAGE = 25  # jobs on a page
SHOWN_ROWS = 100  # of a batch
ENDED = ("succeeded", "failed", "canceled", "expired")
FILES = ("output.csv", "errors.csv")
_OF_FILES = frozenset([b"accept-encoding", b"range", b"if-range", b"if-none-match"])


async def jobs_page(request: Request) -> Response:
    """Return a page of the reader's jobs: the address holds the filter and the place."""
    chosen = {name: request.query_params.get(name, "").strip() for name in ("status", "model", "before")}
    query = {name: value for name, value in chosen.items() if value}
    jobs = await read(request, "/jobs", limit=PAGE, **query)
    older = None if jobs["next"] is None else dict(parse_qsl(urlsplit(jobs["next"]).query))["before"]
    models = await read(request, "/models")
    return await page(
        request,
        "jobs.html",
        jobs=jobs["items"],
        older=older,
        chosen=chosen,
        is_filtered=bool(query.keys() - {"before"}),
        states=[state.value for state in JobState],
        models=[item["model"] for item in models["items"]],
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
        has_ended=job["status"] in ENDED,
        result=result,
        rows=[] if result is None else result.get("items", []),
        lineage=lineage,
        row=row,
        shown=SHOWN_ROWS,
    )


async def _result(request: Request, job: dict[str, Any]) -> dict[str, Any] | None:
    """Return the result of a job that has one, as its kind has it."""
    if job["status"] != "succeeded":
        return None
    reply = await ask(request, "GET", f"/jobs/{job['id']}/result")
    result: dict[str, Any] | None = reply.body if reply.status == 200 else None
    return result


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
