"""The Open Inference clients (open-inference-openapi, pydantic-open-inference): prints what they were answered.

Reads {"url", "model", "tensors": [{"name", "datatype", "data"}]} from its input.
"""

import asyncio
import json
import sys

from open_inference.openapi.client import AsyncOpenInferenceClient, OpenInferenceClient
from open_inference.openapi.core.api_error import ApiError
from open_inference.openapi.types import InferenceRequest, RequestInput, RequestOutput
from pydantic import create_model
from pydantic_open_inference import InputsBaseModel, OutputsBaseModel, RemoteModel

task = json.load(sys.stdin)
url, model = task["url"], task["model"]
inputs = [
    RequestInput(name=item["name"], datatype=item["datatype"], shape=[len(item["data"])], data=item["data"])
    for item in task["tensors"]
]
request = InferenceRequest(id="mine", inputs=inputs)
report = {}


def plain(answer):
    return {output.name: output.data.__root__ for output in answer.outputs}


def refusal(call):
    try:
        call()
    except ApiError as error:
        return [error.status_code, error.body]
    return None


client = OpenInferenceClient(base_url=url)
client.check_server_liveness()
client.check_server_readiness()
client.check_model_readiness(model)
client.check_model_version_readiness(model, "1")
report["server"] = client.read_server_metadata().name
metadata = client.read_model_version_metadata(model, "1")
report["metadata"] = [[tensor.name, tensor.datatype, tensor.shape] for tensor in metadata.inputs]
report["infer"] = plain(client.model_infer(model, request=request))
report["version"] = plain(client.model_version_infer(model, "1", request=request))
request = InferenceRequest(inputs=inputs, outputs=[RequestOutput(name="label")])
report["label"] = plain(client.model_infer(model, request=request))
report["refused"] = {
    "model": refusal(lambda: client.model_infer("nobody", request=request)),
    "metadata": refusal(lambda: client.read_model_metadata("nobody")),
    "inputs": refusal(lambda: client.model_infer(model, request=InferenceRequest(inputs=inputs[1:]))),
}
report["aio"] = plain(asyncio.run(AsyncOpenInferenceClient(base_url=url).model_infer(model, request=request)))

KINDS = {"INT64": list[int], "FP64": list[float], "BOOL": list[bool], "BYTES": list[str]}
FIELDS = {item["name"]: (KINDS[item["datatype"]], ...) for item in task["tensors"]}
Inputs = create_model("Inputs", __base__=InputsBaseModel, **FIELDS)


class Outputs(OutputsBaseModel):
    predict: list[int]
    predict_proba: list[tuple[float, float]]
    label: list[str]


remote = RemoteModel(model_name=model, model_version="1", inputs_model=Inputs, outputs_model=Outputs, server_url=url)
report["remote ready"] = remote.is_ready()
report["remote"] = remote.infer(Inputs(**{item["name"]: item["data"] for item in task["tensors"]})).model_dump()
print(json.dumps(report))
