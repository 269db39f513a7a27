"""What an upload is wrapped in, how its body is read, where its chunks wait: without a server."""

import asyncio
import errno
import gzip
import io
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from api.files.uploads import body as uploads
from api.files.uploads import spool
from api.files.uploads.body import BATCH_BYTES, EarlyResponse, UploadBody, UploadSlots
from api.files.uploads.spool import Spool
from api.files.uploads.unwrapping import FORM_BYTES, UploadDecoder, UploadHeaders, clean_filename, read_envelope
from shared.csv.format import Chunk
from shared.csv.packing import unpack
from shared.errors import (
    GuichetError,
    InvalidRequest,
    MalformedBody,
    SlowRequest,
    TooLarge,
    TooManyRequests,
    Unavailable,
    UnsupportedMediaType,
)

ROWS = b"a,b\n1,2\n3,4\n"
PLAIN = UploadHeaders(boundary=None, is_compressed=False, charset=None, filename=None)
GZIP = UploadHeaders(boundary=None, is_compressed=True, charset=None, filename=None)
FORM = UploadHeaders(boundary=b"xyz", is_compressed=False, charset=None, filename=None)
GZIPPED_FORM = UploadHeaders(boundary=b"xyz", is_compressed=True, charset=None, filename=None)


def part(content: bytes = ROWS, disposition: str = 'form-data; name="file"; filename="rows.csv"', *more: str) -> bytes:
    headers = "\r\n".join([f"Content-Disposition: {disposition}", *more]).encode()
    return b"--xyz\r\n" + headers + b"\r\n\r\n" + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts or [part()]) + b"--xyz--\r\n"


def unwrap(envelope: UploadHeaders, pieces: Iterable[bytes], *, max_bytes: int = 1_000_000) -> tuple[bytes, str | None]:
    unwrapper = UploadDecoder(envelope, max_bytes=max_bytes)
    content = b"".join(out for piece in pieces for out in unwrapper.unwrap(piece))
    return content + b"".join(unwrapper.finish()), unwrapper.filename


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    ends = sorted({min(place, len(data)) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False) if start < end]


# ── headers ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "kind",
    [
        "text/csv",
        "TEXT/CSV; charset=utf-8; header=present",
        "application/csv",
        "text/tab-separated-values",
        "application/vnd.ms-excel",
        "application/gzip",
        "application/x-gzip",
        "application/octet-stream",
    ],
)
def test_file_of_any_usual_type_is_taken(kind):
    assert read_envelope(Headers({"Content-Type": kind})).boundary is None


def test_file_without_a_type_is_taken():
    assert read_envelope(Headers({})) == PLAIN


@pytest.mark.parametrize(
    "kind",
    ["application/x-www-form-urlencoded", "application/json", "text/plain", "text/html", "image/png", "csv"],
)
def test_other_type_is_refused_with_a_line_that_works(kind):
    with pytest.raises(UnsupportedMediaType) as refusal:
        read_envelope(Headers({"Content-Type": kind}))
    assert "curl -F file=@rows.csv URL" in refusal.value.detail


def test_charset_of_the_type_is_the_encoding():
    assert read_envelope(Headers({"Content-Type": 'text/csv; charset="Windows-1252"'})).charset == "Windows-1252"
    assert read_envelope(Headers({"Content-Type": "multipart/form-data; boundary=b; charset=utf-8"})).charset is None


def test_name_of_a_bare_file_is_in_its_disposition():
    headers = Headers({"Content-Type": "text/csv", "Content-Disposition": 'attachment; filename="rows.csv"'})
    assert read_envelope(headers).filename == "rows.csv"


@pytest.mark.parametrize(("coding", "compressed"), [("gzip", True), ("X-GZIP", True), ("identity", False), ("", False)])
def test_compression_is_in_the_content_encoding(coding, compressed):
    assert read_envelope(Headers({"Content-Encoding": coding})).is_compressed is compressed


@pytest.mark.parametrize("coding", ["br", "zstd", "deflate", "gzip, gzip", "aws-chunked"])
def test_other_compression_is_refused(coding):
    with pytest.raises(UnsupportedMediaType, match="use gzip"):
        read_envelope(Headers({"Content-Encoding": coding}))


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary"]
)
def test_form_without_a_boundary_is_refused(kind):
    with pytest.raises(MalformedBody, match="boundary"):
        read_envelope(Headers({"Content-Type": kind}))


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        (None, None),
        (b"", None),
        (b"rows.csv", "rows.csv"),
        ("données été.csv".encode(), "données été.csv"),
        ("données.csv".encode("latin-1"), "données.csv"),
        (b"/etc/passwd", "passwd"),
        (b"../../rows.csv", "rows.csv"),
        (b"C:\\Users\\me\\rows.csv", "rows.csv"),
        (b"folder/", None),
        (b"..", None),
        (b"  rows.csv  ", "rows.csv"),
        (b"ro\x00ws\r\n\x1b[31m.csv\x7f", "rows[31m.csv"),
        ("\u202evsc.exe".encode(), "vsc.exe"),  # a mark that makes text run from right to left
        (b"x" * 300 + b".csv", "x" * 255),
        (b"\xed\xa0\x80.csv", "í\xa0\x80.csv".replace("\xa0", "").replace("\x80", "")),
    ],
)
def test_name_of_a_file_is_kept_without_folders_and_signs_that_cannot_be_shown(name, kept):
    assert clean_filename(name) == kept


