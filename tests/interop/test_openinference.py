"""The Open Inference Protocol, proven with other people's clients and against a real MLServer."""

import importlib
import json
from typing import Any

import httpx2
import numpy as np
import pytest

from examples.frames import records
from tests.conftest import example_rows
from tests.contracts.protocols.test_openinference import close, tensors
from tests.interop.conftest import ClientRunner, Row
from tests.support.stack import Stack

pytestmark = pytest.mark.interop

ROWS, SEED = 200, 24_602
TOLERANCE = 1e-6  # what a scorer may differ from the pipeline itself (shared/scoring/parity.py)


def batch(stack: Stack, model: str, rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return what Guichet's own route says of these rows."""
    with stack.client() as client:
        items = client.post("/predict_batch", json={"model": model, "rows": rows}).json()["items"]
    return {name: [item[name] for item in items] for name in ("prediction", "label", "probability")}


def inputs_of(stack: Stack, model: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    with stack.client() as client:
        return tensors(client, model, rows)


# ── clients ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tritons_client_works_unchanged(stack: Stack, run_client: ClientRunner) -> None:
    rows = example_rows("attrition")
    report = run_client("triton", url=stack.url, model="attrition", tensors=inputs_of(stack, "attrition", rows))
    own = batch(stack, "attrition", rows)
    assert report["health"] == [True, True, True]
    assert report["no model"] is False
    assert report["server"] == "guichet"
    assert report["metadata"]["versions"] == ["1"]
    assert {"name": "attrition", "version": "1", "state": "READY", "reason": ""} in report["index"]
    for way in ("binary", "gzip", "deflate", "thread", "aio binary", "aio gzip"):
        assert report[way]["predict"] == own["prediction"], way
        assert report[way]["label"] == own["label"], way
        assert [chances[1] for chances in report[way]["predict_proba"]] == close(own["probability"]), way
    assert report["json"] == {"label": own["label"], "predict": own["prediction"]}
    for way in ("mixed", "aio json"):
        assert list(report[way]) == ["predict_proba"]
    assert report["id"] == "mine"
    assert report["aio health"] == [True, True]
    assert report["aio many"] is True
    refused = report["refused"]
    assert {name: refused[name][0] for name in refused if name != "asynchronous"} == {
        **{"model": "404", "version": "404", "missing": "400", "output": "400", "classes": "400", "config": "404"}
    }
    assert "missing among the inputs" in refused["missing"][1]
    assert "it gives predict, predict_proba, label" in refused["output"][1]
    assert refused["asynchronous"] == "202"  # its caller asked for a job, of which this client knows nothing


def test_open_inference_clients_work_unchanged(stack: Stack, run_client: ClientRunner) -> None:
    rows = example_rows("attrition")
    inputs = inputs_of(stack, "attrition", rows)
    report = run_client("standard", url=stack.url, model="attrition", tensors=inputs)
    own = batch(stack, "attrition", rows)
    assert report["server"] == "guichet"
    assert report["metadata"] == [[tensor["name"], tensor["datatype"], [-1]] for tensor in inputs]
    for way in ("infer", "version"):
        assert report[way]["predict"] == own["prediction"]
        assert report[way]["label"] == own["label"]
        assert report[way]["predict_proba"][1::2] == close(own["probability"])
    assert report["label"] == report["aio"] == {"label": own["label"]}
    assert {name: status for name, (status, _) in report["refused"].items()} == {
        **{"model": 404, "metadata": 404, "inputs": 400}
    }
    assert all(list(body) == ["error"] for _, body in report["refused"].values())
    assert report["remote ready"] is True
    assert report["remote"]["predict"] == own["prediction"]
    assert report["remote"]["label"] == own["label"]


def test_codecs_of_mlserver_encode_requests_and_decode_answers(
    both: Stack, mlserver: str, run_client: ClientRunner
) -> None:
    """The same program, sent to both servers, prints the same, but for `label`, which MLServer does not give."""
    rows = example_rows("attrition")
    matrix = np.random.default_rng(1).normal(size=(5, 4)).tolist()
    report = run_client("codecs", url=both.url, rows=rows, matrix=matrix)
    own = batch(both, "attrition", rows)
    assert report["pandas"] == own["prediction"]
    assert report["shape"] == [len(rows), 1]
    assert report["label"] == own["label"]
    assert [chances[1] for chances in report["proba"]] == close(own["probability"])
    assert report["numpy"] == report["numpy by name"]
    assert np.shape(report["numpy"]) == (5, 1)
    assert np.argmax(report["numpy proba"], axis=1).tolist() == [
        ["iris", "lily", "rose"].index(kind) for [kind] in report["numpy"]
    ]


# ── the same requests to a real MLServer ─────────────────────────────────────────────────────────────────────────


def named(client: httpx2.Client, model: str, rows: list[dict[str, Any]], shape: list[int]) -> list[dict[str, Any]]:
    """Return rows as MLServer's pandas codec writes them."""
    columns = tensors(client, model, rows)
    for column in columns:
        column["shape"] = [len(rows), *shape]
        if column["datatype"] == "BYTES":
            column["parameters"] = {"content_type": "str"}
    return columns


def fresh_rows(model: str) -> list[dict[str, Any]]:
    """Return rows that an example model was not trained on."""
    features = importlib.import_module(f"examples.{model}.features").FEATURES
    frame = importlib.import_module(f"examples.{model}.data").generate(ROWS, seed=SEED)
    return records(frame[[feature.name for feature in features]])


def requests(client: httpx2.Client) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return requests that both servers must answer alike: (model, body) by what they are."""
    outputs = {"outputs": [{"name": "predict"}, {"name": "predict_proba"}]}
    chances = {"outputs": [{"name": "predict_proba"}]}
    frame = {"parameters": {"content_type": "pd"}}
    people, houses = fresh_rows("attrition"), fresh_rows("energy")
    loans = tensors(client, "credit", fresh_rows("credit"))
    cells = [list(row) for row in zip(*(tensor["data"] for tensor in loans), strict=True)]
    width, flowers = len(loans), np.random.default_rng(2).normal(size=(40, 4)).round(4).tolist()
    flat = [cell for row in flowers for cell in row]

    def matrix(data: Any, shape: list[int], datatype: str = "FP64") -> dict[str, Any]:
        return {"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": data}]}

    return {
        "columns by name": ("attrition", {"inputs": named(client, "attrition", people, []), **frame}),
        "columns [n, 1], both outputs": (
            "attrition",
            {"inputs": named(client, "attrition", people, [1]), **frame, **outputs},
        ),
        "one row": ("attrition", {"inputs": named(client, "attrition", people[:1], [1]), **frame, **outputs}),
        "an id": ("attrition", {"id": "mine", "inputs": named(client, "attrition", people, []), **frame}),
        "a regression": ("energy", {"inputs": named(client, "energy", houses, []), **frame}),
        "a matrix, flat": ("flowers", matrix(flat, [40, 4])),
        "a matrix, nested": ("flowers", matrix(flowers, [40, 4]) | outputs),
        "a matrix of FP32": ("flowers", matrix(flat, [40, 4], "FP32") | outputs),
        "a matrix of FP16": ("flowers", matrix(flat, [40, 4], "FP16") | outputs),
        "a matrix of INT8": ("flowers", matrix([1, 2, 3, 4, 4, 3, 2, 1], [2, 4], "INT8") | outputs),
        "a matrix with nulls": ("credit", matrix(cells, [len(cells), width]) | chances),
        "a matrix, np codec": ("flowers", matrix(flat, [40, 4]) | {"parameters": {"content_type": "np"}}),
    }


def bad_requests(client: httpx2.Client) -> dict[str, tuple[str, dict[str, Any] | bytes]]:
    """Return requests that both servers must refuse."""
    people = named(client, "attrition", example_rows("attrition"), [])
    frame = {"parameters": {"content_type": "pd"}}
    x = {"name": "x", "shape": [1, 4], "datatype": "FP64", "data": [1, 2, 3, 4]}
    return {
        "no JSON": ("flowers", b"{"),
        "no inputs": ("flowers", {}),
        "empty inputs": ("flowers", {"inputs": []}),
        "a tensor without a shape": ("flowers", {"inputs": [{key: x[key] for key in ("name", "datatype", "data")}]}),
        "an unknown datatype": ("flowers", {"inputs": [x | {"datatype": "FP99"}]}),
        "too few elements": ("flowers", {"inputs": [x | {"shape": [2, 4]}]}),
        "too few features": ("flowers", {"inputs": [x | {"shape": [2, 2]}]}),
        "a vector": ("flowers", {"inputs": [x | {"shape": [4]}]}),
        "text in FP64": ("flowers", {"inputs": [x | {"data": ["a", "b", "c", "d"]}]}),
        "null where none is known": ("flowers", {"inputs": [x | {"data": [1, None, 3, 4]}]}),
        "an integer beyond INT8": ("flowers", {"inputs": [x | {"datatype": "INT8", "data": [1, 2, 3, 400]}]}),
        "an unknown output": ("flowers", {"inputs": [x], "outputs": [{"name": "nothing"}]}),
        "a missing column": ("attrition", {"inputs": people[1:], **frame}),
        "an unknown model": ("nobody", {"inputs": [x]}),
    }


def test_same_requests_get_the_same_numbers_from_a_real_mlserver(both: Stack, mlserver: str, table: list[Row]) -> None:
    different = []
    with both.client() as client:
        for what, (model, body) in requests(client).items():
            path = f"/v2/models/{model}/infer"
            ours = client.post(path, json=body)
            theirs = httpx2.post(mlserver + path, json=body, timeout=30)
            assert ours.status_code == theirs.status_code == 200, f"{what}: {ours.text} {theirs.text}"
            answer, expected = ours.json(), theirs.json()
            assert "id" not in body or answer["id"] == expected["id"]
            outputs = {output["name"]: output for output in answer["outputs"]}
            worst = 0.0
            for output in expected["outputs"]:
                own = outputs[output["name"]]
                worst = max(worst, difference(own["data"], output["data"]))
                if own["datatype"] != output["datatype"] or ("parameters" in body and own["shape"] != output["shape"]):
                    worst = float("inf")
            if worst > TOLERANCE:
                different.append(what)
            names = ", ".join(output["name"] for output in expected["outputs"])
            rows = expected["outputs"][0]["shape"][0]
            table.append((f"{both.runtime}: {what}", f"200 {names}", f"200 {rows} rows", f"{worst:.1e}"))
    assert different == []


def difference(ours: list[Any], theirs: list[Any]) -> float:
    """Return the largest difference between two lists of numbers; infinity for texts or lengths that differ."""
    if len(ours) != len(theirs):
        return float("inf")
    if any(isinstance(value, str) for value in theirs):
        return 0.0 if ours == theirs else float("inf")
    return float(np.max(np.abs(np.subtract(ours, theirs)) / np.maximum(1, np.abs(theirs))))


def test_same_bad_requests_are_refused_by_both(both: Stack, mlserver: str, table: list[Row]) -> None:
    accepted = []
    with both.client() as client:
        for what, (model, body) in bad_requests(client).items():
            path = f"/v2/models/{model}/infer"
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers = {"Content-Type": "application/json"}
            ours = client.post(path, content=content, headers=headers)
            theirs = httpx2.post(mlserver + path, content=content, headers=headers, timeout=30)
            assert ours.json().keys() == {"error"}
            if ours.status_code not in (400, 404) or theirs.status_code < 400:
                accepted.append(f"{what}: {ours.status_code} {theirs.status_code}")
            verdict = "both refuse" if theirs.status_code >= 400 else "only one refuses"
            table.append((f"{both.runtime}: {what}", str(ours.status_code), str(theirs.status_code), verdict))
    assert accepted == []
