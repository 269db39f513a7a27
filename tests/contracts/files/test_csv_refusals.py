"""Files and uploads that are refused: in which words, and that nothing is queued, nothing left, nobody disturbed."""

import gzip
import io
import json
import select
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import Engine

from shared.database.engine import make_engine
from tests.conftest import example_rows
from tests.contracts.csv_files import (
    CSV,
    check_taken,
    everything,
    post_csv,
    post_form,
    read_answer,
    spooled_files,
    started,
)
from tests.contracts.helpers import apart, check_problem, faults_of, logged, new_id, wait_for_job, wait_until
from tests.support.csv_jobs import file_of, header, records
from tests.support.stack import Stack

ROWS = [{"employee_id": number, **row} for number, row in enumerate(example_rows("attrition"))]
GOOD = file_of(ROWS)
HEADER = header(ROWS[0]).encode()
RECORDS = records(ROWS).encode()
HEAVY_ROWS = len(ROWS) * 2_000
HEAVY = HEADER + RECORDS * 2_000  # more than what is handed over at once


@pytest.fixture(scope="module")
def others() -> Iterator[dict[str, tuple[httpx2.Client, str]]]:
    """A job of each runtime that is scored while files are refused beside it."""
    sent: dict[str, tuple[httpx2.Client, str]] = {}
    yield sent
    for client, job_id in sent.values():
        assert wait_for_job(client, job_id)["counts"]["succeeded"] == HEAVY_ROWS


@pytest.fixture(autouse=True)
def untouched(
    client: httpx2.Client, stack: Stack, engine: Engine, others: dict[str, tuple[httpx2.Client, str]]
) -> Iterator[None]:
    """Whatever is refused: nothing of it is queued, nothing of it is left, and a job beside it goes its way."""
    left = spooled_files(stack)
    if stack.runtime not in others:
        others[stack.runtime] = client, check_taken(post_csv(client, HEAVY))["id"]
    before = everything(engine)
    yield
    assert everything(engine) == before
    wait_until(lambda: spooled_files(stack) == left or None)


# ── files that are no CSV, or no CSV of this model ───────────────────────────────────────────────────────────────


def workbook() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return content.getvalue()


def archived() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("rows.csv", GOOD)
    return content.getvalue()


def without(name: str) -> bytes:
    return file_of([{key: value for key, value in row.items() if key != name} for row in ROWS])


NO_CSV = {
    "an Excel workbook": (workbook(), "Excel"),
    "an old Excel file": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\x00" * 600, "Excel"),
    "a ZIP archive": (archived(), "ZIP"),
    "a PNG image": (b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\rIHDR" * 100, "image"),
    "a PDF document": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + b"1 0 obj\n" * 100, "PDF"),
    "a Parquet file": (b"PAR1\x15\x04\x15\x10" + b"\x00" * 600 + b"PAR1", "Parquet"),
    "a JSON document": (json.dumps(ROWS).encode(), "JSON"),
    "a JSON document, indented": (json.dumps(ROWS[0], indent=2).encode(), "JSON"),
    "an HTML page": (b"<!doctype html>\n<html><body>rows</body></html>", "HTML"),
    "an SQLite database": (b"SQLite format 3\x00" + b"\x10\x00" * 300, "SQLite"),
    "gzip within gzip": (gzip.compress(gzip.compress(GOOD)), "gzip"),
    "NUL bytes in the first line": (b"a\x00g\x00e\x00,\x00" * 100, "NUL"),
    "numbers as bytes": (struct.pack("<400d", *range(400)), "NUL"),
}


@pytest.mark.parametrize("case", NO_CSV)
def test_file_that_is_no_csv_is_refused_with_what_it_looks_like(client: httpx2.Client, case: str) -> None:
    content, word = NO_CSV[case]
    assert word in check_problem(post_form(client, content), 415, "unsupported_media_type")["detail"]


def renamed(before: str, after: str) -> bytes:
    return GOOD.replace(before.encode(), after.encode(), 1)


