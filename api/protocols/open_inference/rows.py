"""From tensors to rows of features.

Either each feature has a tensor of its name, [n] or [n, 1], or one tensor is the matrix of all rows, [n, f], with the
features in the order of the card.
"""

from collections.abc import Sequence
from typing import Any

from api.models.catalog import Version
from api.protocols.open_inference.codec import BOOL, BYTES, FP64, INT64, Datatype
from api.protocols.open_inference.tensors import MORE_FAULTS, Tensor
from shared.cards.card import Card
from shared.cards.features import Feature
from shared.cards.validator import SUGGESTIONS, Tally, may_be_absent, may_be_written
from shared.errors import RowFaults
from shared.faults import Fault, OwnWords, did_you_mean, few, pointer, sentence

NAMED = 50  # inputs that it lists
MAX_EXTRA_INPUTS = 100  # beyond the features, looked at one by one: a request with more means another model

OWN_DATATYPE: dict[str, Datatype] = {"integer": INT64, "number": FP64, "boolean": BOOL, "string": BYTES}
_KINDS = {  # feature type -> the kinds of datatypes that can hold its values
    "integer": ("integer", "number"),
    "number": ("integer", "number"),
    "boolean": ("boolean", "integer", "number"),
    "string": ("text",),
}


_PLAIN = {BOOL.name: (bool,), INT64.name: (int,), FP64.name: (float, int), BYTES.name: (str,)}


def fast_row(version: Version, inputs: Any) -> dict[str, Any] | None:  # noqa: ANN401 - any JSON value
    """Return the canonical row of a request that is plainly one good row, a tensor for each feature; None otherwise.

    Nearly every request is, and to look at its tensors one by one takes four times as long as all else.
    """
    row: dict[str, Any] = {}
    names = version.validator.names
    try:
        for item in inputs:
            name, shape, data = item["name"], item["shape"], item["data"]
            # A tensor that is no feature may be the matrix of them all, also where the card ignores other names.
            if len(item) != 4 or not name or name not in names or type(data) is not list:
                return None
            if shape != [1] or type(shape[0]) is not int:
                return None
            (value,) = data
            kind = type(value)
            if kind not in _PLAIN[item["datatype"]] or (kind is int and abs(value) > INT64.high):
                return None
            row[name] = value
        if not row or len(row) != len(inputs):
            return None
        return version.validator.validate(row)
    except (AttributeError, KeyError, TypeError, ValueError, RowFaults):
        return None  # the long way says what is wrong, if something is


def check_number(card: Card, inputs: object) -> None:
    """Raise RowFaults, in one sentence, for far more inputs than the model has features."""
    most = len(card.row_features) + MAX_EXTRA_INPUTS
    if card.extra == "refuse" and isinstance(inputs, list) and len(inputs) > most:
        message = f"{len(inputs)} inputs were given, and the model has {len(card.sent_features)} features: one for each"
        raise refusal(card, [Fault("/inputs", "length", message)])


def rows_from(version: Version, tensors: list[Tensor]) -> list[dict[str, Any]]:
    """Return the canonical rows; raise RowFaults that names every tensor and element that does not fit the card."""
    card = version.card
    count = tensors[0].shape[0]
    if any(tensor.shape[0] != count for tensor in tensors):
        other = next(tensor for tensor in tensors if tensor.shape[0] != count)
        message = (
            "all inputs must have the same first dimension, one element for each row: "
            f"{tensors[0].shown} has the shape {tensors[0].shape}, {other.shown} has {other.shape}"
        )
        raise refusal(card, [Fault("/inputs", "shape", message)])
    matrix = _as_matrix(card, tensors)
    faults: list[Fault] = []
    columns = _by_name(card, tensors, faults) if matrix is None else _by_order(card, matrix, faults)
    if count == 0:
        faults.append(Fault("/inputs", "length", "there must be at least one row"))
    if faults:
        raise refusal(card, faults)
    names = list(columns)
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    rows = rows or [{} for _ in range(count)]  # of a model whose features may all be absent
    tally = Tally()
    canonical, faults_of_rows = version.validator.validate_many(rows, tally)
    if any(faults_of_rows):
        raise refusal(card, _located(card, faults_of_rows, matrix, tensors), tally.count)
    return [row for row in canonical if row is not None]


def refusal(card: Card, faults: list[Fault], count: int = 0) -> RowFaults:
    """Return the error of a request that does not fit; its sentence has the first of its `count` or more faults."""
    text = sentence(
        faults,
        subject=f"The request does not fit {card.name}@{card.version}",
        count=count,
        tell=lambda fault: fault.message,
        is_lower_bound=any(fault.code == MORE_FAULTS for fault in faults),
    )
    return RowFaults(text, faults=faults, fault_count=max(count, len(faults)))


def _as_matrix(card: Card, tensors: list[Tensor]) -> Tensor | None:
    """Return the tensor of all features, if the request has one: alone, and not simply one feature's own."""
    if len(tensors) != 1:
        return None
    only = tensors[0]
    is_column = len(only.shape) == 1 or only.shape[1] == 1
    return None if is_column and any(feature.name == only.name for feature in card.row_features) else only


