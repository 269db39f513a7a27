"""Adding models by upload: `POST /models`."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.deps import AdminCaller, ServicesDep
from api.files.models import receive_model
from api.schemas.answers import KEY, PROBLEM, TICKET
from api.schemas.native import JobBody
from api.schemas.registrations import RegistrationForm

router = APIRouter(tags=["models"])

RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {
        "model": JobBody,
        "description": "All files are stored. Location is the address to poll, Retry-After the delay.",
        "headers": TICKET,
    },
    **{
        status: {**PROBLEM, "description": text}
        for status, text in {
            400: "The form is damaged or cut off.",
            401: "No API key, or an unknown one.",
            403: "MODEL_UPLOADS is off, or the key lacks the scope `admin`.",
            408: "The upload hardly moves.",
            409: "The first request with this Idempotency-Key is still being received.",
            413: "The files are larger than MAX_MODEL_BYTES together.",
            415: "The body is no form.",
            422: "A field is missing, unknown or not valid, or the artefact is no joblib file and no archive.",
            429: "Over the caller's quota: see Retry-After.",
            503: "Too many uploads, disk full, or database down: see Retry-After.",
        }.items()
    },
}
# The body is read by hand, as it comes; OpenAPI is told of it by hand.
REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": {"$ref": f"#/components/schemas/{RegistrationForm.__name__}"}}},
    },
    "parameters": [KEY],
}


@router.post("/models", status_code=202, responses=RESPONSES, openapi_extra=REQUEST, response_model=None)
async def post_model(request: Request, services: ServicesDep, caller: AdminCaller) -> Response:
    """Add a model by upload, in the background: a joblib file, a skops file, or the zipped folder that MLflow saved.

    A separate process reads and checks it, with limits of time and memory. It becomes the next version of its name:
    the first version serves at once, a later one when it is promoted. A model's file is a program, so this is off
    unless MODEL_UPLOADS=on. The fields are the options of `python -m shared.registry add`.
    """
    return await receive_model(services, request, caller)
