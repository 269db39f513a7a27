"""What a CSV job gives back: its body and result, output.csv, errors.csv, Parquet; cancellation and retry."""

import io
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pyarrow.parquet
import pytest
from sqlalchemy import Engine, insert, text

from api.auth.callers import make_key
from shared.database.engine import reader
from shared.jobs.queries.files import list_chunks
from shared.tables import ApiKey
from tests.conftest import example_rows
from tests.contracts.helpers import (
    check_accepted,
    check_job,
    check_problem,
    check_result,
    new_id,
    wait_for_job,
    wait_until,
)
from tests.support.csv_jobs import erase, file_of, let_go, put_file, read_csv, send, wake, write_output
from tests.support.stack import Stack

PARQUET = "application/vnd.apache.parquet"
ODD = ["plain", "=1+1", "-5", "@x", "'=quoted", 'a "b", c', "two\nlines", "", "é€", "\tt", "+33 1", "007"]


def check_csv_job(job: dict[str, Any]) -> None:
    """Check a CSV job's own fields, and that its rows add up; then what it has in common with other jobs."""
    assert job["kind"] == "csv"
    assert job["csv"].keys() == {
        *("filename", "delimiter", "encoding", "decimal", "thousands", "currency", "notices"),
        *("id_column", "extra_columns", "bytes", "max_error_rate"),
    }
    assert job["progress"].keys() == {"rows_done", "rows_per_second", "eta_seconds", "chunks_done", "chunks_total"}
    assert sum(job["counts"][part] for part in ("succeeded", "failed", "pending")) == job["counts"]["total"]
    assert job["progress"]["rows_done"] == job["counts"]["total"] - job["counts"]["pending"]
    assert job["has_failures"] == (job["counts"]["failed"] > 0)
    assert job["links"]["output"] == f"/jobs/{job['id']}/output.csv"
    assert job["links"]["errors"] == f"/jobs/{job['id']}/errors.csv"
    assert job["links"]["events"] == f"/jobs/{job['id']}/events"
    check_job({name: value for name, value in job.items() if name not in ("csv", "progress")} | {"kind": "batch"})


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """Good rows with an id and a column that is no feature, and one bad row among them."""
    examples = example_rows("attrition")
    made: list[dict[str, Any]] = []
    for place, note in enumerate(ODD):
        made.append({"id": f"n{place}", **examples[place % len(examples)], "note": note})
    made[3]["age"] = "old"
    return made


@pytest.fixture
def done(client: httpx2.Client, rows: list[dict[str, Any]]) -> str:
    """The id of a job whose every row is scored or has its error."""
    job_id = send(client, file_of(rows))
    wait_for_job(client, job_id)
    return job_id


