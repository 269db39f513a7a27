"""What forms, cookies and uploads of strangers cost: seconds, bytes and places, on a service of each runtime."""

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import joblib
import pytest

from tests.contracts.helpers import check_problem, wait_until
from tests.contracts.test_registering import Program
from tests.support.stack import Stack

OWN = {"Sec-Fetch-Site": "same-origin"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"} | OWN
HEADER_BYTES = 60_000  # of the 64 KB that a request's headers may have
MAX_SECONDS = 2.0  # of an answer, on a machine with other work; each took 5 to 17 before
COOKIES = {
    "escaped quotes": 'a="' + '\\"' * (HEADER_BYTES // 2) + '"',
    "escaped letters": 'a="' + "\\a" * (HEADER_BYTES // 2) + '"',
    "of the session": 'guichet_session="' + '\\"' * (HEADER_BYTES // 2) + '"',
    "many": ";".join('a="\\""' for _ in range(HEADER_BYTES // 7)),
    "equal signs": "=" * HEADER_BYTES,
}
PAGES = ("/livez", "/version", "/", "/console/sign-in", "/models/attrition", "/console/models/attrition/predict")


@contextmanager
def asked_beside(stack: Stack) -> Iterator[list[float]]:
    """Ask /livez again and again meanwhile; the list has how long each answer took, in seconds."""
    took: list[float] = []
    is_over = threading.Event()

    def ask() -> None:
        with stack.client() as client:
            while not took or not is_over.wait(0.02):
                began = time.monotonic()
                assert client.get("/livez").status_code == 200
                took.append(time.monotonic() - began)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield took
    finally:
        is_over.set()
        thread.join()
    assert took


# ── cookies and forms of the console ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", COOKIES)
def test_cookies_of_others_hold_nobody_up(client: httpx2.Client, kind: str) -> None:
    for path in PAGES:
        began = time.monotonic()
        answer = client.get(path, headers={"Cookie": COOKIES[kind], "Accept": "text/html"})
        assert time.monotonic() - began < MAX_SECONDS, path
        assert answer.status_code < 400, path


def test_cookie_of_the_console_is_read_among_those_of_others(client: httpx2.Client) -> None:
    cookies = 'theme="da\\"rk"; guichet_language=fr; a=b'
    page = client.get("/", headers={"Cookie": cookies, "Accept": "text/html"})
    assert '<html lang="fr">' in page.text
    quoted = client.get("/", headers={"Cookie": 'guichet_language="fr"', "Accept": "text/html"})
    assert '<html lang="en">' in quoted.text


@pytest.mark.parametrize("path", ["/console/sign-in", "/console/models/attrition/predict"])
def test_large_form_is_refused_and_a_costly_one_holds_nobody_up(stack: Stack, client: httpx2.Client, path: str) -> None:
    began = time.monotonic()
    assert client.post(path, content=b"key=" + b"%41" * 3_000_000, headers=FORM).status_code == 413
    assert time.monotonic() - began < MAX_SECONDS
    with asked_beside(stack) as took:
        for content in (b"%41", b"+", b"%C3", b"&a=%41%41%41%41"):
            answer = client.post(path, content=(b"key=" + content * 1_000_000)[:990_000], headers=FORM)
            assert 200 <= answer.status_code < 500, content
    assert max(took) < MAX_SECONDS


@pytest.mark.parametrize("text", ["9" * 300_000, "1" * 300_000 + "x", "1e" * 100_000, "9" * 390 + "e999"])
def test_number_without_an_end_is_a_fault_of_its_field(stack: Stack, client: httpx2.Client, text: str) -> None:
    with asked_beside(stack) as took:
        answer = client.post("/console/models/attrition/predict", data={"f:age": text}, headers=OWN)
    assert answer.status_code == 422
    assert max(took) < MAX_SECONDS


@pytest.mark.parametrize("number", ["9" * 20, "9" * 5_000, "0" * 40 + "1", "-1", "1e3", "", "½", "\0"])
def test_number_that_is_no_version_is_refused_on_its_page(client: httpx2.Client, number: str) -> None:
    fields = {"version": number, "reason": "because"}
    answer = client.post("/console/models/attrition/promote", data=fields, headers=OWN)
    assert 400 <= answer.status_code < 500, answer.text[:500]
    assert answer.headers["content-type"].startswith("text/html")


# ── uploads of models, and of rows to train on ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("metrics", '{"auc": 1' + "0" * 400 + "}"),
        ("metrics", '{"\\u0000": 1}'),
        ("metrics", "[" * 60_000),
        ("threshold", '{"threshold": 1' + "0" * 400 + "}"),
        ("labels", '{"0": "\\u0000"}'),
        ("labels", '{"0": "\\ud800"}'),
        ("version", "00000000001" + "9" * 4_000),
    ],
)
def test_document_that_cannot_be_stored_is_refused_with_its_field(client: httpx2.Client, field: str, text: str) -> None:
    files = {"artefact": ("model.joblib", b"\x80\x04].")}
    problem = check_problem(client.post("/models", data={"name": "churn", field: text}, files=files), 422)
    assert [fault["pointer"] for fault in problem["errors"]] == [f"/{field}"]


def test_words_of_an_artefact_that_no_database_stores_end_its_job(client: httpx2.Client) -> None:
    artefact = io.BytesIO()
    joblib.dump(Program(r"raise SystemError('a\0b\ud800c')"), artefact)
    accepted = client.post("/models", data={"name": "strange-words"}, files={"artefact": ("m", artefact.getvalue())})
    assert accepted.status_code == 202, accepted.text

    def look() -> dict[str, Any] | None:
        job: dict[str, Any] = client.get(f"/jobs/{accepted.json()['id']}", headers={"Prefer": "wait=10"}).json()
        return job if job["finished_at"] else None

    job = wait_until(look, seconds=200)
    assert (job["status"], job["error"]["code"], job["attempts"]) == ("failed", "model_refused", 1), job
    assert "\0" not in job["error"]["message"]
