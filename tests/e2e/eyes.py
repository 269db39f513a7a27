"""What looks at a page: axe-core, the browser's console, and the screenshots that people look at."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.e2e.browser import find_chromium
from tests.support.stack import Stack

HERE = Path(__file__).parent
SHOTS = HERE.parents[1] / ".e2e"
AXE = (HERE / "axe.min.js").read_text()
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 375, "height": 740}
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


class Eyes:
    """A page of the browser, all that its console said, and where its screenshots go."""

    def __init__(self, page: Page, runtime: str) -> None:
        self.page = page
        self.runtime = runtime
        self.errors: list[str] = []
        self._refused: list[int] = []
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def expect_status(self, status: int) -> None:
        """Take the browser's own note of an answer with this status for what it is: no error of the page."""
        self._refused.append(status)

    def check_quiet(self) -> None:
        """Check that the console said nothing, but for answers that were to be refused."""
        allowed = "|".join(map(str, self._refused)) or "none"
        loud = [text for text in self.errors if not re.search(rf"Failed to load resource.*\b({allowed})\b", text)]
        assert loud == [], "\n".join(loud)
        self.errors.clear()
        self._refused.clear()

    def look(self, name: str) -> None:
        """Check the page in light and dark, wide and narrow, and keep a screenshot of each."""
        for width, size in (("wide", WIDE), ("phone", PHONE)):
            self.page.set_viewport_size(size)  # type: ignore[arg-type]
            spill = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert spill <= 0, f"{name}: the page is {spill} px wider than a {width} screen"
            for scheme in ("light", "dark"):
                self.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                folder = SHOTS / self.runtime / f"{width}-{scheme}"
                folder.mkdir(parents=True, exist_ok=True)
                self.page.screenshot(path=folder / f"{name}.png", full_page=True, animations="disabled")
                assert self.faults() == [], f"{name}, {width}, {scheme}"
                # Which leaves empty style attributes behind, that no page of ours has.
                self.page.evaluate("document.querySelectorAll('[style]').forEach(one => one.removeAttribute('style'))")
        self.page.set_viewport_size(WIDE)  # type: ignore[arg-type]
        self.page.emulate_media(color_scheme="light")
        self.check_quiet()

    def faults(self) -> list[str]:
        """Return what axe-core finds, in short."""
        options = json.dumps({"runOnly": {"type": "tag", "values": RULES}})
        report: dict[str, Any] = self.page.evaluate(f"() => axe.run(document, {options})")
        return [
            f"{one['id']}: {node['target']} {node['failureSummary']}"
            for one in report["violations"]
            for node in one["nodes"]
        ]


@contextmanager
def open_eyes(browser: Browser, url: str, runtime: str, **options: Any) -> Iterator[Eyes]:
    """Yield a page of a new browser without cookies, at a service."""
    context = browser.new_context(base_url=url, viewport=WIDE, locale=options.pop("locale", "en-GB"), **options)  # type: ignore[arg-type]
    context.set_default_timeout(30_000)
    context.add_init_script(AXE)
    try:
        yield Eyes(context.new_page(), runtime)
    finally:
        context.close()


@pytest.fixture(scope="module")  # Playwright keeps a loop of asyncio, which no test of another file may meet
def chromium() -> Iterator[Browser]:
    """The browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def eyes(chromium: Browser, stack: Stack) -> Iterator[Eyes]:
    """A page of the running service, which asks for no keys."""
    with open_eyes(chromium, stack.url, stack.runtime) as made:
        yield made
