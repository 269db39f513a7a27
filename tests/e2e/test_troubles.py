"""The console when something comes between: a session that ends, a service that is away, a file that is too large."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import joblib
import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, Request, expect
from sklearn.linear_model import LinearRegression
from sqlalchemy import Engine

from shared.database.engine import make_engine, session_scope
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from tests.contracts.helpers import apart, wait_until
from tests.e2e.eyes import Eyes, open_eyes
from tests.e2e.test_console import make, number_of, write_csv
from tests.e2e.test_states import away_and_back, sign_in
from tests.support.csv_jobs import put_file
from tests.support.stack import Stack

pytestmark = pytest.mark.e2e

# Names as spreadsheets have them: they are parts of attributes, of addresses and of fragments.
ODD = ["Years at company", 'so-called "score"', "100 % <b>", "prénom/nom", "a" + "_very_long_name" * 12]


def posts_of(page: Page) -> list[str]:
    """Return a list that gets every address to which the page sends something."""
    sent: list[str] = []

    def note(request: Request) -> None:
        if request.method == "POST":
            sent.append(request.url)

    page.on("request", note)
    return sent


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def guarded(stack: Stack, tmp_path: Path) -> Iterator[Stack]:
    with apart(stack, tmp_path, AUTH="keys") as made:
        yield made


def test_session_that_ends_under_a_form_loses_nothing(
    chromium: Browser, guarded: Stack, attrition_row: dict[str, Any], tmp_path: Path
) -> None:
    name, key = number_of(attrition_row), make(guarded, "Ana Lyst", "predict,read")[1]
    with open_eyes(chromium, guarded.url, guarded.runtime) as eyes:
        page = eyes.page
        sign_in(eyes, key)
        page.goto("/console/models/attrition/predict?example=1")
        field = page.locator(f'[id="f:{name}"]')
        field.fill(str(attrition_row[name] + 1))
        page.context.clear_cookies()
        page.get_by_role("button", name="Score the row").click()
        expect(page.get_by_text("what you filled in is still here")).to_be_in_viewport()
        expect(field).to_have_value(str(attrition_row[name] + 1))
        eyes.expect_status(401)
        eyes.look("23-session-over")
        with page.expect_popup() as popup:
            page.locator("#notice").get_by_role("link", name="Sign in").click()
        popup.value.get_by_label("API key").fill(key)
        popup.value.get_by_role("button", name="Sign in").click()
        expect(popup.value.get_by_role("heading", name="Score a row with attrition")).to_be_visible()
        page.get_by_role("button", name="Score the row").click()
        expect(page.get_by_role("heading", name="Result")).to_be_visible()
        expect(page.locator("#notice")).to_be_empty()
        page.goto("/console/models/attrition/upload")
        page.context.clear_cookies()
        page.locator("#file").set_input_files(write_csv(tmp_path / "rows.csv", [attrition_row] * 2))
        expect(page.get_by_text("what you filled in is still here")).to_be_visible()
        assert page.locator("#file").evaluate("field => field.files.length") == 1
        eyes.expect_status(401)
        eyes.look("23-session-over-file")


def test_sign_in_leads_back_to_the_filter_of_the_page(chromium: Browser, guarded: Stack) -> None:
    with open_eyes(chromium, guarded.url, guarded.runtime) as eyes:
        key = make(guarded, "read only", "read")[1]
        eyes.page.goto("/console/jobs?status=failed&model=attrition%401")
        eyes.page.get_by_label("API key").fill(key)
        eyes.page.get_by_role("button", name="Sign in").click()
        expect(eyes.page.locator("#q")).to_have_value("status:failed model:attrition@1")
        eyes.check_quiet()


# ── a page that is open while something goes ─────────────────────────────────────────────────────────────────────


def test_job_page_stays_while_the_database_is_away_and_goes_on_by_itself(
    chromium: Browser, stack: Stack, attrition_row: dict[str, Any], tmp_path: Path
) -> None:
    with away_and_back(stack, tmp_path) as (other, take_away, give_back), open_eyes(chromium, other.url, "") as eyes:
        page = eyes.page
        engine = make_engine(stack.database_url if stack.runtime == "queue" else other.database_url)
        job_id = put_file(engine, [[attrition_row]])
        engine.dispose()
        page.goto(f"/console/jobs/{job_id}")
        cancel = page.get_by_role("button", name="Cancel the job")
        cancel.focus()
        take_away()
        expect(page.locator("#notice")).to_contain_text("Nothing that was stored is lost", timeout=20_000)
        expect(page.get_by_role("heading", name="Timeline")).to_be_visible()
        expect(cancel).to_be_focused()
        eyes.runtime = stack.runtime
        eyes.expect_status(503)
        eyes.look("24-job-away")
        give_back()
        expect(page.locator("#notice")).to_be_empty(timeout=20_000)
        expect(cancel).to_be_visible()
        expect(cancel).to_be_focused()  # who works by keyboard keeps the place
        eyes.errors.clear()


def test_job_that_is_erased_under_its_page_says_so(
    eyes: Eyes, client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    page, job_id = eyes.page, put_file(engine, [[attrition_row]])
    page.goto(f"/console/jobs/{job_id}")
    assert client.post(f"/jobs/{job_id}/cancel").status_code in (200, 202)
    assert client.delete(f"/jobs/{job_id}").status_code == 200
    page.reload()
    expect(page.get_by_role("heading", name="It was erased")).to_be_visible()
    eyes.expect_status(410)
    eyes.look("24-job-erased")


def test_page_of_a_proxy_takes_the_place_of_nothing(
    eyes: Eyes, engine: Engine, attrition_row: dict[str, Any], tmp_path: Path
) -> None:
    page, job_id = eyes.page, put_file(engine, [[attrition_row]])
    page.goto(f"/console/jobs/{job_id}")
    bad = "<html><body><h1>502 Bad Gateway</h1></body></html>"
    page.route("**/console/**", lambda route: route.fulfill(status=502, content_type="text/html", body=bad))
    expect(page.locator("#offline")).to_be_visible(timeout=10_000)
    expect(page.get_by_role("heading", name="Timeline")).to_be_visible()
    page.unroute_all()
    expect(page.locator("#offline")).to_be_hidden(timeout=10_000)
    page.goto("/console/models/attrition/upload")
    page.route("**/console/**", lambda route: route.fulfill(status=502, content_type="text/html", body=bad))
    page.locator("#file").set_input_files(write_csv(tmp_path / "rows.csv", [attrition_row]))
    expect(page.get_by_text("nothing of the file was stored")).to_be_visible()
    page.unroute_all()
    page.get_by_role("button", name="Score the file").click()
    expect(page.get_by_role("heading", name="Timeline")).to_be_visible()
    eyes.errors.clear()


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_file_of_more_than_the_limit_is_refused_before_it_is_sent(eyes: Eyes, tmp_path: Path) -> None:
    page, large = eyes.page, tmp_path / "large.csv"
    with large.open("wb") as file:
        file.truncate(1_000_000_001)  # it takes no room: nothing is written into it
    page.goto("/console/models/attrition/upload")
    sent = posts_of(page)
    page.locator("#file").set_input_files(large)
    expect(page.get_by_text("this service takes 1 GB at most")).to_be_visible()
    eyes.look("25-upload-large")
    page.get_by_role("button", name="Score the file").click()
    page.get_by_role("button", name="Only check it").click()
    expect(page.get_by_text("this service takes 1 GB at most")).to_be_visible()
    assert sent == []
    eyes.check_quiet()


def test_file_that_was_changed_since_it_was_chosen_says_so(
    eyes: Eyes, attrition_row: dict[str, Any], tmp_path: Path
) -> None:
    page, file = eyes.page, write_csv(tmp_path / "rows.csv", [attrition_row] * 3)
    page.goto("/console/models/attrition/upload")
    page.locator("#file").set_input_files(file)
    expect(page.get_by_text("3 of 3 rows fit")).to_be_visible(timeout=30_000)
    file.unlink()
    page.get_by_role("button", name="Only check it").click()
    expect(page.get_by_text("The file cannot be read")).to_be_visible(timeout=30_000)
    eyes.check_quiet()


# ── names, keys ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def odd(client: httpx2.Client, engine: Engine, models_dir: Path, tmp_path: Path) -> str:
    """The name of a model whose features are named as people name columns."""
    name = f"odd-{uuid.uuid4().hex[:6]}"
    frame = pd.DataFrame([{column: float(row * place % 7) for place, column in enumerate(ODD, 2)} for row in range(40)])
    joblib.dump(LinearRegression().fit(frame, frame.sum(axis=1)), tmp_path / "model.joblib")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    with session_scope(engine) as session:
        options = AddOptions(reference=tmp_path / "rows.csv", name=name)
        add(session, tmp_path / "model.joblib", options, models_dir=models_dir)
    wait_until(lambda: client.get(f"/models/{name}").status_code == 200 or None)
    return name


def test_features_are_named_as_people_name_columns(eyes: Eyes, odd: str) -> None:
    page = eyes.page
    page.goto(f"/console/models/{odd}")
    eyes.look("26-odd-model")
    page.goto(f"/console/models/{odd}/predict?example=1")
    for name in ODD[:4]:
        page.get_by_label(name, exact=False).fill("many")
    page.get_by_role("button", name="Score the row").click()
    expect(page.get_by_text("4 faults:")).to_be_visible()
    eyes.expect_status(422)
    eyes.look("26-odd-faults")
    for name in ODD[:4]:
        page.locator("#outcome").get_by_role("link", name=name, exact=True).click()
        expect(page.get_by_label(name, exact=False)).to_be_in_viewport()
        page.get_by_label(name, exact=False).fill("1")
    page.get_by_role("button", name="Score the row").click()
    expect(page.get_by_role("heading", name="Result")).to_be_visible()
    expect(page.locator("#reasons tbody tr")).to_have_count(5, timeout=60_000)
    eyes.look("26-odd-result")
    body = page.locator("details.call code").first.text_content() or ""
    assert json.dumps(ODD[1], ensure_ascii=False) in body


def test_single_keys_can_be_turned_off(eyes: Eyes) -> None:
    page = eyes.page
    page.goto("/console/jobs")
    page.keyboard.press("?")
    page.get_by_label("These keys work in this browser").uncheck()
    page.get_by_role("button", name="Close").click()
    page.keyboard.press("/")
    expect(page.locator("#q")).not_to_be_focused()
    page.reload()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("button", name="Keyboard: ?").click()
    page.get_by_label("These keys work in this browser").check()
    page.get_by_role("button", name="Close").click()
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    eyes.check_quiet()
