"""The signature of an MLflow model: its columns in our types, and its optional columns.

MLflow writes it as JSON text into MLmodel (https://mlflow.org/docs/latest/ml/model/signatures/).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.cards.features import FeatureType
from shared.errors import CardError
from shared.faults import few

TYPES: dict[str, FeatureType] = {
    "boolean": "boolean",
    "integer": "integer",
    "long": "integer",
    "float": "number",
    "double": "number",
    "string": "string",
}
_KINDS: dict[str, FeatureType] = {"b": "boolean", "i": "integer", "u": "integer", "f": "number", "U": "string"}
SHOWN = 5


@dataclass(frozen=True, slots=True)
class SignatureColumn:
    """One input of a model."""

    name: str
    type: FeatureType
    required: bool


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs of a model: columns by name, or a matrix of values of one type."""

    columns: list[SignatureColumn]  # empty for a matrix
    matrix: FeatureType | None  # the type of a matrix, whose columns have no names
    width: int | None  # how many columns a matrix has, where the signature says it


def read_signature(written: object, source: str) -> Signature | None:
    """Return the signature in MLmodel, None without one; raise CardError for an invalid one."""
    if written is None:
        return None
    try:
        entries = json.loads(written["inputs"])  # type: ignore[index]  # whatever else it is raises
        if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
            raise TypeError
    except (TypeError, KeyError, ValueError, RecursionError):
        raise CardError(f"The signature in {source} cannot be read: log the model again with a signature.") from None
    if not entries:
        return None
    unnamed = [entry for entry in entries if not isinstance(entry.get("name"), str)]
    if unnamed:
        return _matrix(entries, source)
    unknown = [f"{entry['name']} ({_type_name(entry)})" for entry in entries if _type_of(entry) is None]
    if unknown:
        raise CardError(
            f"The signature in {source} has columns of types that no feature has: {few(unknown, SHOWN)}. "
            f"A feature is one of {', '.join(TYPES)}: turn the others into these before the model, not inside it."
        )
    return Signature([_column(entry) for entry in entries], None, None)


def _matrix(entries: Sequence[Mapping[str, Any]], source: str) -> Signature:
    kinds = {_type_of(entry) for entry in entries}
    kind = kinds.pop()
    if kinds or kind is None:
        types = ", ".join(sorted({_type_name(entry) for entry in entries}))
        raise CardError(
            f"The signature in {source} has columns without names, of the types {types}: infer it from a DataFrame "
            "whose columns have names, and log the model again."
        )
    width = len(entries) if len(entries) > 1 else None
    spec = entries[0].get("tensor-spec")
    shape = spec.get("shape") if isinstance(spec, Mapping) else None
    if isinstance(shape, list):
        if len(shape) != 2 or not all(isinstance(size, int) for size in shape):
            raise CardError(
                f"The signature in {source} is a tensor of {len(shape)} dimensions, and rows of features make one of "
                "2: this service has no use for such a model."
            )
        width = shape[1] if shape[1] > 0 else None
    return Signature([], kind, width)


def _column(entry: Mapping[str, Any]) -> SignatureColumn:
    kind = _type_of(entry)
    assert kind is not None
    optional = entry.get("optional") is True or entry.get("required") is False  # before MLflow 2.8, and since
    return SignatureColumn(entry["name"], kind, required=not optional)


def _type_of(entry: Mapping[str, Any]) -> FeatureType | None:
    """Return a column's type as a feature has it; None for dates, bytes, lists and the like."""
    kind = entry.get("type")
    if kind != "tensor":
        return TYPES.get(kind) if isinstance(kind, str) else None
    spec = entry.get("tensor-spec")
    shape = spec.get("shape") if isinstance(spec, Mapping) else None
    if not isinstance(spec, Mapping) or not isinstance(shape, list):
        return None
    if "name" in entry and shape not in ([-1], [-1, 1]):
        return None
    try:
        return _KINDS.get(np.dtype(str(spec.get("dtype"))).kind)
    except (TypeError, ValueError, SyntaxError):  # the text is anyone's
        return None


def _type_name(entry: Mapping[str, Any]) -> str:
    spec = entry.get("tensor-spec")
    if isinstance(spec, Mapping):
        return f"a tensor of {spec.get('dtype')!s:.20}, shape {spec.get('shape')!s:.30}"
    return f"{entry.get('type')!s:.20}"
