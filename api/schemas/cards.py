"""Changes of the OpenAPI document by the models' cards: bodies, fields of answers, forms of refusals."""

from collections.abc import Iterable
from typing import Any

from shared.cards.card import Card
from shared.cards.response import Refusal, ResponseField

Schema = dict[str, Any]

# Schemas of the service's own words, of which a card may choose others.
RESULT, BATCH, ITEM = "Result", "BatchResult", "BatchItem"
ROW_BODY, ROWS_BODY = "SubmitBody", "BatchBody"

_SENTENCE: Schema = {
    "type": "object",
    "properties": {"detail": {"type": "string"}},
    "required": ["detail"],
    "additionalProperties": False,
}
_LISTED: Schema = {
    "type": "object",
    "properties": {
        "detail": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "type": {"type": "string"},
                    "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                    "msg": {"type": "string"},
                },
                "required": ["type", "loc", "msg"],
            },
        }
    },
    "required": ["detail"],
    "additionalProperties": False,
}
_FORMS = {"detail": _SENTENCE, "message": _SENTENCE, "fastapi": _LISTED}


def add_rows(schemas: dict[str, Schema], cards: Iterable[Card]) -> dict[str, Schema]:
    """Return the schemas of the document with the row of each of these cards, which the service's own bodies name.

    They still allow every object: other versions have other rows, and a row of a batch that does not fit gets its
    faults.
    """
    rows = {f"{card.name}_row": card.json_schema() for card in cards}
    row: Schema = {"anyOf": [*map(_reference, rows), {"type": "object"}]}
    single, batch = schemas[ROW_BODY], schemas[ROWS_BODY]
    features, listed = single["properties"]["features"], batch["properties"]["rows"]
    features = {"title": features["title"], "description": features["description"], **row}
    return {
        **schemas,
        **rows,
        ROW_BODY: {**single, "properties": {**single["properties"], "features": features}},
        ROWS_BODY: {**batch, "properties": {**batch["properties"], "rows": {**listed, "items": row}}},
    }


def add_words(schemas: dict[str, Schema], cards: Iterable[Card]) -> dict[str, Schema]:
    """Return the schemas of the document, with the cards' forms as alternatives to the native ones."""
    changed = dict(schemas)
    for card in cards:
        label = f"{card.name}_{card.version}"
        if card.response is not None and card.response.fields:
            answer = _answer(card.response.fields)
            _allow(changed, RESULT, f"{label}_answer", answer)
            _allow(changed, ITEM, f"{label}_answer", answer)
        if card.response is not None and card.response.batch:
            _allow(changed, BATCH, f"{label}_answer_of_batch", _answer(card.response.batch))
        if card.input == "flat" or card.wrapper != "features" or card.extra == "ignore":
            _allow(changed, ROW_BODY, f"{label}_body", _row_body(card, schemas[ROW_BODY]))
        if card.batch_input == "flat" or card.batch_wrapper != "rows" or card.extra == "ignore":
            _allow(changed, ROWS_BODY, f"{label}_batch", _rows_body(card, schemas[ROWS_BODY]))
    return changed


def add_refusals(responses: dict[str, Any], cards: Iterable[Card]) -> dict[str, Any]:
    """Return the answers of a route for rows, with the cards' error formats."""
    changed = dict(responses)
    for status, forms in _refusals(cards).items():
        answer = changed[status]
        form = {"anyOf": forms} if len(forms) > 1 else forms[0]
        changed[status] = {**answer, "content": {**answer["content"], "application/json": {"schema": form}}}
    return changed


def _refusals(cards: Iterable[Card]) -> dict[str, list[Schema]]:
    forms: dict[str, list[Schema]] = {}
    for card in cards:
        refusal = card.refusal or Refusal()
        form = _FORMS.get(refusal.body)
        listed = forms.setdefault(str(refusal.status), []) if form is not None else []
        if form is not None and form not in listed:
            listed.append(form)
    return forms


def _allow(schemas: dict[str, Schema], name: str, other: str, schema: Schema) -> None:
    """Let `name` stand for its own schema or another one, which gets its own name."""
    own = schemas[name]
    if "anyOf" not in own:
        schemas[f"Own{name}"] = {**own, "title": f"Own{name}"}
        own = {"title": name, "anyOf": [_reference(f"Own{name}")]}
    schemas[other] = {**schema, "title": other}  # generated clients name their classes by it
    schemas[name] = {**own, "anyOf": [*own["anyOf"], _reference(other)]}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(fields: dict[str, ResponseField]) -> Schema:
    return {
        "type": "object",
        "properties": {name: _field(field) for name, field in fields.items()},
        "required": list(fields),
        "additionalProperties": False,
    }


def _field(field: ResponseField) -> Schema:
    if field.source is None:
        return {"const": field.value}
    return {"description": f"From `{field.source}`."}


def _row_body(card: Card, own: Schema) -> Schema:
    options = {name: schema for name, schema in own["properties"].items() if name != "features"}
    row = {key: value for key, value in card.json_schema().items() if key != "title"}  # it is that of the row alone
    if card.input == "flat":
        return {**row, "properties": {**options, **row["properties"]}}
    return _wrapped(card, options, card.wrapper, row)


def _rows_body(card: Card, own: Schema) -> Schema:
    rows: Schema = {"type": "array", "items": {"type": "object"}}  # one that does not fit its card gets its faults
    if card.batch_input == "flat":
        return rows
    options = {name: schema for name, schema in own["properties"].items() if name != "rows"}
    return _wrapped(card, options, card.batch_wrapper, rows)


def _wrapped(card: Card, options: dict[str, Schema], wrapper: str, content: Schema) -> Schema:
    return {
        "type": "object",
        "properties": {wrapper: content, **options},
        "required": [wrapper],
        "additionalProperties": card.extra == "ignore",
    }
