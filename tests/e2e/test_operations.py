"""The console's pages for operators: the logs, and the API keys."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, expect

from tests.contracts.helpers import apart, new_id, wait_until
from tests.e2e.eyes import Eyes, open_eyes
from tests.e2e.test_console import make
from tests.support.stack import Stack

pytestmark = pytest.mark.e2e


def test_logs_lead_from_a_refusal_to_its_request_and_back(eyes: Eyes, client: httpx2.Client) -> None:
    page, request_id = eyes.page, new_id()
    client.post("/predict", json={"features": {}}, headers={"X-Request-Id": request_id})
    client.put("/models/credit/aliases/seen-here", json={"version": 1, "reason": "to be seen"})
    wait_until(lambda: client.get("/logs/requests", params={"request_id": request_id}).json()["items"] or None)
    wait_until(lambda: client.get("/logs/errors", params={"request_id": request_id}).json()["items"] or None)
    page.goto("/console")
    page.get_by_role("link", name="Logs").click()
    expect(page.get_by_role("heading", name="Logs")).to_be_visible()
    eyes.look("16-requests")
    page.get_by_role("link", name="Refusals and errors").click()
    eyes.look("16-errors")
    page.locator("#request_id").fill(request_id)
    page.get_by_role("button", name="Show", exact=True).click()
    page.locator("table details summary").first.click()
    page.locator("table a.id").click()
    expect(page.locator("table tbody tr")).to_have_count(1)
    page.locator("table a.id").click()
    expect(page.get_by_text("POST /predict")).to_be_visible()
    page.get_by_role("link", name="Audit", exact=True).click()
    expect(page.get_by_text("No entry matches.")).to_be_visible()
    eyes.look("16-audit-none")
    page.get_by_role("link", name="Show all").first.click()
    expect(page.get_by_text("model.promoted").first).to_be_visible()
    eyes.look("16-audit")


@pytest.fixture
def guarded(stack: Stack, tmp_path: Path) -> Iterator[Stack]:
    with apart(stack, tmp_path, AUTH="keys") as made:
        yield made


def test_keys_are_made_rotated_and_revoked(chromium: Browser, guarded: Stack) -> None:
    admin, reader = make(guarded, "Ad Min", "admin")[1], make(guarded, "read only", "read")[1]
    with open_eyes(chromium, guarded.url, guarded.runtime) as eyes:
        page = eyes.page
        page.goto("/console/keys")
        page.get_by_label("API key").fill(admin)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="Keys", exact=True)).to_be_visible()
        eyes.look("17-keys")
        page.get_by_label("Name").fill("nightly scores")
        page.get_by_role("button", name="Make a key").click()
        expect(page.get_by_role("heading", name="The key of nightly scores is made")).to_be_visible()
        expect(page.locator("#made")).to_be_focused()
        secret = page.locator("#made code").text_content()
        eyes.look("17-keys-made")
        row = page.locator("tr", has_text="nightly scores")
        row.get_by_text("Rotate…").click()
        eyes.look("17-keys-rotate")
        row.get_by_role("button", name="Rotate the key").click()
        expect(page.get_by_text("The old one is no longer valid.")).to_be_visible()
        assert page.locator("#made code").text_content() != secret
        row.get_by_text("Revoke…").click()
        row.get_by_role("button", name="Revoke the key").click()
        expect(row.get_by_text("revoked", exact=True)).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        page.get_by_label("API key").fill(reader)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("link", name="Keys")).to_have_count(0)
        page.goto("/console/keys")
        eyes.expect_status(403)
        expect(page.get_by_role("heading", name="Not allowed")).to_be_visible()
        eyes.look("17-keys-forbidden")
