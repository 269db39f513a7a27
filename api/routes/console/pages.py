"""The console's pages: `/console` and what is below it. They are for people, and no part of the documented API."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api.auth.key_format import is_key
from api.console.asking import Refused, ask
from api.console.assets import asset_response
from api.console.forms import read_form
from api.console.live import figures_response
from api.console.page_route import PageRoute
from api.console.pages.job_changes import change_page
from api.console.pages.jobs import FILES, JobFile, change_job, explain_row, job_page, jobs_page, note_outcome
from api.console.pages.models import (
    check_file,
    model_page,
    models_page,
    move_alias,
    predict,
    predict_page,
    upload,
    upload_page,
)
from api.console.pages.overview import overview_page
from api.console.rendering import SIGN_IN, page, see_other
from api.console.session import begin_session, end_session, viewer_of
from shared.errors import NotFound

router = APIRouter(prefix="/console", route_class=PageRoute, include_in_schema=False)


@router.get("", response_model=None)
async def get_overview(request: Request) -> Response:
    """Show how the service is and what it does."""
    return await overview_page(request)


@router.get("/live", response_model=None)
async def get_live(request: Request) -> Response:
    """Send the figures of the overview as they change."""
    return figures_response(request)


@router.get("/static/{digest}/{name}", response_model=None)
async def get_asset(request: Request, digest: str, name: str) -> Response:
    """Send a file that pages load."""
    return asset_response(request, digest, name)


# ── sign in ──────────────────────────────────────────────────────────────────────────────────────────────────────


@router.get("/sign-in", response_model=None)
async def get_sign_in(
    request: Request, following: Annotated[str, Query(alias="next")] = "", reason: str = ""
) -> Response:
    """Show where one signs in."""
    viewer = viewer_of(request)
    if not viewer.needs_key or (viewer.is_signed_in and not reason):
        return see_other(_local(following))
    return await page(request, "sign_in.html", following=_local(following), reason=reason, fault=None)


@router.post("/sign-in", response_model=None)
async def post_sign_in(request: Request) -> Response:
    """Begin a session with an API key."""
    fields = await read_form(request)
    key, following = fields.get("key", "").strip(), _local(fields.get("next", ""))
    fault = None if is_key(key) else "no_key" if not key else "form"
    if fault is None:
        reply = await ask(request, "GET", "/models", key=key)
        if reply.status == 401:
            fault = "unknown"
        elif reply.status >= 400 and reply.status != 403:
            raise Refused(reply)
    if fault is not None:
        return await page(request, "sign_in.html", 401, following=following, reason="", fault=fault)
    response = see_other(following)
    begin_session(request, response, key)
    return response


@router.post("/sign-out", response_model=None)
async def post_sign_out(request: Request) -> Response:
    """End the session in this browser."""
    response = see_other(SIGN_IN, reason="signed_out")
    end_session(request, response)
    return response


def _local(address: str) -> str:
    """Return a page of the console to go to, with its query; the overview for whatever is none."""
    path = address.partition("?")[0]
    is_plain = address.isascii() and address.isprintable() and not set(address) & set("\\#") and "%" not in path
    is_page = path == "/console" or path.startswith("/console/")
    return address if is_plain and is_page and "/.." not in path else "/console"


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────


@router.get("/models", response_model=None)
async def get_models_page(request: Request) -> Response:
    """Show the models."""
    return await models_page(request)


@router.get("/models/{name}", response_model=None)
async def get_model_page(request: Request, name: str) -> Response:
    """Show a model."""
    return await model_page(request, name)


@router.post("/models/{name}/promote", response_model=None)
async def post_promotion(request: Request, name: str) -> Response:
    """Make a version the champion."""
    return await move_alias(request, name, back=False)


@router.post("/models/{name}/rollback", response_model=None)
async def post_rollback(request: Request, name: str) -> Response:
    """Make the version before the last move the champion again."""
    return await move_alias(request, name, back=True)


@router.get("/models/{name}/predict", response_model=None)
async def get_predict_page(request: Request, name: str) -> Response:
    """Show the form of a row."""
    return await predict_page(request, name)


@router.post("/models/{name}/predict", response_model=None)
async def post_predict(request: Request, name: str) -> Response:
    """Score the row of the form."""
    return await predict(request, name)


@router.get("/models/{name}/upload", response_model=None)
async def get_upload_page(request: Request, name: str) -> Response:
    """Show where a file is chosen."""
    return await upload_page(request, name)


@router.post("/models/{name}/check", response_model=None)
async def post_check(request: Request, name: str) -> Response:
    """Check a file and show the report."""
    return await check_file(request, name)


@router.post("/models/{name}/upload", response_model=None)
async def post_upload(request: Request, name: str) -> Response:
    """Score a file."""
    return await upload(request, name)


# ── jobs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@router.get("/jobs", response_model=None)
async def get_jobs_page(request: Request) -> Response:
    """Show the reader's jobs."""
    return await jobs_page(request)


@router.post("/jobs/change", response_model=None)
async def post_changes(request: Request) -> Response:
    """Ask whether so many jobs are meant, then cancel them or take them up again."""
    return await change_page(request)


@router.get("/jobs/{job_id}", response_model=None)
async def get_job_page(request: Request, job_id: str) -> Response:
    """Show a job."""
    return await job_page(request, job_id)


@router.post("/jobs/{job_id}/cancel", response_model=None)
async def post_cancel(request: Request, job_id: str) -> Response:
    """Cancel a job."""
    return await change_job(request, job_id, "cancel")


@router.post("/jobs/{job_id}/retry", response_model=None)
async def post_retry(request: Request, job_id: str) -> Response:
    """Take a job up again."""
    return await change_job(request, job_id, "retry")


@router.post("/jobs/{job_id}/outcome", response_model=None)
async def post_outcome(request: Request, job_id: str) -> Response:
    """Note what became of a row of a job."""
    return await note_outcome(request, job_id)


@router.post("/jobs/{job_id}/explain", response_model=None)
async def post_explanation(request: Request, job_id: str) -> Response:
    """Have a row of a job explained."""
    return await explain_row(request, job_id)


@router.get("/jobs/{job_id}/{file}", response_model=None)
async def get_job_file(request: Request, job_id: str, file: str) -> Response:
    """Download a file of a job."""
    if file not in FILES:
        raise NotFound("A job has the files output.csv and errors.csv.")
    return JobFile(request, job_id, file)


@router.get("/{rest:path}", response_model=None)
async def get_nothing(request: Request, rest: str) -> Response:
    """Answer with the page for an unknown address."""
    raise NotFound("There is no such page of the console.")
