"""Adding models by upload: `POST /models`."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.deps import AdminCaller, ServicesDep
from api.files.models import receive_model
from api.schemas.answers import KEY, OF_UPLOADS, problems, stored
from api.schemas.models.registrations import RegistrationForm

router = APIRouter(tags=["models"])

RESPONSES: dict[int | str, dict[str, Any]] = {
    **stored("All files are"),
    **OF_UPLOADS,
    **problems(
        {
            400: "The form is damaged or cut off.",
            403: "MODEL_UPLOADS is off, or the key lacks the scope `admin`.",
            413: "The files are larger than MAX_MODEL_BYTES together.",
            415: "The body is no form.",
            422: "A field is missing, unknown or not valid, or the artefact is no joblib file and no archive.",
            503: "Too many uploads, disk full, or database down: see Retry-After.",
        }
    ),
}
# The route reads the body by hand, as it arrives, so OpenAPI needs this description.
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
