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

task = json.load(sys.stdin)
host = task["url"].removeprefix("http://")
model = task["model"]
report = {}


def inputs(*, binary):
    made = []
    for tensor in task["tensors"]:
        array = np.array(tensor["data"], dtype=triton_to_np_dtype(tensor["datatype"]))
        item = triton.InferInput(tensor["name"], list(array.shape), tensor["datatype"])
        item.set_data_from_numpy(array, binary_data=binary)
        made.append(item)
    return made


def requested(*names, binary):
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
report["health"] = [client.is_server_live(), client.is_server_ready(), client.is_model_ready(model)]
report["no model"] = client.is_model_ready("nobody")
report["server"] = client.get_server_metadata()["name"]
report["metadata"] = client.get_model_metadata(model, "1")
report["index"] = client.get_model_repository_index()
report["binary"] = plain(client.infer(model, inputs(binary=True)))
report["json"] = plain(client.infer(model, inputs(binary=False), outputs=requested("label", "predict", binary=False)))
report["mixed"] = plain(client.infer(model, inputs(binary=True), outputs=requested("predict_proba", binary=False)))
for coding in ("gzip", "deflate"):
    report[coding] = plain(
        client.infer(
            model,
            inputs(binary=True),
            model_version="1",
            request_id="mine",
            request_compression_algorithm=coding,
            response_compression_algorithm=coding,
        )
    )
report["id"] = client.infer(model, inputs(binary=True), request_id="mine").get_response()["id"]
report["thread"] = plain(client.async_infer(model, inputs(binary=True)).get_result())
report["refused"] = {
    "model": refusal(lambda: client.infer("nobody", inputs(binary=True))),
    "version": refusal(lambda: client.infer(model, inputs(binary=True), model_version="9")),
    "missing": refusal(lambda: client.infer(model, inputs(binary=True)[1:])),
    "output": refusal(lambda: client.infer(model, inputs(binary=True), outputs=requested("transform", binary=True))),
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
        report["aio health"] = [await client.is_server_ready(), await client.is_model_ready(model)]
        report["aio binary"] = plain(await client.infer(model, inputs(binary=True)))
        report["aio json"] = plain(
            await client.infer(model, inputs(binary=False), outputs=requested("predict_proba", binary=False))
        )
        results = await asyncio.gather(*(client.infer(model, inputs(binary=True)) for _ in range(20)))
        report["aio many"] = all(plain(result)["label"] == report["binary"]["label"] for result in results)
        report["aio gzip"] = plain(
            await client.infer(
                model, inputs(binary=True), request_compression_algorithm="gzip", response_compression_algorithm="gzip"
            )
        )


asyncio.run(ask())
print(json.dumps(report))
