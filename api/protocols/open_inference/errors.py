"""The error format of the Open Inference Protocol: a sentence, at every path below /v2."""

from typing import Any

from api.http.about import Protocol
from api.protocols.open_inference.schemas import InferenceError
from shared.errors import GuichetError

PREFIX = "/v2"


def _body(error: GuichetError) -> dict[str, Any]:
    return {"error": error.detail}


OPEN_INFERENCE = Protocol(
    InferenceError.__name__,
    _body,
    prefix=PREFIX,
    has_bytes=True,
    version_path=f"{PREFIX}/models/NAME/versions/VERSION",
)