# ── unwrapping ───────────────────────────────────────────────────────────────────────────────────────────────────

WRAPPED = {
    "plain": (PLAIN, ROWS, None),
    "gzip": (GZIP, gzip.compress(ROWS), None),
    "gzip of two members": (GZIP, gzip.compress(ROWS[:5]) + gzip.compress(ROWS[5:]), None),
    "form": (FORM, form(), "rows.csv"),
    "form without a last line end": (FORM, form()[:-2], "rows.csv"),
    "form with something after it": (FORM, form() + b"epilogue", "rows.csv"),
    "form with a type": (
        FORM,
        form(part(ROWS, 'form-data; name="data"; filename="a.csv"', "Content-Type: x/y")),
        "a.csv",
    ),
    "field named file": (FORM, form(part(ROWS, "form-data; name=file")), None),
    "file without a name": (FORM, form(part(ROWS, 'form-data; name="file"; filename=""')), None),
    "8bit": (FORM, form(part(ROWS, 'form-data; name="f"; filename="a"', "content-transfer-encoding: 8BIT")), "a"),
    "compressed form": (GZIPPED_FORM, gzip.compress(form()), "rows.csv"),
}


@pytest.mark.parametrize("case", WRAPPED)
@given(st.lists(st.integers(0, 400), max_size=12))
def test_file_comes_out_as_it_was_wherever_the_body_is_cut(case, places):
    envelope, body, filename = WRAPPED[case]
    assert unwrap(envelope, cut(body, places)) == (ROWS, filename)


@given(st.binary(max_size=300), st.lists(st.integers(0, 500), max_size=8))
def test_file_of_any_bytes_comes_out_of_its_form(content, places):
    content = content.replace(b"x", b"\r\n--xy")  # nearly the boundary
    assert unwrap(FORM, cut(form(part(content)), places)) == (content, "rows.csv")


def refused(envelope: UploadHeaders, *pieces: bytes, max_bytes: int = 1_000_000) -> GuichetError:
    with pytest.raises(GuichetError) as refusal:
        unwrap(envelope, pieces, max_bytes=max_bytes)
    return refusal.value


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"--xyz--\r\n", "missing"),
        (form(part(), part()), "several_files"),
        (form(part(), part(ROWS, 'form-data; name="file"')), "several_files"),
        (form(part(b";", 'form-data; name="delimiter"'), part()), "unknown_field"),
        (form(part(), part(b";", 'form-data; name="delimiter"')), "unknown_field"),
    ],
)
def test_form_that_is_not_one_file_is_refused(body, code):
    error = refused(FORM, body)
    assert isinstance(error, InvalidRequest)
    assert [fault.code for fault in error.faults] == [code]


def test_field_of_a_form_is_told_where_options_go():
    error = refused(FORM, form(part(b";", 'form-data; name="a/b"')))
    assert error.faults[0].pointer == "/a~1b"
    assert "into the query" in error.detail


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"a,b\n1,2\n",
        form()[:-4],
        form()[:-9],
        part(),
        form(part(ROWS, "attachment")),
        form(part(ROWS, 'form-data; filename="a.csv"')),
        b"--xyz\r\nno header at all\r\n\r\n--xyz--\r\n",
        form(part(ROWS, 'form-data; name="file"', "X-Long: " + "x" * 10_000)),
        form(part(ROWS, 'form-data; name="file"', *(f"X-{number}: 1" for number in range(50)))),
        form().replace(b"xyz", b"other"),
    ],
)
def test_damaged_form_is_refused(body):
    assert isinstance(refused(FORM, body), MalformedBody)


def test_boundary_that_is_too_long_is_refused():
    assert isinstance(refused(UploadHeaders(b"x" * 300, False, None, None), b""), MalformedBody)


def test_file_in_base64_is_refused():
    error = refused(FORM, form(part(ROWS, 'form-data; name="file"', "Content-Transfer-Encoding: base64")))
    assert isinstance(error, UnsupportedMediaType)


def test_what_the_parser_finds_in_a_form_is_not_logged(caplog):
    refused(FORM, b"--xyz secret\r\n")
    refused(FORM, b"--xyz\r\nse cret: 1\r\n")
    assert caplog.records == []


