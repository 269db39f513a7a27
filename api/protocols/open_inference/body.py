"""The body of an inference request: JSON, and after it the bytes of its tensors (binary tensor data extension)."""

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from api.jobs.json_body import Most, in_turn, parse_json, read_body
from shared.errors import MalformedBody, UnsupportedMediaType

JSON_LENGTH = "Inference-Header-Content-Length"  # how many bytes of the body are JSON
BINARY = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class TensorBody:
    """A body as it came."""

    fields: Any  # its JSON
    buffers: memoryview  # what follows it
    raw: bytes  # all of it, unpacked: what an Idempotency-Key stands for


async def read_tensor_body(request: Request, *, max_bytes: int, most: Most) -> TensorBody:
    """Return a body, unpacked and parsed; raise 400, 413 or 415 with a sentence on what to do."""
    headers = request.headers
    media_type = headers.get("content-type", BINARY).partition(";")[0].strip().lower()
    if media_type not in ("application/json", BINARY) and not media_type.endswith("+json"):
        raise UnsupportedMediaType(
            f"The body must be JSON (Content-Type: application/json), or JSON and tensors in bytes ({BINARY})."
        )
    body = await read_body(request, max_bytes=max_bytes)
    head, raw = len(body), body
    if (length := headers.get(JSON_LENGTH)) is not None:
        if not (length.isascii() and length.isdigit() and len(length) < 16) or not 0 < int(length) <= len(body):
            raise MalformedBody(
                f"{JSON_LENGTH} must be the number of bytes of the JSON at the beginning of the body, from 1 to the "
                f"{len(body)} that the body has."
            )
        head = int(length)
        raw = b"%d:" % head + body  # the same bytes, cut elsewhere, are another request
    json = body[:head]
    fields = await in_turn(len(json), lambda: parse_json(json, most=most, count_keys=count_keys))
    return TensorBody(fields, memoryview(body)[head:], raw)


def count_keys(fields: object) -> int:
    """Count the keys of a request's own objects: itself, its inputs and outputs, and the parameters of each."""
    if type(fields) is not dict:
        return -1
    count = len(fields)
    count += len(parameters) if type(parameters := fields.get("parameters")) is dict else 0
    for kind in ("inputs", "outputs"):
        items = fields.get(kind)
        for item in items if type(items) is list else ():
            if type(item) is dict:
                count += len(item)
                if type(parameters := item.get("parameters")) is dict:
                    count += len(parameters)
    return count
