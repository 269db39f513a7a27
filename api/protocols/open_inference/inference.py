"""An inference request as a whole, and its answer in tensors (Open Inference Protocol v2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from api.jobs.serializers import probabilities_of
from api.models.catalog import Version
from api.protocols.open_inference.body import TensorBody
from api.protocols.open_inference.codec import BOOL, BYTES, FP64, INT64, MAX_FAULTS, Datatype, to_bytes
from api.protocols.open_inference.rows import OWN_DATATYPE, check_number, fast_row, refusal, rows_from
from api.protocols.open_inference.tensors import (
    MORE_FAULTS,
    Tensor,
    place_in_words,
    quoted,
    read_parameters,
    read_tensors,
)
from shared.cards.card import Card
from shared.cards.classes import classes_of
from shared.cards.validator import takes_null
from shared.faults import Fault
from shared.jobs.queries.jobs import StoredOutput

PLATFORM = "sklearn_joblib"
_DATATYPES: dict[type, Datatype] = {bool: BOOL, int: INT64, float: FP64, str: BYTES}


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that the request names."""

    name: str
    is_binary: bool | None = None  # None: as the request says for all


@dataclass(frozen=True, slots=True)
class Inference:
    """What a request asks."""

    id: str | None
    rows: list[dict[str, Any]]  # canonical
    outputs: list[RequestedOutput]
    is_binary: bool  # outputs come in bytes, unless they say otherwise
    speaks_mlserver: bool  # it names a content type: it is answered in shapes that MLServer's codecs read


def read_inference(version: Version, body: TensorBody, *, max_rows: int) -> Inference:
    """Return the content of a request to a model; raise RowFaults with all its faults."""
    fields = body.fields
    if not isinstance(fields, dict):
        raise refusal(version.card, [Fault("", "not_an_object", 'the body must be an object with "inputs"')])
    check_number(version.card, fields.get("inputs"))
    faults: list[Fault] = []
    parameters = read_parameters(fields, "", faults)
    row = None if body.buffers else fast_row(version, fields.get("inputs"))
    tensors: list[Tensor] = []
    has_types = False
    if row is None:
        tensors, has_types = read_tensors(fields.get("inputs"), body.buffers, faults, max_rows=max_rows)
    speaks_mlserver = has_types or parameters.get("content_type") is not None
    outputs = _read_outputs(version, fields.get("outputs"), faults, speaks_mlserver=speaks_mlserver)
    own_id = fields.get("id")
    if own_id is not None and not isinstance(own_id, str):
        faults.append(Fault("/id", "type", "the id must be text"))
    if len(faults) > MAX_FAULTS:
        faults[MAX_FAULTS:] = [Fault("", MORE_FAULTS, f"only the first {MAX_FAULTS} faults of a request are listed")]
    if faults:
        raise refusal(version.card, faults)
    return Inference(
        id=own_id,
        rows=[row] if row else rows_from(version, tensors),
        outputs=outputs,
        is_binary=parameters.get("binary_data_output") is True,
        speaks_mlserver=speaks_mlserver,
    )


def _read_outputs(
    version: Version, outputs: object, faults: list[Fault], *, speaks_mlserver: bool
) -> list[RequestedOutput]:
    datatypes = output_datatypes(version)
    if outputs is None or outputs == []:
        # MLServer gives only `predict` then, and some of its codecs take no more than one output.
        return [RequestedOutput(name) for name in datatypes if name == "predict" or not speaks_mlserver]
    if not isinstance(outputs, list):
        faults.append(Fault("/outputs", "type", '"outputs" must be a list of objects, each with a name'))
        return []
    requested: dict[str, RequestedOutput] = {}
    for place, item in enumerate(outputs):
        if len(faults) > MAX_FAULTS:
            break
        where = f"/outputs/{place}"
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str):
            faults.append(Fault(where, "type", f"{place_in_words(where)} must be an object with a name"))
            continue
        if name not in datatypes:
            message = f"{quoted(name)} is not an output of this model: it gives {', '.join(datatypes)}"
            faults.append(Fault(f"{where}/name", "unknown_output", message))
        if name in requested:
            faults.append(
                Fault(f"{where}/name", "duplicate", f"the output {quoted(name)} is requested twice: keep one")
            )
        is_binary = read_parameters(item, where, faults).get("binary_data")
        requested[name] = RequestedOutput(name, is_binary if isinstance(is_binary, bool) else None)
    return list(requested.values())


