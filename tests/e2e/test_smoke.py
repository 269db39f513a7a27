"""The console in a browser, in short: what `make test` does of `make e2e`."""

from playwright.sync_api import expect

from tests.e2e.eyes import Eyes


def test_row_is_scored_by_its_form_and_its_job_is_listed(eyes: Eyes) -> None:
    page = eyes.page
    page.goto("/")
    page.get_by_role("link", name="Try it credit").click()
    page.get_by_role("button", name="Score the row").click()
    expect(page.get_by_role("heading", name="Result")).to_be_visible()
    page.goto("/console/jobs?model=credit")
    expect(page.locator("table.rows a.id").first).to_be_visible()
    eyes.check_quiet()
