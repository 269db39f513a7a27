"""The front door: a page for people, and for programs the served models, their field names, and links to the rest."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.console.page_route import remember_language
from api.console.pages.models import home_page
from api.deps import ServicesDep, may_read
from api.http.conditional import parse_accept, preferred_type
from api.http.prefix import link
from api.http.responses import json_response
from api.http.wording import NATIVE
from api.models.serializers import front_door_body

router = APIRouter()

DOCS = "/docs"
VARY = "Accept, Authorization, X-API-Key"
_HTML = "text/html"
_JSON = (_HTML, "application/json", NATIVE)  # a program that asks for JSON reads it here


@router.get("/", include_in_schema=False, response_model=None)
async def root(request: Request, services: ServicesDep) -> Response:
    """Show browsers the front page of the console, and list the served models and their field names for programs.

    A program that takes any type is led to the documentation. Without a key that may read, where one is needed, no
    model is told.
    """
    accept = request.headers.get("accept")
    prefers_html = preferred_type(accept, _JSON) == _HTML
    if prefers_html and _HTML in parse_accept(accept or ""):
        response = await home_page(request)
        remember_language(request, response)
        return response
    body = front_door_body(services.catalog, with_models=await may_read(request))
    if prefers_html:
        return json_response(body, status=307, headers={"Location": link(DOCS), "Vary": VARY})
    return json_response(body, headers={"Vary": VARY})
