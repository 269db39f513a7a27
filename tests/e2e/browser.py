"""Where the browser of these tests is; without one, and without Playwright, nothing here is a test."""

import os
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOT_RUN = (
    "The console was not opened in a browser: there is no Chromium here, or no Playwright. "
    "Install Chromium (Debian: apt install chromium), or name one by CHROMIUM=, then run `make test` once more."
)


@cache
def find_chromium() -> str | None:
    """Return the program of the browser, None where there is none."""
    run = subprocess.run(
        ["/bin/sh", str(ROOT / "scripts" / "chromium.sh")], capture_output=True, text=True, check=False
    )
    return run.stdout.strip() or None


def has_browser() -> bool:
    """Tell whether pages can be opened here."""
    return find_spec("playwright") is not None and find_chromium() is not None


def is_demanded() -> bool:
    """Tell whether a browser has to be here: BROWSER_TESTS=required, as the project's own pipeline says."""
    return os.environ.get("BROWSER_TESTS") == "required"
