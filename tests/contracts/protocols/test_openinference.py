"""The Open Inference Protocol: requests as its clients write them, over the same queue, with its own errors."""

import gzip
import json
import struct
import zlib
from typing import Any

import httpx2
import numpy as np
import pytest
from sqlalchemy import Engine

from tests.conftest import example_rows
from tests.contracts.helpers import check_accepted, counts, logged, new_id, stored_job, stored_rows, wait_for_job
from tests.contracts.moody import RAISES

DATATYPES = {"integer": "INT64", "number": "FP64", "boolean": "BOOL", "string": "BYTES"}
LENGTH = "Inference-Header-Content-Length"


def check_refused(answer: httpx2.Response, status: int = 400) -> str:
    """Check that an answer is an error of the protocol; return its sentence."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.json().keys() == {"error"}
    message: str = answer.json()["error"]
    assert message.endswith(".")
    assert "Traceback" not in message
    return message


def tensors(client: httpx2.Client, model: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows as one tensor for each feature."""
    card = client.get(f"/models/{model}").json()["card"]
    return [
        {
            "name": feature["name"],
            "shape": [len(rows)],
            "datatype": DATATYPES[feature["type"]],
            "data": [row.get(feature["name"]) for row in rows],
        }
        for feature in card["features"]
    ]


def infer(client: httpx2.Client, model: str, inputs: Any, **more: Any) -> httpx2.Response:
    return client.post(f"/v2/models/{model}/infer", json={"inputs": inputs, **more})


def close(numbers: list[float]) -> Any:
    """Return what equals these scores: a path in float32 may round them otherwise in another company of rows."""
    return pytest.approx(numbers, abs=1e-6)


def outputs_of(answer: httpx2.Response) -> dict[str, list[Any]]:
    """Return the data of each output of a good answer."""
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert answer.headers["content-location"] == f"/jobs/{body['parameters']['job_id']}"
    return {output["name"]: output["data"] for output in body["outputs"]}


# ── inference ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("model", ["attrition", "credit", "energy"])
def test_rows_in_tensors_get_the_scores_that_they_get_in_a_batch(client: httpx2.Client, model: str) -> None:
    rows = example_rows(model)
    items = client.post("/predict_batch", json={"model": model, "rows": rows}).json()["items"]
    outputs = outputs_of(infer(client, model, tensors(client, model, rows)))
    assert outputs["predict"] == close([item["prediction"] for item in items])
    if model == "energy":
        assert list(outputs) == ["predict"]
    else:
        assert outputs["label"] == [item["label"] for item in items]
        assert outputs["predict_proba"][1::2] == close([item["probability"] for item in items])
        assert outputs["predict_proba"][::2] == close([1 - item["probability"] for item in items])


