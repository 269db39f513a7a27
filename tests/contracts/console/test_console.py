"""The console through HTTP, as a browser without scripts reads it: pages, policy, sessions, forms, French."""

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sqlalchemy import Engine, insert, select, update

from api.auth.callers import make_key
from shared.database.engine import make_engine, reader, session_scope
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from shared.tables import ApiKey, AuditLog, Job
from tests.contracts.helpers import apart, check_accepted, counts, wait_for_job, wait_for_keys, wait_until
from tests.support.stack import Stack

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
OWN = {"Sec-Fetch-Site": "same-origin"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@pytest.fixture
def browser(stack: Stack) -> Iterator[httpx2.Client]:
    """A browser without scripts: it follows, and keeps cookies."""
    with httpx2.Client(base_url=stack.url, headers=HTML, timeout=90, follow_redirects=True) as made:
        yield made


def fields_of(row: dict[str, Any], **changes: Any) -> dict[str, str]:
    """Return a row as the form of the console sends it."""
    return {f"f:{name}": "" if value is None else str(value) for name, value in (row | changes).items()}


def submit(browser: httpx2.Client, path: str, fields: dict[str, str], **headers: str) -> httpx2.Response:
    return browser.post(path, data=fields, headers=OWN | headers)


def text_of(answer: httpx2.Response) -> str:
    """Return a page's text without its tags."""
    body = re.sub(r"<head>.*?</head>", "", answer.text, flags=re.S)
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)))


def check_page(answer: httpx2.Response, status: int = 200) -> str:
    """Check that an answer is a page of the console: its headers, and nothing of it from elsewhere; return its text."""
    assert answer.status_code == status, answer.text[:2_000]
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers.get_list("content-security-policy") == [POLICY]
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "same-origin"  # else Origin would be null
    assert answer.headers["x-request-id"] in answer.text
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=\"", answer.text)
    assert "Traceback" not in answer.text
    for place in re.findall(r'(?:src|href|action|formaction)="([^"]*)"', answer.text):
        assert place.startswith(("/", "#", "?")) or place == "", place
    return text_of(answer)


# ── the front page ───────────────────────────────────────────────────────────────────────────────────────────────


def test_front_page_shows_people_the_models_and_how_the_service_is(browser: httpx2.Client) -> None:
    answer = browser.get("/")
    text = check_page(answer)
    assert "The service works" in text
    assert '<html lang="en">' in answer.text
    for model in ("attrition", "credit"):
        assert model in text
        assert f'href="/console/models/{model}/predict?example=1"' in answer.text
        assert f'href="/console/models/{model}/upload"' in answer.text
    assert set(answer.headers["vary"].split(", ")) == {"Accept", "Accept-Language", "Cookie"}


def test_programs_that_ask_for_json_keep_their_front_door(client: httpx2.Client) -> None:
    for accept in ("application/json", "application/json, text/html;q=0.5", "application/vnd.guichet+json"):
        answer = client.get("/", headers={"Accept": accept})
        assert answer.status_code == 200
        assert answer.json()["default_model"] == "attrition"
    any_type = client.get("/")
    assert (any_type.status_code, any_type.headers["location"]) == (307, "/docs")
    assert any_type.json() == client.get("/", headers={"Accept": "application/json"}).json()


def test_every_link_of_the_pages_leads_somewhere(browser: httpx2.Client) -> None:
    seen: set[str] = set()
    waiting = ["/", "/console", "/console/models", "/console/jobs"]
    while waiting and len(seen) < 80:
        path = waiting.pop(0)
        if path in seen:
            continue
        seen.add(path)
        answer = browser.get(path)
        assert answer.status_code == 200, path
        if path.startswith(("/console", "/?")) and "/static/" not in path:
            waiting += [unescape(place) for place in re.findall(r'href="(/[^"#]*)', answer.text)]
    assert len(seen) > 25


@pytest.mark.parametrize("path", ["/console/nothing", "/console/models/nothing", "/console/jobs/nothing"])
def test_page_that_there_is_not_says_so_and_leads_back(browser: httpx2.Client, path: str) -> None:
    answer = browser.get(path)
    text = check_page(answer, 404)
    assert "There is nothing here" in text
    assert 'href="/"' in answer.text


