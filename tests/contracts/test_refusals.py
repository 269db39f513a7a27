"""What is refused, in which words, and that nothing of it is queued; every refusal is in error_logs."""

import json
import socket
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine

from tests.contracts.helpers import (
    ROUTES,
    SINGLE_ROUTES,
    body_for,
    check_problem,
    check_result,
    counts,
    faults_of,
    logged,
    new_id,
    post_raw,
    with_raw,
)
from tests.support.stack import Stack

MAX_BODY_BYTES = 10_000_000

Raw = Callable[[str, dict[str, Any]], bytes]


def value(text: str) -> Raw:
    return lambda route, row: with_raw(route, row, text)


def plain(text: bytes) -> Raw:
    return lambda route, row: text


def around(before: bytes, after: bytes) -> Raw:
    return lambda route, row: before + json.dumps(body_for(route, row)).encode() + after


def with_key(text: str) -> Raw:
    """One feature more, its name written by hand."""
    return lambda route, row: json.dumps(body_for(route, row | {"@@": 1})).replace('"@@"', text).encode()


def twice_at_the_top(route: str, row: dict[str, Any]) -> bytes:
    body = json.dumps(body_for(route, row))
    return (body[:-1] + ", " + body[1:]).encode()


def truncated(route: str, row: dict[str, Any]) -> bytes:
    return json.dumps(body_for(route, row)).encode()[:-2]


MALFORMED: dict[str, Raw] = {
    "NaN": value("NaN"),
    "Infinity": value("Infinity"),
    "minus Infinity": value("-Infinity"),
    "1e999": value("1e999"),
    "minus 1e999": value("-1e999"),
    "number with a leading zero": value("007"),
    "hexadecimal number": value("0x10"),
    "undefined": value("undefined"),
    "single quotes": value("'text'"),
    "NUL escaped in a value": value(r'"a\u0000b"'),
    "NUL escaped in a key": with_key(r'"a\u0000b"'),
    "NUL as a byte": value('"a\x00b"'),
    "control character in a value": value('"a\x01b"'),
    "lone high surrogate": value(r'"\ud800"'),
    "lone low surrogate": value(r'"\udfff"'),
    "lone surrogate in a key": with_key(r'"\ud800"'),
    "duplicate key at the top": twice_at_the_top,
    "duplicate feature": with_key('"age"'),
    "duplicate feature, escaped": with_key(r'"\u0061ge"'),
    "duplicate key deep inside": value('{"a": [{"b": 1, "b": 1}]}'),
    "integer of 4,000 digits": value("1" * 4_000),
    "fraction of 4,000 digits": value("0." + "1" * 4_000),
    "fraction of 4,000 zeros": value("1." + "0" * 4_000),
    "exponent of 4,000 digits": value("1e-" + "1" * 4_000),
    "depth of 17": lambda route, row: with_raw(
        route, row, "[" * (15 - nesting(route)) + "[[]]" + "]" * (15 - nesting(route))
    ),
    "depth of 10,000": value("[" * 10_000 + "]" * 10_000),
    "depth of 10,000, never closed": plain(b"[" * 10_000),
    "depth of 10,000 objects": plain(b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    "nothing": plain(b""),
    "white space": plain(b" \n\t"),
    "truncated": truncated,
    "invalid UTF-8": lambda route, row: with_raw(route, row, '"@"').replace(b"@", b"\xff\xfe"),
    "overlong UTF-8": lambda route, row: with_raw(route, row, '"@"').replace(b"@", b"\xc0\xaf"),
    "surrogate as UTF-8": lambda route, row: with_raw(route, row, '"@"').replace(b"@", b"\xed\xa0\x80"),
    "byte order mark": around(b"\xef\xbb\xbf", b""),
    "trailing garbage": around(b"", b" garbage"),
    "two documents": around(b"", b"{}"),
    "trailing comma": lambda route, row: json.dumps(body_for(route, row))[:-1].encode() + b",}",
    "comment": around(b"// comment\n", b""),
    "not JSON at all": plain(b"age=36&genre=1"),
}


def nesting(route: str) -> int:
    """How deep a feature's value lies: {features: {value}} or {rows: [{value}]}."""
    return 3 if route == "/predict_batch" else 2


@pytest.mark.parametrize("route", ["/predict", "/predict_batch"])
@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_body_is_refused_and_nothing_is_queued(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any], route: str, kind: str
) -> None:
    before = counts(engine)
    answer = post_raw(client, route, MALFORMED[kind](route, attrition_row))
    problem = check_problem(answer, 400, "malformed_body")
    assert problem["title"] == "Malformed body"
    assert counts(engine) == before


