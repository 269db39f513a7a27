"""Bodies of `/invocations`, as the OpenAPI document describes them."""

from typing import Any

from pydantic import BaseModel, Field


class InvocationError(BaseModel):
    """An error in the format of MLflow's scoring server."""

    error_code: str
    message: str


class Predictions(BaseModel):
    """The answer to an invocation."""

    predictions: list[Any] = Field(description="One for each row, in order.")


# The body that asks for predictions.
FRAME: dict[str, Any] = {
    "type": "object",
    "description": "Exactly one of the four forms, and `params`.",
    "properties": {
        "dataframe_split": {
            "type": "object",
            "properties": {
                "columns": {"type": "array", "items": {"type": "string"}},
                "data": {"type": "array", "items": {"type": "array", "items": {}}},
                "index": {"type": "array", "items": {}},
            },
            "required": ["data"],
        },
        "dataframe_records": {"type": "array", "items": {"type": "object"}},
        "inputs": {"description": "Columns by name, a list of records, or a matrix in the order of the card."},
        "instances": {"description": "As `inputs`."},
        "params": {
            "type": ["object", "null"],
            "properties": {"output": {"enum": ["predict", "predict_proba", "label"], "default": "predict"}},
        },
    },
}