def test_all_rows_of_a_request_are_one_job_that_keeps_them(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    before = counts(engine)
    for count, kind in ((1, "predict"), (3, "batch")):
        body = infer(client, "attrition", tensors(client, "attrition", [attrition_row] * count), id="mine").json()
        job_id = body["parameters"]["job_id"]
        assert (body["model_name"], body["model_version"], body["id"]) == ("attrition", "1", "mine")
        assert stored_job(engine, job_id)["kind"] == kind
        assert [row["features"] for row in stored_rows(engine, job_id)] == [attrition_row] * count
        assert client.get(f"/jobs/{job_id}").json()["counts"]["succeeded"] == count
    assert counts(engine) == (before[0] + 2, before[1] + 4)


def test_only_the_outputs_that_are_asked_for_are_given_in_their_order(
    client: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    inputs = tensors(client, "attrition", [attrition_row])
    answer = infer(client, "attrition", inputs, outputs=[{"name": "label"}, {"name": "predict"}])
    assert list(outputs_of(answer)) == ["label", "predict"]


def test_request_in_json_of_a_client_that_knows_only_floats_is_read(
    client: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    """The Open Inference client writes every number as a float, and every parameter that was not given as null."""
    inputs = tensors(client, "attrition", [attrition_row])
    expected = outputs_of(infer(client, "attrition", inputs))
    for tensor in inputs:
        tensor["parameters"] = None
        tensor["data"] = [float(value) if isinstance(value, int) else value for value in tensor["data"]]
    outputs = outputs_of(infer(client, "attrition", inputs, id=None, parameters=None, outputs=None))
    assert outputs["label"] == expected["label"]
    assert outputs["predict_proba"] == close(expected["predict_proba"])


def test_matrix_in_bytes_is_answered_in_bytes_as_tritons_client_asks(client: httpx2.Client) -> None:
    rows = example_rows("credit")
    inputs = tensors(client, "credit", rows)
    matrix = np.array([tensor["data"] for tensor in inputs], dtype=np.float64).T.copy()  # null becomes NaN
    head = {
        "id": "7",
        "inputs": [
            {
                "name": "x",
                "shape": list(matrix.shape),
                "datatype": "FP64",
                "parameters": {"binary_data_size": matrix.nbytes},
            }
        ],
        "parameters": {"sequence_id": 42, "sequence_start": True, "priority": 3, "binary_data_output": True},
    }
    json_part = json.dumps(head).encode()
    content = json_part + matrix.tobytes()
    expected = outputs_of(infer(client, "credit", inputs))
    plain = {LENGTH: str(len(json_part))}
    for sent, headers in (
        (content, plain),
        (content, plain | {"Content-Type": "application/octet-stream"}),
        (gzip.compress(content), plain | {"Content-Encoding": "gzip"}),
        (zlib.compress(content), plain | {"Content-Encoding": "deflate", "Accept-Encoding": "deflate"}),
        (content, plain | {"Accept-Encoding": "gzip"}),
    ):
        answer = client.post("/v2/models/credit/infer", content=sent, headers=headers)
        assert answer.status_code == 200, answer.text
        wished = headers.get("Accept-Encoding")
        assert answer.headers.get("content-encoding") == wished
        assert answer.headers["content-type"] == "application/octet-stream"
        size = int(answer.headers[LENGTH])
        body = json.loads(answer.content[:size])
        assert body["id"] == "7"
        arrays, start = {}, size
        for output in body["outputs"]:
            end = start + output["parameters"]["binary_data_size"]
            arrays[output["name"]] = answer.content[start:end]
            start = end
        assert start == len(answer.content)
        assert np.frombuffer(arrays["predict"], "<i8").tolist() == expected["predict"]
        assert np.frombuffer(arrays["predict_proba"], "<f8").tolist() == close(expected["predict_proba"])
        texts = [text.encode() for text in expected["label"]]
        assert arrays["label"] == b"".join(struct.pack("<I", len(text)) + text for text in texts)


def test_answer_is_not_compressed_for_who_names_several_codings_out_of_habit(
    client: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    headers = {"Accept-Encoding": "gzip, deflate, br"}
    body = {"inputs": tensors(client, "attrition", [attrition_row])}
    answer = client.post("/v2/models/attrition/infer", json=body, headers=headers)
    assert answer.status_code == 200
    assert "content-encoding" not in answer.headers


def test_as_many_rows_as_a_batch_may_hold_are_scored(client: httpx2.Client, credit_row: dict[str, Any]) -> None:
    inputs = tensors(client, "credit", [credit_row] * 1_000)
    outputs = outputs_of(infer(client, "credit", inputs))
    once = _once(client, credit_row)
    assert outputs["label"] == once["label"] * 1_000
    assert outputs["predict_proba"] == close(once["predict_proba"] * 1_000)
    for tensor in inputs:
        tensor["shape"] = [1_001]
        tensor["data"].append(tensor["data"][0])
    assert "at most 1000 rows" in check_refused(infer(client, "credit", inputs), 413)


def _once(client: httpx2.Client, row: dict[str, Any]) -> dict[str, list[Any]]:
    return outputs_of(infer(client, "credit", tensors(client, "credit", [row])))


def test_named_version_is_asked_under_its_number(client: httpx2.Client, credit_row: dict[str, Any]) -> None:
    body = {"inputs": tensors(client, "credit", [credit_row])}
    answer = client.post("/v2/models/credit/versions/1/infer", json=body)
    assert outputs_of(answer)["predict_proba"] == close(_once(client, credit_row)["predict_proba"])
    message = check_refused(client.post("/v2/models/credit/versions/99/infer", json=body), 404)
    assert "Known versions: 1" in message


def test_job_is_answered_to_who_prefers_not_to_wait(client: httpx2.Client, credit_row: dict[str, Any]) -> None:
    body = {"inputs": tensors(client, "credit", [credit_row] * 2)}
    answer = client.post("/v2/models/credit/infer", json=body, headers={"Prefer": "respond-async"})
    job = check_accepted(answer)
    assert answer.headers["preference-applied"] == "respond-async"
    wait_for_job(client, job["id"])
    assert len(client.get(f"/jobs/{job['id']}/result").json()["items"]) == 2


def test_same_request_with_the_same_idempotency_key_is_one_job(
    client: httpx2.Client, credit_row: dict[str, Any]
) -> None:
    headers = {"Idempotency-Key": new_id()}
    content = json.dumps({"inputs": tensors(client, "credit", [credit_row])}).encode()
    first = client.post("/v2/models/credit/infer", content=content, headers=headers)
    packed = headers | {"Content-Encoding": "gzip"}
    again = client.post("/v2/models/credit/infer", content=gzip.compress(content), headers=packed)
    assert again.json() == first.json()
    check_refused(client.post("/v2/models/credit/infer", content=content + b" ", headers=headers), 400)


@pytest.mark.parametrize("rows", [[RAISES], [0.1, RAISES, 0.2]])
def test_row_on_which_the_model_fails_is_named_because_a_tensor_has_no_place_for_it(
    client: httpx2.Client, moody: str, rows: list[float]
) -> None:
    inputs = [{"name": "mood", "shape": [len(rows)], "datatype": "FP64", "data": rows}]
    message = check_refused(infer(client, moody, inputs), 500)
    assert "CANARY" not in message
    if len(rows) > 1:
        assert "failed on row 1 of this request" in message


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────


def test_request_that_does_not_fit_is_refused_whole_and_logged(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    before, request_id = counts(engine), new_id()
    inputs = tensors(client, "attrition", [attrition_row] * 3)
    inputs[0]["data"][2] = 7_777_777
    answer = client.post("/v2/models/attrition/infer", json={"inputs": inputs}, headers={"X-Request-Id": request_id})
    message = check_refused(answer)
    assert f"`{inputs[0]['name']}`[2] must be an integer between" in message
    assert "7777777" not in message
    entry = logged(engine, request_id)
    assert (entry["status"], entry["code"]) == (400, "invalid_row")
    assert [fault["pointer"] for fault in entry["faults"]] == ["/inputs/0/data/2"]
    assert counts(engine) == before


def test_log_of_a_request_with_many_bad_elements_says_that_there_are_more(
    client: httpx2.Client, engine: Engine
) -> None:
    request_id = new_id()
    inputs = [{"name": "x", "shape": [10, 30], "datatype": "FP64", "data": ["CANARY"] * 300}]
    answer = client.post("/v2/models/credit/infer", json={"inputs": inputs}, headers={"X-Request-Id": request_id})
    assert check_refused(answer).endswith("; and at least 98 more.")
    stored = logged(engine, request_id)["faults"]
    assert len(stored) == 101
    assert stored[-1]["message"] == "only the first 100 faults of a request are listed"


def test_far_more_inputs_than_features_are_refused_in_one_sentence(client: httpx2.Client) -> None:
    inputs = [{"name": f"x{number}", "shape": [1], "datatype": "FP64", "data": [1]} for number in range(550)]
    message = check_refused(infer(client, "attrition", inputs))
    assert message.endswith("550 inputs were given, and the model has 43 features: one for each.")


@pytest.mark.parametrize(
    ("content", "headers", "status", "sentence"),
    [
        (b"", {}, 400, "The body is empty"),
        (b"{", {}, 400, "not valid JSON"),
        (b'{"inputs": [{"data": [NaN]}]}', {}, 400, "NaN"),
        (b'{"inputs": [], "inputs": []}', {}, 400, "same key twice"),
        (b"[" * 100 + b"]" * 100, {}, 400, "nested deeper"),
        (b'{"inputs": []}', {}, 400, '"inputs" must be a list of at least one tensor'),
        (b"{}", {"Content-Type": "text/csv"}, 415, "application/json"),
        (b"{}", {"Content-Encoding": "br"}, 415, "gzip or deflate"),
        (b"{}", {"Content-Encoding": "gzip"}, 400, "not compressed as its Content-Encoding says"),
        (gzip.compress(b"{}", mtime=0)[:-4], {"Content-Encoding": "gzip"}, 400, "cut off"),
        (gzip.compress(b"{}", mtime=0) * 2, {"Content-Encoding": "gzip"}, 400, "something follows"),
        (gzip.compress(bytes(10_000_001), mtime=0), {"Content-Encoding": "gzip"}, 413, "larger than 10000000 bytes"),
        (b"{}", {LENGTH: "3"}, 400, "from 1 to the 2 that the body has"),
        (b"{}", {LENGTH: "0"}, 400, LENGTH),
        (b"{}", {LENGTH: "-1"}, 400, LENGTH),
        (b"{}", {LENGTH: "x"}, 400, LENGTH),
        (b"{}", {LENGTH: "9" * 400}, 400, LENGTH),
    ],
)  # fmt: skip
def test_body_that_cannot_be_read_is_refused_with_what_to_do(
    client: httpx2.Client, content: bytes, headers: dict[str, str], status: int, sentence: str
) -> None:
    message = check_refused(client.post("/v2/models/credit/infer", content=content, headers=headers), status)
    assert sentence in message


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/models/ghost/infer", 404),
        ("GET", "/v2/models/ghost", 404),
        ("GET", "/v2/models/ghost/ready", 404),
        ("GET", "/v2/models/credit/versions/9", 404),
        ("GET", "/v2/models/credit/versions/v1.2/ready", 404),
        ("POST", "/v2/models/credit/versions/v1.2/infer", 404),
        ("GET", "/v2/models/credit/infer", 405),
        ("GET", "/v2/models/credit/config", 404),
        ("GET", "/v2/models/credit/stats", 404),
        ("POST", "/v2/repository/models/credit/load", 404),
        ("POST", "/v2/models/%C3%A4%2Fb/infer", 404),
        ("GET", "/v2/nothing", 404),
    ],
)
def test_what_there_is_not_is_refused_in_the_words_of_the_protocol(
    client: httpx2.Client, method: str, path: str, status: int
) -> None:
    body = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1]}]} if method == "POST" else None
    check_refused(client.request(method, path, json=body), status)


