"""Every page of the console in the states that are no everyday ones: forbidden, in error, empty, degraded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from sqlalchemy import text
from sqlalchemy.engine import make_url

from shared.database.engine import make_engine
from tests.contracts.helpers import apart, beside
from tests.e2e.eyes import Eyes, open_eyes
from tests.e2e.test_console import make
from tests.support.stack import Stack

pytestmark = pytest.mark.e2e

MODEL = "/console/models/attrition"
PAGES = {
    "home": "/",
    "overview": "/console",
    "models": "/console/models",
    "model": MODEL,
    "card": f"{MODEL}/card",
    "predict": f"{MODEL}/predict?example=1",
    "upload": f"{MODEL}/upload",
    "quality": f"{MODEL}/quality",
    "comparison": f"{MODEL}/comparison",
    "replay": f"{MODEL}/replay",
    "train": "/console/train",
    "jobs": "/console/jobs",
    "requests": "/console/logs/requests",
    "errors": "/console/logs/errors",
    "audit": "/console/logs/audit",
    "keys": "/console/keys",
}
OF_ADMINISTRATORS = ("quality", "comparison", "replay", "train", "requests", "errors", "audit", "keys")
LACKS = {  # what pages say that are there for everyone, but for their form
    "predict": "lacks the scope predict",
    "upload": "lacks the scope predict",
    "replay": "needs a key with the scope admin",
}
FAULTS = {
    "model": ("/console/models/nothing", 404),
    "version": (f"{MODEL}@99", 404),
    "predict": ("/console/models/nothing/predict", 404),
    "upload": ("/console/models/nothing/upload", 404),
    "quality": (f"{MODEL}/quality?from=soon", 422),
    "comparison": (f"{MODEL}/comparison?from=soon", 422),
    "replay": ("/console/replays/01a22a26-30a3-730c-a9c6-b8b186ac053e", 404),
    "training": ("/console/trainings/01a22a26-30a3-730c-a9c6-b8b186ac053e", 404),
    "job": ("/console/jobs/01a22a26-30a3-730c-a9c6-b8b186ac053e", 404),
    "jobs": ("/console/jobs?since=soon", 422),
    "requests": ("/console/logs/requests?status=many", 422),
    "errors": ("/console/logs/errors?status=many", 422),
    "audit": ("/console/logs/audit?from=soon", 422),
    "log": ("/console/logs/nothing", 404),
    "keys": ("/console/keys?cursor=nothing", 404),
}


def sign_in(eyes: Eyes, key: str) -> None:
    eyes.page.goto("/console/sign-in")
    eyes.page.get_by_label("API key").fill(key)
    eyes.page.get_by_role("button", name="Sign in").click()
    expect(eyes.page.get_by_role("button", name="Sign out")).to_be_visible()


def test_pages_that_a_key_may_not_see(chromium: Browser, stack: Stack, tmp_path: Path) -> None:
    with apart(stack, tmp_path, AUTH="keys") as guarded, open_eyes(chromium, guarded.url, guarded.runtime) as eyes:
        sign_in(eyes, make(guarded, "read only", "read")[1])
        for name in ("predict", "upload", *OF_ADMINISTRATORS):
            eyes.page.goto(PAGES[name])
            eyes.expect_status(403)
            reason = LACKS.get(name, "Not allowed")
            expect(eyes.page.locator("main").get_by_text(reason, exact=False)).to_be_visible()
            eyes.look(f"18-forbidden-{name}")


def test_visitors_see_what_they_may_do_and_where_to_sign_in(chromium: Browser, stack: Stack, tmp_path: Path) -> None:
    with (
        apart(stack, tmp_path, AUTH="predict-open", RATE_PER_MINUTE="6000") as visited,
        open_eyes(chromium, visited.url, visited.runtime) as eyes,
    ):
        for name in ("home", "overview", "models", "model", "predict", "upload"):
            eyes.page.goto(PAGES[name])
            eyes.look(f"18-visitor-{name}")
        for name in ("jobs", *OF_ADMINISTRATORS):
            eyes.page.goto(PAGES[name])
            expect(eyes.page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_pages_of_what_there_is_not_or_that_cannot_be_read(eyes: Eyes) -> None:
    for name, (path, status) in FAULTS.items():
        eyes.page.goto(path)
        eyes.expect_status(status)
        eyes.look(f"19-error-{name}")


def test_pages_of_keys_and_logs_that_have_nothing_to_show(chromium: Browser, stack: Stack, tmp_path: Path) -> None:
    with apart(stack, tmp_path, AUTH="keys") as guarded, open_eyes(chromium, guarded.url, guarded.runtime) as eyes:
        sign_in(eyes, make(guarded, "Ad Min", "admin")[1])
        for log in ("requests", "errors", "audit"):
            eyes.page.goto(f"{PAGES[log]}?request_id=nobody")
            expect(eyes.page.get_by_text("No entry matches.")).to_be_visible()
            eyes.look(f"20-empty-{log}")
        eyes.page.goto("/console/keys?valid=false")
        if guarded.runtime == "sync":  # the other service shares its keys with other tests
            expect(eyes.page.get_by_text("There are no keys")).to_be_visible()
        eyes.look("20-empty-keys")
        eyes.page.goto("/console/keys")
        eyes.page.get_by_label("Name").fill("without scopes")
        for scope in ("predict", "read"):
            eyes.page.get_by_label(scope, exact=False).uncheck()
        eyes.page.get_by_role("button", name="Make a key").click()
        eyes.expect_status(422)
        expect(eyes.page.get_by_text("Choose one at least.")).to_be_visible()
        eyes.look("19-error-keys-form")


def test_pages_of_a_degraded_service(chromium: Browser, stack: Stack, tmp_path: Path) -> None:
    with (
        apart(stack, tmp_path, DEFAULT_MODEL="nothing") as other,
        open_eyes(chromium, other.url, stack.runtime) as eyes,
    ):
        for name, path in PAGES.items():
            eyes.page.goto(path)
            eyes.look(f"21-degraded-{name}")


@contextmanager
def without_database(queue: Stack, folder: Path) -> Iterator[Stack]:
    """Yield one more API whose database was taken away after its start."""
    engine = make_engine(queue.database_url, autocommit=True)
    url = make_url(queue.database_url).set(username="leaving").render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text("CREATE ROLE leaving SUPERUSER LOGIN"))
        try:
            with beside(queue, folder, DATABASE_URL=url) as other:
                connection.execute(text("ALTER ROLE leaving NOLOGIN"))
                connection.execute(
                    text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'leaving'")
                )
                yield other
        finally:
            connection.execute(text("DROP ROLE leaving"))
    engine.dispose()


def test_pages_while_the_database_is_away(chromium: Browser, queue: Stack, tmp_path: Path) -> None:
    with without_database(queue, tmp_path) as other, open_eyes(chromium, other.url, "queue") as eyes:
        for name, path in PAGES.items():
            eyes.page.goto(path)
            eyes.expect_status(503)
            eyes.look(f"22-away-{name}")
            assert eyes.page.get_by_text("Something went wrong here").count() == 0  # it is known what
