"""The challenger of a model beside its champion."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.deps import AdminCaller, ServicesDep
from api.http.responses import json_response
from api.jobs.requests import find_version
from api.models.catalog import Version
from api.monitoring.comparison import Question, check, read_moments, report_on
from api.monitoring.windows import RESPONSES, From, To
from api.schemas.answers import PROBLEM
from api.schemas.models.replays import ChallengerBody
from api.services import Services
from shared.comparison.shadow_state import CHALLENGER
from shared.errors import NotFound

router = APIRouter(tags=["models"])

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": ChallengerBody},
    **RESPONSES,
    404: {**PROBLEM, "description": "No such model or version, or the model has no challenger."},
    409: {
        **PROBLEM,
        "description": "The challenger scored no row of the window, takes other features, or is the champion itself: "
        "`detail` says which, and what to do.",
    },
}
Cost = Annotated[float, Query(ge=0, le=1e12, allow_inf_nan=False, description="Cost of one such decision")]


@router.get("/models/{name}/comparison", responses=_ANSWERS, response_model=None)
async def get_comparison(
    services: ServicesDep,
    caller: AdminCaller,
    name: Annotated[
        str,
        Path(max_length=200, description="Model; `name@3` or `name@alias`: what this version scored as a challenger"),
    ],
    from_: From = None,
    to: To = None,
    decided_by: Annotated[
        int | None, Query(ge=1, le=2**31 - 1, description="Version that decided; the champion when left out")
    ] = None,
    cost_fp: Cost = 1.0,
    cost_fn: Cost = 1.0,
) -> Response:
    """Compare the champion's decisions with the challenger's shadow scores of the same rows.

    The answer has flips both ways with McNemar's exact p, score shift, segments, cost at each version's threshold,
    paired differences of quality where outcomes are known, and the ten largest disagreements. `before` is the
    champion, `after` the challenger.
    """
    champion = await find_version(services, name.partition("@")[0], decided_by, archived=True)
    challenger = await _challenger(services, name, champion)
    question = Question(champion, challenger, *read_moments(from_, to), (cost_fp, cost_fn))
    check(question)
    return json_response(await run_in_threadpool(report_on, services, question))


async def _challenger(services: Services, name: str, champion: Version) -> Version:
    """Return the version that is compared; raise NotFound for a model without a challenger."""
    if "@" in name:
        return await find_version(services, name, None, archived=True)
    model = champion.card.name
    challenger = services.catalog.find(f"{model}@{CHALLENGER}", None)
    if challenger is None:  # it may have been set just now, by a command
        await run_in_threadpool(services.catalog.refresh_if_stale)
        challenger = services.catalog.find(f"{model}@{CHALLENGER}", None)
    if challenger is None:
        raise NotFound(
            f"{model} has no challenger. Set one: PUT /models/{model}/aliases/{CHALLENGER} with a version and a "
            f"reason; or compare an earlier one: GET /models/{model}@2/comparison, for example."
        )
    return challenger
