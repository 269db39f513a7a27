"""The input tensors of an inference request (Open Inference Protocol v2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from api.protocols.open_inference.codec import (
    BYTES,
    CONTENT_TYPES,
    DATATYPES,
    MAX_FAULTS,
    Datatype,
    decode_texts,
    from_bytes,
    from_json,
)
from shared.errors import TooLarge
from shared.faults import Fault

MAX_SIZE = 2**31  # of a dimension
NAME_LENGTH = 100  # of a name that a sentence repeats
MORE_FAULTS = "more_faults"  # the code of the fault that stands for all that were not looked for
_UNSUPPORTED = {
    "shared_memory_region": "shared memory is not read here: send the tensor's data",
    "classification": "the classification extension is not supported: leave it out and ask for predict_proba or label",
}


@dataclass(slots=True)
class Tensor:
    """One input, its elements flat and row-major."""

    place: int  # among the inputs of the request
    name: str
    datatype: Datatype
    shape: list[int]  # of one or two dimensions
    values: Sequence[Any]
    is_json: bool  # each element has a type of its own (MLServer's pd_json)

    @property
    def shown(self) -> str:
        """The name as a sentence can hold it."""
        return quoted(self.name)

    def element(self, place: int) -> str:
        """Return the name of one element in a sentence, by its place in the flat data."""
        return _element(self.name, self.shape, place)


def read_tensors(
    inputs: object, buffers: memoryview, faults: list[Fault], *, max_rows: int
) -> tuple[list[Tensor], bool]:
    """Return the inputs, and whether one names a content type; add their faults to `faults`.

    Raises TooLarge for an input of more than `max_rows` rows, before one of its elements is looked at.

    Nothing is looked at any more as soon as there are more than MAX_FAULTS.

    `buffers` holds the bytes after the JSON: those of each input that has a `binary_data_size`, in their order.
    """
    if not isinstance(inputs, list) or not inputs:
        faults.append(Fault("/inputs", "missing", '"inputs" must be a list of at least one tensor'))
        return [], False
    tensors: list[Tensor] = []
    names: set[str] = set()
    has_types = False
    start = 0
    for place, item in enumerate(inputs):
        if len(faults) > MAX_FAULTS:
            return [], has_types
        head = _read_head(item, f"/inputs/{place}", faults)
        if head is None:
            continue
        name, datatype, shape, count = head
        if shape[0] > max_rows:
            raise TooLarge(f"A request holds at most {max_rows} rows: send several.")
        if name in names:
            message = f"two inputs have the name {quoted(name)}: keep one"
            faults.append(Fault(f"/inputs/{place}/name", "duplicate", message))
        names.add(name)
        size = kind = None
        if item.get("parameters") is not None:
            parameters = read_parameters(item, f"/inputs/{place}", faults)
            has_types |= parameters.get("content_type") is not None
            size, kind = parameters.get("binary_data_size"), parameters.get("content_type")
        values: Sequence[Any]
        if size is None:
            flat = _flatten(item.get("data"), shape, count)
            if isinstance(flat, str):
                faults.append(Fault(f"/inputs/{place}/data", "shape", f"{quoted(name)}: {flat}"))
                continue
            values, wrong = from_json(datatype, flat)
        else:
            try:
                end = start + _read_size(size, item)
                values, wrong = from_bytes(datatype, buffers[start:end], count)
                start = end
            except ValueError as error:
                faults.append(Fault(f"/inputs/{place}", "binary", f"{quoted(name)}: {error}"))
                continue
        is_json = datatype is BYTES and kind == "pd_json"
        if datatype is BYTES and kind in ("pd_json", "base64"):
            values = decode_texts(str(kind), values, wrong)
        for element, message in wrong:
            where = _element(name, shape, element)
            faults.append(Fault(f"/inputs/{place}/data/{element}", "type", f"{where} {message}"))
        tensors.append(Tensor(place, name, datatype, shape, values, is_json))
    if start != len(buffers) and not faults:
        message = f"the inputs take {start} bytes after the JSON, but {len(buffers)} follow it"
        faults.append(Fault("/inputs", "binary", message))
    return tensors, has_types


def _read_head(item: Any, where: str, faults: list[Fault]) -> tuple[str, Datatype, list[int], int] | None:  # noqa: ANN401 - any JSON value
    """Return the name, the datatype, the shape and the number of elements of an input."""
    if not isinstance(item, dict):
        faults.append(
            Fault(where, "type", f"{place_in_words(where)} must be an object with name, shape, datatype and data")
        )
        return None
    name, datatype = item.get("name"), item.get("datatype")
    shape: Any = item.get("shape")
    if not isinstance(name, str) or not name:
        faults.append(Fault(f"{where}/name", "type", f"{place_in_words(where)} must have a name"))
        return None
    known_datatype = DATATYPES.get(datatype) if isinstance(datatype, str) else None
    if known_datatype is None:
        message = f"{quoted(name)} must have a datatype of the protocol: {', '.join(DATATYPES)}"
        faults.append(Fault(f"{where}/datatype", "datatype", message))
        return None
    count = _count(shape)
    if count is None:
        message = f"{quoted(name)} must have a shape of one or two whole numbers, such as [n], [n, 1] or [n, f]"
        faults.append(Fault(f"{where}/shape", "shape", message))
        return None
    return name, known_datatype, shape, count


def _count(shape: Any) -> int | None:  # noqa: ANN401 - any JSON value
    """Return the number of elements of a shape, None unless it has one or two dimensions."""
    if not isinstance(shape, list) or not 1 <= len(shape) <= 2:
        return None
    rows = shape[0]
    columns = shape[1] if len(shape) == 2 else 1
    if type(rows) is not int or type(columns) is not int or not (0 <= rows < MAX_SIZE and 0 <= columns < MAX_SIZE):
        return None
    return rows * columns


def _flatten(data: object, shape: list[int], count: int) -> list[Any] | str:
    """Return the elements of flat or nested JSON data, or the fault of their number."""
    if not isinstance(data, list):
        return f"data must be a list of {count} elements"
    if len(data) == count and (not data or type(data[0]) is not list):
        return data
    nested = [len(data)]
    level: list[Any] = data
    while level and type(level[0]) is list:
        sizes = {len(part) if type(part) is list else -1 for part in level}
        if len(sizes) > 1:
            return f"data must be nested as its shape {shape} says, or flat"
        nested.append(sizes.pop())
        level = [element for part in level for element in part]
    if len(level) != count:
        return f"its shape {shape} means {count} elements, but data has {len(level)}"
    if len(nested) > 1 and [size for size in nested if size != 1] != [size for size in shape if size != 1]:
        return f"data is nested as {nested[:4]}, but its shape is {shape}"
    return level


def _read_size(size: object, item: dict[str, Any]) -> int:
    if isinstance(size, bool) or not isinstance(size, int) or size < 0 or "data" in item:
        raise ValueError("binary_data_size must be a number of bytes, and data must then be left out")
    return size


def read_parameters(item: dict[str, Any], where: str, faults: list[Fault]) -> dict[str, Any]:
    """Return the parameters of a request, an input or an output; add unsupported ones to `faults`."""
    parameters = item.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        faults.append(Fault(f"{where}/parameters", "type", f"{_prefix(where)}parameters must be an object"))
        return {}
    for key, message in _UNSUPPORTED.items():
        if parameters.get(key):
            faults.append(Fault(f"{where}/parameters/{key}", "unsupported", f"{_prefix(where)}{message}"))
    faults += [
        Fault(f"{where}/parameters/{key}", "type", f"{_prefix(where)}{key} must be true or false")
        for key in ("binary_data", "binary_data_output")
        if not isinstance(parameters.get(key), bool | None)
    ]
    kind = parameters.get("content_type")
    if kind is not None and kind not in CONTENT_TYPES:
        message = f"{_prefix(where)}the content_type must be one of {', '.join(CONTENT_TYPES)}, or left out"
        faults.append(Fault(f"{where}/parameters/content_type", "unsupported", message))
    return parameters


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────


def quoted(name: str) -> str:
    """Return a name as a sentence can hold it."""
    return f"`{name[:NAME_LENGTH]}`"


def place_in_words(where: str) -> str:
    """Return a pointer as words: `/inputs/3` is `inputs[3]`."""
    _, kind, place = where.split("/")
    return f"{kind}[{place}]"


def _prefix(where: str) -> str:
    return f"{place_in_words(where)}: " if where else ""


def _element(name: str, shape: list[int], place: int) -> str:
    return f"{quoted(name)}{[place] if len(shape) == 1 else list(divmod(place, shape[1]))}"
