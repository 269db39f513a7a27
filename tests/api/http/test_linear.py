"""What reads a caller's bytes takes time in proportion to them: eight times the bytes, never 64 times the time."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from starlette.requests import Request

from api.console.forms import parse_fields
from api.files.models import ModelForm
from api.http import conditional
from api.http.cookies import with_own_cookies
from api.jobs.json_body import parse_json
from api.protocols.mlflow import dataframes
from shared.csv.format import Limits
from shared.csv.uploads.splitter import RecordSplitter
from shared.errors import GuichetError

SMALL, LARGE = 8_000, 64_000
BEGINNINGS = (b"", b'"', b'{"inputs": [NaN, "', b'{"a":', b"[", b"a;b\n")
REPEATED = (
    b'a\\"',
    b'"',
    b"\\",
    b'""',
    b'",',
    b'"a",',
    b'"\n',
    b"[",
    b'{"a":',
    b"[],",
    b"{},",
    b"9" * 299 + b",",
    b"9" * 399 + b",",
    b"1e",
    b"9",
    b",",
    b";",
    b"\n",
    b"\r",
    b"\r\n",
    b" ",
    b"NaN,",
    b"NaN",
    b"-",
    b"\\u0000",
    b"\x00",
    b"\xff",
    b"\xc3\xa9",
    b"=",
    b"%",
    b"%41",
    b"&",
    b"\r\n--",
    b'a="\\"',
)


def split(body: bytes) -> None:
    splitter = RecordSplitter(",", Limits(10_000_000, 10_000_000, 1_000_000))
    list(splitter.feed(body))
    list(splitter.finish())


def read_parts(body: bytes) -> None:
    form = ModelForm(b"b", max_bytes=10_000_000)
    with form:
        form.parse(b'--b\r\nContent-Disposition: form-data; name="artefact"; filename="m"\r\n\r\n' + body)


def headers(read: Callable[[str], Any]) -> Callable[[bytes], Any]:
    return lambda body: read(body.decode("latin-1"))


READERS: dict[str, Callable[[bytes], Any]] = {
    "JSON": parse_json,
    "JSON with NaN": dataframes._parse,
    "records of a CSV file": split,
    "If-None-Match": headers(lambda text: conditional.etag_matches(text, '"x"')),
    "Range": headers(lambda text: conditional.parse_range("bytes=" + text, None, '"x"')),
    "Cookie": lambda body: Request({"type": "http", "headers": with_own_cookies([(b"cookie", body)])}).cookies,
    "form of the console": parse_fields,
    "form with files": read_parts,
    "Accept": headers(lambda text: conditional.preferred_type(text, ["text/csv", "application/json"])),
}


def seconds(read: Callable[[bytes], Any], body: bytes, *, times: int = 1) -> float:
    """Return the least of the processor's time that so many readings took."""
    best = float("inf")
    for _ in range(times):
        began = time.thread_time()
        with suppress(GuichetError):
            read(body)
        best = min(best, time.thread_time() - began)
    return best


def takes_longer(read: Callable[[bytes], Any], small: bytes, large: bytes) -> bool:
    """Tell whether eight times the bytes take more than 24 times the time, each of twenty times that it is tried.

    What takes 64 times the time does so whenever it is tried. A processor that a neighbour slows down, or a collection
    of garbage, is over after a pause.
    """
    for trial in range(20):
        time.sleep(0.01 * trial)
        if seconds(read, large, times=3) <= 24 * seconds(read, small, times=3):
            return False
    return True


@pytest.mark.parametrize("name", READERS)
def test_reading_takes_time_in_proportion_to_the_bytes(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("api.jobs.json_body.LARGE", 0)  # or a large one would be read otherwise than a small one
    read, slow = READERS[name], []
    for beginning in BEGINNINGS:
        for piece in REPEATED:
            small, large = (beginning + piece * (size // len(piece)) for size in (SMALL, LARGE))
            # 50 ns a byte is nothing to look into
            if seconds(read, large) > 0.0032 and takes_longer(read, small, large):
                slow.append((beginning, piece[:10]))
    assert slow == []


def test_body_that_froze_the_service_is_refused_at_once():
    body = b'{"inputs": [NaN, "' + b'a\\"' * 1_000_000
    assert seconds(dataframes._parse, body) < 1