@pytest.mark.parametrize("route", ROUTES)
def test_malformed_body_is_logged_without_its_values(client: httpx2.Client, engine: Engine, route: str) -> None:
    request_id, canary = new_id(), f"canary-{uuid.uuid4()}"
    answer = post_raw(
        client, route, f'{{"features": {{"age": "{canary}", "x": NaN}}}}'.encode(), **{"X-Request-Id": request_id}
    )
    check_problem(answer, 400, "malformed_body")
    assert canary not in answer.text
    entry = logged(engine, request_id)
    assert (entry["status"], entry["code"], entry["method"], entry["path"]) == (400, "malformed_body", "POST", route)
    assert entry["detail"] == answer.json()["detail"]
    assert canary not in str(dict(entry))


def test_depth_of_16_is_read_and_found_not_to_fit(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    answer = post_raw(client, "/predict", with_raw("/predict", attrition_row, "[" * 14 + "]" * 14))
    assert faults_of(check_problem(answer, 422)) == [("/features/revenu_mensuel", "type")]


def test_escapes_that_only_look_dangerous_are_read(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    text = r'"\\u0000 : \"age\": \ud83d\ude00 ' + "1" * 30 + '"'
    check_result(post_raw(client, "/predict", with_raw("/predict", attrition_row, text, name="poste")))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("body", ["[]", "[{}]", "36", '"text"', "null", "true"])
def test_body_that_is_no_object_is_refused(client: httpx2.Client, engine: Engine, route: str, body: str) -> None:
    before = counts(engine)
    answer = post_raw(client, route, body.encode())
    assert faults_of(check_problem(answer, 422, "invalid_row")) == [("", "not_an_object")]
    assert counts(engine) == before


# ── the row does not fit the card ────────────────────────────────────────────────────────────────────────────────

FAULTY: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "type: text for an integer": ({"age": "36"}, [("/age", "type")]),
    "type: boolean for an integer": ({"genre": True}, [("/genre", "type")]),
    "type: fraction for an integer": ({"age": 36.5}, [("/age", "type")]),
    "type: number for text": ({"poste": 5}, [("/poste", "type")]),
    "type: list": ({"poste": ["Manager"]}, [("/poste", "type")]),
    "type: object": ({"poste": {"a": 1}}, [("/poste", "type")]),
    "null": ({"age": None}, [("/age", "null")]),
    "range: above": ({"genre": 3}, [("/genre", "range")]),
    "range: below": ({"genre": -1}, [("/genre", "range")]),
    "range: far above": ({"nombre_participation_pee": 10**30}, [("/nombre_participation_pee", "range")]),
    "range: on an exclusive bound": (
        {"revenu_mensuel": 0, "salaire_par_annee_exp": 1},
        [("/revenu_mensuel", "range")],
    ),
    "length": ({"statut_marital": "x" * 51}, [("/statut_marital", "length")]),
    "length: empty": ({"domaine_etude": ""}, [("/domaine_etude", "length")]),
    "unknown": ({"agee": 36}, [("/agee", "unknown_feature")]),
    "unknown: escaped in the pointer": ({"a/b~c": 36}, [("/a~1b~0c", "unknown_feature")]),
    "unknown: empty name": ({"": 36}, [("/", "unknown_feature")]),
    "rule": ({"annees_dans_le_poste_actuel": 69}, [("/annees_dans_le_poste_actuel", "rule")]),
    "two rules at once": (
        {"age_debut_carriere": 70},
        [("/age_debut_carriere", "rule"), ("/age_debut_carriere", "rule")],
    ),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("kind", FAULTY)
def test_row_that_does_not_fit_is_refused_and_nothing_is_queued(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any], route: str, kind: str
) -> None:
    changes, expected = FAULTY[kind]
    before = counts(engine)
    answer = client.post(route, json=body_for(route, attrition_row | changes))
    prefix = "/rows/0" if route == "/predict_batch" else "/features"
    assert faults_of(check_problem(answer, 422, "invalid_row")) == [(prefix + at, code) for at, code in expected]
    assert counts(engine) == before


@pytest.mark.parametrize("name", ["wall_insulation", "glazing"])
def test_category_outside_a_closed_list_is_refused_with_the_list(
    client: httpx2.Client, energy_row: dict[str, Any], name: str
) -> None:
    answer = client.post("/models/energy/predict", json={"features": energy_row | {name: "straw"}})
    problem = check_problem(answer, 422, "invalid_row")
    assert faults_of(problem) == [(f"/features/{name}", "category")]
    assert "straw" not in answer.text
    assert "must be one of" in problem["errors"][0]["message"]


def test_category_outside_an_open_list_is_scored(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    check_result(client.post("/predict", json={"features": attrition_row | {"poste": "Astronaute"}}))


@pytest.mark.parametrize("route", SINGLE_ROUTES)
def test_every_fault_of_a_row_is_listed_at_once(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any], route: str
) -> None:
    row = {name: value for name, value in attrition_row.items() if name not in ("age", "poste")}
    row |= {"agee": 36, "genre": 9, "departement": 5, "statut_marital": None, "annees_dans_le_poste_actuel": 69}
    request_id, before = new_id(), counts(engine)
    answer = client.post(
        route, json={"features": row, "pirority": 1, "timeout": -1}, headers={"X-Request-Id": request_id}
    )
    problem = check_problem(answer, 422, "invalid_row")
    expected = [
        ("/features/age", "missing"),
        ("/features/agee", "unknown_feature"),
        ("/features/annees_dans_le_poste_actuel", "rule"),
        ("/features/departement", "type"),
        ("/features/genre", "range"),
        ("/features/poste", "missing"),
        ("/features/statut_marital", "null"),
        ("/pirority", "unknown_field"),
        ("/timeout", "range"),
    ]
    assert faults_of(problem) == expected
    assert counts(engine) == before
    entry = logged(engine, request_id)
    assert (entry["method"], entry["path"], entry["status"], entry["code"]) == ("POST", route, 422, "invalid_row")
    assert sorted((fault["pointer"], fault["code"]) for fault in entry["faults"]) == expected


def test_unknown_feature_is_answered_with_the_name_that_was_meant(
    client: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    problem = check_problem(client.post("/predict", json={"features": attrition_row | {"revenu_mensuell": 1}}), 422)
    assert 'did you mean "revenu_mensuel"?' in problem["errors"][0]["message"]


def test_thousand_faults_are_listed_and_all_are_counted(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    request_id = new_id()
    row = attrition_row | {f"stranger{number}": 1 for number in range(1_500)}
    answer = client.post("/predict", json={"features": row}, headers={"X-Request-Id": request_id})
    problem = check_problem(answer, 422, "invalid_row")
    assert len(problem["errors"]) == 1_000
    assert problem["detail"].endswith("and 1497 more. The first 1000 of its 1500 faults are listed.")
    stored = logged(engine, request_id)["faults"]
    assert len(stored) == 101
    assert stored[-1]["message"] == "there are 1500 faults in all"


CANARIES: dict[str, Callable[[str, dict[str, Any]], dict[str, Any]]] = {
    "wrong type": lambda canary, row: {"features": row | {"age": canary}},
    "too long": lambda canary, row: {"features": row | {"statut_marital": canary * 3}},
    "unknown feature": lambda canary, row: {"features": row | {"unknown": canary}},
    "list": lambda canary, row: {"features": row | {"age": [canary]}},
    "features no object": lambda canary, row: {"features": canary},
    "unknown field": lambda canary, row: {"features": row, "unknown": canary},
    "timeout": lambda canary, row: {"features": row, "timeout": canary},
    "version": lambda canary, row: {"features": row, "version": canary},
    "model": lambda canary, row: {"features": row, "model": canary},
    "closed category": lambda canary, row: {"features": {"glazing": canary}, "model": "energy"},
}


@pytest.mark.parametrize("place", CANARIES)
def test_values_are_neither_answered_nor_logged(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any], place: str
) -> None:
    request_id, canary = new_id(), f"canary-{uuid.uuid4()}"
    body = CANARIES[place](canary, attrition_row)
    answer = client.post("/predict", json=body, headers={"X-Request-Id": request_id})
    assert answer.status_code in (404, 422)
    assert canary not in answer.text
    entry = logged(engine, request_id)
    assert entry["status"] == answer.status_code
    assert entry["detail"] == answer.json()["detail"]
    assert canary not in str(dict(entry))


FIELDS: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    "features missing": ({"features": ...}, ("/features", "missing")),
    "features null": ({"features": None}, ("/features", "not_an_object")),
    "features a list": ({"features": []}, ("/features", "not_an_object")),
    "unknown field": ({"feature": 1}, ("/feature", "unknown_field")),
    "model not text": ({"model": 5}, ("/model", "type")),
    "version text": ({"version": "1"}, ("/version", "type")),
    "version boolean": ({"version": True}, ("/version", "type")),
    "version fraction": ({"version": 1.5}, ("/version", "type")),
    "timeout zero": ({"timeout": 0}, ("/timeout", "range")),
    "timeout negative": ({"timeout": -5}, ("/timeout", "range")),
    "timeout above the cap": ({"timeout": 601}, ("/timeout", "range")),
    "timeout text": ({"timeout": "5"}, ("/timeout", "range")),
    "timeout boolean": ({"timeout": True}, ("/timeout", "range")),
    "expires_in zero": ({"expires_in": 0}, ("/expires_in", "range")),
    "expires_in of centuries": ({"expires_in": 1e300}, ("/expires_in", "range")),
    "expires_in a list": ({"expires_in": [1]}, ("/expires_in", "range")),
}


@pytest.mark.parametrize("kind", FIELDS)
def test_field_of_the_request_that_does_not_fit_is_refused(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any], kind: str
) -> None:
    changes, expected = FIELDS[kind]
    body = {name: value for name, value in ({"features": attrition_row} | changes).items() if value is not ...}
    before = counts(engine)
    answer = client.post("/predict", json=body)
    assert faults_of(check_problem(answer, 422, "invalid_row")) == [expected]
    assert counts(engine) == before