def test_files_are_kept_by_browsers_and_old_addresses_are_gone(browser: httpx2.Client) -> None:
    page = browser.get("/").text
    places = set(re.findall(r'(?:src|href)="(/console/static/[^"]+)"', page))
    assert len(places) == 4
    for place in places:
        plain = browser.get(place, headers={"Accept-Encoding": "identity"})
        packed = browser.get(place)
        assert plain.status_code == 200
        assert plain.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.content == plain.content
    old = browser.get(re.sub(r"static/[0-9a-f]+/", "static/0000000000000000/", places.pop()))
    assert old.status_code == 404
    assert browser.get("/console/static/0000000000000000/..%2F..%2Fsession.py").status_code == 404


# ── languages ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_page_speaks_the_language_of_its_reader(browser: httpx2.Client) -> None:
    french = browser.get("/", headers={"Accept-Language": "fr-CH, fr;q=0.9, en;q=0.8"})
    assert '<html lang="fr">' in french.text
    assert "Le service fonctionne" in text_of(french)
    for other in ("en-US,en;q=0.5", "de", "en, fr;q=0.9", ""):
        assert '<html lang="en">' in browser.get("/", headers={"Accept-Language": other}).text


def test_switch_of_languages_is_remembered(browser: httpx2.Client) -> None:
    page = browser.get("/console/jobs?status=failed")
    (switch,) = re.findall(r'href="([^"]+)" lang="fr"', page.text)
    assert unescape(switch) == "/console/jobs?status=failed&lang=fr"
    assert '<html lang="fr">' in browser.get(unescape(switch)).text
    assert '<html lang="fr">' in browser.get("/console/models").text
    assert '<html lang="en">' in browser.get("/console/models?lang=en").text
    assert '<html lang="en">' in browser.get("/console/models").text
    assert '<html lang="en">' in browser.get("/console/models?lang=tlh").text


# ── forms of other sites ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "{own}"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:1"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
    ],
    ids=str,
)
def test_form_of_another_site_is_refused(
    browser: httpx2.Client, stack: Stack, engine: Engine, attrition_row: dict[str, Any], headers: dict[str, str]
) -> None:
    before = counts(engine)
    sent = {name: value.format(own=stack.url) for name, value in headers.items()}
    answer = browser.post("/console/models/attrition/predict", data=fields_of(attrition_row), headers=sent)
    assert answer.status_code == 403
    assert answer.headers["content-type"].startswith(("text/html", "application/problem+json"))
    assert counts(engine) == before


def test_form_of_an_old_browser_is_known_by_its_origin(
    browser: httpx2.Client, stack: Stack, attrition_row: dict[str, Any]
) -> None:
    answer = browser.post(
        "/console/models/attrition/predict", data=fields_of(attrition_row), headers={"Origin": stack.url}
    )
    assert answer.status_code == 200


def test_form_in_another_encoding_is_refused(browser: httpx2.Client) -> None:
    answer = browser.post("/console/models/attrition/predict", json={}, headers=OWN)
    check_page(answer, 415)
    raw = {"Content-Type": "application/x-www-form-urlencoded"} | OWN
    check_page(browser.post("/console/models/attrition/predict", content=b"f:age=%ff", headers=raw), 422)
    check_page(browser.post("/console/models/attrition/predict", content=b"\xff", headers=raw), 400)
    check_page(browser.post("/console/models/attrition/predict", content=b"&a=" * 20_000, headers=raw), 400)


# ── one row ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_form_holds_every_feature_of_the_model_and_the_example_in_one_click(browser: httpx2.Client) -> None:
    features = browser.get("/models/attrition/features", headers={"Accept": "application/json"}).json()["features"]
    empty, filled = (browser.get(f"/console/models/attrition/predict{query}") for query in ("", "?example=1"))
    check_page(empty)
    check_page(filled)
    for feature in features:
        assert f'name="f:{feature["name"]}"' in unescape(empty.text)
        assert f'<label for="f:{feature["name"]}"' in unescape(empty.text)
    assert len(re.findall(r'<input id="f:[^>]*value="[^"]+"|<option[^>]* selected', filled.text)) >= len(features) - 3
    assert not re.findall(r'<input id="f:[^>]*value="[^"]+"|<option[^>]* selected', empty.text)


