"""The console's pages of what becomes of models: drift, quality, comparisons, replays, trainings, cards."""

import uuid
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, expect
from sqlalchemy import Engine

from tests.contracts.helpers import wait_until
from tests.contracts.models.test_challenger import challenge, wait_for_rows
from tests.contracts.monitoring.test_monitoring import drift_when_counted
from tests.contracts.versions import COUNT, decide, fitted, register, rows_of
from tests.e2e.eyes import SHOTS, Eyes, open_eyes
from tests.support.stack import Stack
from tests.support.trainings import TARGET, csv_of, make_rows

pytestmark = pytest.mark.e2e

_names: dict[str, str] = {}  # by the service: the model that it has


@pytest.fixture
def name(stack: Stack, client: httpx2.Client, engine: Engine, models_dir: Path, tmp_path: Path) -> str:
    """A model with two versions, the first of which has decided 300 rows; outcomes are known of most."""
    if stack.url not in _names:
        name = f"leaving-{uuid.uuid4().hex[:6]}"
        for weight in (0, 15):
            register(engine, models_dir, tmp_path, name, *fitted(weight, ["age", "region"]))
        wait_until(lambda: client.get(f"/models/{name}/versions/2").status_code == 200 or None)
        rows = [row | {"age": row["age"] + 25} for row in rows_of(300)]
        job = decide(client, f"{name}@1", rows)
        lines = [f"{job},{place},{int(row['age'] + place % 17 > 68)}" for place, row in enumerate(rows[:240])]
        content = "\n".join(["job_id,row,actual", *lines]) + "\n"
        assert client.post("/outcomes", content=content, headers={"Content-Type": "text/csv"}).status_code == 200
        drift_when_counted(client, 300, model=f"{name}@1")
        _names[stack.url] = name
    return _names[stack.url]


# ── drift and quality ────────────────────────────────────────────────────────────────────────────────────────────


def test_drift_and_quality(eyes: Eyes, client: httpx2.Client, name: str, credit_row: dict[str, Any]) -> None:
    page = eyes.page
    page.goto(f"/console/models/{name}@1/quality?feature=age")
    expect(page.get_by_role("heading", name="Drift", exact=True)).to_be_visible()
    page.locator("figure summary").first.click()
    eyes.look("11-quality")
    batch = {"model": "credit", "rows": [credit_row] * 250}
    client.post("/predict_batch", json=batch, headers={"Prefer": "wait=30"})
    drift_when_counted(client, 250, model="credit")
    page.goto("/console/models/credit/quality?lang=fr")
    expect(page.get_by_role("heading", name="Dérive", exact=True)).to_be_visible()
    eyes.look("11-quality-fr")
    page.goto("/console/models/credit/quality?from=2020-01-01&to=2020-01-08&lang=en")
    expect(page.get_by_text("Too few rows to tell")).to_be_visible()
    eyes.look("11-quality-few")
    page.goto("/console/models/energy/quality")
    eyes.look("11-quality-regression")


def test_threshold_decides_anew_without_a_new_page(eyes: Eyes, name: str) -> None:
    page = eyes.page
    page.goto(f"/console/models/{name}@1/quality")
    slider = page.get_by_role("slider", name="Threshold")
    slider.fill("0.9")
    expect(page.locator("output[for=threshold]")).to_have_text("0.9")
    expect(page.get_by_text("At 0.9", exact=True)).to_be_visible()
    assert "threshold" not in page.url  # a part of the page was changed
    page.get_by_label("Cost of a false negative").fill("5")
    page.get_by_label("Cost of a false negative").press("Tab")
    expect(page.get_by_text("It would have cost").first).to_be_visible()
    eyes.look("11-threshold")


def test_threshold_works_without_scripts(chromium: Browser, stack: Stack, name: str) -> None:
    with open_eyes(chromium, stack.url, stack.runtime, java_script_enabled=False) as eyes:
        eyes.page.goto(f"/console/models/{name}@1/quality?from=2020-01-01&cost_fn=3")
        eyes.page.get_by_role("slider", name="Threshold").press("Home")
        eyes.page.get_by_role("button", name="Decide by it").click()
        expect(eyes.page.get_by_text("At 0", exact=True)).to_be_visible()
        assert "from=2020-01-01" in eyes.page.url
        assert "cost_fn=3" in eyes.page.url