def test_path_and_body_that_name_different_models_are_refused(
    client: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    answer = client.post("/models/attrition/predict", json={"features": attrition_row, "model": "credit"})
    assert faults_of(check_problem(answer, 422)) == [("/model", "conflict")]


# ── unknown model, version, path; wrong method ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("route", "more"),
    [
        ("/jobs", {"model": "ghost"}),
        ("/predict", {"model": "ghost"}),
        ("/predict", {"model": ""}),
        ("/predict", {"version": 99}),
        ("/predict", {"version": 0}),
        ("/predict", {"version": -1}),
        ("/predict", {"version": 10**18}),
        ("/predict", {"model": "credit", "version": 99}),
        ("/predict_batch", {"model": "ghost"}),
        ("/predict_batch", {"version": 99}),
        ("/models/ghost/predict", {}),
        ("/models/attrition/predict", {"version": 99}),
        ("/models/%00/predict", {}),
    ],
)
def test_unknown_model_or_version_is_not_found(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any], route: str, more: dict[str, Any]
) -> None:
    request_id, before = new_id(), counts(engine)
    answer = client.post(route, json=body_for(route, attrition_row, **more), headers={"X-Request-Id": request_id})
    problem = check_problem(answer, 404, "not_found")
    assert "Known" in problem["detail"]
    assert counts(engine) == before
    assert logged(engine, request_id)["status"] == 404


