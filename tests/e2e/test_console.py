"""Every page of the console, as people see it: with scripts and without, in two languages, in every state."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect
from sqlalchemy import insert, update

from api.auth.callers import make_key
from shared.database.engine import make_engine
from shared.tables import ApiKey
from tests.contracts.helpers import apart, wait_for_job
from tests.e2e.eyes import SHOTS, Eyes, open_eyes
from tests.support.csv_jobs import put_file
from tests.support.databases import migrate
from tests.support.stack import Stack, free_port

pytestmark = pytest.mark.e2e


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    lines = [",".join(rows[0])]
    lines += [",".join("" if value is None else str(value) for value in row.values()) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def number_of(row: dict[str, Any]) -> str:
    """Return the first feature of a row that is a whole number."""
    return next(name for name, value in row.items() if isinstance(value, int) and not isinstance(value, bool))


# ── with scripts ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_front_page(eyes: Eyes) -> None:
    eyes.page.goto("/")
    expect(eyes.page.get_by_role("heading", name="Models")).to_be_visible()
    eyes.look("01-home")
    eyes.page.get_by_role("link", name="Français").click()
    expect(eyes.page.get_by_role("heading", name="Modèles")).to_be_visible()
    eyes.look("01-home-fr")


def test_predict(eyes: Eyes, attrition_row: dict[str, Any]) -> None:
    page, name = eyes.page, number_of(attrition_row)
    page.goto("/")
    page.get_by_role("link", name="Try it attrition").click()
    eyes.look("02-predict-example")
    field = page.locator(f'[id="f:{name}"]')
    right = field.input_value()
    field.fill("many")
    page.get_by_role("button", name="Score the row").click()
    expect(page.locator(f'[id="f:{name}-fault"]')).to_be_visible()
    expect(page.locator("#outcome")).to_be_focused()
    expect(field).to_have_value("many")
    eyes.expect_status(422)
    eyes.look("02-predict-faults")
    field.fill(right)
    page.get_by_role("button", name="Score the row").click()
    expect(page.get_by_role("heading", name="Result")).to_be_visible()
    assert page.url.endswith("/console/models/attrition/predict?example=1")  # a part of the page was changed
    page.locator("details.call summary").click()
    expect(page.get_by_text("urllib.request").first).to_be_visible()
    expect(page.locator("#reasons tbody tr")).to_have_count(8, timeout=60_000)  # they come by themselves
    eyes.look("02-predict-result")


def test_predict_in_french(eyes: Eyes) -> None:
    page = eyes.page
    page.goto("/console/models/credit/predict?lang=fr&example=1")
    page.get_by_role("button", name="Évaluer la ligne").click()
    expect(page.get_by_role("heading", name="Résultat")).to_be_visible()
    expect(page.get_by_role("heading", name="Pourquoi")).to_be_visible(timeout=60_000)
    eyes.look("02-predict-result-fr")


def test_upload(eyes: Eyes, attrition_row: dict[str, Any], tmp_path: Path) -> None:
    page, name = eyes.page, number_of(attrition_row)
    rows = [attrition_row | {"colour": "red"}] * 3_000
    rows[1] = attrition_row | {name: "many", "colour": "blue"}
    file = write_csv(tmp_path / "rows.csv", rows)
    page.goto("/console/models/attrition/upload")
    eyes.look("03-upload")
    page.locator("#file").set_input_files(file)
    expect(page.get_by_text("The beginning of the file was checked")).to_be_visible()
    expect(page.get_by_text("Left over (1)")).to_be_visible()
    eyes.look("03-upload-checked")
    page.get_by_role("button", name="Score the file").click()
    expect(page.get_by_role("link", name="Download the scores")).to_be_visible(timeout=60_000)  # it lives
    eyes.look("04-job-file")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the scores").click()
    assert Path(download.value.path()).read_text().count("\n") == 3_001
    with page.expect_download() as download:
        page.get_by_role("link", name="Faulty rows (1)").click()
    assert name in Path(download.value.path()).read_text()
    eyes.check_quiet()


def test_file_that_does_not_fit_is_refused_beside_the_form(eyes: Eyes, tmp_path: Path) -> None:
    page = eyes.page
    page.goto("/console/models/attrition/upload")
    page.locator("#file").set_input_files(write_csv(tmp_path / "other.csv", [{"a": 1, "b": 2}]))
    expect(page.get_by_text("The file was refused.")).to_be_visible()
    eyes.expect_status(422)
    eyes.look("03-upload-refused")
    page.get_by_role("button", name="Score the file").click()
    eyes.expect_status(422)
    expect(page.get_by_text("The file was refused.")).to_be_visible()
    expect(page.get_by_role("button", name="Score the file")).to_be_enabled()


def test_dropped_file_is_checked(eyes: Eyes, attrition_row: dict[str, Any], tmp_path: Path) -> None:
    page = eyes.page
    text = write_csv(tmp_path / "rows.csv", [attrition_row] * 2).read_text()
    page.goto("/console/models/attrition/upload")
    page.evaluate(
        """text => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([text], "dropped.csv", { type: "text/csv" }));
          document.querySelector(".drop").dispatchEvent(
            new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }""",
        text,
    )
    expect(page.get_by_text("2 of 2 rows fit")).to_be_visible()
    eyes.check_quiet()


def test_jobs(eyes: Eyes, stack: Stack, credit_row: dict[str, Any]) -> None:
    page = eyes.page
    with stack.client() as client:
        for _ in range(27):
            job = client.post("/jobs", json={"model": "credit", "features": credit_row}).json()
        wait_for_job(client, job["id"])
    page.goto("/console/jobs")
    eyes.look("04-jobs")
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("status:expired mo")
    offers = page.locator("#completions option").evaluate_all("offers => offers.map(offer => offer.value)")
    assert "status:expired model:" in offers
    assert "status:expired model:credit" in offers
    assert not [offer for offer in offers if not offer.startswith("status:expired mo")]
    page.locator("#q").fill("status:expired since:1h")
    page.keyboard.press("Enter")
    expect(page.get_by_text("No job matches.")).to_be_visible()
    assert page.url.endswith("?status=expired&since=1h")
    eyes.look("04-jobs-empty")
    page.locator("#q").fill("statsu:expired")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Did you mean status:?")).to_be_visible()
    eyes.expect_status(422)
    eyes.look("04-jobs-unreadable")
    page.goto("/console/jobs?model=credit")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    expect(page.locator("table.rows a.id").first).to_be_focused()
    page.keyboard.press("x")
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.get_by_role("button", name="Cancel the chosen (2)")).to_be_enabled()
    page.keyboard.press("x")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    eyes.look("04-jobs-keys")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_hidden()
    eyes.look("04-jobs-chosen")
    page.get_by_role("button", name="Cancel the chosen (1)").click()
    expect(page.get_by_text("Do you want to cancel 1 job?")).to_be_visible()
    eyes.look("04-jobs-question")
    page.get_by_role("button", name="Cancel 1 job").click()
    expect(page.get_by_text("The job has already ended")).to_be_visible()
    eyes.look("04-jobs-changed")
    page.get_by_role("link", name="Back to the list").click()
    assert page.url.endswith("/console/jobs?model=credit")
    page.get_by_role("button", name="Retry all that match").click()
    expect(page.get_by_text("No job is chosen that could be taken up")).to_be_visible()
    eyes.look("04-jobs-nothing")
    page.goto("/console/jobs?model=credit")
    page.get_by_role("link", name="Older").click()
    expect(page.get_by_role("link", name="Newest")).to_be_visible()
    page.locator("table.rows a.id").first.click()
    expect(page.get_by_role("heading", name="Timeline")).to_be_visible()
    eyes.look("05-job")
    page.get_by_role("button", name="Show the input").click()
    expect(page.get_by_text("its seal is intact")).to_be_visible()
    eyes.look("05-job-input")
    page.get_by_role("button", name="Explain this score").click()
    expect(page.get_by_text("what each feature adds to it")).to_be_visible()
    eyes.look("05-job-explanation")
    page.go_back()
    page.reload()
    page.get_by_label("What really happened").fill(page.locator("#outcomes option").first.get_attribute("value") or "")
    page.get_by_role("button", name="Note the outcome").click()
    expect(page.get_by_label("Replace what was noted before")).to_be_visible()
    eyes.look("05-job-outcome")


def test_models(eyes: Eyes) -> None:
    page = eyes.page
    page.goto("/console/models")
    eyes.look("06-models")
    page.get_by_role("link", name="attrition", exact=True).click()
    expect(page.get_by_role("heading", name="Card")).to_be_visible()
    expect(page.get_by_role("button", name="Roll back")).to_have_count(0)  # it has always been this version
    eyes.look("06-model")


def test_overview(eyes: Eyes, stack: Stack, attrition_row: dict[str, Any]) -> None:
    page = eyes.page
    with stack.client() as client:
        for _ in range(20):
            client.post("/predict", json={"features": attrition_row})
    page.goto("/console")
    expect(page.get_by_text("Latency, p95").first).to_be_visible()
    first = page.locator('[data-part="table"]').text_content()
    expect(page.locator('[data-part="table"]')).not_to_have_text(first or "", timeout=30_000)  # it lives
    expect(page.locator("#offline")).to_be_hidden()
    page.get_by_text("These figures as a table").click()
    eyes.look("07-overview")
    expect(page.locator("details.figures")).to_have_attribute("open", "")  # and stays as its reader left it
    page.get_by_label("Pause the live figures").check()
    paused = page.locator('[data-part="charts"]').inner_html()
    page.on("request", lambda request: pytest.fail(f"a paused page asked {request.url}"))
    time.sleep(8)
    assert page.locator('[data-part="charts"]').inner_html() == paused


def test_overview_in_a_hidden_tab_asks_for_nothing(chromium: Browser, stack: Stack) -> None:
    with open_eyes(chromium, stack.url, stack.runtime) as eyes:
        page = eyes.page
        hide = "Object.defineProperty(document, 'hidden', {get: () => %s, configurable: true});"
        hide += "document.dispatchEvent(new Event('visibilitychange'))"
        with page.expect_request("**/console/live"):
            page.goto("/console")
        page.evaluate(hide % "true")
        shown = page.locator('[data-part="charts"]').inner_html()
        time.sleep(8)
        assert page.locator('[data-part="charts"]').inner_html() == shown
        with page.expect_request("**/console/live"):
            page.evaluate(hide % "false")
        eyes.check_quiet()


def test_two_tabs_that_act_on_the_same_job(chromium: Browser, stack: Stack, attrition_row: dict[str, Any]) -> None:
    engine = make_engine(stack.database_url)
    job_id = put_file(engine, [[attrition_row]])
    engine.dispose()
    with open_eyes(chromium, stack.url, stack.runtime) as eyes:
        page, other = eyes.page, eyes.page.context.new_page()
        for tab in (page, other):
            tab.goto(f"/console/jobs/{job_id}")
        eyes.look("05-job-queued")
        other.get_by_role("button", name="Cancel the job").click()
        expect(other.get_by_text("canceled").first).to_be_visible()
        expect(page.get_by_role("button", name="Cancel the job")).to_have_count(0)  # its page has seen it
        other.get_by_role("button", name="Score the remaining rows").click()
        expect(other.get_by_role("button", name="Score the remaining rows")).to_have_count(0)
        page.get_by_role("button", name="Score the remaining rows").click()  # which the other tab did already
        eyes.expect_status(409)
        expect(page.get_by_text("another tab")).to_be_visible()
        eyes.look("05-job-other-tab")
        page.get_by_role("link", name="Look at the job").click()
        expect(page.get_by_role("heading", name="Timeline")).to_be_visible()


def test_buttons_that_are_too_small_would_be_found(eyes: Eyes) -> None:
    eyes.page.goto("about:blank")
    small = "<button style='width: 9px; height: 9px; padding: 0'>a</button>"
    eyes.page.set_content(f"<html lang='en'><title>t</title><main><h1>t</h1>{small}{small}</main></html>")
    rules = {fault.partition(":")[0] for fault in eyes.faults()}
    assert rules == {"target-size"}  # which axe-core leaves out unless its tag or its name is chosen


def test_page_that_there_is_not(eyes: Eyes) -> None:
    eyes.page.goto("/console/nothing")
    eyes.expect_status(404)
    eyes.look("08-not-found")


# ── without scripts ──────────────────────────────────────────────────────────────────────────────────────────────


def test_everything_works_without_scripts(
    chromium: Browser, stack: Stack, attrition_row: dict[str, Any], tmp_path: Path
) -> None:
    name = number_of(attrition_row)
    with open_eyes(chromium, stack.url, stack.runtime, java_script_enabled=False) as eyes:
        page = eyes.page
        page.goto("/console/models/attrition/predict?example=1")
        page.locator(f'[id="f:{name}"]').fill("many")
        page.get_by_role("button", name="Score the row").click()
        page.locator(f'[id="f:{name}"]').fill(str(attrition_row[name]))
        expect(page.locator(f'[id="f:{name}-fault"]')).to_be_visible()
        page.get_by_role("button", name="Score the row").click()
        expect(page.get_by_role("heading", name="Result")).to_be_visible()
        page.get_by_role("link", name="A file").click()
        page.locator("#file").set_input_files(write_csv(tmp_path / "rows.csv", [attrition_row] * 5))
        page.get_by_role("button", name="Only check it").click()
        expect(page.get_by_text("5 of 5 rows fit")).to_be_visible()
        expect(page.get_by_text("Choose the file once more")).to_be_visible()
        page.locator("#file").set_input_files(tmp_path / "rows.csv")
        page.get_by_role("button", name="Score the file").click()
        for _ in range(30):
            if page.get_by_role("link", name="Renew this page").count() == 0:
                break
            time.sleep(1)
            page.get_by_role("link", name="Renew this page").click()
        expect(page.get_by_role("link", name="Download the scores")).to_be_visible()
        page.goto("/console/jobs?status=succeeded")
        page.locator("table.rows a.id").first.click()
        page.get_by_role("button", name="Show the input").click()
        expect(page.get_by_role("heading", name="Input")).to_be_visible()


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def guarded(stack: Stack, tmp_path: Path) -> Iterator[Stack]:
    with apart(stack, tmp_path, models=("attrition", "credit"), AUTH="keys") as made:
        yield made


def make(stack: Stack, name: str, scopes: str) -> tuple[str, str]:
    engine = make_engine(stack.database_url)
    secret, digest = make_key()
    with engine.begin() as connection:
        connection.execute(insert(ApiKey).values(id=digest[:16], name=name, sha256=digest, scopes=scopes))
    engine.dispose()
    time.sleep(1.2)  # the API has seen it
    return digest[:16], secret


def test_keys(chromium: Browser, guarded: Stack, attrition_row: dict[str, Any]) -> None:
    analyst, reader = make(guarded, "Ana Lyst", "predict,read"), make(guarded, "read only", "read")
    with guarded.client() as client:
        headers = {"Authorization": f"Bearer {reader[1]}"}
        assert client.get("/jobs", headers=headers).status_code == 200
        job = client.post(
            "/jobs", json={"features": attrition_row}, headers={"Authorization": f"Bearer {analyst[1]}"}
        ).json()
    with open_eyes(chromium, guarded.url, guarded.runtime) as eyes:
        page = eyes.page
        page.goto("/")
        eyes.look("09-home-stranger")
        page.goto("/console/jobs")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        eyes.look("09-sign-in")
        page.get_by_label("API key").fill(make_key()[1][:43])
        page.get_by_role("button", name="Sign in").click()
        eyes.expect_status(401)
        expect(page.get_by_text("This is not a key of this service")).to_be_visible()
        eyes.look("09-sign-in-wrong")
        page.get_by_label("API key").fill(reader[1])
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_text("There are no jobs yet.")).to_be_visible()
        assert page.url.endswith("/console/jobs")
        eyes.look("09-jobs-none")
        page.goto("/console/models/attrition/predict")
        expect(page.get_by_text("lacks the scope predict")).to_be_visible()
        eyes.look("09-no-permission")
        page.goto("/console/models/attrition")
        expect(page.get_by_role("button", name="Roll back")).to_have_count(0)
        page.goto(f"/console/jobs/{job['id']}")
        eyes.expect_status(404)
        expect(page.get_by_text("belongs to another key")).to_be_visible()
        eyes.look("09-job-of-another")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_text("You are signed out.")).to_be_visible()
        page.get_by_label("API key").fill(analyst[1])
        page.get_by_role("button", name="Sign in").click()
        page.goto("/console/jobs")
        expect(page.locator("table.rows a.id")).to_have_count(1)
        engine = make_engine(guarded.database_url)
        with engine.begin() as connection:
            connection.execute(update(ApiKey).where(ApiKey.id == analyst[0]).values(revoked_at=ApiKey.created_at))
        engine.dispose()
        time.sleep(2.5)
        page.reload()
        expect(page.get_by_text("it was revoked")).to_be_visible()
        eyes.look("09-revoked")


# ── empty, degraded, restarted ───────────────────────────────────────────────────────────────────────────────────


def test_service_without_models(chromium: Browser, sync: Stack, tmp_path: Path) -> None:
    url, port = f"sqlite:///{tmp_path / 'guichet.db'}", free_port()
    migrate(url)
    folders = {"DATABASE_URL": url, "MODELS_DIR": str(tmp_path), "DATA_DIR": str(tmp_path)}
    bare = Stack("sync", sync.env | folders | {"PORT": str(port), "DEFAULT_MODEL": ""}, tmp_path, port)
    try:
        bare.start("api", "api")
        bare.wait_until_answers("/livez")  # it is not ready: it has no model
        with open_eyes(chromium, bare.url, "sync") as eyes:
            for name, path in (("home", "/"), ("overview", "/console"), ("models", "/console/models")):
                eyes.page.goto(path)
                eyes.look(f"10-empty-{name}")
    finally:
        bare.stop_all()


def test_service_that_is_degraded(chromium: Browser, stack: Stack, tmp_path: Path) -> None:
    with (
        apart(stack, tmp_path, DEFAULT_MODEL="nothing") as other,
        open_eyes(chromium, other.url, stack.runtime) as eyes,
    ):
        eyes.page.goto("/")
        expect(eyes.page.get_by_text("something needs attention")).to_be_visible()
        eyes.look("10-degraded-home")
        eyes.page.goto("/console")
        eyes.look("10-degraded-overview")


def test_restart_under_an_open_page_is_told_and_gets_over(chromium: Browser, stack: Stack, tmp_path: Path) -> None:
    with apart(stack, tmp_path) as other, open_eyes(chromium, other.url, stack.runtime) as eyes:
        page = eyes.page
        page.goto("/console")
        other.stop("api")
        expect(page.locator("#offline")).to_be_visible(timeout=20_000)
        page.screenshot(path=SHOTS / stack.runtime / "10-offline.png")
        other.start_api()
        expect(page.locator("#offline")).to_be_hidden(timeout=20_000)
        page.goto("/console/models")
        eyes.errors.clear()  # the browser's own notes of a service that was away


# ── how quick ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_first_view_is_small(eyes: Eyes) -> None:
    sizes: list[int] = []
    eyes.page.on("response", lambda answer: sizes.append(answer.request.sizes()["responseBodySize"]))
    eyes.page.goto("/", wait_until="networkidle")
    times = json.loads(eyes.page.evaluate("JSON.stringify(performance.getEntriesByType('navigation')[0].toJSON())"))
    assert sum(sizes) < 100_000
    print(
        f"\n{eyes.runtime}: the first view is {sum(sizes):,} bytes, interactive after {times['domInteractive']:.0f} ms"
    )
