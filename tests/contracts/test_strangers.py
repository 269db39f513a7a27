"""What forms, cookies and uploads of strangers cost: seconds, bytes and places, on a service of each runtime."""

import gzip
import io
import json
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import delete, insert, select

from api.auth.callers import make_key
from shared.database.engine import make_engine
from shared.tables import ApiKey, ModelAlias, ModelVersion, Shadow
from tests.contracts.helpers import apart, check_problem, new_id, wait_for_keys, wait_until
from tests.contracts.models.test_registering import Program, ended, fitted, joblib_of, send
from tests.support.stack import Stack
from tests.support.trainings import TARGET, csv_of, make_rows

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


def test_rows_that_no_database_stores_are_refused(client: httpx2.Client) -> None:
    query = {"name": "churn", "target": TARGET}
    csv = {"Content-Type": "text/csv"}
    content = csv_of(make_rows(60))
    problem = check_problem(client.post("/train", params=query | {"positive": "\0"}, content=content, headers=csv), 422)
    assert [fault["pointer"] for fault in problem["errors"]] == ["/query/positive"]
    holed = content.replace(b"north", b"no\0rth")
    assert "NUL" in check_problem(client.post("/train", params=query, content=holed, headers=csv), 422)["detail"]


@pytest.mark.parametrize("path", ["/models", "/train?name=churn&target=left"])
def test_part_of_a_form_has_short_headers(client: httpx2.Client, path: str) -> None:
    """A name without an end is no way around the limit of a file, and no way into memory."""
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    start = b'--b\r\nContent-Disposition: form-data; name="artefact"; filename="'
    for body in (start + b"a" * 4_000_000, b"--b\r\n" + b"X-Name: value\r\n" * 200_000, b"\r\n" * 1_000_000):
        began = time.monotonic()
        answer = client.post(path, content=body, headers=form)
        assert answer.status_code in (400, 413, 415, 422), answer.text
        assert time.monotonic() - began < 2 * MAX_SECONDS


