"""What is in this folder needs Chromium and Playwright, which `make test` and `make e2e` bring."""

from tests.e2e.browser import has_browser

if has_browser():
    from tests.e2e.eyes import chromium, eyes  # noqa: F401 - fixtures
else:
    collect_ignore_glob = ["test_*.py"]
