"""`make screenshots URL=http://127.0.0.1:8000`: take the pictures of the documentation from a running service.

The service should be new (`make run` with an empty DATA_DIR): the pictures show its four models and no other ones.
"""

import os
import sys
from typing import Any

from scripts.checkout import ROOT

FOLDER = ROOT / "docs"
WIDTH, FIRST_ROW = 1280, 670  # the front page down to its first row of models
WHOLE = "console.png"
TOPS = {"en": "front.png", "fr": "front.fr.png"}


def main() -> int:
    """Write the pictures; return the exit code."""
    from playwright.sync_api import sync_playwright

    url = sys.argv[1].rstrip("/")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=os.environ["CHROMIUM"], args=["--no-sandbox"])
        for language in TOPS:
            take(browser, url, language)
        browser.close()
    return 0


def take(browser: Any, url: str, language: str) -> None:  # noqa: ANN401 - Playwright is installed for `make e2e` alone
    """Take the first screen of the front page in one language, and all of it in English."""
    size = {"width": WIDTH, "height": FIRST_ROW}
    context = browser.new_context(viewport=size, locale=language, color_scheme="light")
    page = context.new_page()
    page.goto(url, wait_until="networkidle")
    page.screenshot(path=str(FOLDER / TOPS[language]))
    if language == "en":
        page.screenshot(path=str(FOLDER / WHOLE), full_page=True)
    print(f"written: docs/{TOPS[language]}")
    context.close()


if __name__ == "__main__":
    sys.exit(main())
