"""The OpenAPI document, with a real example for each registered model: /docs can be used by hand."""

import csv
import io
import re
from collections.abc import Iterable
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from api.deps import Asks, asks, may_read
from api.http.about import Protocol, about_of, api_routes
from api.jobs.requests import WRAPPER
from api.models.catalog import Catalog, Version
from api.models.serializers import batch_request_body, request_body, words_body
from api.protocols.open_inference.inference import example_request
from api.protocols.open_inference.schemas import InferenceBody
from api.schemas.answers import PROBLEM, header
from api.schemas.cards import add_refusals, add_rows, add_words
from api.schemas.explanations import ExplainJobBody
from api.schemas.job_changes import JobChangesBody
from api.schemas.keys import NewKeyBody
from api.schemas.models.registrations import RegistrationForm
from api.schemas.models.registry import PromotionBody, ReasonBody
from api.schemas.models.replays import ReplayBody
from api.schemas.models.trainings import TrainBody
from api.schemas.monitoring import AcknowledgeBody, OutcomeBody
from api.schemas.native import BatchBody, Problem, SubmitBody
from shared.cards.card import Card
from shared.version import VERSION

State = tuple[str | None, tuple[int, ...]]  # the default model, and the versions that serve

DESCRIPTION = """
Take a ticket; a worker scores your row; every input and output is stored.

`POST /jobs` answers 202 at once; poll `GET /jobs/{id}`. `POST /predict` waits for the result
(`Prefer: wait=N`, `Prefer: respond-async`). `POST /predict_csv` takes a whole file: follow `/jobs/{id}/events`, then
download `/jobs/{id}/output.csv`. Errors are RFC 9457 problem documents that list every fault.

A model's card may hold the field names of a client that was made for another service. With `Accept:
application/vnd.guichet+json`, any model answers with the service's own field names.
"""
FOR_READERS = """
For callers who may read models, this document lists the models, with their features and an example of each:
`curl -H "Authorization: Bearer KEY" .../openapi.json`.
"""
BEFORE_ROUTING = """
The server refuses requests that are too large or too slow before it matches their path, always with a problem document:
400 for a request that is not HTTP/1.1, 408, 414, 431, 501 for a Transfer-Encoding other than chunked, 503 for too many
connections.
"""
LICENSE = {"name": "Apache License 2.0", "identifier": "Apache-2.0"}  # of the service
TAGS = {
    "predict": "Submit rows as JSON: a ticket at once, or the result if it comes within the wait.",
    "explain": "The reasons of a score: the contribution of each feature.",
    "csv": "Submit whole files.",
    "jobs": "Poll, follow, read, cancel and retry submitted jobs.",
    "files": "Download the rows of a CSV job with their scores, and the faults of the others.",
    "outcomes": "Send the outcomes of scored rows.",
    "models": "The models, their features, example rows, and the version that serves.",
    "monitoring": "Drift of the rows since the training of a model, and the present quality of the model.",
    "open inference": "The Open Inference Protocol, version 2, as KServe, Triton and MLServer speak it.",
    "mlflow": "The paths of MLflow's scoring server and of SageMaker's hosts.",
    "keys": "Make, list, rotate and revoke API keys.",
    "operations": "Numbers of the whole service, for Prometheus and for people, and its logs.",
    "health": "Life, readiness and health of the service: open to everyone.",
}
# Bodies that routes read by hand: FastAPI does not know them.
_READ_BY_HAND = (
    SubmitBody,
    BatchBody,
    ExplainJobBody,
    InferenceBody,
    OutcomeBody,
    AcknowledgeBody,
    JobChangesBody,
    PromotionBody,
    ReasonBody,
    ReplayBody,
    TrainBody,
    RegistrationForm,
    NewKeyBody,
    Problem,
)
MAX_WRITTEN = 8


# Answers of the layers around the routes, beside the answers that each route declares.
_BY_OTHERS = "With AUTH=open, the request comes from a web page of another host."
_BY_ALL = {
    403: "The key lacks the scope.",
    422: "A parameter is not valid, or unknown.",
}
_BY_KEY = {
    401: "No API key, or an unknown one.",
    429: "Over the caller's quota: see Retry-After.",
    503: "The database does not answer: see Retry-After.",
}
_BY_BODY = {
    400: "The body is cut off, or contradicts its headers.",
    408: "The body arrives too slowly.",
    413: "Too many bytes.",
    415: "The body has no type, or one that this route does not read.",
}
# Headers of refusals.
_HEADERS = {
    "401": {"WWW-Authenticate": header("The way to send a key")},
    "429": {"Retry-After": header("Seconds after which the caller may try again", "integer")},
    "503": {"Retry-After": header("Seconds after which it is worth trying again", "integer")},
}
_KEY: list[dict[str, list[str]]] = [{"bearer": []}, {"api_key": []}]


