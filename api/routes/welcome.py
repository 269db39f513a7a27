"""The front door: the served models, their field names, and links to everything else."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.deps import ServicesDep, may_read
from api.http.conditional import preferred_type
from api.http.prefix import link
from api.http.responses import json_response
from api.http.wording import NATIVE
from api.models.serializers import front_door_body

router = APIRouter()

DOCS = "/docs"
VARY = "Accept, Authorization, X-API-Key"
_JSON = ("text/html", "application/json", NATIVE)  # a browser is led on; a program that asks for JSON reads it here


@router.get("/", include_in_schema=False, response_model=None)
async def root(request: Request, services: ServicesDep) -> Response:
    """Redirect browsers to the documentation, and list the served models and their field names for programs.

    Without a key that may read, where one is needed, no model is told.
    """
    body = front_door_body(services.catalog, with_models=await may_read(request))
    if preferred_type(request.headers.get("accept"), _JSON) == "text/html":
        return json_response(body, status=307, headers={"Location": link(DOCS), "Vary": VARY})
    return json_response(body, headers={"Vary": VARY})
