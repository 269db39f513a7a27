"""From a request of the Open Inference Protocol to its answer: tensors to scores, and the index of all versions."""

import gzip
import zlib

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from api.auth.callers import Caller
from api.jobs.json_body import in_turn, most_of, parse_json, read_body
from api.jobs.requests import find_version, submitted_rows
from api.jobs.submissions import submit_for_scores
from api.models.catalog import Version
from api.protocols.open_inference.body import BINARY, JSON_LENGTH, read_tensor_body
from api.protocols.open_inference.inference import Inference, inference_answer, read_inference
from api.services import Services
from shared.errors import RowFaults
from shared.jobs.queries.jobs import StoredJob, StoredOutput


async def find_version_of(services: Services, name: str, number: str | None) -> Version:
    """Return the version that a path names; a text that is no number names none."""
    if number is None:
        return await find_version(services, name, None)
    is_number = number.isascii() and number.isdigit() and len(number) < 10
    return await find_version(services, name, int(number) if is_number else 0)


async def read_index(request: Request, services: Services, caller: Caller) -> list[dict[str, str]]:
    """Return every version of every model; a body with a true `ready` leaves out those that cannot be loaded."""
    body = await read_body(request, max_bytes=services.settings.max_body_bytes)
    query = await in_turn(len(body), lambda: parse_json(body) if body.strip() else {})
    if not isinstance(query, dict):
        raise RowFaults('The body must be an object such as {"ready": true}, or left out.')
    if not isinstance(query.get("ready", False), bool | None):
        raise RowFaults("`ready` must be true or false: true leaves out what cannot be loaded.")
    refused = services.runtime.model_states().refused
    if caller.is_visitor:  # the reasons name paths
        refused = dict.fromkeys(refused, "It cannot be loaded.")
    entries = [
        {
            "name": name,
            "version": str(number),
            "state": "UNAVAILABLE" if version.label in refused else "READY",
            "reason": refused.get(version.label, ""),
        }
        for name, versions in sorted(services.catalog.snapshot.by_name.items())
        for number, version in sorted(versions.items())
    ]
    return [entry for entry in entries if entry["state"] == "READY" or query.get("ready") is not True]


async def score_tensors(
    request: Request, services: Services, caller: Caller, name: str, number: str | None
) -> Response:
    """Score the rows that a request's tensors hold as one job, and answer with the outputs that it asks for."""
    settings = services.settings
    max_rows = settings.max_batch_rows
    # Each element of a tensor may be in a list of its own.
    most = most_of(max_rows, containers=100, features=services.catalog.snapshot.widest)
    body = await read_tensor_body(request, max_bytes=settings.max_body_bytes, most=most)
    version = await find_version_of(services, name, number)
    inference = await in_turn(len(body.raw), lambda: read_inference(version, body, max_rows=max_rows))

    async def render(job: StoredJob, outputs: list[StoredOutput]) -> Response:
        return await _answer(services, request, job, inference, outputs)

    submitted = submitted_rows(services, version, inference.rows, body.raw)
    return await submit_for_scores(services, request, caller, submitted, render=render)


async def _answer(
    services: Services, request: Request, job: StoredJob, inference: Inference, outputs: list[StoredOutput]
) -> Response:
    version = services.catalog.version_of(job)
    if job.row_count > 100:
        body, head = await run_in_threadpool(inference_answer, version, inference, outputs, job_id=job.id)
    else:
        body, head = inference_answer(version, inference, outputs, job_id=job.id)
    headers = {} if head is None else {JSON_LENGTH: str(head)}
    # Only who asks for one coding alone, as Triton's client does, gets it: most name several out of habit.
    coding = request.headers.get("accept-encoding", "").strip().lower()
    if coding in ("gzip", "deflate"):
        body = gzip.compress(body, 6) if coding == "gzip" else zlib.compress(body)
        headers["Content-Encoding"] = coding
    return Response(body, headers=headers, media_type="application/json" if head is None else BINARY)
