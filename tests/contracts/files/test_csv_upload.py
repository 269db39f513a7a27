"""`/predict_csv`: a file is received in every form, cut into chunks, and stored whole before it is answered."""

import gzip
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from shared.database.engine import make_engine
from tests.conftest import example_rows
from tests.contracts.csv_files import (
    CSV,
    check_taken,
    everything,
    first_event,
    post_csv,
    post_form,
    read_answer,
    started,
    stored_file,
    stored_records,
)
from tests.contracts.helpers import TRACEPARENT, beside, check_problem, new_id, stored_job, wait_for_job, wait_until
from tests.support.csv_jobs import file_of, records
from tests.support.stack import Stack

NOTICE = "The file is not UTF-8: it is read as cp1252, as Excel in western Europe writes it."


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """Rows of the default model, with an id."""
    return [{"employee_id": number, **row} for number, row in enumerate(example_rows("attrition"))]


@pytest.fixture
def content(rows: list[dict[str, Any]]) -> bytes:
    return file_of(rows)


# ── a file becomes a job ─────────────────────────────────────────────────────────────────────────────────────────


def test_file_is_a_job_of_chunks_before_it_is_answered(
    client: httpx2.Client, engine: Engine, rows: list[dict[str, Any]], content: bytes
) -> None:
    before = everything(engine)
    answer = client.post("/predict_csv", content=content, headers=CSV | {"traceparent": TRACEPARENT})
    job = check_taken(answer)
    assert everything(engine) == tuple(count + 1 for count in before)

    assert job["status"] in ("queued", "running", "succeeded")
    assert (job["model"], job["counts"]["total"]) == ("attrition", len(rows))
    assert job["csv"] == {
        "filename": None,
        "delimiter": ",",
        "encoding": "utf-8",
        "decimal": ".",
        "thousands": "",
        "currency": "",
        "notices": [],
        "id_column": "employee_id",
        "extra_columns": [],
        "bytes": len(content),
        "max_error_rate": None,
    }
    stored = stored_job(engine, job["id"])
    assert (stored["kind"], stored["lane"], stored["name"]) == ("csv", "bulk", "attrition")
    assert (stored["row_count"], stored["owner"], stored["expires_at"]) == (len(rows), None, None)
    assert stored["request_id"] == answer.headers["x-request-id"] == job["request_id"]
    assert stored["traceparent"] == answer.headers["traceparent"] == TRACEPARENT
    assert stored["timeout_seconds"] == 30
    file = stored_file(engine, job["id"])
    assert (file["chunk_count"], file["byte_count"], file["bom"]) == (1, len(content), False)
    assert file["columns"] == list(rows[0])
    assert stored_records(engine, job["id"]) == [records(rows).encode()]
    event = first_event(engine, job["id"])
    assert (event["seq"], event["type"]) == (1, "accepted")
    assert event["data"]["counts"] == {"total": len(rows), "succeeded": 0, "failed": 0, "pending": len(rows)}
    wait_for_job(client, job["id"])


def test_large_file_is_cut_into_chunks_that_are_the_file(
    client: httpx2.Client, engine: Engine, rows: list[dict[str, Any]]
) -> None:
    text = records(rows).encode()
    times = 9_000 // len(rows)
    job = check_taken(post_form(client, file_of(rows[:1])[: -len(records(rows[:1]).encode())] + text * times))
    chunks = stored_records(engine, job["id"])
    assert len(chunks) == job["progress"]["chunks_total"] == stored_file(engine, job["id"])["chunk_count"] == 3
    assert b"".join(chunks) == text * times
    client.post(f"/jobs/{job['id']}/cancel")


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_file_that_arrives_in_pieces_is_the_same_file(
    client: httpx2.Client, engine: Engine, rows: list[dict[str, Any]], size: int
) -> None:
    content = file_of(rows[:2])

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(content), size):
            yield content[start : start + size]

    job = check_taken(post_csv(client, pieces()))
    assert stored_records(engine, job["id"]) == [records(rows[:2]).encode()]