WRONG: dict[str, tuple[bytes, dict[str, str], list[tuple[str, str]]]] = {
    "nothing": (b"", {}, [("", "empty_file")]),
    "empty lines": (b"\r\n\r\n\n", {}, [("", "empty_file")]),
    "a compressed nothing": (gzip.compress(b""), {}, [("", "empty_file")]),
    "a header alone": (HEADER, {}, [("", "no_rows")]),
    "a header alone, without its line end": (HEADER.rstrip(), {}, [("", "no_rows")]),
    "a header and empty lines": (HEADER + b"\r\n\r\n", {}, [("", "no_rows")]),
    "no header": (RECORDS, {}, [("", "no_header")]),
    "a column that is not there": (without("age"), {}, [("/columns/age", "missing")]),
    "a column with another name": (renamed(",poste,", ",post,"), {}, [("/columns/poste", "missing")]),
    "a column twice": (renamed("employee_id", "age"), {}, [("/columns/age", "duplicate")]),
    "a column that the model does not know": (GOOD, {"strict": "true"}, [("/columns/employee_id", "unknown_feature")]),
    "an id column that is not there": (GOOD, {"id_column": "a/b"}, [("/columns/a~1b", "missing")]),
    "a quote that is never closed": (GOOD + b'1,"2,3\n' + RECORDS, {}, [("", "unclosed_quote")]),
    "a quote that is never closed in the header": (b'"' + HEADER + RECORDS, {}, [("", "unclosed_quote")]),
    "bytes that are not UTF-8 as the caller says": (
        file_of(ROWS, ";").decode().encode("cp1252"),
        {"encoding": "utf-8"},
        [("", "encoding")],
    ),
    "UTF-16 cut within a character": (GOOD.decode().encode("utf-16")[:-1], {}, [("", "encoding")]),
    "UTF-8 with a byte that is not": (
        HEADER + RECORDS * 40 + RECORDS.replace("é".encode(), b"\xff", 1),
        {},
        [("", "encoding")],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_file_that_does_not_fit_is_refused_with_every_fault(client: httpx2.Client, case: str) -> None:
    content, params, faults = WRONG[case]
    problem = check_problem(post_csv(client, content, **params), 422, "invalid_row")
    assert faults_of(problem) == faults


def test_header_that_lacks_everything_lists_everything(client: httpx2.Client, engine: Engine) -> None:
    request_id = new_id()
    content = b"name,town\nAnna,Lyon\n"
    answer = client.post("/predict_csv", content=content, headers=CSV | {"X-Request-Id": request_id})
    problem = check_problem(answer, 422, "invalid_row")
    features = [name for name in ROWS[0] if name != "employee_id"]
    assert faults_of(problem) == sorted((f"/columns/{name}", "missing") for name in features)
    assert "Anna" not in answer.text
    entry = logged(engine, request_id)
    assert (entry["status"], entry["code"], entry["path"]) == (422, "invalid_row", "/predict_csv")


def test_header_that_does_not_fit_is_refused_before_the_file_is_sent_whole(stack: Stack) -> None:
    with started(stack, b"name,town\n" + b"Anna,Lyon\n" * 40_000, length=1_000_000_000) as connection:
        status, body = read_answer(connection)
    assert (status, json.loads(body)["type"]) == (422, "urn:guichet:error:invalid_row")


def test_sender_who_does_not_listen_sees_the_answer_too(client: httpx2.Client) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(400):
            yield b"Anna,Lyon\n" * 10_000

    check_problem(client.post("/predict_csv", content=pieces(), headers=CSV), 422, "invalid_row")


def test_odd_rows_are_errors_of_their_own_and_refuse_nothing(client: httpx2.Client) -> None:
    """Ragged rows and a NUL in a cell: what is wrong with a row is in the report, and in the job's errors."""
    first = RECORDS.split(b"\n")[0]
    content = GOOD + first + b",1,2\n" + b"1,2\n" + first.replace(b"Consulting", b"Con\x00sulting") + b"\n"
    report = post_csv(client, content, validate_only="true").json()
    errors = [(error["row_no"], error["column"], error["code"]) for error in report["errors"]]
    count = len(ROWS)
    assert errors == [(count + 1, "", "columns"), (count + 2, "", "columns"), (count + 3, "departement", "type")]


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────────


def peak(stack: Stack, *, reset: bool = False) -> int:
    """Return the most memory that the API has had, in bytes."""
    folder = Path(f"/proc/{stack.processes['api'].pid}")
    if reset:
        (folder / "clear_refs").write_text("5")
    return int((folder / "status").read_text().split("VmHWM:")[1].split()[0]) * 1024


def test_line_of_a_hundred_megabytes_is_refused_without_being_held(client: httpx2.Client, stack: Stack) -> None:
    before = peak(stack, reset=True)

    def pieces() -> Iterator[bytes]:
        yield GOOD
        for _ in range(100):
            yield b"1" * 1_000_000

    problem = check_problem(client.post("/predict_csv", content=pieces(), headers=CSV), 413, "too_large")
    assert f"Row {len(ROWS) + 1} is longer" in problem["detail"]
    assert peak(stack) - before < 30_000_000


@pytest.mark.parametrize("start", [b"", b'"'])
def test_header_of_a_hundred_megabytes_is_refused(client: httpx2.Client, start: bytes) -> None:
    def pieces() -> Iterator[bytes]:
        yield start
        for _ in range(100):
            yield b"age" * 333_333

    check_problem(client.post("/predict_csv", content=pieces(), headers=CSV), 413, "too_large")


def test_gzip_bomb_is_refused_without_being_held(client: httpx2.Client, stack: Stack) -> None:
    bomb = gzip.compress(HEADER + b"1" * 200_000_000, 1)
    before = peak(stack, reset=True)
    check_problem(post_csv(client, bomb), 413, "too_large")
    headers = CSV | {"Content-Encoding": "gzip"}
    check_problem(client.post("/predict_csv", content=bomb, headers=headers), 413, "too_large")
    assert peak(stack) - before < 30_000_000


def test_upload_that_announces_too_much_is_refused_before_it_is_sent(stack: Stack) -> None:
    with started(stack, b"", "Expect: 100-continue", length=2_000_000_000) as connection:
        status, body = read_answer(connection)  # and no 100 before it
    assert (status, json.loads(body)["type"]) == (413, "urn:guichet:error:too_large")


LIMITS = {"MAX_CSV_BYTES": "200000", "MAX_CSV_ROWS": "1100", "MAX_CSV_RECORD_BYTES": "5000"}


@pytest.fixture(scope="module")
def narrow_stacks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Stack], Stack]]:
    """Services that take small files only, beside those that take large ones."""
    made: dict[str, Stack] = {}

    def find(stack: Stack) -> Stack:
        if stack.runtime not in made:
            folder = tmp_path_factory.mktemp(f"narrow-{stack.runtime}")
            made[stack.runtime] = opened.enter_context(apart(stack, folder, models=["attrition", "energy"], **LIMITS))
        return made[stack.runtime]

    with ExitStack() as opened:
        yield find