@pytest.mark.parametrize("path", ["/nothing", "/predict/x", "/models/attrition/nothing", "/%00", "/%ff"])
def test_unknown_path_is_not_found(client: httpx2.Client, engine: Engine, path: str) -> None:
    request_id = new_id()
    check_problem(client.post(path, headers={"X-Request-Id": request_id}), 404, "not_found")
    assert logged(engine, request_id)["status"] == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/predict"),
        ("GET", "/predict_batch"),
        ("PUT", "/jobs"),
        ("DELETE", "/predict"),
        ("GET", "/models/attrition/predict"),
        ("POST", "/health"),
        ("PUT", "/models"),
    ],
)
def test_method_that_a_path_does_not_take_is_refused_with_those_it_takes(
    client: httpx2.Client, method: str, path: str
) -> None:
    answer = client.request(method, path)
    check_problem(answer, 405, "method_not_allowed")
    allowed = {word.strip() for word in answer.headers["allow"].split(",")}
    assert allowed
    assert method not in allowed


# ── too large, wrong type ────────────────────────────────────────────────────────────────────────────────────────


def speak(stack: Stack, head: str, chunks: Iterator[bytes]) -> tuple[int, bytes]:
    """Send a request by hand, chunk by chunk, until an answer comes; return its status and how it begins."""
    with socket.create_connection(("127.0.0.1", stack.port), timeout=10) as line:
        line.sendall(head.replace("\n", "\r\n").encode())
        try:
            for chunk in chunks:
                line.sendall(chunk)
        except OSError:
            pass  # it answered and hung up
        answer = line.recv(65_536)
    return int(answer.split()[1]), answer