WRAPPED = {
    "gzip as the content encoding": (lambda data: gzip.compress(data), CSV | {"Content-Encoding": "gzip"}),
    "a compressed file": (lambda data: gzip.compress(data), {"Content-Type": "application/gzip"}),
    "a compressed file called CSV": (lambda data: gzip.compress(data), CSV),
    "a file that Windows calls Excel": (lambda data: data, {"Content-Type": "application/vnd.ms-excel"}),
    "bytes of no type": (lambda data: data, {"Content-Type": "application/octet-stream"}),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_file_is_the_same_however_it_is_sent(
    client: httpx2.Client, engine: Engine, rows: list[dict[str, Any]], content: bytes, case: str
) -> None:
    wrap, headers = WRAPPED[case]
    job = check_taken(client.post("/predict_csv", content=wrap(content), headers=headers))
    assert stored_records(engine, job["id"]) == [records(rows).encode()]
    assert job["csv"]["bytes"] == len(content)  # uncompressed


def test_file_in_a_form_has_its_name(
    client: httpx2.Client, engine: Engine, rows: list[dict[str, Any]], content: bytes
) -> None:
    job = check_taken(post_form(client, content, "année 2025.csv"))
    assert job["csv"]["filename"] == stored_file(engine, job["id"])["filename"] == "année 2025.csv"
    assert stored_records(engine, job["id"]) == [records(rows).encode()]
    job = check_taken(post_form(client, gzip.compress(content), "C:\\folder/rows.csv.gz"))
    assert (job["csv"]["filename"], job["csv"]["bytes"]) == ("rows.csv.gz", len(content))


def test_compressed_form_is_opened(client: httpx2.Client, engine: Engine, rows: list[dict[str, Any]]) -> None:
    request = client.build_request("POST", "/predict_csv", files={"file": ("rows.csv", file_of(rows))})
    headers = {"Content-Type": request.headers["content-type"], "Content-Encoding": "gzip"}
    answer = client.post("/predict_csv", content=gzip.compress(request.read()), headers=headers)
    assert stored_records(engine, check_taken(answer)["id"]) == [records(rows).encode()]


def test_extra_columns_are_kept_for_the_output(client: httpx2.Client, rows: list[dict[str, Any]]) -> None:
    job = check_taken(post_csv(client, file_of([{"site": "Lyon", **row} for row in rows])))
    assert job["csv"]["extra_columns"] == ["site"]
    assert job["csv"]["id_column"] == "employee_id"


# ── how a file is written ────────────────────────────────────────────────────────────────────────────────────────


def french(rows: list[dict[str, Any]]) -> str:
    return file_of(rows, ";", ",").decode()


@pytest.mark.parametrize(
    ("encoding", "encoding_read", "bom"),
    [("utf-8", "utf-8", False), ("utf-8-sig", "utf-8", True), ("cp1252", "cp1252", True), ("utf-16", "utf-16", True)],
)
def test_french_file_of_excel_is_understood(
    client: httpx2.Client, engine: Engine, rows: list[dict[str, Any]], encoding: str, encoding_read: str, bom: bool
) -> None:
    job = check_taken(post_form(client, french(rows).encode(encoding)))
    assert job["csv"] | {"filename": None} == {
        "filename": None,
        "delimiter": ";",
        "encoding": encoding_read,
        "decimal": ",",
        "thousands": "",
        "currency": "",
        "notices": [NOTICE] if encoding_read == "cp1252" else [],
        "id_column": "employee_id",
        "extra_columns": [],
        "bytes": len(french(rows).encode(encoding)),
        "max_error_rate": None,
    }
    assert stored_file(engine, job["id"])["bom"] is bom
    assert b"".join(stored_records(engine, job["id"])).decode() == records(rows, ";", ",")  # kept as UTF-8
    assert wait_for_job(client, job["id"])["counts"]["succeeded"] == len(rows)


def test_caller_says_how_the_file_is_written(client: httpx2.Client, rows: list[dict[str, Any]]) -> None:
    answer = post_csv(
        client,
        french([{"site": "Lyon", **row} for row in rows]).encode("latin-1"),
        delimiter="semicolon",
        encoding="latin-1",
        decimal=",",
        id_column="site",
    )
    form = check_taken(answer)["csv"]
    assert [form[name] for name in ("delimiter", "encoding", "decimal", "id_column")] == [";", "latin-1", ",", "site"]


def test_charset_of_the_type_is_the_encoding_unless_the_query_says_another(
    client: httpx2.Client, rows: list[dict[str, Any]]
) -> None:
    headers = {"Content-Type": "text/csv; charset=iso-8859-1"}
    content = french(rows).encode("latin-1")
    assert check_taken(client.post("/predict_csv", content=content, headers=headers))["csv"]["encoding"] == "latin-1"
    answer = client.post("/predict_csv?encoding=cp1252", content=content, headers=headers)
    assert check_taken(answer)["csv"]["encoding"] == "cp1252"


# ── options ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_options_of_the_job_are_in_the_query(
    client: httpx2.Client, engine: Engine, rows: list[dict[str, Any]], content: bytes
) -> None:
    job = check_taken(post_csv(client, content, timeout=12.5, expires_in=3600, max_error_rate=0.25, version=1))
    stored = stored_job(engine, job["id"])
    assert stored["timeout_seconds"] == 12.5
    assert (stored["expires_at"] - stored["created_at"]).total_seconds() == pytest.approx(3600, abs=1)
    assert stored_file(engine, job["id"])["max_error_rate"] == job["csv"]["max_error_rate"] == 0.25