@pytest.fixture
def narrow(stack: Stack, narrow_stacks: Callable[[Stack], Stack]) -> Stack:
    return narrow_stacks(stack)


@pytest.fixture
def narrow_engine(narrow: Stack) -> Iterator[Engine]:
    engine = make_engine(narrow.database_url)
    yield engine
    engine.dispose()


def of_size(size: int) -> bytes:
    """Return a file of so many bytes."""
    content = HEADER + RECORDS * ((size - len(HEADER)) // len(RECORDS))
    return content + b"\n" * (size - len(content))


BEYOND: dict[str, Callable[[httpx2.Client], httpx2.Response]] = {
    "announced": lambda client: post_csv(client, of_size(300_000)),
    "a little too large": lambda client: post_csv(client, of_size(200_001)),
    "in pieces": lambda client: post_csv(client, iter([of_size(200_000), b"\n" * 100_000])),
    "without end": lambda client: post_csv(client, (of_size(100_000) for _ in range(1_000))),
    "in a form": lambda client: post_form(client, of_size(200_001)),
    "in a large form": lambda client: post_form(client, of_size(3_000_000)),
    "compressed": lambda client: post_csv(client, gzip.compress(of_size(50_000_000))),
    "as a compressed body": lambda client: client.post(
        "/predict_csv", content=gzip.compress(of_size(50_000_000)), headers=CSV | {"Content-Encoding": "gzip"}
    ),
    "compressed in a form": lambda client: post_form(client, gzip.compress(of_size(50_000_000))),
    "only checked": lambda client: post_csv(client, of_size(300_000), validate_only="true"),
    "a long record": lambda client: post_csv(client, GOOD + b"1" * 6_000),
    "a long header": lambda client: post_csv(client, b"x" * 6_000 + b"," + GOOD),
}


@pytest.mark.parametrize("case", BEYOND)
def test_file_beyond_a_limit_is_refused(narrow: Stack, narrow_engine: Engine, case: str) -> None:
    left, before = spooled_files(narrow), everything(narrow_engine)
    with narrow.client() as client:
        problem = check_problem(BEYOND[case](client), 413, "too_large")
        assert any(limit in problem["detail"] for limit in ("200000 bytes", "5000 bytes"))
    assert everything(narrow_engine) == before
    wait_until(lambda: spooled_files(narrow) == left or None)


def test_file_with_too_many_rows_is_refused(narrow: Stack, narrow_engine: Engine) -> None:
    before = everything(narrow_engine)
    head, row, _ = file_of(example_rows("energy")[:1]).split(b"\n")
    with narrow.client() as client:
        content = b"\n".join([head, *[row] * 1_101])
        problem = check_problem(post_csv(client, content, "/models/energy/predict_csv"), 413, "too_large")
    assert "1100 rows" in problem["detail"]
    assert everything(narrow_engine) == before


def test_file_of_just_the_limit_is_taken(narrow: Stack) -> None:
    with narrow.client() as client:
        answer = post_csv(client, of_size(200_000), validate_only="true")
        assert (answer.status_code, answer.json()["format"]["bytes"]) == (200, 200_000)


# ── uploads that break off ───────────────────────────────────────────────────────────────────────────────────────


CUT_OFF = {
    "a small file": (GOOD[:500], ()),
    "a large file": (HEAVY[: len(HEAVY) // 2], ()),
    "a small file in pieces": (b"1f4\r\n" + GOOD[:500] + b"\r\n", ("Transfer-Encoding: chunked",)),
    "no byte of a file": (b"", ("Transfer-Encoding: chunked",)),
}


@pytest.mark.parametrize("case", CUT_OFF)
def test_upload_that_is_cut_off_leaves_nothing(stack: Stack, engine: Engine, case: str) -> None:
    content, headers = CUT_OFF[case]
    request_id = new_id()
    log = stack.folder / "api.log"
    size = log.stat().st_size
    with started(stack, content, f"X-Request-Id: {request_id}", *headers):
        time.sleep(0.05)
    entry = logged(engine, request_id)
    assert (entry["status"], entry["code"]) == (400, "malformed_body")
    assert "Traceback" not in log.read_text()[size:]


DAMAGED = {
    "gzip cut off": gzip.compress(GOOD)[:-20],
    "gzip cut off in its head": gzip.compress(GOOD)[:5],
    "gzip with a wrong checksum": gzip.compress(GOOD)[:-8] + b"\x00" * 8,
    "gzip with garbage within": gzip.compress(GOOD)[:200] + b"garbage" * 10 + gzip.compress(GOOD)[270:],
    "gzip with garbage after it": gzip.compress(GOOD) + b"garbage",
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_gzip_is_refused(client: httpx2.Client, case: str) -> None:
    check_problem(post_csv(client, DAMAGED[case]), 400, "malformed_body")
    check_problem(post_form(client, DAMAGED[case]), 400, "malformed_body")
    headers = CSV | {"Content-Encoding": "gzip"}
    answer = client.post("/predict_csv", content=DAMAGED[case], headers=headers)
    check_problem(answer, 400, "malformed_body")


def test_body_that_is_not_compressed_as_it_says_is_refused(client: httpx2.Client) -> None:
    answer = client.post("/predict_csv", content=GOOD, headers=CSV | {"Content-Encoding": "gzip"})
    check_problem(answer, 400, "malformed_body")
    answer = client.post("/predict_csv", content=GOOD, headers=CSV | {"Content-Encoding": "br"})
    check_problem(answer, 415, "unsupported_media_type")


# ── forms, types, options ────────────────────────────────────────────────────────────────────────────────────────


def test_form_without_a_file_is_refused(client: httpx2.Client) -> None:
    problem = check_problem(client.post("/predict_csv", files=[("a", (None, b"1"))]), 422, "invalid_request")
    assert faults_of(problem) == [("/a", "unknown_field")]
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    problem = check_problem(client.post("/predict_csv", content=b"--b--\r\n", headers=headers), 422, "invalid_request")
    assert faults_of(problem) == [("/file", "missing")]


def test_form_with_two_files_is_refused(client: httpx2.Client) -> None:
    files = [("file", ("a.csv", GOOD)), ("file", ("b.csv", GOOD))]
    problem = check_problem(client.post("/predict_csv", files=files), 422, "invalid_request")
    assert faults_of(problem) == [("/file", "several_files")]


def test_option_in_a_form_is_refused(client: httpx2.Client) -> None:
    answer = client.post("/predict_csv", files={"file": ("a.csv", GOOD)}, data={"delimiter": ";"})
    problem = check_problem(answer, 422, "invalid_request")
    assert faults_of(problem) == [("/delimiter", "unknown_field")]
    assert "query" in problem["detail"]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--b--\r\n"),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", GOOD),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + GOOD),
    ],
)
def test_damaged_form_is_refused(client: httpx2.Client, kind: str, body: bytes) -> None:
    answer = client.post("/predict_csv", content=body, headers={"Content-Type": kind})
    check_problem(answer, 400, "malformed_body")


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "application/json", "text/plain", "text/html"])
def test_other_type_is_refused_with_a_line_that_works(client: httpx2.Client, kind: str) -> None:
    answer = client.post("/predict_csv", content=GOOD, headers={"Content-Type": kind})
    assert "curl -F file=@rows.csv" in check_problem(answer, 415, "unsupported_media_type")["detail"]
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("params", "fault"),
    [
        ({"delimeter": ";"}, ("/query/delimeter", "unknown_parameter")),
        ({"a/b~": "1"}, ("/query/a~1b~0", "unknown_parameter")),
        ({"delimiter": "x"}, ("/query/delimiter", "delimiter")),
        ({"delimiter": ""}, ("/query/delimiter", "delimiter")),
        ({"encoding": "ebcdic"}, ("/query/encoding", "encoding")),
        ({"decimal": ";"}, ("/query/decimal", "decimal")),
        ({"strict": "perhaps"}, ("/query/strict", "bool_parsing")),
        ({"max_error_rate": "1.01"}, ("/query/max_error_rate", "less_than_equal")),
        ({"max_error_rate": "nan"}, ("/query/max_error_rate", "less_than_equal")),
        ({"version": "one"}, ("/query/version", "int_parsing")),
        ({"timeout": "0"}, ("/query/timeout", "greater_than_equal")),
        ({"timeout": "601"}, ("/query/timeout", "range")),
        ({"expires_in": "1e9"}, ("/query/expires_in", "less_than_equal")),
    ],
)
def test_option_that_cannot_be_meant_is_refused(
    client: httpx2.Client, params: dict[str, str], fault: tuple[str, str]
) -> None:
    assert faults_of(check_problem(post_csv(client, GOOD, **params), 422, "invalid_request")) == [fault]


