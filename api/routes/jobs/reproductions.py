"""Making a past decision again: `POST /jobs/{id}/reproduce`."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api.deps import AdminCaller, JobId, ServicesDep
from api.files.reproductions import submit_reproduction
from api.schemas.answers import KEY, OF_JOBS, PROBLEM, TICKET
from api.schemas.native import JobBody

router = APIRouter(tags=["jobs"])


@router.post(
    "/jobs/{id}/reproduce",
    status_code=202,
    responses={
        202: {"model": JobBody, "description": "Accepted. Location is the address to poll.", "headers": TICKET},
        400: {**PROBLEM, "description": "The Idempotency-Key is too long or not printable."},
        409: {**PROBLEM, "description": "The job has not ended, or has no scores of its own."},
        422: {**PROBLEM, "description": "The job has no such row, or a parameter is not valid."},
        **OF_JOBS,
    },
    openapi_extra={"parameters": [KEY]},
    response_model=None,
)
async def reproduce_job(
    request: Request,
    services: ServicesDep,
    caller: AdminCaller,
    job_id: JobId,
    row: Annotated[
        int | None, Query(ge=0, le=2**31 - 1, description="Only this row, from 0; every row when left out")
    ] = None,
) -> Response:
    """Score stored rows of a job again by the artefact that decided, and compare the scores bit for bit.

    A job: a process of its own loads the artefact by its SHA-256. The result says what decided (artefact, card, scorer,
    libraries, threshold, promotion) and names what has changed since: artefact, card, input, output or libraries.
    """
    return await submit_reproduction(services, request, caller, job_id, row)