@pytest.mark.parametrize("path", ["/predict_csv?model=credit", "/models/credit/predict_csv"])
def test_model_is_named_in_the_query_or_in_the_path(client: httpx2.Client, path: str) -> None:
    answer = client.post(path, content=file_of(example_rows("credit")), headers=CSV)
    assert check_taken(answer)["model"] == "credit"


@pytest.mark.parametrize(("prefer", "applied"), [("respond-async", "respond-async"), ("wait=5", None), ("x", None)])
def test_answer_never_waits_for_the_scores(
    client: httpx2.Client, content: bytes, prefer: str, applied: str | None
) -> None:
    answer = client.post("/predict_csv", content=content, headers=CSV | {"Prefer": prefer})
    check_taken(answer)
    assert answer.headers.get("preference-applied") == applied
    assert answer.elapsed.total_seconds() < 3


# ── the same request again ───────────────────────────────────────────────────────────────────────────────────────


def test_same_key_and_file_is_the_same_job(client: httpx2.Client, engine: Engine, content: bytes) -> None:
    headers = {"Idempotency-Key": new_id()}

    def send() -> httpx2.Response:  # in a form, whose boundary is another one each time
        return client.post("/predict_csv?strict=false", files={"file": ("rows.csv", content)}, headers=headers)

    first = check_taken(send())
    before = everything(engine)
    assert check_taken(send())["id"] == first["id"]
    wait_for_job(client, first["id"])
    assert check_taken(send())["id"] == first["id"]
    assert everything(engine) == before


def test_same_key_with_another_file_or_option_is_refused(client: httpx2.Client, engine: Engine, content: bytes) -> None:
    headers = CSV | {"Idempotency-Key": new_id()}
    first = check_taken(client.post("/predict_csv?strict=false&decimal=point", content=content, headers=headers))
    before = everything(engine)
    for query, body in (
        ("strict=false&decimal=point", content.replace(b"\n0,", b"\n9,")),
        ("strict=false&decimal=point&max_error_rate=0.5", content),
        ("strict=false", content),
    ):
        answer = client.post(f"/predict_csv?{query}", content=body, headers=headers)
        assert check_problem(answer, 422, "idempotency_mismatch")["job_id"] == first["id"]
    again = client.post("/predict_csv?decimal=point&strict=false", content=content, headers=headers)
    assert check_taken(again)["id"] == first["id"]  # the order of the options means nothing
    assert everything(engine) == before


def test_key_is_taken_as_long_as_its_first_upload_goes_on(
    client: httpx2.Client, stack: Stack, engine: Engine, content: bytes
) -> None:
    key = new_id()
    headers = CSV | {"Idempotency-Key": key}
    for _ in range(20):
        with started(stack, content[:300], f"Idempotency-Key: {key}", length=len(content)) as connection:
            time.sleep(0.05)
            answer = client.post("/predict_csv", content=b"not a header\n" * 10, headers=headers)
            if answer.status_code != 409:  # it was there before the first one: once more
                continue
            check_problem(answer, 409, "conflict")
            assert int(answer.headers["retry-after"]) >= 1
            connection.sendall(content[300:])
            status, body = read_answer(connection)
            break
    assert status == 202, body
    again = check_taken(client.post("/predict_csv", content=content, headers=headers))
    assert again["id"] == json.loads(body)["id"]