# ── outputs ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _classes_of(card: Card) -> tuple[Datatype, tuple[Any, ...]]:
    """Return the classes of a card as the estimator's own `predict` gives them, and their datatype."""
    values = tuple(classes_of(card).values()) or (0, 1)
    return _DATATYPES[type(values[0])], values


def output_datatypes(version: Version) -> dict[str, Datatype]:
    """Return the outputs that a model gives, by name: `predict`, and of classifiers `predict_proba` and `label`."""
    card = version.card
    if card.task == "regression":
        return {"predict": FP64}
    outputs = {"predict": _classes_of(card)[0]}
    # What was registered before the report told the answer is nearly always able to give probabilities.
    if version.scorer.get("answer", "predict_proba") == "predict_proba":
        outputs["predict_proba"] = FP64
    if card.labels:
        outputs["label"] = BYTES
    return outputs


def elements_of(card: Card, name: str, outputs: Sequence[StoredOutput]) -> list[Any]:
    """Return the flat elements of an output of n scored rows: n of them, or n times k for `predict_proba`."""
    if name == "label":
        return [output.label for output in outputs]
    if name == "predict_proba":
        return [part for output in outputs for part in probabilities_of(output) or ()]
    if card.task == "regression":
        return [output.prediction for output in outputs]
    classes = _classes_of(card)[1]
    return [classes[int(output.prediction)] for output in outputs]


def inference_answer(
    version: Version, inference: Inference, outputs: Sequence[StoredOutput], *, job_id: str
) -> tuple[bytes, int | None]:
    """Return the body of the answer, and how many of its bytes are JSON if tensors in bytes follow it."""
    card = version.card
    datatypes = output_datatypes(version)
    tensors: list[dict[str, Any]] = []
    buffers: list[bytes] = []
    for requested in inference.outputs:
        datatype = datatypes.get(requested.name)
        if datatype is None or (requested.name == "predict_proba" and outputs[0].probability is None):
            continue  # what the version that scored these rows does not give
        elements = elements_of(card, requested.name, outputs)
        shape = [len(outputs)]
        parameters: dict[str, Any] = {}
        if requested.name == "predict_proba":
            shape.append(len(elements) // len(outputs))
        elif inference.speaks_mlserver:
            shape.append(1)
        if inference.speaks_mlserver:
            parameters["content_type"] = "str" if requested.name == "label" else "np"
        tensor: dict[str, Any] = {"name": requested.name, "datatype": datatype.name, "shape": shape}
        if inference.is_binary if requested.is_binary is None else requested.is_binary:
            buffer = to_bytes(datatype, elements)
            buffers.append(buffer)
            tensor["parameters"] = {**parameters, "binary_data_size": len(buffer)}
        else:
            if parameters:
                tensor["parameters"] = parameters
            tensor["data"] = elements
        tensors.append(tensor)
    head = orjson.dumps(
        {
            "model_name": card.name,
            "model_version": str(card.version),
            "id": job_id if inference.id is None else inference.id,
            "parameters": {"job_id": job_id},
            "outputs": tensors,
        }
    )
    return (b"".join([head, *buffers]), len(head)) if buffers else (head, None)


# ── metadata ─────────────────────────────────────────────────────────────────────────────────────────────────────


def model_metadata(version: Version, versions: list[int]) -> dict[str, Any]:
    """Return the protocol's metadata of a model: its versions, and its inputs and outputs by name."""
    card = version.card
    return {
        "name": card.name,
        "versions": [str(number) for number in versions],
        "platform": PLATFORM,
        "inputs": [
            {
                "name": feature.name,
                "datatype": OWN_DATATYPE[feature.type].name,
                "shape": [-1],
                "parameters": {"nullable": takes_null(card, feature)},
            }
            for feature in card.sent_features
        ],
        "outputs": [
            {
                "name": name,
                "datatype": datatype.name,
                "shape": [-1, max(len(card.labels), 2)] if name == "predict_proba" else [-1],
            }
            for name, datatype in output_datatypes(version).items()
        ],
    }


def example_request(card: Card) -> dict[str, Any]:
    """Return a request with one row, for the documentation."""
    row = card.example()
    return {
        "inputs": [
            {
                "name": feature.name,
                "shape": [1],
                "datatype": OWN_DATATYPE[feature.type].name,
                "data": [row[feature.name]],
            }
            for feature in card.sent_features
        ]
    }