@pytest.fixture
def parts(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The same rows in three chunks."""
    return [rows[:2], rows[2:5], rows[5:]]


# ── the job and its result ───────────────────────────────────────────────────────────────────────────────────────


def test_job_says_how_its_file_is_written_and_how_far_it_is(
    client: httpx2.Client, done: str, rows: list[dict[str, Any]]
) -> None:
    job = client.get(f"/jobs/{done}").json()
    check_csv_job(job)
    assert job["counts"] == {"total": 12, "succeeded": 11, "failed": 1, "pending": 0}
    assert job["csv"] | {"filename": None} == {
        "filename": None,
        "delimiter": ",",
        "encoding": "utf-8",
        "decimal": ".",
        "thousands": "",
        "currency": "",
        "notices": [],
        "id_column": "id",
        "extra_columns": ["note"],
        "bytes": len(file_of(rows)),
        "max_error_rate": None,
    }
    assert job["progress"]["rows_done"] == 12
    assert job["progress"]["rows_per_second"] > 0
    assert job["progress"]["eta_seconds"] is None
    assert job["progress"]["chunks_done"] == job["progress"]["chunks_total"] == 1
    assert "retry" not in job["links"]
    [listed] = [item for item in client.get("/jobs?limit=50").json()["items"] if item["id"] == done]
    assert listed == job


def test_result_of_a_file_says_where_its_files_are(client: httpx2.Client, done: str) -> None:
    answer = client.get(f"/jobs/{done}/result")
    assert answer.status_code == 200
    result = answer.json()
    job = client.get(f"/jobs/{done}").json()
    assert result.pop("latency_ms") > 0
    assert result == {
        "job_id": done,
        "request_id": job["request_id"],
        "model": "attrition",
        "model_version": 1,
        "n_rows": 12,
        "counts": job["counts"],
        "has_failures": True,
        "links": {"output": job["links"]["output"], "errors": job["links"]["errors"]},
    }


def test_poll_of_a_file_waits_for_its_end(
    client: httpx2.Client, engine: Engine, parts: list[list[dict[str, Any]]]
) -> None:
    job_id = put_file(engine, parts, held=False)
    job = client.get(f"/jobs/{job_id}", headers={"Prefer": "wait=20"}, timeout=30).json()
    assert job["status"] == "succeeded"


# ── output.csv and errors.csv ────────────────────────────────────────────────────────────────────────────────────


def test_output_has_every_row_in_order_with_the_score_that_a_batch_gives(
    client: httpx2.Client, done: str, rows: list[dict[str, Any]]
) -> None:
    answer = client.get(f"/jobs/{done}/output.csv")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/csv; charset=utf-8")
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["content-disposition"] == f'attachment; filename="{done}-output.csv"'
    assert answer.headers["x-rows-done"] == "12"
    lines = read_csv(answer.content)
    assert list(lines[0]) == ["row_no", "id", "note", "prediction", "label", "probability", "threshold", "error"]
    assert [line["row_no"] for line in lines] == [str(place + 1) for place in range(12)]
    assert [line["id"] for line in lines] == [row["id"] for row in rows]
    assert [line["note"] for line in lines] == [
        f"'{note}" if note.startswith(("=1", "@", "\t", "+33 1")) else note for note in ODD
    ]
    body = {"rows": [{name: row[name] for name in row if name not in ("id", "note")} for row in rows]}
    items = client.post("/predict_batch", json=body, headers={"Prefer": "wait=20"}).json()["items"]
    for line, item in zip(lines, items, strict=True):
        if item["status"] == "succeeded":
            assert (int(line["prediction"]), line["label"]) == (item["prediction"], item["label"])
            assert (float(line["probability"]), float(line["threshold"])) == (item["probability"], item["threshold"])
            assert line["error"] == ""
        else:
            assert line["prediction"] == line["label"] == line["probability"] == ""
            assert "age" in line["error"]


def test_errors_say_which_cell_is_wrong(client: httpx2.Client, done: str) -> None:
    answer = client.get(f"/jobs/{done}/errors.csv")
    assert answer.headers["content-disposition"] == f'attachment; filename="{done}-errors.csv"'
    [line] = read_csv(answer.content)
    assert list(line) == ["row_no", "column", "code", "message", "value"]
    assert (line["row_no"], line["column"], line["code"], line["value"]) == ("4", "age", "type", "old")


def test_file_without_faulty_rows_has_errors_of_a_header_only(
    client: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    job_id = send(client, file_of([attrition_row] * 3))
    wait_for_job(client, job_id)
    assert client.get(f"/jobs/{job_id}/errors.csv").content == b"row_no,column,code,message,value\n"
    assert read_csv(client.get(f"/jobs/{job_id}/output.csv").content)[2]["row_no"] == "3"


def test_file_in_which_no_row_is_good_failed_and_its_files_say_why(
    client: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    job_id = send(client, file_of([attrition_row | {"age": "old"}] * 3))
    job = wait_for_job(client, job_id, status="failed")
    check_csv_job(job)
    assert job["counts"] == {"total": 3, "succeeded": 0, "failed": 3, "pending": 0}
    assert "retry" not in job["links"]
    assert len(read_csv(client.get(f"/jobs/{job_id}/errors.csv").content)) == 3
    assert [line["error"] != "" for line in read_csv(client.get(f"/jobs/{job_id}/output.csv").content)] == [True] * 3
    check_problem(client.get(f"/jobs/{job_id}/result"), 409, "conflict")
    problem = check_problem(client.post(f"/jobs/{job_id}/retry"), 409, "conflict")
    assert "errors.csv" in problem["detail"]


def test_french_file_comes_back_as_it_was_written(client: httpx2.Client) -> None:
    examples = [{"Identifiant": f"é{place}", **row} for place, row in enumerate(example_rows("energy"))]
    content = file_of(examples, delimiter=";", decimal=",").decode().encode("cp1252")
    answer = client.post(
        "/models/energy/predict_csv",
        params={"id_column": "Identifiant"},
        files={"file": ("Énergie 2024.csv", content, "text/csv")},
    )
    job_id = answer.json()["id"]
    job = wait_for_job(client, job_id)
    assert (job["csv"]["delimiter"], job["csv"]["decimal"], job["csv"]["encoding"]) == (";", ",", "cp1252")
    answer = client.get(f"/jobs/{job_id}/output.csv")
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"_nergie 2024-output.csv\"; filename*=UTF-8''%C3%89nergie%202024-output.csv"
    )
    assert answer.content.startswith("\ufeffrow_no;Identifiant;prediction;error\n".encode())
    lines = read_csv(answer.content, ";")
    assert [line["Identifiant"] for line in lines] == ["é0", "é1", "é2"]
    assert all("," in line["prediction"] for line in lines)
    table = pyarrow.parquet.read_table(io.BytesIO(client.get(f"/jobs/{job_id}/output.csv?format=parquet").content))
    assert table.column("prediction").to_pylist() == [float(line["prediction"].replace(",", ".")) for line in lines]


# ── parts of a file ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["output.csv", "errors.csv", "output.csv?join=true"])
def test_ranges_of_a_file_are_parts_of_it(client: httpx2.Client, done: str, path: str) -> None:
    path = f"/jobs/{done}/{path}"
    whole = client.get(path)
    size = len(whole.content)
    assert whole.headers["accept-ranges"] == "bytes"
    assert int(whole.headers["content-length"]) == size
    cases = {
        "bytes=0-0": (0, 1),
        "bytes=5-": (5, size),
        f"bytes=3-{size + 50}": (3, size),
        "bytes=-7": (size - 7, size),
        f"bytes=-{size + 7}": (0, size),
        f"bytes={size - 1}-{size - 1}": (size - 1, size),
        "bytes=20-70": (20, min(71, size)),
    }
    for byte_range, (start, stop) in cases.items():
        answer = client.get(path, headers={"Range": byte_range})
        assert answer.status_code == 206, byte_range
        assert answer.content == whole.content[start:stop], byte_range
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
        assert answer.headers["content-length"] == str(stop - start)
        assert answer.headers["etag"] == whole.headers["etag"]
    for byte_range in (f"bytes={size}-", f"bytes={size + 9}-{size + 10}", "bytes=-0"):
        answer = client.get(path, headers={"Range": byte_range})
        check_problem(answer, 416)
        assert answer.headers["content-range"] == f"bytes */{size}"
    for byte_range in ("bytes=0-1,4-5", "bytes=5-2", "bytes=-", "rows=1-2", "bytes=a-b", "bytes", "bytes=1-2-3"):
        answer = client.get(path, headers={"Range": byte_range})
        assert (answer.status_code, answer.content) == (200, whole.content), byte_range


def test_download_that_broke_off_is_taken_up_if_the_file_is_the_same(client: httpx2.Client, done: str) -> None:
    path = f"/jobs/{done}/output.csv"
    whole = client.get(path)
    rest = client.get(path, headers={"Range": "bytes=100-", "If-Range": whole.headers["etag"]})
    assert (rest.status_code, whole.content[:100] + rest.content) == (206, whole.content)
    for other in ('"other"', f"W/{whole.headers['etag']}", "Tue, 15 Nov 1994 12:45:26 GMT"):
        answer = client.get(path, headers={"Range": "bytes=100-", "If-Range": other})
        assert (answer.status_code, answer.content) == (200, whole.content)


def test_unchanged_file_is_not_sent_again(client: httpx2.Client, done: str) -> None:
    etags = set()
    paths = ["output.csv", "output.csv?join=true", "errors.csv", "output.csv?format=parquet"]
    for path in paths:
        path = f"/jobs/{done}/{path}"
        etag = client.get(path).headers["etag"]
        assert etag.startswith('"')
        etags.add(etag)
        for headers in ({"If-None-Match": etag}, {"If-None-Match": f"W/{etag}", "Range": "bytes=0-1"}):
            answer = client.get(path, headers=headers)
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert len(etags) == len(paths)


@pytest.mark.parametrize("path", ["output.csv", "errors.csv", "output.csv?join=true", "output.csv?format=parquet"])
def test_head_tells_of_a_file_what_get_does(client: httpx2.Client, done: str, path: str) -> None:
    answer, head = client.get(f"/jobs/{done}/{path}"), client.head(f"/jobs/{done}/{path}")
    assert (head.status_code, head.content) == (200, b"")
    changing = ("date", "x-request-id", "transfer-encoding")
    fields = {name: value for name, value in answer.headers.items() if name not in changing}
    assert {name: value for name, value in head.headers.items() if name not in changing} == fields
    assert client.head(f"/jobs/{done}/{path}", headers={"Range": "bytes=0-3"}).status_code == 200
    assert client.head(f"/jobs/{done}/{path}", headers={"If-None-Match": head.headers["etag"]}).status_code == 304
    assert client.head(f"/jobs/{new_id()}/{path}").status_code == 404


# ── joined, and as Parquet ───────────────────────────────────────────────────────────────────────────────────────


def test_joined_output_repeats_every_column_that_was_sent(
    client: httpx2.Client, done: str, rows: list[dict[str, Any]]
) -> None:
    answer = client.get(f"/jobs/{done}/output.csv", params={"join": True})
    plain = read_csv(client.get(f"/jobs/{done}/output.csv").content)
    joined = read_csv(answer.content)
    answered = ["prediction", "label", "probability", "threshold", "error"]
    assert list(joined[0]) == ["row_no", *rows[0], *answered]
    for line, short, row in zip(joined, plain, rows, strict=True):
        assert [line[name] for name in ("row_no", "note", *answered)] == [
            short[name] for name in ("row_no", "note", *answered)
        ]
        assert [line[name] for name in row if name != "note"] == [str(row[name]) for name in row if name != "note"]


@pytest.mark.parametrize("join", [False, True])
def test_parquet_has_the_same_table_with_types(
    client: httpx2.Client, done: str, rows: list[dict[str, Any]], join: bool
) -> None:
    path = f"/jobs/{done}/output.csv"
    lines = read_csv(client.get(path, params={"join": join}).content)
    answer = client.get(path, params={"join": join}, headers={"Accept": PARQUET})
    assert answer.headers["content-type"] == PARQUET
    assert answer.headers["accept-ranges"] == "none"
    assert answer.headers["content-disposition"].endswith('.parquet"')
    table = pyarrow.parquet.read_table(io.BytesIO(answer.content))
    assert table.column_names == list(lines[0])
    types = {field.name: str(field.type) for field in table.schema}
    assert (types["row_no"], types["id"], types["prediction"]) == ("int32", "string", "int32")
    assert (types["probability"], types["threshold"], types["error"]) == ("double", "double", "string")
    assert types["label"].startswith("dictionary<values=string")
    assert table.column("row_no").to_pylist() == [int(line["row_no"]) for line in lines]
    assert table.column("note").to_pylist() == ODD  # exactly, without apostrophes
    for name, kind in (("prediction", int), ("probability", float), ("label", str), ("error", str)):
        assert table.column(name).to_pylist() == [kind(line[name]) if line[name] else None for line in lines]
    if join:
        assert table.column("age").to_pylist() == [str(row["age"]) for row in rows]
    metadata = pyarrow.parquet.read_schema(io.BytesIO(answer.content)).metadata
    assert (metadata[b"job_id"], metadata[b"model"]) == (done.encode(), b"attrition@1")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "text/csv"),
        ("*/*", "text/csv"),
        ("text/*", "text/csv"),
        ("text/csv", "text/csv"),
        ("TEXT/CSV; charset=utf-8", "text/csv"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/csv"),
        (f"{PARQUET};q=0.5, text/csv", "text/csv"),
        (f"{PARQUET}, text/csv;q=0.5", PARQUET),
        (f"{PARQUET}", PARQUET),
        ("application/*", PARQUET),
        ("text/csv;q=0, */*", PARQUET),
        ("application/json", None),
        ("text/csv;q=0", None),
        ("nonsense", None),
    ],
)
def test_accept_decides_between_csv_and_parquet(
    client: httpx2.Client, done: str, accept: str | None, kind: str | None
) -> None:
    request = client.build_request("GET", f"/jobs/{done}/output.csv")
    del request.headers["Accept"]
    if accept is not None:
        request.headers["Accept"] = accept
    answer = client.send(request)
    if kind is None:
        problem = check_problem(answer, 406)
        assert PARQUET in problem["detail"]
    else:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["vary"] == "Accept"


def test_errors_are_csv_only(client: httpx2.Client, done: str) -> None:
    check_problem(client.get(f"/jobs/{done}/errors.csv", headers={"Accept": PARQUET}), 406)
    assert client.get(f"/jobs/{done}/output.csv?format=xlsx").status_code == 422
    answer = client.get(f"/jobs/{done}/output.csv?format=csv", headers={"Accept": PARQUET})
    assert answer.headers["content-type"].startswith("text/csv")


# ── unfinished, canceled, taken up again ─────────────────────────────────────────────────────────────────────────


def wait_for_chunks(engine: Engine, job_id: str, first_rows: set[int]) -> None:
    def look() -> bool | None:
        with reader(engine).connect() as connection:
            finished = {chunk.first_row for chunk in list_chunks(connection, job_id) if chunk.state == "done"}
        return finished >= first_rows or None

    wait_until(look, seconds=15)


def test_unfinished_file_is_a_conflict_unless_a_part_is_asked_for(
    client: httpx2.Client, engine: Engine, parts: list[list[dict[str, Any]]], attrition_row: dict[str, Any]
) -> None:
    job_id = put_file(engine, parts, id_column="id")
    for path in ("output.csv", "errors.csv", "output.csv?join=true", "output.csv?format=parquet"):
        answer = client.get(f"/jobs/{job_id}/{path}")
        problem = check_problem(answer, 409, "conflict")
        assert "0 of 12 rows" in problem["detail"]
        assert answer.headers["retry-after"] == "2"
    assert read_csv(client.get(f"/jobs/{job_id}/output.csv?partial=true").content) == []
    check_csv_job(client.get(f"/jobs/{job_id}").json())
    let_go(engine, job_id, 2)
    wake(client, attrition_row)
    wait_for_chunks(engine, job_id, {2})
    job = client.get(f"/jobs/{job_id}").json()
    check_csv_job(job)
    assert (job["status"], job["counts"]) == ("running", {"total": 12, "succeeded": 2, "failed": 1, "pending": 9})
    assert job["progress"]["eta_seconds"] >= 0
    answer = client.get(f"/jobs/{job_id}/output.csv?partial=true")
    assert [line["row_no"] for line in read_csv(answer.content)] == ["3", "4", "5"]
    assert answer.headers["x-rows-done"] == "3"
    assert len(read_csv(client.get(f"/jobs/{job_id}/errors.csv?partial=true").content)) == 1
    table = pyarrow.parquet.read_table(
        io.BytesIO(client.get(f"/jobs/{job_id}/output.csv?partial=true&format=parquet").content)
    )
    assert table.column("row_no").to_pylist() == [3, 4, 5]
    let_go(engine, job_id, 0)
    wake(client, attrition_row)
    wait_for_chunks(engine, job_id, {0})
    headers = {"Range": "bytes=10-", "If-Range": answer.headers["etag"]}
    more = client.get(f"/jobs/{job_id}/output.csv?partial=true", headers=headers)
    assert more.status_code == 200  # it is another file by now
    assert [line["row_no"] for line in read_csv(more.content)] == ["1", "2", "3", "4", "5"]
    let_go(engine, job_id)
    wake(client, attrition_row)
    wait_for_job(client, job_id)
    whole, partial = (
        client.get(f"/jobs/{job_id}/output.csv", params={"partial": is_partial}) for is_partial in (False, True)
    )
    assert len(read_csv(whole.content)) == 12
    assert (whole.content, whole.headers["etag"]) == (partial.content, partial.headers["etag"])


def test_canceled_file_keeps_what_is_done_and_is_taken_up_again(
    client: httpx2.Client, engine: Engine, parts: list[list[dict[str, Any]]], attrition_row: dict[str, Any]
) -> None:
    job_id = put_file(engine, parts, id_column="id")
    let_go(engine, job_id, 5)
    wake(client, attrition_row)
    wait_for_chunks(engine, job_id, {5})
    answer = client.post(f"/jobs/{job_id}/cancel")
    assert answer.status_code == 200
    job = answer.json()
    check_csv_job(job)
    assert (job["status"], job["counts"]) == ("canceled", {"total": 12, "succeeded": 7, "failed": 0, "pending": 5})
    assert job["links"]["retry"] == f"/jobs/{job_id}/retry"
    check_problem(client.post(f"/jobs/{job_id}/cancel"), 409, "conflict")
    problem = check_problem(client.get(f"/jobs/{job_id}/output.csv"), 409, "conflict")
    assert "7 of 12 rows" in problem["detail"]
    assert "retry" in problem["detail"]
    assert len(read_csv(client.get(f"/jobs/{job_id}/output.csv?partial=true").content)) == 7
    check_problem(client.get(f"/jobs/{job_id}/result"), 409, "conflict")
    accepted = client.post(f"/jobs/{job_id}/retry")
    assert accepted.status_code == 202
    assert accepted.headers["location"] == f"/jobs/{job_id}"
    check_csv_job(accepted.json())
    assert accepted.json()["counts"]["pending"] == 5
    job = wait_for_job(client, job_id)
    assert job["counts"] == {"total": 12, "succeeded": 11, "failed": 1, "pending": 0}
    assert [line["id"] for line in read_csv(client.get(f"/jobs/{job_id}/output.csv").content)] == [
        f"n{place}" for place in range(12)
    ]
    problem = check_problem(client.post(f"/jobs/{job_id}/retry?only=failed"), 409, "conflict")
    assert "the model's card refuses 1 row." in problem["detail"]


def test_file_with_too_many_faulty_rows_has_failed_and_can_be_taken_up(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    bad = attrition_row | {"age": "old"}
    job_id = put_file(engine, [[bad, attrition_row], [attrition_row] * 4], max_error_rate=0.1)
    let_go(engine, job_id, 0)
    wake(client, attrition_row)
    job = wait_for_job(client, job_id, status="failed")
    check_csv_job(job)
    assert job["error"]["code"] == "too_many_errors"
    assert job["counts"] == {"total": 6, "succeeded": 1, "failed": 1, "pending": 4}
    problem = check_problem(client.get(f"/jobs/{job_id}/output.csv"), 409, "conflict")
    assert "has failed" in problem["detail"]
    assert len(read_csv(client.get(f"/jobs/{job_id}/errors.csv?partial=true").content)) == 1
    assert job["links"]["retry"] == f"/jobs/{job_id}/retry"


def test_what_cannot_be_taken_up_again_is_a_conflict(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    result = check_result(client.post("/predict", json={"features": attrition_row}))
    problem = check_problem(client.post(f"/jobs/{result['job_id']}/retry"), 409, "conflict")
    assert "as a new job" in problem["detail"]
    job_id = put_file(engine, [[attrition_row]])
    problem = check_problem(client.post(f"/jobs/{job_id}/retry"), 409, "conflict")
    assert "queued" in problem["detail"]
    check_problem(client.post(f"/jobs/{job_id}/retry?only=all"), 422)
    let_go(engine, job_id)
    wake(client, attrition_row)
    wait_for_job(client, job_id)
    problem = check_problem(client.post(f"/jobs/{job_id}/retry"), 409, "conflict")
    assert "every row was scored" in problem["detail"]
    check_problem(client.post("/jobs/0195f5e8-7a3c-7def-8123-456789abcdef/retry"), 404, "not_found")


@pytest.mark.parametrize("path", ["output.csv", "errors.csv"])
def test_jobs_of_other_kinds_have_no_files(client: httpx2.Client, attrition_row: dict[str, Any], path: str) -> None:
    job_id = check_accepted(client.post("/jobs", json={"features": attrition_row}))["id"]
    problem = check_problem(client.get(f"/jobs/{job_id}/{path}"), 404, "not_found")
    assert f"/jobs/{job_id}/result" in problem["detail"]
    assert problem["job_id"] == job_id
    check_problem(client.get(f"/jobs/0195f5e8-7a3c-7def-8123-456789abcdef/{path}"), 404, "not_found")


@pytest.mark.parametrize("stack", ["queue"], indirect=True)
def test_files_and_events_are_their_owners_only(keyed: Stack, engine: Engine, attrition_row: dict[str, Any]) -> None:
    secrets = {}
    with engine.begin() as connection:
        for name, scopes in {"alice": "predict", "bob": "predict,read", "reader": "read", "admin": "admin"}.items():
            secrets[name], digest = make_key()
            connection.execute(insert(ApiKey).values(id=digest[:16], name=name, sha256=digest, scopes=scopes))
    with keyed.client() as door:
        keys = {name: {"X-API-Key": secret} for name, secret in secrets.items()}
        body = {"content": file_of([attrition_row]), "headers": keys["alice"] | {"Content-Type": "text/csv"}}
        job_id = door.post("/predict_csv", **body).json()["id"]
        job = door.get(f"/jobs/{job_id}", headers=keys["alice"] | {"Prefer": "wait=20"}).json()
        assert job["status"] == "succeeded"
        for path in ("output.csv", "errors.csv", "events"):
            path = f"/jobs/{job_id}/{path}"
            for name, status in {"alice": 200, "bob": 404, "reader": 404, "admin": 200}.items():
                assert door.get(path, headers=keys[name]).status_code == status, name
            check_problem(door.get(path), 401, "unauthorized")
        assert door.head(job["links"]["output"]).status_code == 401
        assert door.head(job["links"]["output"], headers=keys["bob"]).status_code == 404
        assert door.head(job["links"]["output"], headers=keys["alice"]).status_code == 200
        for name, status in {"alice": 409, "bob": 404, "reader": 403, "admin": 409}.items():
            assert door.post(f"/jobs/{job_id}/retry", headers=keys[name]).status_code == status


# ── large files ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def large(engine: Engine, attrition_row: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """A job with 40 megabytes of output, and that output."""
    outputs = {row: b"%d,%s\n" % (row + 1, b"%06d" % row * 170_000) for row in range(40)}
    job_id = put_file(engine, [[attrition_row]] * 40)
    write_output(engine, job_id, outputs)
    yield job_id, b"".join(outputs.values())
    erase(engine, job_id)


def test_large_file_comes_whole_and_in_parts(client: httpx2.Client, large: tuple[str, bytes]) -> None:
    job_id, lines = large
    path = f"/jobs/{job_id}/output.csv"
    whole = client.get(path)
    head = len(whole.content) - len(lines)
    assert whole.content[head:] == lines
    start, stop = 12_345_678, 15_000_001
    part = client.get(path, headers={"Range": f"bytes={start}-{stop - 1}"})
    assert part.content == whole.content[start:stop]


@pytest.mark.parametrize("stack", ["queue"], indirect=True)
def test_caller_who_goes_away_leaves_nothing_open(
    stack: Stack, client: httpx2.Client, engine: Engine, large: tuple[str, bytes]
) -> None:
    job_id, _ = large
    readers = [stack.client() for _ in range(6)]
    for other in readers:
        answer = other.send(other.build_request("GET", f"/jobs/{job_id}/output.csv"), stream=True)
        assert len(next(answer.iter_raw())) > 0
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND state LIKE 'idle in transaction%' AND pid <> pg_backend_pid() "
        "AND state_change < clock_timestamp() - interval '1 second'"  # those that last, not a statement of a heartbeat
    )

    def idle() -> int:
        with engine.connect() as connection:
            return connection.scalar(query) or 0

    time.sleep(1.5)  # they read no further: the server has sent what the sockets take, and waits
    assert max(idle() for _ in range(5)) == 0
    for other in readers:
        other.close()
    assert idle() == 0
    assert client.get("/livez").status_code == 200