@pytest.mark.parametrize(
    "body", [ROWS, gzip.compress(ROWS, mtime=0)[:-1], gzip.compress(ROWS, mtime=0)[:-8] + b"\x00" * 8]
)
def test_body_that_is_not_the_gzip_that_it_says_is_refused(body):
    assert isinstance(refused(GZIP, body), MalformedBody)


def test_body_that_expands_beyond_the_limit_is_refused_early():
    bomb = gzip.compress(b"\r\n" * 20_000_000)
    for envelope in (GZIP, GZIPPED_FORM):
        assert isinstance(refused(envelope, bomb, max_bytes=100_000), TooLarge)


def test_form_may_be_a_little_larger_than_its_file():
    assert unwrap(FORM, [form()], max_bytes=len(ROWS))[0] == ROWS
    more = form(part(b"x" * (FORM_BYTES + 1)))
    assert isinstance(refused(FORM, more, max_bytes=len(ROWS)), TooLarge)


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

Receive = Callable[[], Awaitable[dict[str, Any]]]


def request_of(*messages: dict[str, Any], **headers: str) -> Request:
    waiting = iter(messages)

    async def receive() -> dict[str, Any]:
        piece = next(waiting, None)
        if piece is None:
            await asyncio.Event().wait()
            raise AssertionError
        return piece

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, receive)


