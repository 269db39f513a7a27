"""How a JSON body may be written: gzip is taken, other encodings than UTF-8 are named."""

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from tests.contracts.helpers import ROUTES, body_for, new_id, post_raw

OTHERS = ("/invocations", "/v2/models/attrition/infer")


def body_of(route: str, row: dict[str, Any]) -> dict[str, Any]:
    if route == "/invocations":
        return {"dataframe_records": [row]}
    if route.startswith("/v2"):
        kinds: dict[type, str] = {int: "INT64", float: "FP64", str: "BYTES", bool: "BOOL"}
        tensors = [
            {"name": name, "shape": [1], "datatype": kinds[type(value)], "data": [value]} for name, value in row.items()
        ]
        return {"inputs": tensors}
    return body_for(route, row)


@pytest.mark.parametrize("route", [*ROUTES, *OTHERS])
@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_packed_body_is_scored_as_the_plain_one(
    client: httpx2.Client, attrition_row: dict[str, Any], route: str, coding: str, pack: Callable[[bytes], bytes]
) -> None:
    body = json.dumps(body_of(route, attrition_row)).encode()
    key = {"Idempotency-Key": new_id()}
    packed = post_raw(client, route, pack(body), **{"Content-Encoding": coding}, **key)
    assert packed.status_code in (200, 202), packed.text
    again = post_raw(client, route, body, **key)  # the same request, however it is packed
    assert again.status_code in (200, 202), again.text


@pytest.mark.parametrize("route", [*ROUTES, *OTHERS])
@pytest.mark.parametrize(
    ("encode", "headers", "message"),
    [
        (lambda text: text.encode("utf-16"), {}, "The body is in UTF-16"),
        (lambda text: text.encode("utf-16-le"), {"Content-Type": "application/json; charset=utf-8"}, "in UTF-16"),
        (lambda text: text.encode("utf-32-be"), {}, "The body is in UTF-32"),
        (lambda text: gzip.compress(text.encode()), {}, "Content-Encoding: gzip"),
        (lambda text: text.encode(), {"Content-Encoding": "br"}, "use gzip or deflate"),
    ],
)
def test_body_that_is_written_otherwise_is_415_and_named(
    client: httpx2.Client,
    attrition_row: dict[str, Any],
    route: str,
    encode: Callable[[str], bytes],
    headers: dict[str, str],
    message: str,
) -> None:
    answer = post_raw(client, route, encode(json.dumps(body_of(route, attrition_row))), **headers)
    assert answer.status_code == 415, answer.text
    assert message in answer.text
