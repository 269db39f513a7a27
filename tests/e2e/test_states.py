"""Every page of the console in the states that are no everyday ones: forbidden, in error, empty, degraded."""

import fcntl
from collections.abc import Callable, Iterator
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


Switch = Callable[[], None]


@contextmanager
def away_and_back(stack: Stack, folder: Path) -> Iterator[tuple[Stack, Switch, Switch]]:
    """Yield one more API, what takes its database away, and what gives it back."""
    own = without_postgres if stack.runtime == "queue" else without_sqlite
    with own(stack, folder) as made:
        yield made


@contextmanager
def without_postgres(queue: Stack, folder: Path) -> Iterator[tuple[Stack, Switch, Switch]]:
    """The role of the API may no longer log in, and its connections are ended."""
    engine = make_engine(queue.database_url, autocommit=True)
    url = make_url(queue.database_url).set(username="leaving").render_as_string(hide_password=False)

    def take_away() -> None:
        connection.execute(text("ALTER ROLE leaving NOLOGIN"))
        connection.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'leaving'"))

    def give_back() -> None:
        connection.execute(text("ALTER ROLE leaving LOGIN"))

    with engine.connect() as connection:
        connection.execute(text("CREATE ROLE leaving SUPERUSER LOGIN"))
        try:
            with beside(queue, folder, DATABASE_URL=url) as other:
                yield other, take_away, give_back
        finally:
            connection.execute(text("DROP ROLE leaving"))
    engine.dispose()


@contextmanager
def without_sqlite(sync: Stack, folder: Path) -> Iterator[tuple[Stack, Switch, Switch]]:
    """Another process holds the locks of the file's WAL index (bytes 120 to 127), as a disk that hangs would."""
    with apart(sync, folder) as other, (folder / "guichet.db-shm").open("r+b") as index:

        def take_away() -> None:
            for place in range(120, 128):  # one after the other: each is held for moments only
                fcntl.lockf(index, fcntl.LOCK_EX, 1, place)

        yield other, take_away, lambda: fcntl.lockf(index, fcntl.LOCK_UN, 8, 120)


def test_pages_while_the_database_is_away(chromium: Browser, stack: Stack, tmp_path: Path) -> None:
    with away_and_back(stack, tmp_path) as (other, take_away, _), open_eyes(chromium, other.url, "") as eyes:
        take_away()
        eyes.runtime = stack.runtime
        for name, path in PAGES.items():
            eyes.page.goto(path)
            eyes.expect_status(503)
            eyes.look(f"22-away-{name}")
            assert eyes.page.get_by_text("Something went wrong here").count() == 0  # it is known what


def test_pages_while_redis_is_away(chromium: Browser, queue: Stack, tmp_path: Path) -> None:
    with (
        beside(queue, tmp_path, REDIS_URL="redis://127.0.0.1:1/0") as other,
        open_eyes(chromium, other.url, "queue") as eyes,
    ):
        page = eyes.page
        for name in ("home", "overview"):
            page.goto(PAGES[name])
            expect(page.locator("#health")).to_contain_text("Redis does not answer")
            eyes.look(f"27-redis-away-{name}")
        page.goto(PAGES["predict"])
        page.get_by_role("button", name="Score the row").click()
        expect(
            page.get_by_role("heading", name="Result").or_(page.get_by_role("heading", name="Timeline"))
        ).to_be_visible()
        eyes.look("27-redis-away-job")


def test_job_that_waits_for_a_worker_says_so(chromium: Browser, queue: Stack) -> None:
    queue.stop("interactive")
    queue.stop("bulk")
    try:
        with open_eyes(chromium, queue.url, "queue") as eyes:
            page = eyes.page
            page.goto(PAGES["predict"])
            page.get_by_role("button", name="Score the row").click()
            expect(page.get_by_role("heading", name="Timeline")).to_be_visible(timeout=60_000)
            expect(page.locator("#health")).to_contain_text("worker", timeout=60_000)
            eyes.look("28-no-worker-job")
            page.goto(PAGES["overview"])
            expect(page.get_by_text("No worker is alive")).to_be_visible(timeout=60_000)  # it is missed after 20 s
            eyes.look("28-no-worker-overview")
            page.go_back()
            queue.start_worker("interactive")
            expect(page.locator("#live .headline")).to_contain_text("succeeded", timeout=120_000)  # by itself
    finally:
        for name, lanes in (("interactive", "interactive"), ("bulk", "bulk,maintenance")):
            if name not in queue.processes:
                queue.start_worker(name, lanes=lanes)
        queue.wait_for_workers(2)
