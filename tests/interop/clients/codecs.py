"""MLServer's own codecs: requests that they encode, and answers that they decode, as JSON.

Reads {"url", "rows", "matrix"} from its input: rows of the model attrition, and a matrix of the model flowers.
"""

import json
import sys
import urllib.request

import numpy as np
import pandas as pd
from mlserver.codecs import NumpyCodec, NumpyRequestCodec, PandasCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse, RequestOutput

task = json.load(sys.stdin)
report = {}


def ask(model, request):
    body = request.model_dump_json().encode()
    sent = urllib.request.Request(
        f"{task['url']}/v2/models/{model}/infer", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(sent, timeout=30) as answer:
        return InferenceResponse.model_validate_json(answer.read())


frame = pd.DataFrame(task["rows"])
frame = frame.astype({name: object for name in frame if pd.api.types.is_string_dtype(frame[name])})
answer = ask("attrition", PandasCodec.encode_request(frame))
report["pandas"] = PandasCodec.decode_response(answer)["predict"].tolist()
report["shape"] = answer.outputs[0].shape

request = PandasCodec.encode_request(frame)
request.outputs = [RequestOutput(name=name) for name in ("predict_proba", "label")]
proba, label = ask("attrition", request).outputs
report["proba"] = NumpyCodec.decode_output(proba).tolist()
report["label"] = StringCodec.decode_output(label)

matrix = np.array(task["matrix"])
request = NumpyRequestCodec.encode_request(matrix)
report["numpy"] = NumpyRequestCodec.decode_response(ask("flowers", request)).tolist()
request.outputs = [RequestOutput(name="predict_proba")]
report["numpy proba"] = NumpyRequestCodec.decode_response(ask("flowers", request)).tolist()
by_name = InferenceRequest(
    inputs=[NumpyCodec.encode_input(name, matrix[:, place]) for place, name in enumerate("abcd")],
)
report["numpy by name"] = NumpyRequestCodec.decode_response(ask("flowers", by_name)).tolist()
print(json.dumps(report))