def test_key_of_a_refused_file_is_free_again(client: httpx2.Client, content: bytes) -> None:
    headers = CSV | {"Idempotency-Key": new_id()}
    check_problem(client.post("/predict_csv", content=b"", headers=headers), 422)
    check_taken(client.post("/predict_csv", content=content, headers=headers))


def test_key_sent_by_many_at_once_makes_one_job(stack: Stack, engine: Engine, content: bytes) -> None:
    headers = CSV | {"Idempotency-Key": new_id()}
    before = everything(engine)
    with stack.client() as client, ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: client.post("/predict_csv", content=content, headers=headers), range(12)))
    assert everything(engine) == tuple(count + 1 for count in before)
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 202}) == 1


# ── beside other requests ────────────────────────────────────────────────────────────────────────────────────────


def test_upload_that_takes_its_time_keeps_nobody_waiting(
    client: httpx2.Client, stack: Stack, attrition_row: dict[str, Any], content: bytes
) -> None:
    with started(stack, content[:1000], length=len(content)) as connection:
        answer = client.post("/predict", json={"features": attrition_row})
        assert answer.status_code == 200
        assert answer.elapsed.total_seconds() < 3
        check_taken(post_csv(client, content))
        connection.sendall(content[1000:])
        assert read_answer(connection)[0] == 202


@pytest.mark.flow
def test_file_is_refused_for_now_while_the_database_is_down(queue: Stack, tmp_path: Path, content: bytes) -> None:
    engine = make_engine(queue.database_url, autocommit=True)
    url = make_url(queue.database_url).set(username="doomed_csv").render_as_string(hide_password=False)
    kill = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'doomed_csv'")
    with engine.connect() as connection:
        connection.execute(text("CREATE ROLE doomed_csv SUPERUSER LOGIN"))
        with beside(queue, tmp_path, DATABASE_URL=url) as other, other.client() as client:
            jobs = [check_taken(post_csv(client, content))["id"]]
            connection.execute(kill)  # as when it restarts: the file is not asked for once more
            jobs.append(check_taken(post_csv(client, content))["id"])
            before = everything(engine)
            with started(other, content[:500], length=len(content)) as upload:
                connection.execute(text("ALTER ROLE doomed_csv NOLOGIN"))
                connection.execute(kill)
                upload.sendall(content[500:])
                status, body = read_answer(upload)
            assert (status, json.loads(body)["type"]) == (503, "urn:guichet:error:unavailable")
            assert b"doomed" not in body
            assert everything(engine) == before
            connection.execute(text("ALTER ROLE doomed_csv LOGIN"))
            wait_until(lambda: client.get("/readyz").status_code == 200 or None)
            jobs.append(check_taken(post_csv(client, content))["id"])
        connection.execute(text("DROP ROLE doomed_csv"))
    engine.dispose()
    with queue.client() as client:
        for job_id in jobs:
            wait_for_job(client, job_id)


# ── only checked ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_report_lists_what_is_wrong_and_nothing_is_stored(
    client: httpx2.Client, engine: Engine, rows: list[dict[str, Any]]
) -> None:
    rows = [{"site": "Lyon", **row} for row in rows]
    rows[1]["age"] = "old"
    rows[3]["age"] = rows[3]["revenu_mensuel"] = ""
    content = file_of(rows) + b"1,2,3\n"
    before = everything(engine)
    answer = client.post("/predict_csv?validate_only=true", files={"file": ("rows.csv", content)})
    assert answer.status_code == 200, answer.text
    assert everything(engine) == before
    report = answer.json()
    assert (report["model"], report["model_version"]) == ("attrition", 1)
    assert (report["rows"], report["valid"], report["invalid"]) == (len(rows) + 1, len(rows) - 2, 3)
    assert report["format"] == {
        "filename": "rows.csv",
        "delimiter": ",",
        "encoding": "utf-8",
        "decimal": ".",
        "thousands": "",
        "currency": "",
        "notices": [],
        "id_column": "employee_id",
        "bytes": len(content),
    }
    assert report["columns"]["extra"] == ["site", "employee_id"]
    assert report["columns"]["missing"] == []
    assert len(report["columns"]["features"]) == len(rows[0]) - 2
    errors = [(error["row_no"], error["column"], error["code"]) for error in report["errors"]]
    assert errors[0] == (2, "age", "type")
    assert {(4, "age"), (4, "revenu_mensuel")} <= {(row_no, column) for row_no, column, _ in errors}
    assert errors[-1] == (len(rows) + 1, "", "columns")
    assert report["error_count"] == len(errors) == sum(report["errors_by_code"].values())
    for error in report["errors"]:
        assert error.keys() == {"row_no", "column", "code", "message"}
        assert error["message"]