def test_path_and_query_that_name_different_models_are_refused(client: httpx2.Client) -> None:
    answer = post_csv(client, GOOD, "/models/attrition/predict_csv", model="credit")
    assert faults_of(check_problem(answer, 422, "invalid_request")) == [("/query/model", "conflict")]


@pytest.mark.parametrize("path", ["/predict_csv?model=nobody", "/predict_csv?version=99", "/models/no/predict_csv"])
def test_file_for_an_unknown_model_is_refused(client: httpx2.Client, path: str) -> None:
    check_problem(client.post(path, content=GOOD, headers=CSV), 404, "not_found")


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_key_that_cannot_be_kept_is_refused(client: httpx2.Client, key: str) -> None:
    answer = client.post("/predict_csv", content=GOOD, headers=CSV | {"Idempotency-Key": key})
    check_problem(answer, 400, "malformed_body")


# ── too many at once ─────────────────────────────────────────────────────────────────────────────────────────────


def test_uploads_beyond_a_number_are_refused_for_now(client: httpx2.Client, stack: Stack) -> None:
    with ExitStack() as opened:
        connections = [opened.enter_context(started(stack, GOOD[:300])) for _ in range(10)]
        refused = wait_until(lambda: select.select(connections, [], [], 0)[0] or None)  # who is late finds no place
        assert read_answer(refused[0])[0] == 503
        answer = post_csv(client, GOOD)
        assert "8 files" in check_problem(answer, 503, "unavailable")["detail"]
        assert int(answer.headers["retry-after"]) >= 1
        check_problem(post_csv(client, GOOD, validate_only="true"), 503, "unavailable")
    # They went: there is room again.
    wait_until(lambda: post_csv(client, GOOD, validate_only="true").status_code == 200 or None)