@pytest.mark.flow
def test_packed_rows_are_bounded_by_what_they_unpack_to(stack: Stack, tmp_path: Any) -> None:
    bomb = gzip.compress(b"a,left\n" + b"1,yes\n" * 5_000_000)
    assert len(bomb) < 200_000
    headers = {"Content-Type": "text/csv", "Content-Encoding": "gzip"}
    with apart(stack, tmp_path, MAX_TRAINING_BYTES="1000000") as other, other.client() as client:
        answer = client.post("/train?name=churn&target=left", content=bomb, headers=headers)
        assert "larger than 1000000 bytes" in check_problem(answer, 413)["detail"]
        workbook = io.BytesIO()
        with zipfile.ZipFile(workbook, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("xl/workbook.xml", b" " * 50_000_000)
        answer = client.post("/train?name=churn&target=left", content=workbook.getvalue(), headers={"Content-Type": ""})
        assert 400 <= answer.status_code < 500, answer.text


@pytest.mark.flow
def test_error_of_an_upload_tells_no_path(client: httpx2.Client, models_dir: Path) -> None:
    name = f"occupied-{new_id()[-12:]}"
    (models_dir / name / "1").mkdir(parents=True)
    (models_dir / name / "1" / "stray.txt").write_text("x")
    accepted = send(client, joblib_of(fitted()), name=name, target="left")
    job = ended(client, accepted)
    assert (job["status"], job["error"]["code"]) == ("failed", "model_refused"), job
    assert job["error"]["message"].startswith(f"MODELS_DIR/{name}/1 is in the way"), job
    assert str(models_dir) not in json.dumps(client.get("/logs/errors").json())


@pytest.mark.flow
def test_words_of_an_artefact_that_no_database_stores_end_its_job(client: httpx2.Client) -> None:
    artefact = joblib_of(Program(r"raise SystemError('a\0b\ud800c')"))
    job = ended(client, send(client, artefact, name=f"strange-{new_id()[-12:]}"))
    assert (job["status"], job["error"]["code"], job["attempts"]) == ("failed", "model_refused", 1), job
    assert "\0" not in job["error"]["message"]


@pytest.mark.flow
def test_window_is_bounded_as_a_file_is(stack: Stack, tmp_path: Any, attrition_row: dict[str, Any]) -> None:
    with apart(stack, tmp_path, MAX_TRAINING_BYTES="1000") as other, other.client() as client:
        body = {"rows": [attrition_row] * 60}
        scored = client.post("/models/attrition/predict_batch", json=body, headers={"Prefer": "wait=60"})
        assert scored.status_code == 200, scored.text
        job = scored.json()["job_id"]
        labels = list(client.get("/models/attrition").json()["card"]["labels"].values())
        lines = "".join(f"{job},{place},{labels[place % 2]}\n" for place in range(60))
        noted = client.post("/outcomes", content=f"job_id,row,actual\n{lines}", headers={"Content-Type": "text/csv"})
        assert noted.status_code in (200, 201, 202), noted.text
        answer = client.post("/train", json={"model": "attrition@1", "name": new_id()[:20]})
    assert "MAX_TRAINING_BYTES" in check_problem(answer, 413)["detail"]


def test_health_tells_strangers_no_path_of_a_challenger(keyed: Stack) -> None:
    with keyed.client() as client:
        engine = make_engine(keyed.database_url)
        secret, digest = make_key()
        now = datetime.now(UTC)
        with engine.begin() as connection:
            connection.execute(insert(ApiKey).values(id=digest[:16], name=digest[:16], sha256=digest, scopes="read"))
            version = connection.scalar(
                select(ModelVersion.id).where(ModelVersion.name == "attrition", ModelVersion.version == 1)
            )
            alias = {"name": "attrition", "alias": "challenger", "model_version_id": version, "updated_at": now}
            connection.execute(insert(ModelAlias).values(alias))
            counts = dict.fromkeys(("mark", "lag_seconds", "scored_count", "refused_count", "skipped_count"), 0)
            counts |= {"failure_count": 3, "crash_count": 3, "model_version_id": version}
            reason = "It cannot be loaded: /srv/secret/model.joblib is missing."
            connection.execute(
                insert(Shadow).values(counts | {"alias_at": now, "moved_at": now, "stopped_at": now, "reason": reason})
            )
        try:

            def health(**headers: str) -> str | None:
                text = client.get("/health", headers=headers).text
                return text if "has been stopped since" in text else None

            assert "/srv/secret" not in wait_until(health, seconds=20)
            full = wait_until(lambda: health(Authorization=f"Bearer {secret}"), seconds=20)
            assert "/srv/secret/model.joblib" in full
        finally:
            with engine.begin() as connection:
                connection.execute(delete(Shadow).where(Shadow.model_version_id == version))
                of_ours = (ModelAlias.name == "attrition") & (ModelAlias.alias == "challenger")
                connection.execute(delete(ModelAlias).where(of_ours))
            engine.dispose()


@pytest.mark.parametrize("path", ["/models", "/train?name=churn&target=left"])
def test_one_key_does_not_hold_all_places(stack: Stack, tmp_path: Any, path: str) -> None:
    with apart(stack, tmp_path, AUTH="keys") as other:
        engine = make_engine(other.database_url)
        keys = {}
        with engine.begin() as connection:
            for name in ("first", "second"):
                keys[name], digest = make_key()
                values = {"id": digest[:16], "name": f"{name}-{digest[:8]}", "sha256": digest, "scopes": "admin"}
                connection.execute(insert(ApiKey).values(values))
        engine.dispose()
        wait_for_keys(other, *keys.values())
        start = b'--b\r\nContent-Disposition: form-data; name="artefact"; filename="m"\r\n\r\n'
        if path != "/models":
            start = b'--b\r\nContent-Disposition: form-data; name="file"; filename="m"\r\n\r\na,left\n'
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            "Content-Length: 4000000\r\nAuthorization: Bearer {}\r\n\r\n"
        )
        with ExitStack() as closing, other.client() as client:
            form = {"Content-Type": "multipart/form-data; boundary=b"}

            def hold() -> socket.socket:
                slow = closing.enter_context(socket.create_connection(("127.0.0.1", other.port), timeout=20))
                slow.sendall(head.format(keys["first"]).encode() + start + b"1,yes\n" * 50_000)
                return slow

            def ask(name: str) -> httpx2.Response:
                return client.post(
                    path, content=start + b"\r\n--b--\r\n", headers=form | {"Authorization": f"Bearer {keys[name]}"}
                )

            slow = hold()

            def is_held() -> bool | None:
                nonlocal slow
                if ask("first").status_code == 429:
                    return True
                if is_answered(slow):
                    slow = hold()  # it was refused, because one of these questions held the place when it came
                return None

            wait_until(is_held, seconds=60)
            problem = check_problem(ask("first"), 429)
            assert "1 file already" in problem["detail"]
            assert ask("second").status_code == 422  # it was received: there is a place for another
            with suppress(OSError):
                slow.shutdown(socket.SHUT_RDWR)
        with other.client() as client:
            wait_until(lambda: ask_again(client, path, start, keys["first"]) == 422 or None, seconds=10)


def is_answered(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        connection.recv(1)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


def ask_again(client: httpx2.Client, path: str, start: bytes, key: str) -> int:
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Authorization": f"Bearer {key}"}
    return client.post(path, content=start + b"\r\n--b--\r\n", headers=headers).status_code


@pytest.mark.flow
def test_formula_among_the_training_rows_is_none_in_any_file(client: httpx2.Client) -> None:
    formula = "=1+cmd|' /C calc'!A0"
    rows = [row | {"team": formula if row["team"] == "north" else row["team"]} for row in make_rows(60)]
    name = f"formulas-{new_id()[-12:]}"
    query = {"name": name, "target": TARGET, "draws": "1", "estimators": "linear"}
    accepted = client.post("/train", params=query, content=csv_of(rows), headers={"Content-Type": "text/csv"})
    assert accepted.status_code == 202, accepted.text

    def look() -> dict[str, Any] | None:
        job: dict[str, Any] = client.get(f"/jobs/{accepted.json()['id']}", headers={"Prefer": "wait=10"}).json()
        return job if job["finished_at"] else None

    job = wait_until(look, seconds=240)
    assert job["status"] == "succeeded", job
    model = f"{name}@1"
    assert formula in json.dumps(client.get(f"/models/{model}/features").json(), ensure_ascii=False)
    csv = client.get(f"/models/{model}/examples.csv?rows=100").text
    assert f"'{formula}" in csv
    assert csv.count(formula) == csv.count(f"'{formula}")
