"""Deciding stored rows again by another version."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.deps import AdminCaller, ServicesDep
from api.files.replays import submit_replay
from api.schemas.answers import KEY, PROBLEM, REFUSALS, TICKET
from api.schemas.models.replays import ReplayBody
from api.schemas.native import JobBody

router = APIRouter(tags=["models"])

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{ReplayBody.__name__}"}}},
    },
    "parameters": [KEY],
}


@router.post(
    "/replays",
    status_code=202,
    responses={
        202: {"model": JobBody, "description": "Accepted: Location says where to poll.", "headers": TICKET},
        **REFUSALS,
        403: {**PROBLEM, "description": "The key lacks the scope `admin`: the decisions are everyone's."},
        404: {**PROBLEM, "description": "No such model or version, or it is archived."},
        409: {
            **PROBLEM,
            "description": "No decision is stored in the window, or the version takes other features (`detail` says "
            "which), or the first request with this Idempotency-Key is still being stored.",
        },
        413: {**PROBLEM, "description": "Too many bytes."},
        422: {**PROBLEM, "description": "The body is not valid, or the window has too many decisions."},
    },
    openapi_extra=_BODY,
    response_model=None,
)
async def replay(request: Request, services: ServicesDep, caller: AdminCaller) -> Response:
    """Score every stored row of a window again with another version, in the background: a job with progress.

    Its result compares both: agreement, flips both ways with McNemar's exact p, score shift, segments, cost, quality
    where outcomes are known, and the largest disagreements. `output.csv` has both decisions of every row. Stored
    decisions do not change.
    """
    return await submit_replay(services, request, caller)
