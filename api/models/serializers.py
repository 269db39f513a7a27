"""Models as callers see them: the list, a version, its features, examples, and the front door."""

from typing import Any

from api.http.prefix import link
from api.http.wording import NATIVE
from api.models.catalog import Catalog, Version
from shared.cards.card import Card
from shared.cards.response import Refusal
from shared.version import VERSION


def models_body(catalog: Catalog) -> dict[str, Any]:
    """Return the list of models, by name, with their versions and aliases."""
    snapshot, default = catalog.snapshot, catalog.default_model()
    items = []
    for version in _served(catalog):
        name = version.card.name
        items.append(
            {
                "model": name,
                "description": version.card.description,
                "task": version.card.task,
                "versions": sorted(snapshot.by_name[name]),
                "archived": sorted(snapshot.archived.get(name, {})),
                "aliases": {
                    alias: snapshot.by_id[number].card.version
                    for alias, number in sorted(snapshot.aliases.get(name, {}).items())
                },
                "is_default": name == default,
                "links": {"self": link(f"/models/{name}"), "predict": link(f"/models/{name}/predict")},
            }
        )
    return {"items": items}


def version_body(version: Version, catalog: Catalog) -> dict[str, Any]:
    """Return a model version: its card, how it is scored, and which aliases mean it."""
    aliases = catalog.snapshot.aliases.get(version.card.name, {})
    return {
        "model": version.card.name,
        "model_version": version.card.version,
        "model_sha256": version.sha256,
        "aliases": sorted(alias for alias, number in aliases.items() if number == version.id),
        "state": "archived" if catalog.is_archived(version) else "serving",
        "created_at": version.created_at,
        "card": version.card.model_dump(mode="json"),
        "example": version.card.example(),
        "words": words_body(version.card),
        "scorer": {name: value for name, value in version.scorer.items() if name not in _NOT_OF_SCORER},
        "explanation": version.scorer.get("explanation"),
        "links": {
            "self": link(f"/models/{version.card.name}/versions/{version.card.version}"),
            "predict": link(f"/models/{version.card.name}/predict"),
        },
    }


_NOT_OF_SCORER = ("reference_sha256", "explanation")  # what the report holds besides
ANSWER = ("prediction", "label", "probability", "threshold", "latency_ms")


def words_body(card: Card) -> dict[str, Any]:
    """Return the form of requests and answers, with the field names of the card's client or the native ones."""
    refusal = card.refusal or Refusal()
    fields = list(card.response.fields) if card.response is not None else []
    is_own = card.response is None and card.refusal is None
    return {
        "whose": card.client or ("Guichet's own" if is_own else "those of a client, by the model's card"),
        "row": "the body itself" if card.input == "flat" else f"in `{card.wrapper}`",
        "batch": "the body itself, a list" if card.batch_input == "flat" else f"in `{card.batch_wrapper}`",
        "answer": fields or list(ANSWER),
        "refusal": {"status": refusal.status, "body": refusal.body},
    }


def request_body(card: Card, row: dict[str, Any]) -> dict[str, Any]:
    """Return the body that sends a row to this model's own `predict`."""
    return row if card.input == "flat" else {card.wrapper: row}


def batch_request_body(card: Card, rows: list[dict[str, Any]]) -> Any:  # noqa: ANN401 - an object, or a list
    """Return the body that sends rows to this model's own `predict_batch`."""
    return rows if card.batch_input == "flat" else {card.batch_wrapper: rows}


def features_body(version: Version) -> dict[str, Any]:
    """Return the features of a model with their types and limits, and the strictness of reading them."""
    card = version.card
    return {
        "model": card.name,
        "model_version": card.version,
        "n_features": len(card.sent_features),
        "names": [feature.name for feature in card.sent_features],
        "input": card.input,
        "wrapper": None if card.input == "flat" else card.wrapper,
        "batch_input": card.batch_input,
        "batch_wrapper": card.batch_wrapper,
        "missing": card.missing,
        "extra": card.extra,
        "text": card.text,
        "features": [feature.model_dump(mode="json", exclude_none=True) for feature in card.sent_features],
        "derived": {feature.name: feature.derived for feature in card.features if feature.derived is not None},
        "rules": [rule.expression for rule in card.rules],
    }


def examples_body(catalog: Catalog) -> dict[str, Any]:
    """Return an example body for every model, and links to further rows."""
    default = catalog.default_model()
    return {
        "items": [
            {
                "model": version.card.name,
                "model_version": version.card.version,
                "is_default": version.card.name == default,
                "request": request_body(version.card, version.card.example()),
                "links": {
                    "predict": link(f"/models/{version.card.name}/predict"),
                    "json": link(f"/models/{version.card.name}/examples.json"),
                    "csv": link(f"/models/{version.card.name}/examples.csv"),
                    "features": link(f"/models/{version.card.name}/features"),
                },
            }
            for version in _served(catalog)
        ]
    }


def front_door_body(catalog: Catalog, *, with_models: bool) -> dict[str, Any]:
    """Return the links of `/` for new callers, and the models for callers that may read them."""
    body: dict[str, Any] = {"name": "guichet", "version": VERSION}
    if with_models:
        body["default_model"] = default = catalog.default_model()
        body["models"] = [
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
            for version in _served(catalog)
        ]
    body["own_words"] = (
        f"Send `Accept: {NATIVE}`, and every model answers and refuses with the service's own field names."
    )
    body["links"] = {name: link(f"/{name}") for name in ("docs", "models", "examples", "health")}
    return body


def _served(catalog: Catalog) -> list[Version]:
    """Return the version of each model that serves now, by name."""
    versions = (catalog.find(name, None) for name in sorted(catalog.snapshot.by_name))
    return [version for version in versions if version is not None]
