"""The SELECT of a model's views: one typed column for each feature of its card, on both dialects.

Rows hold their features as JSON. A value of another type than the card's, as an older version may have stored it,
reads as null: a view that failed on one old row would be of no use.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from shared.cards.card import Card
from shared.cards.classes import classes_of
from shared.cards.features import LARGEST_INTEGER, FeatureType
from shared.errors import CardError

ViewKind = Literal["inputs", "predictions", "reference"]
KINDS: tuple[ViewKind, ...] = ("inputs", "predictions", "reference")
NAME_BYTES = 63  # of an identifier of PostgreSQL, which cuts longer ones
MOST_COLUMNS = {"postgresql": 1600, "sqlite": 2000}

_INPUTS = (
    "FROM model_inputs i JOIN jobs j ON j.id = i.job_id JOIN model_versions v ON v.id = j.model_version_id "
    "WHERE v.name = {model} AND i.faults IS NULL"
)
_PREDICTIONS = "FROM model_outputs o JOIN model_versions v ON v.id = o.model_version_id WHERE v.name = {model}"
_REFERENCE = "FROM reference_rows r JOIN reference_sets s ON s.id = r.set_id WHERE s.model_name = {model}"


def quote(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def digest(sql: str) -> str:
    """Return a digest of a view's definition."""
    return hashlib.sha256(sql.encode()).hexdigest()[:12]


def select_of(kind: ViewKind, card: Card, dialect: str, *, target: str | None = None) -> str:
    """Return the SELECT behind a view; `target` names the column of the true answers where the card does not.

    Raises CardError when the columns cannot all have the names that they should.
    """
    columns: list[tuple[str, str]]
    if kind == "inputs":
        columns = [("i.id", "id"), *_features(card, "i.features", dialect), ("i.created_at", "created_at")]
        source = _INPUTS
    elif kind == "predictions":
        columns, source = _prediction_columns(card), _PREDICTIONS
    else:
        answer = _value(_target_type(card), "r.target", None, dialect)
        columns = [*_features(card, "r.features", dialect), (answer, card.target or target or "target")]
        source = _REFERENCE
    _check_names(card, kind, [name for _, name in columns], dialect)
    selected = ", ".join(f"{expression} AS {quote(name)}" for expression, name in columns)
    return f"SELECT {selected} {source.format(model=literal(card.name))}"


def _prediction_columns(card: Card) -> list[tuple[str, str]]:
    answer = [("o.label", "prediction_label"), ("o.probability", "prediction_proba")]
    if card.task == "regression":
        answer = [("o.prediction", "prediction")]
    return [
        ("o.id", "id"),
        ("o.input_id", "input_id"),
        *answer,
        ("v.version", "model_version"),
        ("o.created_at", "created_at"),
    ]


def _features(card: Card, column: str, dialect: str) -> list[tuple[str, str]]:
    return [(_value(feature.type, column, feature.name, dialect), feature.name) for feature in card.row_features]


def _target_type(card: Card) -> FeatureType:
    if card.task == "regression":
        return "number"
    names: dict[type, FeatureType] = {bool: "boolean", int: "integer", float: "number"}
    return names.get(type(next(iter(classes_of(card).values()), "")), "string")


def _value(kind: FeatureType, column: str, key: str | None, dialect: str) -> str:
    """Return the expression of a JSON document's value by its key, or of the document itself, as this type or null."""
    return _on_postgres(kind, column, key) if dialect == "postgresql" else _on_sqlite(kind, column, key)


def _on_postgres(kind: FeatureType, column: str, key: str | None) -> str:
    value = column if key is None else f"{column} -> {literal(key)}"
    text = f"({column} #>> '{{}}')" if key is None else f"({column} ->> {literal(key)})"
    if kind == "integer":  # an older version may have stored a number that no bigint holds
        return (
            f"CASE WHEN jsonb_typeof({value}) <> 'number' THEN NULL "
            f"WHEN abs({text}::numeric) > {LARGEST_INTEGER} THEN NULL ELSE {text}::numeric::bigint END"
        )
    name, cast = {"number": ("number", "double precision"), "boolean": ("boolean", "boolean")}.get(
        kind, ("string", "text")
    )
    return f"CASE jsonb_typeof({value}) WHEN '{name}' THEN {text}::{cast} END"


def _on_sqlite(kind: FeatureType, column: str, key: str | None) -> str:
    if key is not None and ('"' in key or "\\" in key):
        return _by_search(kind, column, key)
    path = literal("$" if key is None else f'$."{key}"')
    return _typed(kind, f"json_type({column}, {path})", f"json_extract({column}, {path})")


def _by_search(kind: FeatureType, column: str, key: str) -> str:
    """Return the same for a key that no JSON path of SQLite can name."""
    typed = _typed(kind, "type", "atom")
    return f"(SELECT {typed} FROM json_each({column}) WHERE key = {literal(key)})"  # noqa: S608 - the key is quoted


def _typed(kind: FeatureType, json_type: str, value: str) -> str:
    if kind == "integer":
        return (
            f"CASE WHEN {json_type} IN ('integer', 'real') AND abs({value}) <= {LARGEST_INTEGER} "
            f"THEN CAST(round({value}) AS INTEGER) END"
        )
    if kind == "number":
        return f"CASE WHEN {json_type} IN ('integer', 'real') THEN CAST({value} AS REAL) END"
    if kind == "boolean":
        return f"CASE {json_type} WHEN 'true' THEN 1 WHEN 'false' THEN 0 END"
    return f"CASE {json_type} WHEN 'text' THEN {value} END"


def _check_names(card: Card, kind: ViewKind, names: Sequence[str], dialect: str) -> None:
    if len(names) > MOST_COLUMNS[dialect]:
        raise CardError(
            f"{card.name} has too many features for a view: it would have {len(names)} columns, and a view has at "
            f"most {MOST_COLUMNS[dialect]}."
        )
    # What the database takes for the same name: PostgreSQL cuts it, SQLite does not tell A from a.
    cut = [name.encode()[:NAME_BYTES] if dialect == "postgresql" else name.encode().lower() for name in names]
    twice = [name for name, short in zip(names, cut, strict=True) if Counter(cut)[short] > 1]
    if twice:
        raise CardError(
            f"The view {kind} of {card.name} would have two columns of one name ({', '.join(map(repr, twice[:4]))}): "
            "the card's features and target need other names for a view."
        )
