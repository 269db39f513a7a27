"""Triton's client (tritonclient[http]), synchronous and asynchronous: prints what it was answered, as JSON.

Reads {"url", "model", "tensors": [{"name", "datatype", "data"}], "matrix"?} from its input.
"""

import asyncio
import json
import sys

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

given = json.load(sys.stdin)
host = given["url"].removeprefix("http://")
model = given["model"]
said = {}


def inputs(*, binary):
    made = []
    for tensor in given["tensors"]:
        array = np.array(tensor["data"], dtype=triton_to_np_dtype(tensor["datatype"]))
        item = triton.InferInput(tensor["name"], list(array.shape), tensor["datatype"])
        item.set_data_from_numpy(array, binary_data=binary)
        made.append(item)
    return made


def wanted(*names, binary):
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in names]


def plain(result):
    names = [output["name"] for output in result.get_response()["outputs"]]
    values = {name: result.as_numpy(name).tolist() for name in names}
    return {
        name: [text.decode() if isinstance(text, bytes) else text for text in column] for name, column in values.items()
    }


def refusal(call):
    try:
        call()
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return None


client = triton.InferenceServerClient(host)
said["health"] = [client.is_server_live(), client.is_server_ready(), client.is_model_ready(model)]
said["no model"] = client.is_model_ready("nobody")
said["server"] = client.get_server_metadata()["name"]
said["metadata"] = client.get_model_metadata(model, "1")
said["index"] = client.get_model_repository_index()
said["binary"] = plain(client.infer(model, inputs(binary=True)))
said["json"] = plain(client.infer(model, inputs(binary=False), outputs=wanted("label", "predict", binary=False)))
said["mixed"] = plain(client.infer(model, inputs(binary=True), outputs=wanted("predict_proba", binary=False)))
for coding in ("gzip", "deflate"):
    said[coding] = plain(
        client.infer(
            model,
            inputs(binary=True),
            model_version="1",
            request_id="mine",
            request_compression_algorithm=coding,
            response_compression_algorithm=coding,
        )
    )
said["id"] = client.infer(model, inputs(binary=True), request_id="mine").get_response()["id"]
said["thread"] = plain(client.async_infer(model, inputs(binary=True)).get_result())
said["refused"] = {
    "model": refusal(lambda: client.infer("nobody", inputs(binary=True))),
    "version": refusal(lambda: client.infer(model, inputs(binary=True), model_version="9")),
    "missing": refusal(lambda: client.infer(model, inputs(binary=True)[1:])),
    "output": refusal(lambda: client.infer(model, inputs(binary=True), outputs=wanted("transform", binary=True))),
    "classes": refusal(
        lambda: client.infer(
            model, inputs(binary=True), outputs=[triton.InferRequestedOutput("predict", class_count=2)]
        )
    ),
    "config": refusal(lambda: client.get_model_config(model)),
    "asynchronous": refusal(lambda: client.infer(model, inputs(binary=True), headers={"Prefer": "respond-async"}))[0],
}


async def ask():
    async with triton_aio.InferenceServerClient(host) as client:
        said["aio health"] = [await client.is_server_ready(), await client.is_model_ready(model)]
        said["aio binary"] = plain(await client.infer(model, inputs(binary=True)))
        said["aio json"] = plain(
            await client.infer(model, inputs(binary=False), outputs=wanted("predict_proba", binary=False))
        )
        many = await asyncio.gather(*(client.infer(model, inputs(binary=True)) for _ in range(20)))
        said["aio many"] = all(plain(result)["label"] == said["binary"]["label"] for result in many)
        said["aio gzip"] = plain(
            await client.infer(
                model, inputs(binary=True), request_compression_algorithm="gzip", response_compression_algorithm="gzip"
            )
        )


asyncio.run(ask())
print(json.dumps(said))
