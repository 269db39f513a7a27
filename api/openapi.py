"""OpenAPI with a real example for each registered model: /docs can be used by hand."""

import csv
import io
import re
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.catalog import Catalog, Version
from api.checks import WRAPPER
from api.inference import example_request
from api.representations import batch_request_body, request_body, words_body
from api.responses import PROBLEM
from api.schemas import BatchBody, Problem, SubmitBody
from api.tensor_schemas import InferenceBody
from shared.version import VERSION

DESCRIPTION = """
Take a ticket, a worker scores your row, every input and output is kept.

`POST /jobs` answers 202 at once; poll `GET /jobs/{id}`. `POST /predict` waits for the result
(`Prefer: wait=N`, `Prefer: respond-async`). `POST /predict_csv` takes a whole file: follow `/jobs/{id}/events`, then
download `/jobs/{id}/output.csv`. Errors are RFC 9457 problem documents that list every fault.

Clients that were made for other services find their words where a model's card has them. `Accept:
application/vnd.guichet+json` asks any model for the service's own.
"""
_OPEN = ("/health", "/livez", "/readyz", "/version", "/ping", "/v2/health/live", "/v2/health/ready")
_INFER = ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer")
_INVOCATIONS = ("/invocations", "/models/{name}/invocations")
_SUBMITTING = (
    *(("/jobs", "post"), ("/jobs/{id}", "put"), ("/predict", "post"), ("/predict_batch", "post")),
    *(("/models/{name}/predict", "post"), ("/models/{name}/predict_batch", "post")),
    *((path, "post") for path in (*_INFER, *_INVOCATIONS)),
)
_SENDING_FILES = ("/predict_csv", "/models/{name}/predict_csv")


def install(app: FastAPI) -> None:
    """Generate the document from the routes once, and its examples from the models that are registered now."""
    base: dict[str, Any] = {}

    def document() -> dict[str, Any]:
        if not base:
            base.update(
                get_openapi(
                    title="Guichet", version=VERSION, description=DESCRIPTION, routes=app.routes, tags=app.openapi_tags
                )
            )
            schemas = base["components"]["schemas"]
            for body in (SubmitBody, BatchBody, InferenceBody, Problem):
                schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas.update(schema.pop("$defs", {}))
                schemas[body.__name__] = schema
            schemas.pop("HTTPValidationError", None)
            schemas.pop("ValidationError", None)
            for path in _OPEN:
                base["paths"][path]["get"]["security"] = []
            for path, item in base["paths"].items():
                for operation in item.values() if path.startswith("/v2") or path in _INVOCATIONS else ():
                    operation["responses"].pop("422", None)  # neither protocol has it
            for operation in _operations(base):
                # The docstring up to its first colon or full stop.
                operation["summary"] = re.split(r"[:.](?:\s|$)", operation["description"])[0]
                if "422" in operation["responses"]:  # FastAPI describes its own error, which is never sent
                    operation["responses"]["422"] |= PROBLEM
            base["components"]["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer", "description": "API key"},
                "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
            base["security"] = [{"bearer": []}, {"api_key": []}, {}]
        return _with_examples(base, app.state.services.catalog)

    app.openapi = document  # type: ignore[method-assign]


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


def _with_examples(base: dict[str, Any], catalog: Catalog) -> dict[str, Any]:
    served = [version for name in sorted(catalog.picture.by_name) if (version := catalog.find(name, None)) is not None]
    # The default model first: it is the one that /docs fills in.
    default = catalog.default_model()
    served.sort(key=lambda version: version.card.name != default)
    paths = dict(base["paths"])
    schemas = dict(base["components"]["schemas"])
    for version in served:
        schemas[f"{version.card.name}_row"] = version.card.json_schema()
    for path, method in _SUBMITTING:
        examples = {
            version.card.name: {"summary": version.label, "value": value}
            for version in served
            if (value := _value(path, version, default=default)) is not None
        }
        paths[path] = _with_body(paths[path], method, {"application/json": examples})
    for path in _SENDING_FILES:
        files = {
            kind: {version.card.name: _file(path, version, delimiter, default=default) for version in served}
            for kind, delimiter in (("text/csv", ","), ("text/tab-separated-values", "\t"))
        }
        paths[path] = _with_body(paths[path], "post", files)
    info = {**base["info"], "description": DESCRIPTION + "".join(_words(version, default) for version in served)}
    return {**base, "info": info, "paths": paths, "components": {**base["components"], "schemas": schemas}}


def _words(version: Version, default: str | None) -> str:
    """Return a line of the description: whose words a model speaks."""
    words = words_body(version.card)
    refusal = words["refusal"]
    place = " (at `/predict` too)" if version.card.name == default else ""
    return (
        f"\n* **{version.label}**{place} speaks words that are {words['whose']}: the row is {words['row']}, the answer "
        f"has {', '.join(words['answer'])}, and a row that does not fit is refused with {refusal['status']}."
    )


def _with_body(item: dict[str, Any], method: str, examples: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a path whose method has these examples in its body, by media type."""
    body = item[method]["requestBody"]
    content = {
        kind: {**media, "examples": examples[kind]} if kind in examples else media
        for kind, media in body["content"].items()
    }
    return {**item, method: {**item[method], "requestBody": {**body, "content": content}}}


def _file(path: str, version: Version, delimiter: str, *, default: str | None) -> dict[str, str]:
    """Return a file with one row, and which model it is for."""
    text = io.StringIO()
    row = version.card.example()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(row)
    writer.writerow([str(cell).lower() if isinstance(cell, bool) else cell for cell in row.values()])
    is_meant = path != "/predict_csv" or version.card.name == default
    summary = version.label if is_meant else f"{version.label} (set the parameter model to {version.card.name})"
    return {"summary": summary, "value": text.getvalue()}


def _value(path: str, version: Version, *, default: str | None) -> Any:  # noqa: ANN401 - an object, a list or None
    """Return a body with one row, None where the path has no way to name this model."""
    card = version.card
    if path in _INFER:
        return example_request(card)
    row = card.example()
    if path in _INVOCATIONS:
        return None if path == "/invocations" and card.name != default else {"dataframe_records": [row]}
    if path.endswith("/predict_batch"):
        if path.startswith("/models/") or card.name == default:
            return batch_request_body(card, [row, row])
        return {"model": card.name, "rows": [row, row]}
    if path.startswith("/models/") or (card.input == "flat" and card.name == default):
        return request_body(card, row)
    if card.input == "flat" and WRAPPER in row:  # a feature, so that no row can be put inside it
        return None if "model" in row else {"model": card.name} | row
    # Every other model takes its row in `features`, whatever its card says.
    return {"model": card.name, WRAPPER: row}
