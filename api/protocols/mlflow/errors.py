"""The error format of MLflow's scoring server: a code of its own, and a sentence."""

from typing import Any

from api.http.about import Protocol
from api.protocols.mlflow.schemas import InvocationError
from shared.errors import GuichetError


def _body(error: GuichetError) -> dict[str, Any]:
    return {"error_code": "INTERNAL_ERROR" if error.status >= 500 else "BAD_REQUEST", "message": error.detail}


MLFLOW = Protocol(InvocationError.__name__, _body, version_path="/models/NAME@VERSION/invocations")
