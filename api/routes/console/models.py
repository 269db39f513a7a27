"""The console's pages of what becomes of models: drift, quality, comparisons, replays, trainings, model cards."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.console.page_route import PageRoute
from api.console.pages.comparing import comparison_page, replay_form, replay_page, start_replay
from api.console.pages.model_card import card_page
from api.console.pages.quality import quality_page
from api.console.pages.training import train_again, train_page, train_with_file, training_page

router = APIRouter(prefix="/console", route_class=PageRoute, include_in_schema=False)


@router.get("/models/{name}/quality", response_model=None)
async def get_quality_page(request: Request, name: str) -> Response:
    """Show drift and quality of a model."""
    return await quality_page(request, name)


@router.get("/models/{name}/card", response_model=None)
async def get_card_page(request: Request, name: str) -> Response:
    """Show the model card, for paper too."""
    return await card_page(request, name)


@router.get("/models/{name}/comparison", response_model=None)
async def get_comparison_page(request: Request, name: str) -> Response:
    """Show the challenger beside the champion."""
    return await comparison_page(request, name)


# ── replays ──────────────────────────────────────────────────────────────────────────────────────────────────────


@router.get("/models/{name}/replay", response_model=None)
async def get_replay_form(request: Request, name: str) -> Response:
    """Show the form of a replay."""
    return await replay_form(request, name)


@router.post("/models/{name}/replay", response_model=None)
async def post_replay(request: Request, name: str) -> Response:
    """Start a replay."""
    return await start_replay(request, name)


@router.get("/replays/{job_id}", response_model=None)
async def get_replay_page(request: Request, job_id: str) -> Response:
    """Show a replay."""
    return await replay_page(request, job_id)


# ── trainings ────────────────────────────────────────────────────────────────────────────────────────────────────


@router.get("/train", response_model=None)
async def get_train_page(request: Request) -> Response:
    """Show the forms of a training."""
    return await train_page(request)


@router.post("/train", response_model=None)
async def post_train(request: Request) -> Response:
    """Train on a file."""
    return await train_with_file(request)


@router.post("/train/again", response_model=None)
async def post_train_again(request: Request) -> Response:
    """Train on what the service has itself."""
    return await train_again(request)


@router.get("/trainings/{job_id}", response_model=None)
async def get_training_page(request: Request, job_id: str) -> Response:
    """Show a training."""
    return await training_page(request, job_id)
