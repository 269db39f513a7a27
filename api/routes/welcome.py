"""The front door: which models are served, in whose words, and where to go from here."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.deps import ServicesDep, may_read
from api.http.conditional import preferred_type
from api.http.prefix import link
from api.http.responses import json_response
from api.http.wording import NATIVE
from api.jobs.serializers import words_body
from api.services import Services
from shared.version import VERSION

router = APIRouter()

DOCS = "/docs"
VARY = "Accept, Authorization, X-API-Key"
_JSON = ("text/html", "application/json", NATIVE)  # a browser is led on; a program that asks for JSON reads it here


@router.get("/", include_in_schema=False, response_model=None)
async def root(request: Request, services: ServicesDep) -> Response:
    """Lead a browser to the documentation, and tell programs which models there are and whose words they speak.

    Without a key that may read, where one is needed, no model is told.
    """
    body = describe(services)
    if not await may_read(request):
        del body["models"], body["default_model"]
    if preferred_type(request.headers.get("accept"), _JSON) == "text/html":
        return json_response(body, status=307, headers={"Location": link(DOCS), "Vary": VARY})
    return json_response(body, headers={"Vary": VARY})


def describe(services: Services) -> dict[str, Any]:
    """Return what there is, for who has read nothing yet."""
    catalog = services.catalog
    default = catalog.default_model()
    served = [version for name in sorted(catalog.picture.by_name) if (version := catalog.find(name, None)) is not None]
    return {
        "name": "guichet",
        "version": VERSION,
        "default_model": default,
        "models": [
            {
                "model": version.card.name,
                "model_version": version.card.version,
                "description": version.card.description,
                "is_default": version.card.name == default,
                "words": words_body(version.card),
                "links": {
                    "self": link(f"/models/{version.card.name}"),
                    "predict": link(f"/models/{version.card.name}/predict"),
                    "features": link(f"/models/{version.card.name}/features"),
                },
            }
            for version in served
        ],
        "own_words": f"Send `Accept: {NATIVE}`, and every model answers and refuses in the words of the service.",
        "links": {name: link(f"/{name}") for name in ("docs", "models", "examples", "health")},
    }