@pytest.mark.parametrize("route", ROUTES)
def test_body_announced_as_too_large_is_refused_before_it_is_sent(stack: Stack, route: str) -> None:
    size = MAX_BODY_BYTES + 1
    head = f"POST {route} HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: {size}\n\n"
    status, answer = speak(stack, head, iter(()))
    assert status == 413
    assert b"application/problem+json" in answer


def test_chunked_body_is_refused_as_soon_as_it_is_too_large(stack: Stack) -> None:
    head = "POST /predict HTTP/1.1\nHost: localhost\nContent-Type: application/json\nTransfer-Encoding: chunked\n\n"
    chunk = b"%x\r\n" % 1_000_000 + b" " * 1_000_000 + b"\r\n"
    status, answer = speak(stack, head, iter([chunk] * 11))  # and no end
    assert status == 413
    assert b"application/problem+json" in answer


def test_body_of_exactly_the_limit_is_read(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    body = json.dumps({"features": attrition_row}).encode()
    check_result(post_raw(client, "/predict", body + b" " * (MAX_BODY_BYTES - len(body))))
    problem = check_problem(post_raw(client, "/predict", body + b" " * (MAX_BODY_BYTES - len(body) + 1)), 413)
    assert str(MAX_BODY_BYTES) in problem["detail"]


def test_batch_of_too_many_rows_is_refused(client: httpx2.Client, engine: Engine) -> None:
    request_id, before = new_id(), counts(engine)
    answer = client.post("/predict_batch", json={"rows": [{}] * 1_001}, headers={"X-Request-Id": request_id})
    assert "1000 rows" in check_problem(answer, 413, "too_large")["detail"]
    assert counts(engine) == before
    assert logged(engine, request_id)["code"] == "too_large"


@pytest.mark.parametrize("route", ROUTES)
def test_body_of_another_type_is_refused_on_every_route(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any], route: str
) -> None:
    request_id, before = new_id(), counts(engine)
    content = json.dumps(body_for(route, attrition_row)).encode()
    headers = {"Content-Type": "text/plain", "X-Request-Id": request_id}
    check_problem(client.post(route, content=content, headers=headers), 415, "unsupported_media_type")
    assert counts(engine) == before
    assert logged(engine, request_id)["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    "media_type",
    [
        "text/csv",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/jsonlines",
        "application/json-seq",
        "nonsense",
    ],
)
def test_type_that_is_not_json_is_refused(
    client: httpx2.Client, attrition_row: dict[str, Any], media_type: str
) -> None:
    content = json.dumps({"features": attrition_row}).encode()
    answer = client.post("/predict", content=content, headers={"Content-Type": media_type})
    check_problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "media_type",
    ["application/json; charset=utf-8", "Application/JSON", "application/json;charset=UTF-8", "application/vnd.x+json"],
)
def test_json_under_its_other_names_is_read(
    client: httpx2.Client, attrition_row: dict[str, Any], media_type: str
) -> None:
    content = json.dumps({"features": attrition_row}).encode()
    check_result(client.post("/predict", content=content, headers={"Content-Type": media_type}))