def test_row_is_scored_as_the_api_scores_it(
    browser: httpx2.Client, client: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    native = {"Accept": "application/vnd.guichet+json"}
    scored = client.post("/models/attrition/predict", json={"features": attrition_row}, headers=native).json()
    answer = submit(browser, "/console/models/attrition/predict", fields_of(attrition_row))
    text = check_page(answer)
    assert "Result" in text
    assert str(scored["label"]) in text
    assert f"{scored['probability'] * 100:.1f}".rstrip("0").rstrip(".") + "%" in text
    assert "threshold" in text
    assert '<svg class="scale"' in answer.text
    (job,) = set(re.findall(r'href="/console/jobs/([0-9a-f-]{36})"', answer.text))
    stored = client.get(f"/jobs/{job}", headers=native).json()
    assert stored["result"]["probability"] == scored["probability"]
    sent = client.get(f"/jobs/{job}/lineage").json()["input"]["features"]
    expected = client.get(f"/jobs/{scored['job_id']}/lineage").json()["input"]["features"]
    assert sent == expected
    for call in ("curl ", "urllib.request", "/models/attrition/predict"):
        assert call in unescape(answer.text)


def test_fault_stands_beside_its_field_and_nothing_is_stored(
    browser: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    name = next(name for name, value in attrition_row.items() if isinstance(value, int))
    other = next(feature for feature in attrition_row if feature != name)
    before = counts(engine)
    answer = submit(
        browser, "/console/models/attrition/predict", fields_of(attrition_row, **{name: "<b>many</b>", other: ""})
    )
    text = check_page(answer, 422)
    assert counts(engine) == before
    assert "2 faults:" in text
    for wrong in (name, other):
        assert f'id="f:{wrong}-fault"' in answer.text
        assert re.search(rf'id="f:{wrong}"[^>]*aria-invalid="true"', answer.text)
        assert f'href="#f:{wrong}"' in answer.text
    assert "<b>many" not in answer.text
    assert "&lt;b&gt;many&lt;/b&gt;" in answer.text  # what was typed is still there, to be corrected
    french = submit(
        browser, "/console/models/attrition/predict?lang=fr", fields_of(attrition_row, **{name: "x", other: ""})
    )
    assert "2 erreurs" in text_of(french)
    assert "est absent" in text_of(french)


def test_decimal_comma_of_a_french_reader_is_a_number(browser: httpx2.Client, credit_row: dict[str, Any]) -> None:
    fields = {name: value.replace(".", ",") for name, value in fields_of(credit_row).items()}
    check_page(submit(browser, "/console/models/credit/predict", fields))


# ── a file ───────────────────────────────────────────────────────────────────────────────────────────────────────


def csv_of(rows: list[dict[str, Any]]) -> bytes:
    lines = [",".join(rows[0])]
    lines += [",".join("" if value is None else str(value) for value in row.values()) for row in rows]
    return ("\n".join(lines) + "\n").encode()


def send_file(browser: httpx2.Client, path: str, content: bytes, name: str = "rows.csv") -> httpx2.Response:
    return browser.post(path, files={"file": (name, content, "text/csv")}, headers=OWN)


def test_file_is_checked_before_it_is_sent(
    browser: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    before = counts(engine)
    name = next(name for name, value in attrition_row.items() if isinstance(value, int))
    rows = [attrition_row | {"colour": "red"}, attrition_row | {name: "many", "colour": "blue"}]
    answer = send_file(browser, "/console/models/attrition/check", csv_of(rows))
    text = check_page(answer)
    assert "1 of 2 rows fit" in text
    assert f"Matched ({len(attrition_row)})" in text
    assert "Left over (1) colour" in text
    assert "First faults" in text
    assert counts(engine) == before
    assert 'href="/console/models/attrition/upload?lang=fr"' in answer.text
    lacking = [{key: value for key, value in attrition_row.items() if key != name}]
    refused = send_file(browser, "/console/models/attrition/check", csv_of(lacking))
    assert name in check_page(refused, 422)
    check_page(send_file(browser, "/console/models/attrition/upload", b""), 422)


def test_file_becomes_a_job_whose_page_has_its_progress_and_its_files(
    browser: httpx2.Client, client: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    name = next(name for name, value in attrition_row.items() if isinstance(value, int))
    content = csv_of([attrition_row] * 30 + [attrition_row | {name: "many"}])
    answer = send_file(browser, "/console/models/attrition/upload", content)
    check_page(answer)
    job_id = str(answer.url).rsplit("/", 1)[1]
    wait_for_job(client, job_id)
    page = browser.get(f"/console/jobs/{job_id}")
    text = check_page(page)
    assert "31 of 31 rows" in text
    assert "1 row has no score." in text
    assert "hx-trigger" not in page.text  # it has ended
    scores = browser.get(f"/console/jobs/{job_id}/output.csv")
    assert scores.content == client.get(f"/jobs/{job_id}/output.csv").content
    assert (
        scores.headers["content-disposition"] == client.get(f"/jobs/{job_id}/output.csv").headers["content-disposition"]
    )
    part = browser.get(f"/console/jobs/{job_id}/output.csv", headers={"Range": "bytes=0-9"})
    assert (part.status_code, part.content) == (206, scores.content[:10])
    assert browser.get(f"/console/jobs/{job_id}/errors.csv").text.count("\n") == 2
    assert browser.get(f"/console/jobs/{job_id}/output.csv?format=parquet").content[:4] == b"PAR1"
    check_page(browser.get(f"/console/jobs/{job_id}/output.csv?format=nothing"), 422)
    check_page(browser.get(f"/console/jobs/{uuid4()}/output.csv"), 404)


def test_options_of_a_file_stand_in_the_address(browser: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    page = browser.get("/console/models/attrition/upload?delimiter=semicolon&decimal=comma&encoding=")
    assert 'action="/console/models/attrition/upload?delimiter=semicolon&amp;decimal=comma"' in page.text
    content = csv_of([attrition_row]).replace(b",", b";")
    answer = send_file(browser, "/console/models/attrition/check?delimiter=semicolon", content)
    assert "1 of 1 rows fit" in check_page(answer)
    check_page(send_file(browser, "/console/models/attrition/check?delimiter=comma", content), 422)


# ── jobs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_list_shows_what_the_filter_in_its_address_says_page_by_page(
    browser: httpx2.Client, client: httpx2.Client, credit_row: dict[str, Any]
) -> None:
    ids = [
        check_accepted(client.post("/jobs", json={"model": "credit", "features": credit_row}))["id"] for _ in range(30)
    ]
    for job_id in ids:
        wait_for_job(client, job_id)
    first = browser.get("/console/jobs?model=credit&status=succeeded")
    check_page(first)
    assert 'value="status:succeeded model:credit"' in first.text
    assert re.search(r'href="/console/jobs\?status=succeeded&amp;model=credit" aria-current="true"', first.text)
    listed = re.findall(r'href="/console/jobs/([0-9a-f-]{36})" class="id"', first.text)
    assert len(listed) == 25
    (older,) = re.findall(r'href="([^"]+)" rel="next"', first.text)
    second = browser.get(unescape(older))
    more = re.findall(r'href="/console/jobs/([0-9a-f-]{36})" class="id"', second.text)
    assert not set(listed) & set(more)
    assert set(ids) <= set(listed) | set(more)
    empty = check_page(browser.get("/console/jobs?model=credit&since=2100-01-01"))
    assert "No job matches." in empty
    for query, status in (
        ("model=nothing", 404),
        ("status=nonsense", 422),
        ("before=nonsense", 422),
        ("since=nonsense", 422),
        ("q=colour:red", 422),
    ):
        refused = browser.get(f"/console/jobs?{query}")
        check_page(refused, status)
        assert 'id="q-fault"' in refused.text
        assert "No job matches." not in refused.text


def test_input_is_hidden_until_it_is_asked_for(
    browser: httpx2.Client, client: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    job_id = check_accepted(client.post("/jobs", json={"features": attrition_row}))["id"]
    wait_for_job(client, job_id)
    name, value = next((name, value) for name, value in attrition_row.items() if isinstance(value, str) and value)
    hidden = check_page(browser.get(f"/console/jobs/{job_id}"))
    assert "hidden until you ask" in hidden
    assert name not in hidden
    shown = check_page(browser.get(f"/console/jobs/{job_id}?show=input"))
    assert f"{name} {value}" in shown
    assert "its seal is intact" in shown
    check_page(browser.get(f"/console/jobs/{job_id}?show=input&row=7"), 422)


def test_job_that_ended_in_another_tab_is_not_canceled(
    browser: httpx2.Client, client: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    job_id = check_accepted(client.post("/jobs", json={"features": attrition_row}))["id"]
    wait_for_job(client, job_id)
    answer = submit(browser, f"/console/jobs/{job_id}/cancel", {})
    text = check_page(answer, 409)
    assert "another tab" in text
    assert f'href="/console/jobs/{job_id}"' in answer.text


def test_error_of_a_job_is_on_its_page(browser: httpx2.Client, client: httpx2.Client, moody: str) -> None:
    answer = submit(browser, f"/console/models/{moody}/predict", {"f:mood": "1000000"})
    assert "Something went wrong here" in check_page(answer, 500)
    (job_id,) = re.findall(r'href="/console/jobs/([0-9a-f-]{36})"', answer.text)
    page = check_page(browser.get(f"/console/jobs/{job_id}"))
    assert "It failed:" in page
    assert "failed" in check_page(browser.get("/console/jobs?status=failed"))


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_model_has_its_card_its_versions_and_its_history(browser: httpx2.Client, client: httpx2.Client) -> None:
    text = check_page(browser.get("/console/models/attrition"))
    model = client.get("/models/attrition").json()
    for feature in model["card"]["features"]:
        assert feature["name"] in text
    assert model["model_sha256"][:16] in text
    previous = client.get("/models/attrition/aliases/champion").json()["previous"]
    assert ("Roll back" in text) == (previous is not None)
    check_page(browser.get(f"/console/models/attrition@{model['model_version']}"))
    assert "credit" in check_page(browser.get("/console/models"))


@pytest.fixture
def versions(client: httpx2.Client, engine: Engine, models_dir: Path, tmp_path: Path) -> str:
    """Return the name of a model with two versions, of which the first one is the champion."""
    numbers = np.arange(20.0)
    (tmp_path / "rows.csv").write_text("x\n" + "\n".join(map(str, numbers)) + "\n")
    for version in (1, 2):
        joblib.dump(LogisticRegression(C=version).fit(numbers[:, None], numbers > 9), tmp_path / "model.joblib")
        with session_scope(engine) as session:
            options = AddOptions(reference=tmp_path / "rows.csv", name="consoled")
            add(session, tmp_path / "model.joblib", options, models_dir=models_dir)
    wait_until(lambda: client.get("/models/consoled@2").status_code == 200 or None)
    return "consoled"


def test_promotion_and_rollback_want_a_reason_and_are_in_the_history(
    browser: httpx2.Client, client: httpx2.Client, versions: str
) -> None:
    name = versions
    path = f"/console/models/{name}"

    def etag() -> str:
        (tag,) = set(re.findall(r'name="etag" value="([^"]*)"', browser.get(path).text))
        return unescape(tag)

    assert "Roll back" not in check_page(browser.get(path))  # it has always been this version
    refused = submit(browser, f"{path}/rollback", {"reason": "from an old page", "etag": ""})
    assert "there is nothing to roll back to" in check_page(refused, 409)
    seen = etag()
    empty = submit(browser, f"{path}/promote", {"version": "2", "reason": " ", "etag": seen})
    check_page(empty, 422)
    assert 'class="field wrong"' in empty.text
    assert client.get(f"/models/{name}").json()["model_version"] == 1
    done = submit(browser, f"{path}/promote", {"version": "2", "reason": "a better <b>recall</b>", "etag": seen})
    assert "champion 1 → 2 a better <b>recall</b> anyone" in check_page(done)
    assert client.get(f"/models/{name}").json()["model_version"] == 2
    stale = submit(browser, f"{path}/promote", {"version": "1", "reason": "from another tab", "etag": seen})
    assert "Somebody was first" in check_page(stale, 412)
    assert f"Le champion redevient {name}@1," in check_page(browser.get(f"{path}?lang=fr"))
    assert f"The champion becomes {name}@1 again" in check_page(browser.get(f"{path}?lang=en"))
    check_page(submit(browser, f"{path}/rollback", {"reason": "", "etag": etag()}), 422)
    back = submit(browser, f"{path}/rollback", {"reason": "it was not", "etag": etag()})
    assert "champion 2 → 1 it was not anyone" in check_page(back)
    assert "Roll back" not in check_page(browser.get(path))
    assert client.get(f"/models/{name}").json()["model_version"] == 1
    check_page(submit(browser, f"{path}/promote", {"version": "9", "reason": "x", "etag": ""}), 404)
    check_page(submit(browser, f"{path}/promote", {"version": "x", "reason": "x", "etag": ""}), 422)


# ── the overview ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_overview_tells_how_the_service_is_and_what_it_does(browser: httpx2.Client, stack: Stack) -> None:
    text = check_page(browser.get("/console"))
    for title in ("Rows per second", "Latency, p95", "Queue", "Workers", "Failed jobs", "Last refusals and errors"):
        assert title in text
    assert ("it has no workers" in text) == (stack.runtime == "sync")
    assert "Vue d’ensemble" in check_page(browser.get("/console?lang=fr"))


def test_page_asks_with_get_and_head_alike(client: httpx2.Client) -> None:
    for path in ("/console", "/console/models", "/console/jobs"):
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b"")


# ── with keys ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module", params=["queue", "sync"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Each runtime behind an API that wants keys, and hears a proxy."""
    running: Stack = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp("console")
    with apart(running, folder, models=("attrition", "credit"), AUTH="keys", PROXY_HOPS="1") as made:
        yield made


@pytest.fixture(scope="module")
def keys(guarded: Stack) -> Iterator[dict[str, tuple[str, str]]]:
    """Keys by name: id and secret."""
    engine = make_engine(guarded.database_url)
    made = {}
    scopes = {
        "alice": "predict,read",
        "bob": "predict,read",
        "reader": "read",
        "admin": "admin",
        "gone": "predict,read",
    }
    with engine.begin() as connection:
        for name, scope in scopes.items():
            secret, digest = make_key()
            connection.execute(insert(ApiKey).values(id=digest[:16], name=name, sha256=digest, scopes=scope))
            made[name] = (digest[:16], secret)
    wait_for_keys(guarded, *(secret for _, secret in made.values()))
    yield made
    engine.dispose()


@pytest.fixture
def visitor(guarded: Stack) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=guarded.url, headers=HTML, timeout=90, follow_redirects=True) as made:
        yield made


def sign_in(browser: httpx2.Client, secret: str, following: str = "/console") -> httpx2.Response:
    return submit(browser, "/console/sign-in", {"key": secret, "next": following})


def test_stranger_sees_no_model_and_is_led_to_the_sign_in(visitor: httpx2.Client) -> None:
    front = visitor.get("/")
    text = check_page(front)
    assert "Sign in with an API key" in text
    assert "attrition" not in text
    for path in (
        "/console",
        "/console/models",
        "/console/models/attrition",
        "/console/jobs",
        f"/console/jobs/{uuid4()}",
    ):
        answer = visitor.get(path)
        assert answer.url.path == "/console/sign-in", path
        assert "attrition" not in text_of(answer)
        assert answer.url.params["next"] == path
    for path in ("/console/models/attrition/predict", "/console/jobs/x/cancel", "/console/models/attrition/promote"):
        assert submit(visitor, path, {"x": "y"}).url.path == "/console/sign-in", path
    assert send_file(visitor, "/console/models/attrition/upload", b"a\n1\n").url.path == "/console/sign-in"


def test_session_is_a_cookie_that_no_script_and_no_other_site_gets(
    visitor: httpx2.Client, keys: dict[str, tuple[str, str]], guarded: Stack
) -> None:
    _, secret = keys["alice"]
    answer = sign_in(visitor, secret, "/console/jobs")
    assert answer.url.path == "/console/jobs"
    assert "alice" in check_page(answer)
    cookie = answer.history[0].headers["set-cookie"]
    assert cookie.startswith("guichet_session=")
    assert {part.strip().lower() for part in cookie.split(";")[1:]} == {"httponly", "path=/", "samesite=strict"}
    assert secret not in answer.text
    assert secret not in guarded.logs(10_000)
    # The cookie is for pages: no route of the API takes it.
    assert visitor.get("/jobs", headers={"Accept": "application/json"}).status_code == 401
    assert visitor.get("/models").status_code == 401


def test_session_behind_a_proxy_with_tls_is_never_sent_in_the_clear(
    visitor: httpx2.Client, keys: dict[str, tuple[str, str]]
) -> None:
    fields = {"key": keys["alice"][1], "next": ""}
    sealed = visitor.post("/console/sign-in", data=fields, headers=OWN | {"X-Forwarded-Proto": "https"})
    assert "secure" in sealed.history[0].headers["set-cookie"].lower()


def test_console_works_below_a_prefix(visitor: httpx2.Client, keys: dict[str, tuple[str, str]]) -> None:
    below = {"X-Forwarded-Prefix": "/scores"}
    fields = {"key": keys["alice"][1], "next": ""}
    signed_in = visitor.post("/console/sign-in", data=fields, headers=OWN | below, follow_redirects=False)
    assert signed_in.headers["location"] == "/scores/console"
    cookie = signed_in.headers["set-cookie"]
    assert "path=/scores/" in cookie.lower()
    session = {"Cookie": cookie.partition(";")[0]}
    for path in ("/", "/console", "/console/models/attrition/predict", "/console/models/attrition", "/console/jobs"):
        page = visitor.get(path, headers=below | session)
        places = re.findall(r'(?:src|href|action)="(/[^"]*)"', page.text)
        assert len(places) > 8
        assert [place for place in places if not place.startswith("/scores/")] == []


@pytest.mark.parametrize(
    ("key", "sentence"),
    [("", "Enter your key."), ("hunter2", "This is not a key of this service"), (None, "is not known, or was revoked")],
)
def test_wrong_key_is_refused_in_words(visitor: httpx2.Client, key: str | None, sentence: str) -> None:
    secret = make_key()[0] if key is None else key
    answer = sign_in(visitor, secret)
    assert sentence in check_page(answer, 401)
    assert not visitor.cookies
    if secret:
        assert secret not in answer.text


@pytest.mark.parametrize(
    "following",
    ["//evil.example", "https://evil.example", "/\\evil.example", "/jobs", "/console/../docs?x", "console", "/consolé"],
)
def test_sign_in_leads_to_pages_of_the_console_only(
    visitor: httpx2.Client, keys: dict[str, tuple[str, str]], following: str
) -> None:
    answer = sign_in(visitor, keys["alice"][1], following)
    assert answer.history[0].headers["location"] == "/console"


def test_revoked_key_ends_its_session_and_says_so(
    visitor: httpx2.Client, keys: dict[str, tuple[str, str]], guarded: Stack
) -> None:
    key_id, secret = keys["gone"]
    sign_in(visitor, secret)
    assert visitor.get("/console/jobs").url.path == "/console/jobs"
    made = make_engine(guarded.database_url)
    with made.begin() as connection:
        connection.execute(update(ApiKey).where(ApiKey.id == key_id).values(revoked_at=ApiKey.created_at))
    made.dispose()

    def ended() -> httpx2.Response | None:
        answer = visitor.get("/console/jobs")
        return answer if answer.url.path == "/console/sign-in" else None

    assert "it was revoked" in check_page(wait_until(ended))
    assert not visitor.cookies.get("guichet_session")
    assert "revoked" in check_page(sign_in(visitor, secret), 401)


def test_session_that_is_over_leads_back_to_the_page(visitor: httpx2.Client) -> None:
    key = make_key()[0]
    visitor.cookies.set("guichet_session", f"1000000000.{'0' * 32}.{key}")
    answer = visitor.get("/console/jobs")
    assert "Your session is over" in check_page(answer)
    assert 'name="next" value="/console/jobs"' in answer.text


def test_signing_out_forgets_the_session(visitor: httpx2.Client, keys: dict[str, tuple[str, str]]) -> None:
    sign_in(visitor, keys["alice"][1])
    assert "You are signed out." in check_page(submit(visitor, "/console/sign-out", {}))
    assert visitor.get("/console/jobs").url.path == "/console/sign-in"
    assert visitor.post("/console/sign-out", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_form_of_another_site_cannot_use_a_session(
    visitor: httpx2.Client, keys: dict[str, tuple[str, str]], attrition_row: dict[str, Any]
) -> None:
    sign_in(visitor, keys["alice"][1])
    for headers in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
        answer = visitor.post("/console/models/attrition/predict", data=fields_of(attrition_row), headers=headers)
        check_page(answer, 403)
    assert "Result" in check_page(submit(visitor, "/console/models/attrition/predict", fields_of(attrition_row)))


def test_job_of_another_key_is_not_there(
    guarded: Stack, visitor: httpx2.Client, keys: dict[str, tuple[str, str]], attrition_row: dict[str, Any]
) -> None:
    sign_in(visitor, keys["bob"][1])
    scored = submit(visitor, "/console/models/attrition/predict", fields_of(attrition_row))
    (job_id,) = set(re.findall(r'href="/console/jobs/([0-9a-f-]{36})"', scored.text))
    assert job_id in visitor.get("/console/jobs").text
    with httpx2.Client(base_url=guarded.url, headers=HTML, timeout=90, follow_redirects=True) as other:
        sign_in(other, keys["alice"][1])
        assert "belongs to another key" in check_page(other.get(f"/console/jobs/{job_id}"), 404)
        assert job_id not in other.get("/console/jobs").text
        check_page(submit(other, f"/console/jobs/{job_id}/cancel", {}), 404)


def test_administrator_who_reads_anothers_input_is_noted(
    guarded: Stack, visitor: httpx2.Client, keys: dict[str, tuple[str, str]], attrition_row: dict[str, Any]
) -> None:
    sign_in(visitor, keys["bob"][1])
    scored = submit(visitor, "/console/models/attrition/predict", fields_of(attrition_row))
    (job_id,) = set(re.findall(r'href="/console/jobs/([0-9a-f-]{36})"', scored.text))
    made = make_engine(guarded.database_url)

    def notes() -> list[Any]:
        with reader(made).connect() as connection:
            query = select(AuditLog.actor, AuditLog.details).where(AuditLog.target == f"job:{job_id}")
            return list(connection.execute(query))

    with httpx2.Client(base_url=guarded.url, headers=HTML, timeout=90, follow_redirects=True) as admin:
        sign_in(admin, keys["admin"][1])
        check_page(admin.get(f"/console/jobs/{job_id}"))
        before = [details["what"] for _, details in notes()]
        assert "lineage" not in before
        check_page(admin.get(f"/console/jobs/{job_id}?show=input"))
    assert (f"key:{keys['admin'][0]}", "lineage") in [(actor, details["what"]) for actor, details in notes()]
    with reader(made).connect() as connection:
        assert connection.scalar(select(Job.owner).where(Job.id == job_id)) == keys["bob"][0]
    made.dispose()


def test_key_that_may_only_read_sees_no_buttons_and_is_refused_in_words(
    visitor: httpx2.Client, keys: dict[str, tuple[str, str]], attrition_row: dict[str, Any]
) -> None:
    sign_in(visitor, keys["reader"][1])
    for path in ("/", "/console", "/console/models", "/console/models/attrition", "/console/jobs"):
        answer = visitor.get(path)
        check_page(answer)
        main = answer.text.partition("<main")[2].partition("</main>")[0]
        assert 'method="post"' not in main, path
        assert "/predict" not in main, path
    assert "lacks the scope predict" in check_page(visitor.get("/console/models/attrition/predict"))
    answer = submit(visitor, "/console/models/attrition/predict", fields_of(attrition_row))
    assert "Not allowed" in check_page(answer, 403)
    check_page(submit(visitor, "/console/models/attrition/promote", {"version": "1", "reason": "x"}), 403)


def test_who_is_no_administrator_sees_no_history(visitor: httpx2.Client, keys: dict[str, tuple[str, str]]) -> None:
    sign_in(visitor, keys["alice"][1])
    text = check_page(visitor.get("/console/models/attrition"))
    assert "History" not in text
    assert "Roll back" not in text
    assert "Last refusals" not in check_page(visitor.get("/console"))
    check_page(submit(visitor, "/console/models/attrition/rollback", {"reason": "x"}), 403)


@pytest.mark.flow
def test_visitor_of_a_space_scores_without_a_key(sync: Stack, tmp_path: Any, attrition_row: dict[str, Any]) -> None:
    settings = {"AUTH": "predict-open", "RATE_PER_MINUTE": "600", "RATE_BURST": "600"}
    with (
        apart(sync, tmp_path, **settings) as space,
        httpx2.Client(base_url=space.url, headers=HTML, timeout=90, follow_redirects=True) as browser,
    ):
        assert "attrition" in check_page(browser.get("/"))
        scored = submit(browser, "/console/models/attrition/predict", fields_of(attrition_row))
        assert "Result" in check_page(scored)
        (job_id,) = set(re.findall(r'href="/console/jobs/([0-9a-f-]{36})"', scored.text))
        check_page(browser.get(f"/console/jobs/{job_id}"))
        assert "figures of the whole service are for keys" in check_page(browser.get("/console"))
        assert browser.get("/console/jobs").url.path == "/console/sign-in"


# ── degraded ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.flow
def test_service_that_is_degraded_says_what_to_do(stack: Stack, tmp_path: Any) -> None:
    with (
        apart(stack, tmp_path, DEFAULT_MODEL="nothing") as other,
        httpx2.Client(base_url=other.url, headers=HTML, timeout=90, follow_redirects=True) as browser,
    ):
        text = check_page(browser.get("/console"))
        assert "something needs attention" in text
        assert "DEFAULT_MODEL names nothing" in text