class Document:
    """The OpenAPI document of an application, without its models and with them; built once for each state of both."""

    def __init__(self, app: FastAPI, routers: Iterable[APIRouter]) -> None:
        self._app = app
        self._routers = tuple(routers)
        self._base: dict[str, Any] = {}
        self._state: State | None = None
        self._with_models: dict[str, Any] = {}
        self._written: dict[tuple[bool, str], bytes] = {}  # by whether models are in it, and the path prefix

    def render(self, *, with_models: bool, prefix: str) -> bytes:
        """Return the document as JSON, below a path prefix; `with_models` is for callers who may read them."""
        catalog = self._app.state.services.catalog
        served = _served(catalog) if with_models else []
        cards = [version.card for _, version in sorted(catalog.snapshot.by_id.items())] if with_models else []
        state = catalog.default_model(), (*(version.id for version in served), *sorted(catalog.snapshot.by_id))
        if not self._base:
            self._base = describe(self._app, self._routers)
        if with_models and state != self._state:
            default = catalog.default_model()
            self._with_models = _with_models(self._base, self._routers, served, cards, default)
            self._state = state
            self._written.clear()
        if len(self._written) >= MAX_WRITTEN:  # a prefix is a caller's word where a proxy is heard
            self._written.clear()
        key = with_models, prefix
        if key not in self._written:
            document = self._with_models if with_models else self._base
            self._written[key] = orjson.dumps({**document, "servers": [{"url": prefix or "/"}]})
        return self._written[key]


def install(app: FastAPI, routers: Iterable[APIRouter]) -> None:
    """Answer /openapi.json: everyone reads the routes, and only callers who may read models see the models."""
    document = Document(app, routers)
    path = app.openapi_url
    assert path is not None

    async def openapi(request: Request) -> Response:
        content = document.render(with_models=await may_read(request), prefix=request.scope.get("root_path", ""))
        return Response(content, media_type="application/json", headers={"Vary": "Authorization, X-API-Key"})

    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", None) != path]
    app.add_route(path, openapi, include_in_schema=False)


def describe(app: FastAPI, routers: Iterable[APIRouter]) -> dict[str, Any]:
    """Return the document of an application's routes, without the models; the application need not have started."""
    auth = app.state.settings.auth
    description = DESCRIPTION + BEFORE_ROUTING + (FOR_READERS if auth == "keys" else "")
    tags = [{"name": name, "description": text} for name, text in TAGS.items()]
    base = get_openapi(
        title="Guichet", version=VERSION, description=description, routes=app.routes, tags=tags, license_info=LICENSE
    )
    schemas = base["components"]["schemas"]
    for body in _READ_BY_HAND:
        schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[body.__name__] = schema
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    for route in api_routes(routers):
        if route.include_in_schema:
            for method in route.methods or ():
                _complete(app, route, base["paths"][route.path_format][method.lower()])
    if auth != "open":
        base["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer", "description": "API key"},
            "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "API key"},
        }
    return base


def _complete(app: FastAPI, route: APIRoute, operation: dict[str, Any]) -> None:
    """Add to an operation its summary, the callers that may use it, and the refusals of the layers around it."""
    # The docstring up to its first colon or full stop.
    operation["summary"] = re.split(r"[:.](?:\s|$)", operation["description"])[0]
    auth = app.state.settings.auth
    level, scope = asks(route)
    if auth == "open" or level == Asks.NOTHING:
        operation["security"] = []
    else:
        operation["security"] = [{}, *_KEY] if auth == "predict-open" and level == Asks.KEY_OR_VISITOR else _KEY
    protocol = app.state.paths.at(route.path_format).protocol
    _add_refusals_of_all(operation, protocol, is_open=level == Asks.NOTHING)
    refusal = operation["responses"]["403"]
    scopes = re.sub(
        r"The key lacks the scope( `read`)?(?=[.;])", f"The key lacks the scope {scope}", refusal["description"]
    )
    operation["responses"]["403"] = {**refusal, "description": scopes if scope else _BY_OTHERS}


def _add_refusals_of_all(operation: dict[str, Any], protocol: Protocol | None, *, is_open: bool) -> None:
    """Describe how the layers around a route refuse, in the form that its protocol gives errors."""
    responses = operation["responses"]
    content = PROBLEM if protocol is None else _json(protocol.error_schema)
    if "HTTPValidationError" in str(responses.get("422")):  # FastAPI describes its own error, which is never sent
        del responses["422"]
    descriptions = {**_BY_ALL, **({} if is_open else _BY_KEY), **(_BY_BODY if "requestBody" in operation else {})}
    for status, description in descriptions.items():
        number = 400 if status == 422 and protocol is not None else status  # neither protocol has 422
        responses.setdefault(str(number), {"description": description, **content})
    for name, headers in _HEADERS.items():
        if name in responses:
            responses[name] = {**responses[name], "headers": headers}