# ── health and metadata ──────────────────────────────────────────────────────────────────────────────────────────


def test_server_and_models_say_that_they_are_ready(client: httpx2.Client) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/credit/ready", "/v2/models/credit/versions/1/ready"):
        assert client.get(path).json() == {"name": "credit", "ready": True}


def test_server_tells_its_name_and_extensions(client: httpx2.Client) -> None:
    metadata = client.get("/v2").json()
    assert metadata.keys() == {"name", "version", "extensions"}
    assert "binary_tensor_data" in metadata["extensions"]


def test_metadata_of_a_model_is_enough_to_write_a_request(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    metadata = client.get("/v2/models/attrition").json()
    assert client.get("/v2/models/attrition/versions/1").json() == metadata
    assert metadata["versions"] == ["1"]
    inputs = [
        {"name": tensor["name"], "datatype": tensor["datatype"], "shape": [1], "data": [attrition_row[tensor["name"]]]}
        for tensor in metadata["inputs"]
    ]
    assert list(outputs_of(infer(client, "attrition", inputs))) == [tensor["name"] for tensor in metadata["outputs"]]


def test_index_lists_every_version_with_its_state(client: httpx2.Client) -> None:
    entries = client.post("/v2/repository/index").json()
    assert {"name": "credit", "version": "1", "state": "READY", "reason": ""} in entries
    assert client.post("/v2/repository/index", json={"ready": True}).json() == entries
    assert client.post("/v2/repository/index", json={"ready": None}).json() == entries
    for body in ([1], {"ready": "yes"}, {"ready": {}}):
        check_refused(client.post("/v2/repository/index", json=body))
