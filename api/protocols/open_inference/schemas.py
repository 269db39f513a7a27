"""The Open Inference Protocol's bodies for OpenAPI. Requests are read by tensors.py, not by these."""

from typing import Any, Literal

from pydantic import BaseModel, Field

# fmt: off
TensorDatatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES",
]
# fmt: on


class InputTensor(BaseModel):
    """One input: a feature by its name, or the matrix of all features."""

    name: str
    shape: list[int] = Field(description="[n] or [n, 1] of a feature, [n, f] of a matrix in the order of the card.")
    datatype: TensorDatatype
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = Field(None, description="Flat or nested; left out with `binary_data_size`.")


class RequestedOutput(BaseModel):
    """A requested output."""

    name: Literal["predict", "predict_proba", "label"]
    parameters: dict[str, Any] | None = None


class InferenceBody(BaseModel):
    """An inference request: all its rows are one job."""

    id: str | None = Field(None, description="Repeated in the answer.")
    parameters: dict[str, Any] | None = None
    inputs: list[InputTensor]
    outputs: list[RequestedOutput] | None = Field(None, description="When left out: every output of the model.")


class OutputTensor(BaseModel):
    """One output."""

    name: str
    shape: list[int]
    datatype: TensorDatatype
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class InferenceResult(BaseModel):
    """The answer to an inference request."""

    model_name: str
    model_version: str
    id: str = Field(description="The request's own id, or the job's.")
    parameters: dict[str, Any] = Field(description="`job_id`: the job of these rows.")
    outputs: list[OutputTensor]


class InferenceError(BaseModel):
    """The error, with advice."""

    error: str


class TensorMetadata(BaseModel):
    """An input or an output of a model."""

    name: str
    datatype: TensorDatatype
    shape: list[int] = Field(description="-1 stands for the number of rows.")
    parameters: dict[str, Any] | None = None


class ModelMetadata(BaseModel):
    """The metadata of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadata(BaseModel):
    """The server."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(BaseModel):
    """Whether the process lives."""

    live: bool


class ServerReady(BaseModel):
    """Whether the service accepts requests."""

    ready: bool


class ModelReady(BaseModel):
    """Whether a model accepts requests now."""

    name: str
    ready: bool


class RepositoryEntry(BaseModel):
    """A model version of the repository."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = Field(description="Reason why it is unavailable; empty when it is ready.")