def _json(name: str) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}}


def _served(catalog: Catalog) -> list[Version]:
    """Return the version of each model that serves now, the default model first: it is the one that /docs fills in."""
    served = [version for name in sorted(catalog.snapshot.by_name) if (version := catalog.find(name, None)) is not None]
    default = catalog.default_model()
    return sorted(served, key=lambda version: version.card.name != default)


def _with_models(
    base: dict[str, Any], routers: Iterable[APIRouter], served: list[Version], cards: list[Card], default: str | None
) -> dict[str, Any]:
    """Return the document with the row and an example of each model, and the words of every version's card."""
    paths = dict(base["paths"])
    schemas = add_words(add_rows(base["components"]["schemas"], [version.card for version in served]), cards)
    for route in api_routes(routers):
        sends = about_of(route).sends
        path = route.path_format
        for method in (name.lower() for name in route.methods or () if sends is not None):
            if sends in ("row", "rows"):
                operation = paths[path][method]
                responses = add_refusals(operation["responses"], cards)
                paths[path] = {**paths[path], method: {**operation, "responses": responses}}
            paths[path] = _with_body(paths[path], method, _examples(route, served, default))
    info = {
        **base["info"],
        "description": DESCRIPTION + BEFORE_ROUTING + "".join(_words(version, default) for version in served),
    }
    return {**base, "info": info, "paths": paths, "components": {**base["components"], "schemas": schemas}}


def _words(version: Version, default: str | None) -> str:
    """Return a line of the description: the field names that a model uses."""
    words = words_body(version.card)
    refusal = words["refusal"]
    place = " (at `/predict` too)" if version.card.name == default else ""
    return (
        f"\n* **{version.label}**{place}, field names: {words['whose']}. The row is {words['row']}, the answer has "
        f"{', '.join(words['answer'])}, and a row that does not fit is refused with {refusal['status']}."
    )


def _with_body(item: dict[str, Any], method: str, examples: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a path whose method has these examples in its body, by media type."""
    body = item[method]["requestBody"]
    content = {
        kind: {**media, "examples": examples[kind]} if kind in examples else media
        for kind, media in body["content"].items()
    }
    return {**item, method: {**item[method], "requestBody": {**body, "content": content}}}


def _examples(route: APIRoute, served: list[Version], default: str | None) -> dict[str, dict[str, Any]]:
    """Return example bodies of a route, by media type and model."""
    if about_of(route).explains:
        served = [version for version in served if version.explained_by is not None]
    if about_of(route).sends == "file":
        return {
            kind: {version.card.name: _file(route, version, delimiter, default=default) for version in served}
            for kind, delimiter in (("text/csv", ","), ("text/tab-separated-values", "\t"))
        }
    values = ((version, _value(route, version, default=default)) for version in served)
    return {
        "application/json": {
            version.card.name: {"summary": version.label, "value": value}
            for version, value in values
            if value is not None
        }
    }


def _names_model(route: APIRoute) -> bool:
    """Return whether a route's path names the model."""
    return "name" in route.param_convertors


def _file(route: APIRoute, version: Version, delimiter: str, *, default: str | None) -> dict[str, str]:
    """Return a file with one row, and which model it is for."""
    text = io.StringIO()
    row = version.card.example()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(row)
    writer.writerow([str(cell).lower() if isinstance(cell, bool) else cell for cell in row.values()])
    is_meant = _names_model(route) or version.card.name == default
    summary = version.label if is_meant else f"{version.label} (set the parameter model to {version.card.name})"
    return {"summary": summary, "value": text.getvalue()}


def _value(route: APIRoute, version: Version, *, default: str | None) -> Any:  # noqa: ANN401 - an object, a list or None
    """Return a body with one row, None where the route has no way to name this model."""
    card = version.card
    sends = about_of(route).sends
    is_meant = _names_model(route) or card.name == default
    row = card.example()
    if sends == "tensors":
        return example_request(card)
    if sends == "dataframe":
        return {"dataframe_records": [row]} if is_meant else None
    if sends == "rows":
        return batch_request_body(card, [row, row]) if is_meant else {"model": card.name, "rows": [row, row]}
    if _names_model(route) or (card.input == "flat" and card.name == default):
        return request_body(card, row)
    if card.input == "flat" and WRAPPER in row:  # a feature, so that no row can be put inside it
        return None if "model" in row else {"model": card.name} | row
    # Every other model takes its row in `features`, whatever its card says.
    return {"model": card.name, WRAPPER: row}
