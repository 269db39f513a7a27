"""Answers in the OpenAPI document that several routes share: refusals, tickets, headers."""

from typing import Any

from api.schemas.native import JobBody

# How OpenAPI describes an error answer; api/openapi.py brings the schema.
PROBLEM: dict[str, Any] = {
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
}


def header(description: str, kind: str = "string", *, always: bool = False) -> dict[str, Any]:
    """Return the OpenAPI description of an answer's header; `always` if every such answer has it."""
    return {"description": description, "schema": {"type": kind}, **({"required": True} if always else {})}


def problems(descriptions: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of error answers, by status."""
    return {status: {**PROBLEM, "description": description} for status, description in descriptions.items()}


APPLIED: dict[str, Any] = {"Preference-Applied": header("The applied preferences of `Prefer` (RFC 7240)")}
# Beside a job that goes on.
TICKET: dict[str, Any] = {
    "Location": header("Where to poll: `/jobs/{id}`", always=True),
    "Retry-After": header("Seconds after which it is worth polling", "integer", always=True),
    **APPLIED,
}
# Beside what a job came to.
ENDED_AS: dict[str, Any] = {"Content-Location": header("The job: `/jobs/{id}`", always=True), **APPLIED}


# ── submissions ──────────────────────────────────────────────────────────────────────────────────────────────────────

ACCEPTED: dict[str, Any] = {
    "model": JobBody,
    "description": "Accepted and stored. Location is the address to poll, Retry-After the delay.",
    "headers": TICKET,
}
REFUSALS = problems(
    {
        400: "The body is not plain JSON.",
        401: "No API key, or an unknown one.",
        403: "The key lacks the scope `predict`.",
        404: "No such model or version.",
        409: "The first request with this Idempotency-Key is still being stored.",
        413: "Too many bytes or rows.",
        415: "The body is not JSON.",
        422: "The row does not fit the card; every fault is listed.",
        429: "Over the caller's quota: see Retry-After.",
        503: "Service full, database down, or no model registered: see Retry-After.",
    }
)
ENDED = problems({500: "The model raised on this row.", 504: "The job ran out of its own timeout."})

# Of every upload; each route adds its own.
OF_UPLOADS = problems(
    {
        401: "No API key, or an unknown one.",
        408: "The upload is too slow.",
        409: "The first request with this Idempotency-Key is still being received.",
        429: "Over the caller's quota: see Retry-After.",
    }
)


def stored(noun: str) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of the 202 for an upload; `noun` is the stored part."""
    description = f"{noun} stored. Location is the address to poll, Retry-After the delay."
    return {202: {"model": JobBody, "description": description, "headers": TICKET}}


PREFER = {  # for OpenAPI, since routes read the header by hand
    "name": "Prefer",
    "in": "header",
    "schema": {"type": "string"},
    "description": "`respond-async`, or `wait=N` seconds (RFC 7240)",
}
KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "Sending the same request again with the same key gives the same job",
}


# ── jobs and models ──────────────────────────────────────────────────────────────────────────────────────────────────

OF_JOBS: dict[int | str, dict[str, Any]] = {
    401: {**PROBLEM, "description": "No API key, or an unknown one."},
    403: {**PROBLEM, "description": "The key lacks the scope."},
    404: {**PROBLEM, "description": "No such job, or it is someone else's."},
    410: {**PROBLEM, "description": "The job was erased."},
    503: {**PROBLEM, "description": "The database does not answer."},
}
OF_MODELS: dict[int | str, dict[str, Any]] = {
    401: {**PROBLEM, "description": "No API key, or an unknown one."},
    403: {**PROBLEM, "description": "The key lacks the scope `read`."},
}
NO_MODEL: dict[int | str, dict[str, Any]] = {
    404: {**PROBLEM, "description": "No such model or version."},
    503: {**PROBLEM, "description": "No model is registered."},
}