def piece(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


GONE = {"type": "http.disconnect"}


def read_all(body: UploadBody) -> list[bytes]:
    async def read() -> list[bytes]:
        pieces = []
        while data := await body.read():
            pieces.append(data)
        return pieces

    return asyncio.run(read())


def test_small_pieces_of_a_body_are_handed_over_together():
    body = UploadBody(request_of(*[piece(b"x" * 1000)] * 600, piece(b"", more=False)), max_bytes=1_000_000)
    pieces = read_all(body)
    assert [len(data) for data in pieces] == [263_000, 263_000, 74_000]
    assert all(len(data) <= BATCH_BYTES + 1000 for data in pieces)
    assert body.is_complete


def test_body_that_is_empty_is_complete():
    body = UploadBody(request_of(piece(b"", more=False)), max_bytes=10)
    assert read_all(body) == []
    assert body.is_complete


def test_body_that_announces_too_much_is_not_read():
    body = UploadBody(request_of(content_length="1000000"), max_bytes=1000)
    with pytest.raises(TooLarge, match="1000 bytes"):
        read_all(body)
    assert not body.is_complete


def test_body_that_turns_out_too_large_is_not_read_to_its_end():
    body = UploadBody(request_of(*[piece(b"x" * 100_000)] * 4), max_bytes=1000)
    with pytest.raises(TooLarge, match="1000 bytes"):
        read_all(body)


def test_body_that_ends_early_is_malformed():
    with pytest.raises(MalformedBody, match="announced length"):
        read_all(UploadBody(request_of(piece(b"a,b\n"), GONE), max_bytes=1000))


def test_body_that_stands_still_is_given_up(monkeypatch):
    monkeypatch.setattr(uploads, "STALL_SECONDS", 0.01)
    with pytest.raises(SlowRequest, match="stood still"):
        read_all(UploadBody(request_of(piece(b"a,b\n")), max_bytes=1000))


def test_body_that_is_too_slow_on_the_whole_is_given_up(monkeypatch):
    """Each batch comes in time, and the file as a whole would hold its place for hours."""
    monkeypatch.setattr(uploads, "STALL_SECONDS", 0.4)
    monkeypatch.setattr(uploads, "LEAST_RATE", 10 * uploads.BATCH_BYTES)
    received = 0

    async def receive() -> Any:
        nonlocal received
        await asyncio.sleep(0.2)
        received += 1
        return piece(b"x" * uploads.BATCH_BYTES)

    request = Request({"type": "http", "method": "POST", "path": "/predict_csv", "headers": []}, receive)
    with pytest.raises(SlowRequest, match="is too slow"):
        read_all(UploadBody(request, max_bytes=10**9))
    assert 1 < received < 10


def test_time_that_the_service_takes_is_not_the_senders(monkeypatch):
    monkeypatch.setattr(uploads, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(uploads, "LEAST_RATE", 10**9)

    async def read_slowly() -> int:
        body = UploadBody(request_of(*[piece(b"x" * uploads.BATCH_BYTES)] * 3, piece(b"", more=False)), max_bytes=10**9)
        size = 0
        while data := await body.read():
            size += len(data)
            await asyncio.sleep(0.15)
        return size

    assert asyncio.run(read_slowly()) == 3 * uploads.BATCH_BYTES


def test_place_of_an_upload_is_free_again_however_it_ended():
    places = UploadSlots(2, of_one=2)
    with places.one("a"):
        with pytest.raises(ZeroDivisionError), places.one("a"):
            raise ZeroDivisionError
        with places.one("a"), pytest.raises(Unavailable) as refusal, places.one("b"):
            pass
    assert refusal.value.retry_after == 5
    with places.one("b"), places.one("b"):
        pass


def test_one_caller_leaves_places_to_others():
    places = UploadSlots(3, of_one=2)
    with places.one("a"), places.one("a"):
        with pytest.raises(TooManyRequests) as refusal, places.one("a"):
            pass
        assert refusal.value.retry_after == 5
        with places.one("b"):
            pass
    with places.one(None), places.one(None), places.one(None):  # where no key is needed, nobody is told from others
        pass


# ── answering early ──────────────────────────────────────────────────────────────────────────────────────────────


def answer(request: Request, *, linger: float = 5.0) -> list[str]:
    """Return what is sent and received, in order."""
    story: list[str] = []

    async def receive() -> Any:
        message = await request.receive()
        story.append(message["type"].rpartition(".")[2])
        return message

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            story.append(f"{message['status']} {dict(message['headers'])[b'connection'].decode()}")
        else:
            story.append("answer" if message["body"] else "end")
            assert message["more_body"] is bool(message["body"])

    async def run() -> None:
        await asyncio.wait_for(EarlyResponse(Response("no", 422))(request.scope, receive, send), 10)

    asyncio.run(run())
    return story


def test_early_answer_is_sent_before_the_rest_of_the_body_is_taken():
    rest = request_of(piece(b"x"), piece(b"x"), piece(b"x", more=False))
    assert answer(rest) == ["422 close", "answer", "request", "request", "request", "end"]


def test_early_answer_ends_when_the_caller_goes():
    assert answer(request_of(piece(b"x"), GONE)) == ["422 close", "answer", "request", "disconnect", "end"]


def test_early_answer_waits_for_some_seconds_only(monkeypatch):
    monkeypatch.setattr(uploads, "LINGER_SECONDS", 0.01)
    assert answer(request_of(piece(b"x"))) == ["422 close", "answer", "request", "end"]


# ── waiting chunks ───────────────────────────────────────────────────────────────────────────────────────────────


def deleted_files() -> set[str]:
    """Files without a name that this process holds open."""
    folder = Path("/proc/self/fd")
    paths = set()
    for entry in folder.iterdir():
        try:
            target = os.readlink(entry)
        except OSError:
            continue
        if target.endswith("(deleted)"):
            paths.add(target)
    return paths


def test_chunks_come_back_in_order_as_often_as_they_are_wanted():
    with Spool() as kept:
        for number in range(3):
            kept.add(Chunk(number * 10, 10, b"%d\n" % number * 10))
        for _ in range(2):
            chunks = list(kept.chunks())
            assert [(chunk.first_row, chunk.row_count) for chunk in chunks] == [(0, 10), (10, 10), (20, 10)]
            assert [unpack(chunk.payload) for chunk in chunks] == [b"0\n" * 10, b"1\n" * 10, b"2\n" * 10]


def test_large_upload_waits_in_a_file_without_a_name_that_goes_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(spool, "MEMORY_BYTES", 100_000)
    before = deleted_files()
    content = [os.urandom(60_000) for _ in range(3)]
    with Spool() as kept:
        kept.add(Chunk(0, 1, content[0]))
        assert deleted_files() == before
        kept.add(Chunk(1, 1, content[1]))
        kept.add(Chunk(2, 1, content[2]))
        assert len(deleted_files() - before) == 1
        assert [unpack(chunk.payload) for chunk in kept.chunks()] == content
        assert list(tmp_path.iterdir()) == []
    assert deleted_files() == before


class FullDisk(io.BytesIO):
    """A file on a disk that is full; some systems say so as late as this."""

    def __init__(self, late: bool) -> None:
        super().__init__()
        self._late = late

    def _refuse(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, data: Any) -> int:
        if not self._late:
            self._refuse()
        return len(data)

    def seek(self, *_: int) -> int:
        self._refuse()
        return 0

    def close(self) -> None:
        super().close()  # the interpreter would close it once more, and from 3.13 on tell of the refusal
        self._refuse()


@pytest.mark.parametrize("late", [False, True])
def test_upload_that_does_not_fit_on_the_disk_is_refused_for_now(monkeypatch, late):
    monkeypatch.setattr("tempfile.SpooledTemporaryFile", lambda max_size: FullDisk(late))

    def keep() -> None:
        with Spool() as kept:
            kept.add(Chunk(0, 1, b"1\n"))
            list(kept.chunks())

    with pytest.raises(Unavailable, match="disk for uploads is full") as refusal:
        keep()
    assert refusal.value.retry_after == 30