# ── two versions ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_challenger(eyes: Eyes, client: httpx2.Client, name: str) -> None:
    page = eyes.page
    page.goto(f"/console/models/{name}")
    page.get_by_role("link", name="Challenger").click()
    expect(page.get_by_text("There is nothing to compare yet.")).to_be_visible()
    eyes.look("12-challenger-none")
    challenge(client, name, 2)
    decide(client, name, rows_of(COUNT))
    wait_for_rows(client, name, COUNT)
    page.reload()
    expect(page.get_by_role("heading", name="Segments that change most")).to_be_visible()
    eyes.look("12-challenger")


def test_replay(eyes: Eyes, name: str) -> None:
    page = eyes.page
    page.goto(f"/console/models/{name}@2")
    page.get_by_role("link", name="Replay").click()
    eyes.look("13-replay")
    page.get_by_label("Only what this version decided").fill("1")
    page.get_by_label("Cost of a false negative").fill("5")
    page.get_by_role("button", name="Start a replay").click()
    expect(page.get_by_role("heading", name="Largest disagreements")).to_be_visible(timeout=60_000)  # it lives
    eyes.look("13-replay-report")
    page.goto(f"/console/models/{name}/replay")
    page.get_by_label("From").fill("2020-01-01")
    page.get_by_label("To, not included").fill("2020-01-02")
    page.get_by_role("button", name="Start a replay").click()
    eyes.expect_status(409)
    expect(page.get_by_text("The replay was not started.")).to_be_visible()
    eyes.look("13-replay-refused")


def test_roll_back_is_offered_where_there_is_a_version_to_go_back_to(eyes: Eyes, name: str) -> None:
    page, back = eyes.page, eyes.page.get_by_role("button", name="Roll back")
    page.goto(f"/console/models/{name}")
    expect(back).to_have_count(0)
    page.locator("#promote-reason").fill("it finds more")
    page.get_by_role("button", name="Promote").click()
    expect(page.get_by_text(f"The champion becomes {name}@1 again")).to_be_visible()
    eyes.look("14-promoted")
    page.locator("#rollback-reason").fill("too many alarms")
    back.click()
    expect(page.get_by_text("too many alarms")).to_be_visible()
    expect(back).to_have_count(0)


# ── trainings and cards ──────────────────────────────────────────────────────────────────────────────────────────


def test_training_and_its_card(eyes: Eyes, tmp_path: Path) -> None:
    page, name = eyes.page, f"learned-{uuid.uuid4().hex[:6]}"
    (tmp_path / "rows.csv").write_bytes(csv_of(make_rows()))
    page.goto("/console/models")
    page.get_by_role("link", name="Train a model").click()
    page.get_by_label("Name of the model").fill(name)
    page.get_by_label("Column with the answer").fill(TARGET)
    page.locator("form[aria-labelledby=options] #cost_fn").fill("3")
    page.get_by_text("More options").click()
    page.get_by_label("Combinations to try").fill("1")
    page.get_by_label("Estimators").fill("linear")
    page.get_by_role("button", name="Go on to the file").click()
    eyes.look("14-train")
    page.locator("#file").set_input_files(tmp_path / "rows.csv")
    page.locator("form[enctype]").get_by_role("button", name="Start the training").click()
    expect(page.get_by_text("is a candidate.")).to_be_visible(timeout=240_000)  # it lives
    eyes.look("14-training")
    page.get_by_role("link", name="Model card").click()
    expect(page.get_by_role("heading", name="Intended use")).to_be_visible()
    eyes.look("15-card")
    page.emulate_media(media="print")
    page.pdf(path=SHOTS / eyes.runtime / "15-card.pdf")
    page.screenshot(path=SHOTS / eyes.runtime / "15-card-print.png", full_page=True)
    expect(page.locator("header.top")).to_be_hidden()
    expect(page.locator("footer")).to_be_hidden()


def test_training_that_is_refused(eyes: Eyes, tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text("a,left\n1,yes\n")
    eyes.page.goto("/console/train?name=few&target=left")
    eyes.page.locator("#file").set_input_files(tmp_path / "few.csv")
    eyes.page.locator("form[enctype]").get_by_role("button", name="Start the training").click()
    eyes.expect_status(422)
    expect(eyes.page.get_by_text("The training was not started.")).to_be_visible()
    eyes.look("14-train-refused")
