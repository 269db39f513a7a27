"""Files on their way to the service."""

import gzip
import io
import os
import re
import threading
from email.parser import BytesParser
from email.policy import HTTP

import httpx2
import pytest
from guichet import ConnectionFailed, Refused, Unusable

from tests.client.scripted import JOB_ID, Script, answer, broken, job, problem, run

CONTENT = b"age;nom\n41;Zo\xe9\n" * 50_000
ACCEPTED = job(kind="csv", total=50_000)


def part(script: Script, number: int = 0) -> tuple[str, str, bytes]:
    """Return name, type and content of the file in a request."""
    head = f"Content-Type: {script.headers('content-type')[number]}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + script.bodies[number])
    (section,) = message.iter_parts()
    boundary = message.get_boundary().encode()
    body = script.bodies[number].split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--" + boundary + b"--\r\n", 1)[0]
    return section.get_filename(), section.get_content_type(), body


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "données.csv"
    path.write_bytes(CONTENT)
    return path


def test_file_is_sent_as_it_is_with_its_name_and_length(path):
    script = Script(answer(202, ACCEPTED))
    seen = []
    with script.client() as client:
        job = client.predict_csv(path, on_progress=lambda done, total: seen.append((done, total)))
    assert job.counts.total == 50_000
    assert part(script) == ("données.csv", "text/csv", CONTENT)
    assert int(script.headers("content-length")[0]) == len(script.bodies[0])
    assert script.headers("idempotency-key")[0]
    assert script.requests[0].url.path == "/prefix/predict_csv"
    assert len(seen) > 2
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_options_are_said_in_the_query(path):
    script = Script(answer(202, ACCEPTED))
    with script.client() as client:
        client.predict_csv(
            path,
            model="attrition",
            version=2,
            delimiter="\t",
            decimal=",",
            sheet="été 2026",
            strict=True,
            max_error_rate=0.05,
        )
    assert dict(script.requests[0].url.params) == {
        "model": "attrition",
        "version": "2",
        "delimiter": "\t",
        "decimal": ",",
        "sheet": "été 2026",
        "strict": "true",
        "max_error_rate": "0.05",
    }


def test_file_is_sent_again_from_its_beginning_byte_by_byte_the_same(pauses, path):
    for compress in (False, True):
        script = Script(broken(), problem(503, "unavailable"), answer(202, ACCEPTED))
        with script.client() as client:
            client.predict_csv(path, compress=compress)
        assert script.bodies[0] == script.bodies[1] == script.bodies[2]
        assert len(set(script.headers("idempotency-key"))) == 1


def test_compressed_file_holds_the_same(path):
    script = Script(answer(202, ACCEPTED))
    with script.client() as client:
        client.predict_csv(path, compress=True)
    name, kind, body = part(script)
    assert (name, kind) == ("données.csv", "application/gzip")
    assert len(body) < len(CONTENT) / 10
    assert gzip.decompress(body) == CONTENT


def test_open_file_is_sent_from_where_it_stands_and_stays_open(pauses, path):
    script = Script(broken(), answer(202, ACCEPTED), answer(202, ACCEPTED))
    with path.open("rb") as file, script.client() as client:
        file.seek(8)
        client.predict_csv(file)
        assert not file.closed
        client.predict_csv(io.BytesIO(b"a"), filename='my "best"\n.csv.gz')
    assert part(script, 0)[2] == part(script, 1)[2] == CONTENT[8:]
    assert part(script, 2) == ("my _best__.csv.gz", "application/gzip", b"a")


def piped(content: bytes) -> io.BufferedReader:
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(content)

    threading.Thread(target=write).start()
    return os.fdopen(reading, "rb")


def test_pipe_is_sent_but_not_again(pauses):
    script = Script(answer(202, ACCEPTED))
    with piped(CONTENT) as pipe, script.client() as client:
        client.predict_csv(pipe)
    assert part(script) == ("rows.csv", "text/csv", CONTENT)
    assert script.headers("content-length") == [None]
    script = Script(broken())
    with piped(CONTENT) as pipe, script.client() as client, pytest.raises(ConnectionFailed):
        client.predict_csv(pipe)
    script = Script(problem(503, "unavailable"))
    with piped(CONTENT) as pipe, script.client() as client, pytest.raises(Refused):
        client.predict_csv(pipe)
    assert pauses == []


def test_pipe_that_was_not_read_yet_is_sent_when_the_service_is_there(pauses):
    script = Script(answer(202, ACCEPTED))
    calls = []

    def refuse_first(request: httpx2.Request) -> httpx2.Response:
        calls.append(request)
        if len(calls) == 1:
            raise httpx2.ConnectError("refused")  # before anything of the body was read
        return script(request)

    client = script.client()
    client._http.close()
    client._http = httpx2.Client(transport=_Unread(refuse_first))
    with piped(CONTENT) as pipe, client:
        client.predict_csv(pipe)
    assert part(script)[2] == CONTENT


class _Unread(httpx2.BaseTransport):
    """MockTransport reads the body first; this one leaves that to its handler."""

    def __init__(self, handler):
        self.handler = handler

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return self.handler(request)


def test_file_of_text_is_refused(path):
    with (
        path.open(encoding="latin-1") as file,
        Script().client() as client,
        pytest.raises(Unusable, match="binary mode"),
    ):
        client.predict_csv(file)


def test_file_that_cannot_be_read_is_told(tmp_path):
    for path, message in [
        (tmp_path / "none.csv", "none.csv cannot be read: No such file or directory."),
        (tmp_path, "cannot be read: Is a directory."),
        ("a\0b", "cannot be read: embedded null byte."),
    ]:
        with Script().client() as client, pytest.raises(Unusable, match=re.escape(message)):
            client.predict_csv(path)

    async def send() -> None:
        async with Script().async_client() as client:
            await client.predict_csv(tmp_path / "none.csv")

    with pytest.raises(Unusable) as caught:
        run(send())
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_file_that_shrinks_is_not_sent_as_if_it_were_whole(path):
    for compress in (False, True):
        path.write_bytes(CONTENT)
        with Script().client() as client, pytest.raises(Unusable, match="became shorter"):
            client.predict_csv(path, compress=compress, on_progress=lambda done, total: os.truncate(path, 0))


def test_report_is_read_and_needs_no_key(path):
    report = {
        "rows": 3,
        "valid": 2,
        "invalid": 1,
        "format": {"delimiter": ";"},
        "columns": {"features": ["age"], "missing": [], "extra": ["nom"]},
        "errors": [{"row_no": 2, "column": "age", "code": "range", "message": "must be at least 0"}],
        "error_count": 1,
        "errors_by_code": {"range": 1},
    }
    script = Script(answer(200, report))
    with script.client() as client:
        checked = client.validate_csv(path, delimiter=";")
    assert (checked.valid, checked.errors[0].row_no, checked.columns["extra"]) == (2, 2, ["nom"])
    assert dict(script.requests[0].url.params) == {"delimiter": ";", "validate_only": "true"}
    assert script.headers("idempotency-key") == [None]


def test_asynchronous_client_sends_alike(pauses, path):
    async def send(script: Script) -> str:
        async with script.async_client() as client:
            return (await client.predict_csv(path, compress=True)).id

    script = Script(broken(), answer(202, ACCEPTED))
    assert run(send(script)) == JOB_ID
    assert gzip.decompress(part(script, 1)[2]) == CONTENT
    assert re.fullmatch(r"[0-9a-f-]{36}", script.headers("idempotency-key")[1])