def test_report_counts_every_error_and_lists_a_thousand(client: httpx2.Client, rows: list[dict[str, Any]]) -> None:
    bad = [row | {"age": "old"} for row in rows[:1]] * 2_500
    report = post_csv(client, file_of(rows + bad), validate_only="true").json()
    assert (report["valid"], report["invalid"], report["error_count"]) == (len(rows), 2_500, 2_500)
    assert report["errors_by_code"] == {"type": 2_500}
    assert [error["row_no"] for error in report["errors"]] == list(range(len(rows) + 1, len(rows) + 1_001))


def test_report_is_refused_for_a_header_that_does_not_fit(client: httpx2.Client, rows: list[dict[str, Any]]) -> None:
    without = [{name: value for name, value in row.items() if name != "age"} for row in rows]
    problem = check_problem(post_csv(client, file_of(without), validate_only="true"), 422, "invalid_row")
    assert problem["errors"][0]["pointer"] == "/columns/age"


def test_feature_that_may_be_absent_is_reported_as_missing(client: httpx2.Client) -> None:
    rows = example_rows("credit")
    name = list(rows[0])[-1]
    without = [{key: value for key, value in row.items() if key != name} for row in rows]
    answer = post_csv(client, file_of(without), "/models/credit/predict_csv", validate_only="true")
    if answer.status_code == 200:  # the card takes what is missing as null
        assert answer.json()["columns"]["missing"] == [name]
    else:
        assert check_problem(answer, 422)["errors"][0]["pointer"] == f"/columns/{name}"


# ── OpenAPI ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/predict_csv", "/models/{name}/predict_csv"])
def test_examples_of_every_model_are_accepted_as_they_stand(client: httpx2.Client, path: str) -> None:
    document = client.get("/openapi.json").json()
    operation = document["paths"][path]["post"]
    content = operation["requestBody"]["content"]
    assert content["multipart/form-data"]["schema"]["properties"]["file"]["format"] == "binary"
    names = [item["model"] for item in client.get("/models").json()["items"]]
    for kind in ("text/csv", "text/tab-separated-values"):
        examples = content[kind]["examples"]
        assert sorted(examples) == sorted(names)
        assert next(iter(examples)) == "attrition"
        for name, example in examples.items():
            assert example["summary"].startswith(f"{name}@1")
            assert ("set the parameter model" in example["summary"]) == (path == "/predict_csv" and name != "attrition")
            if kind == "text/tab-separated-values" and name != "attrition":
                continue  # it is the same row
            params = {"model": name} if path == "/predict_csv" else {}
            sent = example["value"].encode()
            job = check_taken(
                client.post(path.format(name=name), content=sent, params=params, headers={"Content-Type": kind})
            )
            assert wait_for_job(client, job["id"])["counts"] == {"total": 1, "succeeded": 1, "failed": 0, "pending": 0}


def test_every_option_is_described(client: httpx2.Client) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/predict_csv"]["post"]
    described = {entry["name"]: entry for entry in operation["parameters"] if entry["in"] == "query"}
    assert {"delimiter", "encoding", "decimal", "id_column", "strict", "max_error_rate"} < described.keys()
    assert {"model", "version", "validate_only", "expires_in", "timeout"} < described.keys()
    assert all(entry["description"].endswith(".") for entry in described.values())
    assert {"200", "202", "400", "409", "413", "415", "422", "503"} < operation["responses"].keys()