def _by_order(card: Card, matrix: Tensor, faults: list[Fault]) -> dict[str, Sequence[Any]]:
    features = card.sent_features
    width = len(features)
    if not all(_can_hold(card, matrix, feature) for feature in features):
        message = (
            f"one matrix of {matrix.datatype.name} cannot hold every feature of this model: send one tensor for each, "
            f"by its name, with shape [n] or [n, 1]: {_inputs(features)}. Given was {matrix.shown} {matrix.shape}"
        )
        faults.append(Fault(f"/inputs/{matrix.place}", "names_needed", message))
        return {}
    if len(matrix.shape) != 2 or matrix.shape[1] != width:
        message = (
            f"{matrix.shown} must be a matrix [n, {width}] with the features in this order: {_inputs(features)}; or "
            f"send one tensor for each, by its name, with shape [n] or [n, 1]. Given was the shape {matrix.shape}"
        )
        faults.append(Fault(f"/inputs/{matrix.place}/shape", "shape", message))
        return {}
    return {
        feature.name: _fitted(feature, matrix, matrix.values[column::width]) for column, feature in enumerate(features)
    }


def _by_name(card: Card, tensors: list[Tensor], faults: list[Fault]) -> dict[str, Sequence[Any]]:
    by_name = {tensor.name: tensor for tensor in tensors}
    columns: dict[str, Sequence[Any]] = {}
    missing: list[Feature] = []
    for feature in card.row_features:
        tensor = by_name.pop(feature.name, None)
        if tensor is None:
            if not may_be_absent(card, feature):
                missing.append(feature)
        elif len(tensor.shape) == 2 and tensor.shape[1] != 1:
            message = f"{tensor.shown} must have the shape [n] or [n, 1], not {tensor.shape}"
            faults.append(Fault(f"/inputs/{tensor.place}/shape", "shape", message))
        elif not _can_hold(card, tensor, feature):
            expected = OWN_DATATYPE[feature.type].name
            message = f"{tensor.shown} must have the datatype {expected}, not {tensor.datatype.name}"
            faults.append(Fault(f"/inputs/{tensor.place}/datatype", "datatype", message))
        else:
            columns[feature.name] = _fitted(feature, tensor, tensor.values)
    if by_name and card.extra == "refuse":
        faults += [
            _unknown_input(card, tensor, hint=place < SUGGESTIONS) for place, tensor in enumerate(by_name.values())
        ]
    if missing:
        absent = f"{_inputs(missing)} {'is' if len(missing) == 1 else 'are'} missing among the inputs"
        count = len(card.sent_features)
        message = f"{absent}: one for each of the {count} features is expected, {len(tensors)} were given"
        faults.append(Fault("/inputs", "missing", message))
    return columns


def _can_hold(card: Card, tensor: Tensor, feature: Feature) -> bool:
    kind = tensor.datatype.kind
    return tensor.is_json or kind in _KINDS[feature.type] or (kind == "text" and may_be_written(card, feature))


def _fitted(feature: Feature, tensor: Tensor, values: Sequence[Any]) -> Sequence[Any]:
    """Return elements as values of a row: 3.0 as an integer for an integer feature, 0 or 1 as a boolean."""
    kind = tensor.datatype.kind
    if kind == "number" and feature.type == "integer":
        return [int(value) if type(value) is float and value.is_integer() else value for value in values]
    if kind in ("integer", "number") and feature.type == "boolean":
        return [bool(value) if value in (0, 1) else value for value in values]
    return values


def _unknown_input(card: Card, tensor: Tensor, *, hint: bool) -> Fault:
    """Return the fault of an input that the card does not name; `hint` also suggests a name, which is slow."""
    names = [feature.name for feature in card.row_features] if hint else []
    message = f"{tensor.shown} is not an input of this model: {did_you_mean(tensor.name, names)}"
    return Fault(f"/inputs/{tensor.place}/name", "unknown_feature", message)


def _located(
    card: Card, faults_of_rows: list[list[Fault]], matrix: Tensor | None, tensors: list[Tensor]
) -> list[Fault]:
    """Return the faults of rows as faults of the elements that they come from."""
    features = card.sent_features
    columns = {pointer(feature.name): place for place, feature in enumerate(features)}
    own = {pointer(tensor.name): tensor for tensor in tensors}
    located: list[Fault] = []
    for row, faults in enumerate(faults_of_rows):
        for fault in faults:
            tensor = own.get(fault.pointer) if matrix is None else matrix if fault.pointer in columns else None
            if tensor is None:  # a rule that begins with a feature that the request leaves out, or that is derived
                located.append(Fault("/inputs", fault.code, f"row {row}: {fault.message}"))
                continue
            element = row if matrix is None else row * len(features) + columns[fault.pointer]
            where = tensor.element(element)
            if fault.code == "rule" or isinstance(fault, OwnWords):
                where = f"row {row}:"
            elif matrix is not None:
                where += f" ({features[columns[fault.pointer]].name})"
            located.append(Fault(f"/inputs/{tensor.place}/data/{element}", fault.code, f"{where} {fault.message}"))
    return located


def _inputs(features: list[Feature]) -> str:
    """List inputs with their datatypes."""
    return few([f"{feature.name} {OWN_DATATYPE[feature.type].name}" for feature in features], NAMED)
